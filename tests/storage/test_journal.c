#define _POSIX_C_SOURCE 200809L
#include "storage/journal.h"

#include "storage/listing.h"
#include "tests/support/store_maker.h"

static qd_temporary_folder folder;
static char out[QD_TEMPORARY_PATH_BYTES], source[QD_TEMPORARY_PATH_BYTES];

static void setup(void) {
  qd_temporary_folder_open(&folder);
  strcpy(out, qd_temporary_path(&folder, "out"));
  strcpy(source, qd_temporary_make_folder(&folder, "source"));
  qd_temporary_write_text(&folder, "source/config.json", "{}\n");
}

static void teardown(void) { qd_temporary_folder_close(&folder); }

TestSuite(journal, .init = setup, .fini = teardown);

/* The names in out, joined by blanks. */
static const char *names(void) {
  static char joined[4096];
  qd_listing listing;
  MUST(qd_listing_read(out, &listing));
  joined[0] = '\0';
  for (size_t i = 0; i < listing.n; i++) strcat(strcat(joined, i > 0 ? " " : ""), listing.name[i]);
  qd_listing_release(&listing);
  return joined;
}

static const char finished[] = "block-00000.h5 block-00001.h5 config.json manifest.json model.h5";

static void make_unfinished(void) {
  made_begin(out);
  for (int64_t block = 0; block < MADE_BLOCKS; block++) made_block(out, block);
  made_block(out, QD_REST);
}

Test(journal, keeps_the_job) {
  qd_json *job, *given = made_job();
  int64_t arithmetic_version;
  made_begin(out);
  MUST(qd_journal_read_job(out, &job, &arithmetic_version));
  cr_assert(qd_json_equal(job, given));
  cr_assert_eq(arithmetic_version, 1);
  qd_json_free(job);
  qd_json_free(given);
}

Test(journal, another_job_does_not_take_over) {
  qd_json *other = made_job();
  qd_json_set_integer(other, "bits", 3);
  made_begin(out);
  made_begin(out);
  cr_assert_eq(qd_store_begin(out, other), QD_EEXIST);
  cr_assert(strstr(qd_error_text(), out));
  made_begin(out);
  qd_json_free(other);
}

Test(journal, a_finished_store_is_not_begun_again) {
  make_unfinished();
  MUST(made_finish(out, source));
  qd_json *job = made_job();
  cr_assert_eq(qd_store_begin(out, job), QD_EEXIST);
  cr_assert_str_eq(names(), finished);
  qd_json_free(job);
}

Test(journal, keeps_entries) {
  qd_entry entry;
  made_begin(out);
  cr_assert_eq(qd_journal_read_entry(out, 12, &entry), QD_ENOTFOUND);
  made_block(out, 12);
  made_block(out, QD_REST);
  cr_assert(qd_file_exists(qd_temporary_path(&folder, "out/partial/entry-00012.json")));
  cr_assert(qd_file_exists(qd_temporary_path(&folder, "out/partial/entry-rest.json")));
  MUST(qd_journal_read_entry(out, 12, &entry));
  cr_assert(entry.block == 12 && entry.n_records == 2);
  qd_entry_release(&entry);
  MUST(qd_journal_read_entry(out, QD_REST, &entry));
  cr_assert_eq(entry.block, QD_REST);
  qd_entry_release(&entry);
}

Test(journal, a_note_under_another_number_is_refused) {
  qd_entry entry;
  made_begin(out);
  made_block(out, 3);
  char from[QD_TEMPORARY_PATH_BYTES];
  strcpy(from, qd_temporary_path(&folder, "out/partial/entry-00003.json"));
  cr_assert_eq(rename(from, qd_temporary_path(&folder, "out/partial/entry-00004.json")), 0);
  cr_assert_eq(qd_journal_read_entry(out, 4, &entry), QD_ECORRUPT);
  cr_assert(strstr(qd_error_text(), "entry-00004.json"));
}

Test(journal, an_entry_that_could_not_be_read_is_not_noted) {
  made_begin(out);
  qd_entry entry = made_entry(out, 0), none;
  strcpy(entry.record[0].role, "");
  cr_assert_eq(qd_store_journal(out, &entry), QD_ECORRUPT);
  cr_assert_eq(qd_journal_read_entry(out, 0, &none), QD_ENOTFOUND);
  qd_entry_release(&entry);
}

Test(journal, a_block_whose_file_is_gone_or_shorter_is_not_done) {
  qd_entry entry;
  made_begin(out);
  made_block(out, 0);
  const char *file = qd_temporary_path(&folder, "out/block-00000.h5");
  cr_assert_eq(truncate(file, 100), 0);
  cr_assert_eq(qd_journal_read_entry(out, 0, &entry), QD_ECORRUPT);
  unlink(file);
  cr_assert_eq(qd_journal_read_entry(out, 0, &entry), QD_ECORRUPT);
  cr_assert(strstr(qd_error_text(), "block-00000.h5 is missing"));
}

