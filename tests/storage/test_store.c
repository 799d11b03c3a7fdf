#define _POSIX_C_SOURCE 200809L
#include "storage/store.h"

#include "kernels/base/log.h"
#include "tests/support/store_maker.h"

#include <sys/stat.h>

static qd_temporary_folder folder;
static char out[QD_TEMPORARY_PATH_BYTES];

static void setup(void) {
  qd_temporary_folder_open(&folder);
  strcpy(out, qd_temporary_path(&folder, "out"));
  qd_log_terminal(false);
}

static void teardown(void) { qd_temporary_folder_close(&folder); }

TestSuite(store, .init = setup, .fini = teardown);

/* ---- what a folder is ---- */

static void check_state(qd_store_state expected, const char *foreign) {
  qd_store_state state;
  char *what;
  MUST(qd_store_look(out, &state, &what));
  cr_assert_eq(state, expected, "state %d, expected %d", (int)state, (int)expected);
  if (foreign == NULL) cr_assert_null(what);
  else cr_assert_str_eq(what, foreign);
  qd_heap_free(what);
}

Test(store, no_or_an_empty_folder_is_fresh) {
  check_state(QD_STORE_FRESH, NULL);
  qd_temporary_make_folder(&folder, "out");
  check_state(QD_STORE_FRESH, NULL);
  qd_temporary_write_text(&folder, "out/job.lock", "host");
  qd_temporary_write_text(&folder, "out/qdist.log", "line");
  qd_temporary_write_text(&folder, "out/status.json", "{}");
  check_state(QD_STORE_FRESH, NULL);
}

Test(store, a_job_killed_before_it_noted_itself_leaves_a_fresh_folder) {
  qd_temporary_make_folder(&folder, "out");
  qd_temporary_make_folder(&folder, "out/partial");
  check_state(QD_STORE_FRESH, NULL);
  qd_temporary_write_text(&folder, "out/partial/job.json.12-0.tmp", "{");
  check_state(QD_STORE_FRESH, NULL);
  qd_temporary_write_text(&folder, "out/partial/thesis.tex", "...");
  check_state(QD_STORE_FOREIGN, "partial");
}

Test(store, other_things_are_foreign) {
  qd_temporary_make_folder(&folder, "out");
  qd_temporary_write_text(&folder, "out/z.txt", "");
  qd_temporary_write_text(&folder, "out/photo.png", "");
  check_state(QD_STORE_FOREIGN, "photo.png");
}

Test(store, documents_of_others_are_foreign) {
  qd_temporary_make_folder(&folder, "out");
  qd_temporary_write_text(&folder, "out/manifest.json", "{\"format\": \"other\"}");
  check_state(QD_STORE_FOREIGN, "manifest.json");
  qd_temporary_make_folder(&folder, "out/partial");
  unlink(qd_temporary_path(&folder, "out/manifest.json"));
  qd_temporary_write_text(&folder, "out/partial/job.json", "{}");
  check_state(QD_STORE_FOREIGN, "partial");
}

Test(store, a_begun_one_is_unfinished_and_a_whole_one_finished) {
  made_begin(out);
  check_state(QD_STORE_UNFINISHED, NULL);
  MUST(qd_folder_remove(out));
  made_store(&folder);
  check_state(QD_STORE_FINISHED, NULL);
}

Test(store, a_damaged_one_is_not_foreign) {
  made_store(&folder);
  cr_assert_eq(truncate(qd_temporary_path(&folder, "out/manifest.json"), 300), 0);
  check_state(QD_STORE_FINISHED, NULL);
}

Test(store, a_file_is_no_folder) {
  qd_store_state state;
  char *what;
  qd_temporary_write_text(&folder, "out", "a file");
  cr_assert_eq(qd_store_look(out, &state, &what), QD_EEXIST);
  cr_assert_null(what);
  cr_assert(strstr(qd_error_text(), out));
}

/* ---- reading ---- */

