#define _POSIX_C_SOURCE 200809L
#include "storage/entry.h"

#include "tests/support/store_maker.h"

static qd_temporary_folder folder;

static void setup(void) {
  qd_temporary_folder_open(&folder);
  qd_temporary_make_folder(&folder, "partial");
}

static void teardown(void) { qd_temporary_folder_close(&folder); }

TestSuite(entry, .init = setup, .fini = teardown);

static char *text_of(const qd_entry *entry) {
  qd_json *json;
  char *text;
  MUST(qd_entry_to_json(entry, &json));
  MUST(qd_json_print(json, 0, &text));
  qd_json_free(json);
  return text;
}

static qd_status from_text(const char *text, qd_entry *out) {
  qd_json *json;
  MUST(qd_json_parse(text, strlen(text), "entry", &json));
  qd_status status = qd_entry_from_json(json, "entry", out);
  qd_json_free(json);
  return status;
}

Test(entry, comes_back_from_its_text) {
  for (int64_t block = QD_REST; block < 2; block++) {
    qd_entry entry = made_entry(folder.path, block), again;
    char *text = text_of(&entry);
    MUST(from_text(text, &again));
    cr_assert_eq(again.block, block);
    cr_assert(again.n_files == 1 && again.n_records == 2);
    entry.file->compress_seconds = entry.file->write_seconds = 0; /* stored nowhere */
    cr_assert_eq(memcmp(again.file, entry.file, sizeof *again.file), 0);
    for (int i = 0; i < 2; i++) {
      cr_assert(qd_json_equal(again.record[i].facts, entry.record[i].facts));
      qd_json_free(again.record[i].facts);
      again.record[i].facts = entry.record[i].facts;
      cr_assert_eq(memcmp(&again.record[i], &entry.record[i], sizeof entry.record[i]), 0, "record %d", i);
      again.record[i].facts = NULL;
    }
    qd_entry_release(&again);
    qd_entry_release(&entry);
    qd_heap_free(text);
  }
}

Test(entry, facts_of_the_block_come_back) {
  qd_entry entry = {.block = 1, .facts = qd_json_object()}, again;
  qd_json_set_number(entry.facts, "kl", 0.125);
  char *text = text_of(&entry);
  cr_expect_str_eq(text, "{\"block\": 1, \"files\": [], \"records\": [], \"facts\": {\"kl\": 0.125}}");
  MUST(from_text(text, &again));
  cr_expect(qd_json_equal(again.facts, entry.facts));
  qd_entry_release(&again);
  qd_entry_release(&entry);
  qd_heap_free(text);
  cr_expect_eq(from_text("{\"block\": 1, \"files\": [], \"records\": [], \"facts\": 3}", &again), QD_ECORRUPT);
}

Test(entry, of_nothing_comes_back) {
  qd_entry nothing = {.block = 5}, again;
  char *text = text_of(&nothing);
  cr_assert_str_eq(text, "{\"block\": 5, \"files\": [], \"records\": []}");
  MUST(from_text(text, &again));
  cr_assert(again.block == 5 && again.n_files == 0 && again.n_records == 0);
  qd_entry_release(&again);
  qd_heap_free(text);
}

/* `text` with the first `old` replaced. */
static qd_status with(const char *text, const char *old, const char *fresh) {
  char changed[8192];
  const char *at = strstr(text, old);
  qd_entry entry;
  cr_assert_not_null(at, "%s is not in %s", old, text);
  snprintf(changed, sizeof changed, "%.*s%s%s", (int)(at - text), text, fresh, at + strlen(old));
  qd_status status = from_text(changed, &entry);
  qd_entry_release(&entry);
  return status;
}