/* ---- the end ---- */

Test(journal, finish_leaves_the_store_and_nothing_else) {
  make_unfinished();
  qd_temporary_write_text(&folder, "out/job.log", "a line\n");
  MUST(made_finish(out, source));
  cr_assert_str_eq(names(), "block-00000.h5 block-00001.h5 config.json job.log manifest.json model.h5");
  MUST(qd_store_verify(out, NULL, NULL));
}

Test(journal, finish_clears_what_killed_runs_left) {
  make_unfinished();
  qd_temporary_write_text(&folder, "out/block-00001.1.h5", "renamed and not noted");
  qd_temporary_write_text(&folder, "out/partial/block-00001.h5.tmp", "half");
  qd_temporary_write_text(&folder, "out/partial/manifest.json.77-1.tmp", "half");
  qd_temporary_make_folder(&folder, "out/partial/sub");
  MUST(made_finish(out, source));
  cr_assert_str_eq(names(), finished);
}

Test(journal, finish_needs_every_block_and_the_rest) {
  made_begin(out);
  made_block(out, 0);
  cr_assert_eq(made_finish(out, source), QD_ENOTFOUND);
  cr_assert(strstr(qd_error_text(), "block 1"), "%s", qd_error_text());
  made_block(out, 1);
  cr_assert_eq(made_finish(out, source), QD_ENOTFOUND);
  cr_assert(strstr(qd_error_text(), "head"), "%s", qd_error_text());
  made_block(out, QD_REST);
  MUST(made_finish(out, source));
}

Test(journal, finish_refuses_side_files_that_lead_out) {
  static const char *const bad[] = {"../config.json"};
  make_unfinished();
  cr_assert_eq(qd_store_finish(out, source, bad, 1, MADE_BLOCKS, false), QD_EINVAL);
  static const char *const none[] = {"none.json"};
  cr_assert_neq(qd_store_finish(out, source, none, 1, MADE_BLOCKS, false), QD_OK);
  cr_assert_not(qd_file_exists(qd_temporary_path(&folder, "out/manifest.json")));
}

/* Killed anywhere: whatever of partial/ is still there beside the manifest, a second call completes the first. */
Test(journal, finish_can_be_repeated_from_anywhere) {
  static const char *const left[] = {"job.json", "entry-00000.json", "entry-rest.json", "block-00000.h5.tmp"};
  for (int mask = 0; mask < 16; mask++) {
    make_unfinished();
    MUST(made_finish(out, source));
    qd_temporary_make_folder(&folder, "out/partial");
    for (int i = 0; i < 4; i++) {
      char name[256];
      snprintf(name, sizeof name, "out/partial/%s", left[i]);
      if (mask >> i & 1) qd_temporary_write_text(&folder, name, "left");
    }
    qd_temporary_write_text(&folder, "out/block-00007.h5", "stray");
    qd_store_state state;
    char *what;
    MUST(qd_store_look(out, &state, &what));
    cr_assert_eq(state, QD_STORE_UNFINISHED);
    qd_store store;
    MUST(qd_store_open(out, true, &store));
    cr_assert(store.finished && store.has_rest && store.n_blocks == MADE_BLOCKS);
    qd_store_close(&store);
    MUST(made_finish(out, source));
    MUST(made_finish(out, source));
    cr_assert_str_eq(names(), finished);
    MUST(qd_store_verify(out, NULL, NULL));
    MUST(qd_folder_remove(out));
  }
}

Test(journal, finish_does_not_touch_a_damaged_store) {
  make_unfinished();
  MUST(made_finish(out, source));
  const char *manifest = qd_temporary_path(&folder, "out/manifest.json");
  size_t n;
  unsigned char *text = made_read(manifest, &n);
  text[n / 2] ^= 1;
  made_write(manifest, text, n);
  qd_temporary_write_text(&folder, "out/block-00007.h5", "stray");
  cr_assert_eq(made_finish(out, source), QD_ECORRUPT);
  cr_assert(qd_file_exists(qd_temporary_path(&folder, "out/block-00007.h5")));
  qd_heap_free(text);
}

Test(journal, is_the_same_store_after_a_resume) {
  make_unfinished();
  MUST(made_finish(out, source));
  size_t n, m;
  unsigned char *first = made_read(qd_temporary_path(&folder, "out/manifest.json"), &n);
  MUST(qd_folder_remove(out));
  made_begin(out);
  made_block(out, 0);
  qd_temporary_write_text(&folder, "out/partial/block-00001.h5.tmp", "killed here");
  made_begin(out);
  made_block(out, QD_REST);
  made_block(out, 1);
  MUST(made_finish(out, source));
  unsigned char *second = made_read(qd_temporary_path(&folder, "out/manifest.json"), &m);
  cr_assert(n == m && memcmp(first, second, n) == 0);
  qd_heap_free(first);
  qd_heap_free(second);
}
