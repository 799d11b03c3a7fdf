#define _POSIX_C_SOURCE 200809L
#include "storage/manifest.h"

#include "kernels/ops.h"
#include "tests/support/store_maker.h"

static qd_temporary_folder folder;
static void setup(void) { qd_temporary_folder_open(&folder); }
static void teardown(void) { qd_temporary_folder_close(&folder); }
TestSuite(manifest, .init = setup, .fini = teardown);

static char *text_of_store(const char **path) {
  size_t n;
  made_store(&folder);
  *path = qd_temporary_path(&folder, "out/manifest.json");
  return (char *)made_read(*path, &n);
}

Test(manifest, says_what_is_there) {
  const char *out = made_store(&folder);
  qd_manifest manifest;
  MUST(qd_manifest_read(out, &manifest));
  qd_json *job = made_job();
  cr_assert_eq(manifest.arithmetic_version, QD_ARITHMETIC_VERSION);
  cr_assert(qd_json_equal(manifest.job, job));
  cr_assert_eq(manifest.n_blocks, MADE_BLOCKS);
  cr_assert_eq(manifest.block[1].block, 1);
  cr_assert_str_eq(manifest.block[1].file[0].name, "block-00001.h5");
  cr_assert_str_eq(manifest.rest.file[0].name, "model.h5");
  cr_assert_eq(manifest.n_files, 1);
  cr_assert_str_eq(manifest.file[0].name, "config.json");
  cr_assert_eq(manifest.file[0].bytes, strlen("{\"model_type\": \"llama\"}\n"));
  qd_json_free(job);
  qd_manifest_release(&manifest);
}

Test(manifest, has_the_same_bytes_every_time_and_no_trace_of_where) {
  const char *path;
  char *text = text_of_store(&path);
  qd_temporary_folder other;
  qd_temporary_folder_open(&other);
  made_store(&other);
  size_t n;
  char *again = (char *)made_read(qd_temporary_path(&other, "out/manifest.json"), &n);
  cr_assert_str_eq(text, again);
  cr_assert_null(strstr(text, folder.path));
  qd_heap_free(text);
  qd_heap_free(again);
  qd_temporary_folder_close(&other);
}

static qd_status try_text(const char *text) {
  qd_json *json;
  qd_manifest manifest;
  MUST(qd_json_parse(text, strlen(text), "manifest", &json));
  qd_status status = qd_manifest_from_json(json, "manifest", &manifest);
  qd_json_free(json);
  qd_manifest_release(&manifest);
  return status;
}

static qd_status with(const char *text, const char *old, const char *fresh) {
  const char *at = strstr(text, old);
  char *changed;
  cr_assert_not_null(at, "%s", old);
  MUST(qd_heap_new(strlen(text) + strlen(fresh) + 1, 1, &changed));
  memcpy(changed, text, (size_t)(at - text));
  strcat(changed, fresh);
  strcat(changed, at + strlen(old));
  qd_status status = try_text(changed);
  qd_heap_free(changed);
  return status;
}

Test(manifest, refuses_what_cannot_be) {
  static const char *const change[][2] = {
      {"\"format\": \"qdist\"", "\"format\": \"other\""},
      {"\"format\": \"qdist\"", "\"form\": \"qdist\""},
      {"\"format_version\": 1", "\"format_version\": 0"},
      {"\"format_version\": 1", "\"format_version\": \"1\""},
      {"\"arithmetic_version\": 1", "\"arithmetic_version\": 0"},
      {"\"arithmetic_version\": 1", "\"arithmetic_version\": 1e3"},
      {"\"job\": {", "\"job\": [], \"other\": {"},
      {"\"job\": {", "\"other\": {"},
      {"\"blocks\": [", "\"blocks\": 2, \"other\": ["},
      {"\"blocks\": [", "\"blocks\": [null, "},
      {"\"block\": 0", "\"block\": 1"},
      {"\"block\": 1", "\"block\": -1"},
      {"\"rest\": {", "\"other\": {"},
      {"\"block\": -1", "\"block\": 2"},
      {"\"block-00001.h5\"", "\"block-00000.h5\""},
      {"\"name\": \"config.json\"", "\"name\": \"manifest.json\""},
      {"\"name\": \"config.json\"", "\"name\": \"../config.json\""},
      {"\"name\": \"config.json\"", "\"name\": \"other.h5\""},
      {"\"name\": \"config.json\"", "\"nom\": \"config.json\""},
  };
  const char *path;
  char *text = text_of_store(&path);
  MUST(try_text(text));
  for (size_t i = 0; i < sizeof change / sizeof *change; i++)
    cr_assert_eq(with(text, change[i][0], change[i][1]), QD_ECORRUPT, "%s -> %s", change[i][0], change[i][1]);
  cr_assert_eq(with(text, "\"format_version\": 1", "\"format_version\": 2"), QD_EUNSUPPORTED);
  cr_assert(strstr(qd_error_text(), "format version 2"));
  cr_assert_eq(try_text("[]"), QD_ECORRUPT);
  cr_assert_eq(try_text("null"), QD_ECORRUPT);
  qd_heap_free(text);
}