Test(entry, refuses_what_cannot_be) {
  static const char *const change[][2] = {
      {"\"block\": 1", "\"block\": -2"},
      {"\"block\": 1", "\"block\": \"1\""},
      {"\"block\": 1, ", ""},
      {"\"files\": [", "\"files\": [7, "},
      {"\"files\": [", "\"files\": {}, \"other\": ["},
      {"\"block-00001.h5\"", "\"../block-00001.h5\""},
      {"\"block-00001.h5\"", "\"/block-00001.h5\""},
      {"\"block-00001.h5\"", "\"sub/block-00001.h5\""},
      {"\"block-00001.h5\"", "\".h5\""},
      {"\"block-00001.h5\"", "\"..\""},
      {"\"block-00001.h5\"", "\"\""},
      {"\"block-00001.h5\"", "\"block-00001.json\""},
      {"\"block-00001.h5\"", "\"block\\u000000001.h5\""},
      {"\"block-00001.h5\"", "\"block-0000000000000000000000000000000000000000000000000000000001.h5\""},
      {"\"bytes\": ", "\"bytes\": -"},
      {"\"bytes\": ", "\"bytes\": 0.5, \"other\": "},
      {"\"digest\": \"", "\"digest\": \"x"},
      {"\"digest\": \"", "\"digest\": 1, \"other\": \""},
      {"\"records\": [", "\"records\": [{}, "},
      {"\"records\": [", "\"records\": [null, "},
      {"\"name\": \"model.layers.1.self", "\"name\": 7, \"other\": \"model.layers.1.self"},
      {"\"name\": \"model.layers.1.self_attn.q_proj.weight\"", "\"name\": \"\""},
      {"\"name\": \"model.layers.1.self_attn.q_proj.weight\"", "\"name\": \"a\\nb\""},
      {"\"name\": \"model.layers.1.self_attn.q_proj.weight\"", "\"name\": \"model.layers.1.input_layernorm.weight\""},
      {"\"role\": \"q_proj\"", "\"role\": \"q/proj\""},
      {"\"role\": \"q_proj\"", "\"role\": \"a_role_of_more_than_thirty_one_letters\""},
      {"\"role\": \"q_proj\", ", ""},
      {"\"expert\": 3", "\"expert\": -7"},
      {"\"expert\": 3", "\"expert\": 3.5"},
      {"\"scheme\": \"uniform\", ", ""},
      {"\"dtype\": \"BF16\"", "\"dtype\": \"bf16\""},
      {"\"dtype\": \"BF16\"", "\"dtype\": 1"},
      {"\"shape\": [5, 7]", "\"shape\": [5, -7]"},
      {"\"shape\": [5, 7]", "\"shape\": [5, 7.0]"},
      {"\"shape\": [5, 7]", "\"shape\": [281474976710656, 2]"},
      {"\"shape\": [5, 7]", "\"shape\": [3037000500, 3037000500]"},
      {"\"shape\": [5, 7]", "\"shape\": [1, 2, 3, 4, 5]"},
      {"\"shape\": [5, 7]", "\"shape\": 5"},
      {"\"shape\": [5, 3]", "\"shape\": []"},
      {"\"source\": \"", "\"source\": \"0"},
      {"\"parts\": [", "\"parts\": [[], "},
      {"\"parts\": [", "\"parts\": 1, \"other\": ["},
      {"\"name\": \"codes\"", "\"name\": \"scales\""},
      {"\"name\": \"codes\"", "\"name\": \"a part with blanks\""},
      {"\"file\": 0", "\"file\": 1"},
      {"\"file\": 0", "\"file\": -1"},
      {"\"file\": 0, ", ""},
      {"\"dataset\": \"q_proj/codes\"", "\"dataset\": \"/q_proj/codes\""},
      {"\"dataset\": \"q_proj/codes\"", "\"dataset\": \"q_proj//codes\""},
      {"\"dataset\": \"q_proj/codes\"", "\"dataset\": \"q_proj/codes/\""},
      {"\"dataset\": \"q_proj/codes\"", "\"dataset\": \"../codes\""},
      {"\"dataset\": \"q_proj/codes\"", "\"dataset\": \".\""},
      {"\"dataset\": \"q_proj/codes\"", "\"dataset\": \"\""},
      {"\"facts\": {", "\"facts\": [], \"other\": {"},
      {"\"facts\": {", "\"other\": {"},
  };
  qd_entry entry = made_entry(folder.path, 1);
  char *text = text_of(&entry);
  for (size_t i = 0; i < sizeof change / sizeof *change; i++) {
    cr_assert_eq(with(text, change[i][0], change[i][1]), QD_ECORRUPT, "%s -> %s", change[i][0], change[i][1]);
    cr_assert_eq(strncmp(qd_error_text(), "entry", 5), 0, "%s", qd_error_text());
  }
  qd_entry_release(&entry);
  qd_heap_free(text);
}

Test(entry, takes_what_later_programs_may_add) {
  qd_entry entry = made_entry(folder.path, 1);
  char *text = text_of(&entry);
  MUST(with(text, "\"name\": \"order\"", "\"name\": \"outliers\""));
  MUST(with(text, "\"scheme\": \"uniform\"", "\"scheme\": \"vectors\", \"codebook\": 7"));
  qd_entry_release(&entry);
  qd_heap_free(text);
}

Test(entry, says_where_it_refuses) {
  qd_entry entry = made_entry(folder.path, 1);
  char *text = text_of(&entry);
  cr_assert_eq(with(text, "\"shape\": [5, 2]", "\"shape\": [5, -2]"), QD_ECORRUPT);
  const char *text_of_error = qd_error_text();
  cr_assert(strstr(text_of_error, "entry.records[0].parts[1]") && strstr(text_of_error, "dimension 1"), "%s", text_of_error);
  qd_entry_release(&entry);
  qd_heap_free(text);
}

Test(entry, knows_which_names_may_be_files) {
  cr_assert(qd_block_file_name_fits("block-00012.1.h5"));
  cr_assert_not(qd_block_file_name_fits("model.safetensors"));
  cr_assert(qd_side_file_name_fits("tokenizer.json"));
  const char *const none[] = {"manifest.json", "job.lock", "partial", "a.h5", "a.tmp", ".hidden", "..", "a/b", "", "a b"};
  for (size_t i = 0; i < sizeof none / sizeof *none; i++) cr_assert_not(qd_side_file_name_fits(none[i]), "%s", none[i]);
}

Test(entry, finds_names_that_are_there_twice) {
  const char *once[] = {"c", "a", "b"}, *twice[] = {"c", "a", "b", "a"};
  cr_assert_null(qd_find_twice(once, 3));
  cr_assert_str_eq(qd_find_twice(twice, 4), "a");
  cr_assert_null(qd_find_twice(NULL, 0));
}
