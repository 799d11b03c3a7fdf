#define _POSIX_C_SOURCE 200809L
#include "storage/store.h"

#include "tests/support/store_maker.h"

#include <sys/stat.h>

static qd_temporary_folder folder;
static const char *out;

static void setup(void) {
  qd_temporary_folder_open(&folder);
  out = made_store(&folder);
}

static void teardown(void) { qd_temporary_folder_close(&folder); }

TestSuite(verify, .init = setup, .fini = teardown);

static char   findings[65536];
static size_t n_findings;

static void collect(void *context, const char *text) {
  cr_assert_eq(context, findings);
  cr_assert_null(strchr(text, '\n'));
  n_findings++;
  size_t used = strlen(findings);
  snprintf(findings + used, sizeof findings - used, "%s\n", text);
}

static qd_status verify(void) {
  findings[0] = '\0';
  n_findings = 0;
  qd_status status = qd_store_verify(out, collect, findings);
  cr_assert((status == QD_ECORRUPT) == (n_findings > 0), "%s, %zu findings", qd_status_name(status), n_findings);
  return status;
}

Test(verify, a_whole_store_passes) {
  MUST(verify());
  MUST(qd_store_verify(out, NULL, NULL));
}

/* Every byte of a file, one bit at a time; `name` must be in what is said. */
static void flip_all(const char *name, size_t step) {
  char path[QD_TEMPORARY_PATH_BYTES];
  size_t n;
  strcpy(path, qd_temporary_path(&folder, "out/"));
  strcat(path, name);
  unsigned char *bytes = made_read(path, &n);
  for (size_t i = 0; i < n; i += step) {
    bytes[i] ^= (unsigned char)(1u << i % 8);
    made_write(path, bytes, n);
    cr_assert_eq(verify(), QD_ECORRUPT, "byte %zu of %s", i, name);
    cr_assert(strstr(findings, name));
    bytes[i] ^= (unsigned char)(1u << i % 8);
  }
  made_write(path, bytes, n);
  MUST(verify());
  qd_heap_free(bytes);
}

Test(verify, finds_every_changed_byte_of_a_block) { flip_all("block-00001.h5", 1); }
Test(verify, finds_changed_bytes_of_the_rest) { flip_all("model.h5", 37); }
Test(verify, finds_every_changed_byte_of_the_manifest) { flip_all("manifest.json", 1); }
Test(verify, finds_every_changed_byte_of_a_side_file) { flip_all("config.json", 1); }

static void cut_all(const char *name, size_t step) {
  char path[QD_TEMPORARY_PATH_BYTES];
  qd_file_identity identity;
  strcpy(path, qd_temporary_path(&folder, "out/"));
  strcat(path, name);
  MUST(qd_file_identify(path, &identity));
  for (size_t n = (size_t)identity.size; n-- > 0;) {
    if (n % step != 0 && n >= 64) continue;
    cr_assert_eq(truncate(path, (off_t)n), 0);
    cr_assert_eq(verify(), QD_ECORRUPT, "%zu bytes of %s", n, name);
  }
  unlink(path);
  cr_assert_eq(verify(), QD_ECORRUPT);
  cr_assert(strstr(findings, name) && strstr(findings, "missing"), "%s", findings);
}

Test(verify, finds_a_block_that_is_cut_off_or_missing) { cut_all("block-00000.h5", 11); }
Test(verify, finds_a_manifest_that_is_cut_off_or_missing) { cut_all("manifest.json", 3); }
Test(verify, finds_a_side_file_that_is_cut_off_or_missing) { cut_all("config.json", 1); }

Test(verify, finds_what_was_added_to_a_file) {
  static const char *const names[] = {"out/block-00000.h5", "out/config.json", "out/manifest.json"};
  for (size_t i = 0; i < 3; i++) {
    size_t n;
    const char *path = qd_temporary_path(&folder, names[i]);
    unsigned char *bytes = made_read(path, &n), longer[65536];
    memcpy(longer, bytes, n);
    longer[n] = '\n';
    made_write(path, longer, n + 1);
    cr_assert_eq(verify(), QD_ECORRUPT);
    made_write(path, bytes, n);
    MUST(verify());
    qd_heap_free(bytes);
  }
}

Test(verify, names_the_dataset_that_is_damaged) {
  size_t n;
  const char *path = qd_temporary_path(&folder, "out/block-00001.h5");
  unsigned char *bytes = made_read(path, &n);
  static const unsigned char magic[4] = {0x28, 0xb5, 0x2f, 0xfd};
  size_t at = 0;
  while (memcmp(bytes + at, magic, 4) != 0) cr_assert_lt(++at, n - 12);
  bytes[at + 11] ^= 1;
  made_write(path, bytes, n);
  cr_assert_eq(verify(), QD_ECORRUPT);
  cr_assert_eq(n_findings, 2, "%s", findings); /* the file, and one dataset in it */
  cr_assert(strstr(findings, "chunk 0 of q_proj/codes"), "%s", findings);
  qd_heap_free(bytes);
}