static void check_parts(const qd_store *store, const qd_entry *entry) {
  made_tensors values = made_values(entry->block);
  qd_out_tensor expected[MADE_PARTS];
  made_outputs(&values, expected);
  unsigned char back[256];
  for (int i = 0; i < MADE_PARTS; i++) {
    const qd_stored_part *part = i < 3 ? &entry->record[0].part[i] : &entry->record[1].part[0];
    MUST(qd_store_read_part(store, entry, part, back));
    cr_assert_eq(memcmp(back, expected[i].tensor.data, qd_tensor_bytes(expected[i].tensor)), 0);
  }
}

Test(store, a_finished_one_gives_back_all_parts) {
  made_store(&folder);
  qd_store store;
  MUST(qd_store_open(out, false, &store));
  cr_assert(store.finished && store.has_rest && store.n_blocks == MADE_BLOCKS);
  cr_assert_str_eq(store.folder, out);
  cr_assert_str_eq(qd_json_text(qd_json_get(store.job, "method")), "gptq");
  for (int64_t i = 0; i < store.n_blocks; i++) check_parts(&store, &store.block[i]);
  check_parts(&store, &store.rest);
  qd_store_close(&store);
}

Test(store, a_part_of_another_type_or_shape_is_refused) {
  made_store(&folder);
  qd_store store;
  unsigned char back[256];
  MUST(qd_store_open(out, false, &store));
  qd_stored_part part = store.block[0].record[0].part[0];
  part.dtype = QD_I32;
  cr_assert_eq(qd_store_read_part(&store, &store.block[0], &part, back), QD_ECORRUPT);
  cr_assert(strstr(qd_error_text(), "block-00000.h5") && strstr(qd_error_text(), "q_proj/codes"));
  part = store.block[0].record[0].part[0];
  part.dim[1] = 2;
  cr_assert_eq(qd_store_read_part(&store, &store.block[0], &part, back), QD_ECORRUPT);
  qd_store_close(&store);
}

Test(store, nothing_is_not_found) {
  qd_store store;
  cr_assert_eq(qd_store_open(out, false, &store), QD_ENOTFOUND);
  cr_assert_eq(qd_store_open(out, true, &store), QD_ENOTFOUND);
  cr_assert(strstr(qd_error_text(), "no store in"));
  qd_temporary_make_folder(&folder, "out");
  cr_assert_eq(qd_store_open(out, true, &store), QD_ENOTFOUND);
  qd_store_close(&store);
}

Test(store, a_missing_or_shorter_file_is_damage) {
  static const char *const names[] = {"out/block-00001.h5", "out/model.h5", "out/config.json"};
  for (size_t i = 0; i < 3; i++) {
    qd_store store;
    made_store(&folder);
    const char *path = qd_temporary_path(&folder, names[i]);
    qd_file_identity identity;
    MUST(qd_file_identify(path, &identity));
    cr_assert_eq(truncate(path, (off_t)identity.size - 1), 0);
    cr_assert_eq(qd_store_open(out, false, &store), QD_ECORRUPT);
    unlink(path);
    cr_assert_eq(qd_store_open(out, false, &store), QD_ECORRUPT);
    cr_assert(strstr(qd_error_text(), names[i] + 4));
    MUST(qd_folder_remove(out));
    MUST(qd_folder_remove(qd_temporary_path(&folder, "source")));
  }
}

Test(store, a_damaged_manifest_is_damage) {
  qd_store store;
  made_store(&folder);
  const char *path = qd_temporary_path(&folder, "out/manifest.json");
  size_t n;
  unsigned char *text = made_read(path, &n);
  for (size_t i = 0; i < n; i += 7) {
    text[i] ^= 1;
    made_write(path, text, n);
    cr_assert_eq(qd_store_open(out, false, &store), QD_ECORRUPT);
    text[i] ^= 1;
  }
  qd_heap_free(text);
}

/* ---- unfinished ---- */