/* Not only the sealed file is refused: what its reader does with each damaged text must be no crash either. */
Test(manifest, damaged_text_does_not_crash_the_reader) {
  const char *path;
  char *text = text_of_store(&path);
  size_t n = strlen(text);
  for (size_t i = 0; i < n; i++) {
    char kept = text[i];
    text[i] = (char)(kept ^ (1 << i % 7));
    qd_json *json;
    qd_manifest manifest;
    if (qd_json_parse(text, n, "manifest", &json) == QD_OK) {
      qd_status status = qd_manifest_from_json(json, "manifest", &manifest);
      cr_assert(status == QD_OK || status == QD_ECORRUPT || status == QD_EUNSUPPORTED);
      qd_manifest_release(&manifest);
      qd_json_free(json);
    }
    text[i] = kept;
  }
  qd_heap_free(text);
}

Test(manifest, a_newer_version_that_is_whole_is_told_apart_from_damage) {
  const char *path;
  char *text = text_of_store(&path);
  char *version = strstr(text, "\"format_version\": 1");
  version[strlen("\"format_version\": ")] = '2';
  made_write(path, text, strlen(text));
  qd_manifest manifest;
  cr_assert_eq(qd_manifest_read(qd_temporary_path(&folder, "out"), &manifest), QD_ECORRUPT);
  char *digits = strstr(text, "\"\n}\n") - QD_DIGEST_DIGITS;
  qd_digest digest;
  memset(digits, '0', QD_DIGEST_DIGITS);
  qd_digest_of(text, strlen(text), &digest);
  memcpy(digits, digest.hex, QD_DIGEST_DIGITS);
  made_write(path, text, strlen(text));
  cr_assert_eq(qd_manifest_read(qd_temporary_path(&folder, "out"), &manifest), QD_EUNSUPPORTED);
  qd_heap_free(text);
}

Test(manifest, is_not_written_when_it_could_not_be_read) {
  const char *out = made_store(&folder);
  qd_manifest manifest;
  MUST(qd_manifest_read(out, &manifest));
  qd_temporary_make_folder(&folder, "out/partial");
  strcpy(manifest.block[1].file[0].name, "block-00000.h5");
  cr_assert_eq(qd_manifest_write(&manifest, out), QD_ECORRUPT);
  cr_assert(strstr(qd_error_text(), "block-00000.h5 is there twice"), "%s", qd_error_text());
  qd_manifest_release(&manifest);
}

Test(manifest, checks_files_by_size) {
  const char *out = made_store(&folder);
  qd_entry_file longer = {.name = "config.json", .bytes = 25}, none = {.name = "none.json"}, is_folder = {.name = "sub"};
  qd_temporary_make_folder(&folder, "out/sub");
  cr_assert_eq(qd_entry_file_check(out, &longer), QD_ECORRUPT);
  cr_assert(strstr(qd_error_text(), "config.json has 24 bytes, expected 25"), "%s", qd_error_text());
  MUST(qd_entry_file_check(out, &(qd_entry_file){.name = "config.json", .bytes = 24}));
  cr_assert_eq(qd_entry_file_check(out, &none), QD_ECORRUPT);
  cr_assert_eq(qd_entry_file_check(out, &is_folder), QD_ECORRUPT);
}