Test(verify, goes_on_behind_a_manifest_whose_digest_is_wrong) {
  size_t n;
  const char *path = qd_temporary_path(&folder, "out/manifest.json");
  unsigned char *bytes = made_read(path, &n);
  *strstr((char *)bytes, "gptq") = 'x';
  made_write(path, bytes, n);
  unlink(qd_temporary_path(&folder, "out/config.json"));
  cr_assert_eq(verify(), QD_ECORRUPT);
  cr_assert_eq(n_findings, 2, "%s", findings);
  qd_heap_free(bytes);
}

Test(verify, finds_what_is_not_listed) {
  qd_temporary_write_text(&folder, "out/job.lock", "");
  qd_temporary_write_text(&folder, "out/slurm-12.log", "");
  qd_temporary_write_text(&folder, "out/report.json", "");
  qd_temporary_write_text(&folder, "out/status.json", "");
  MUST(verify());
  qd_temporary_write_text(&folder, "out/block-00002.h5", "");
  qd_temporary_make_folder(&folder, "out/partial");
  qd_temporary_write_text(&folder, "out/.hidden", "");
  cr_assert_eq(verify(), QD_ECORRUPT);
  cr_assert_eq(n_findings, 3, "%s", findings);
  cr_assert(strstr(findings, "block-00002.h5") && strstr(findings, "partial") && strstr(findings, ".hidden"));
}

Test(verify, something_else_in_a_file_s_place_is_found) {
  char path[QD_TEMPORARY_PATH_BYTES];
  strcpy(path, qd_temporary_path(&folder, "out/block-00000.h5"));
  unlink(path);
  cr_assert_eq(mkfifo(path, 0600), 0); /* opening it would wait for ever */
  cr_assert_eq(verify(), QD_ECORRUPT);
  unlink(path);
  qd_temporary_make_folder(&folder, "out/block-00000.h5");
  cr_assert_eq(verify(), QD_ECORRUPT);
}

Test(verify, one_block_in_another_s_place_is_found) {
  char first[QD_TEMPORARY_PATH_BYTES], second[QD_TEMPORARY_PATH_BYTES];
  size_t n, m;
  strcpy(first, qd_temporary_path(&folder, "out/block-00000.h5"));
  strcpy(second, qd_temporary_path(&folder, "out/block-00001.h5"));
  unsigned char *a = made_read(first, &n), *b = made_read(second, &m);
  made_write(first, b, m);
  made_write(second, a, n);
  cr_assert_eq(verify(), QD_ECORRUPT);
  cr_assert(strstr(findings, "block-00000.h5") && strstr(findings, "block-00001.h5"));
  qd_heap_free(a);
  qd_heap_free(b);
}

/* What the journal notes is checked like a finished store's files; what it does not note is not there. */
Test(verify, an_unfinished_store_is_checked_as_far_as_it_is_there) {
  out = qd_temporary_path(&folder, "begun");
  char path[QD_TEMPORARY_PATH_BYTES];
  size_t n;
  made_begin(out);
  cr_assert_eq(verify(), QD_ENOTFOUND);
  cr_assert(strstr(qd_error_text(), "not finished: 0 blocks"), "%s", qd_error_text());
  for (int64_t block = QD_REST; block < 3; block++) made_block(out, block);
  qd_temporary_write_text(&folder, "begun/block-00003.h5", "not noted");
  cr_assert_eq(verify(), QD_ENOTFOUND);
  cr_assert(strstr(qd_error_text(), "not finished: 3 blocks are there, all whole"), "%s", qd_error_text());
  snprintf(path, sizeof path, "%s/block-00001.h5", out);
  unsigned char *bytes = made_read(path, &n);
  bytes[24] ^= 1; /* in the superblock: the digest differs, and HDF5 refuses the file */
  made_write(path, bytes, n);
  unlink(qd_temporary_path(&folder, "begun/model.h5"));
  cr_assert_eq(verify(), QD_ECORRUPT);
  cr_assert_eq(n_findings, 3, "%s", findings);
  cr_assert(strstr(findings, "block-00001.h5") && strstr(findings, "model.h5 is missing"), "%s", findings);
  cr_assert(strstr(qd_error_text(), "not finished, and damaged: 3 findings"), "%s", qd_error_text());
  qd_heap_free(bytes);
}

Test(verify, no_store_is_not_found) {
  out = qd_temporary_path(&folder, "source");
  cr_assert_eq(verify(), QD_ENOTFOUND);
  out = qd_temporary_path(&folder, "none");
  cr_assert_eq(verify(), QD_ENOTFOUND);
  out = qd_temporary_path(&folder, "begun");
  made_begin(out);
  cr_assert_eq(verify(), QD_ENOTFOUND);
  cr_assert(strstr(qd_error_text(), "not finished"));
}