Test(store, an_unfinished_one_opens_only_when_asked) {
  qd_store store;
  made_begin(out);
  cr_assert_eq(qd_store_open(out, false, &store), QD_ENOTFOUND);
  cr_assert(strstr(qd_error_text(), "not finished"));
  MUST(qd_store_open(out, true, &store));
  cr_assert(!store.finished && !store.has_rest && store.n_blocks == 0);
  qd_store_close(&store);
}

Test(store, an_unfinished_one_has_the_blocks_in_a_row_from_the_first) {
  qd_store store;
  made_begin(out);
  for (int64_t block = 0; block < 5; block++)
    if (block != 3) made_block(out, block);
  made_block(out, QD_REST);
  MUST(qd_store_open(out, true, &store));
  cr_assert(!store.finished && store.has_rest && store.n_blocks == 3);
  for (int64_t i = 0; i < store.n_blocks; i++) check_parts(&store, &store.block[i]);
  check_parts(&store, &store.rest);
  qd_store_close(&store);
}

Test(store, a_damaged_note_or_file_makes_a_block_not_done) {
  qd_store store;
  made_begin(out);
  for (int64_t block = 0; block < 4; block++) made_block(out, block);
  cr_assert_eq(truncate(qd_temporary_path(&folder, "out/partial/entry-00003.json"), 60), 0);
  MUST(qd_store_open(out, true, &store));
  cr_assert_eq(store.n_blocks, 3);
  qd_store_close(&store);
  cr_assert_eq(truncate(qd_temporary_path(&folder, "out/block-00001.h5"), 60), 0);
  MUST(qd_store_open(out, true, &store));
  cr_assert_eq(store.n_blocks, 1);
  qd_store_close(&store);
}

Test(store, an_unfinished_one_s_files_are_compared_and_given_up) {
  qd_store store;
  made_begin(out);
  for (int64_t block = QD_REST; block < 4; block++) made_block(out, block);
  MUST(qd_store_open(out, true, &store));
  for (int64_t block = 0; block < 4; block++) MUST(qd_store_check_file(&store, &store.block[block].file[0]));
  size_t n;
  const char *path = qd_temporary_path(&folder, "out/block-00002.h5");
  unsigned char *bytes = made_read(path, &n);
  bytes[n / 2] ^= 4;
  made_write(path, bytes, n);
  cr_assert_eq(qd_store_check_file(&store, &store.block[2].file[0]), QD_ECORRUPT);
  cr_assert(strstr(qd_error_text(), "block-00002.h5"), "%s", qd_error_text());
  unlink(path);
  cr_assert_eq(qd_store_check_file(&store, &store.block[2].file[0]), QD_ECORRUPT);
  qd_store_give_up(&store, 2, NULL);
  cr_assert(store.n_blocks == 2 && store.has_rest);
  qd_store_give_up(&store, QD_REST, NULL);
  cr_assert(store.n_blocks == 2 && !store.has_rest);
  qd_store_close(&store);
  qd_heap_free(bytes);
}

Test(store, the_job_is_read_alone) {
  qd_json *job, *wanted = made_job();
  cr_assert_eq(qd_store_read_job(out, &job), QD_ENOTFOUND);
  made_begin(out);
  MUST(qd_store_read_job(out, &job));
  cr_assert(qd_json_equal(job, wanted));
  qd_json_free(job);
  made_store(&folder);
  MUST(qd_store_read_job(out, &job));
  cr_assert(qd_json_equal(job, wanted));
  qd_json_free(job);
  qd_json_free(wanted);
}

Test(store, a_damaged_job_is_damage) {
  qd_store store;
  made_begin(out);
  cr_assert_eq(truncate(qd_temporary_path(&folder, "out/partial/job.json"), 60), 0);
  cr_assert_eq(qd_store_open(out, true, &store), QD_ECORRUPT);
  check_state(QD_STORE_UNFINISHED, NULL);
}

Test(store, a_closed_one_can_be_closed_again) {
  qd_store store = {0};
  qd_store_close(&store);
  made_store(&folder);
  MUST(qd_store_open(out, false, &store));
  qd_store_close(&store);
  qd_store_close(&store);
}
