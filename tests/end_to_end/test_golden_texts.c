/* The windows of WikiText-2, of C4 in both conventions and of llama.cpp, as the reference's code draws and cuts them with
 * transformers' tokenizer (tests/golden/make_texts.py), to the token. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/heap.h"
#include "storage/bytes.h"
#include "storage/json.h"
#include "storage/tokens.h"
#include "tests/support/temporary_folder.h"

#define MUST(call) cr_assert_eq((call), QD_OK, "%s", qd_error_text())

static const char demo[] = QDIST_SOURCE_DIR "/jobs/demo/qdist-tiny";
static qd_temporary_folder folder;
static qd_tokenizer *tokenizer;
static qd_json *golden;

static void begin(void) {
  qd_temporary_folder_open(&folder);
  MUST(qd_tokenizer_open(demo, &tokenizer));
  MUST(qd_json_read(QDIST_SOURCE_DIR "/tests/golden/texts/qdist-tiny.json", (size_t)1 << 20, &golden));
}

static void end(void) {
  qd_json_free(golden);
  qd_tokenizer_close(tokenizer);
  qd_temporary_folder_close(&folder);
}

TestSuite(golden_texts, .init = begin, .fini = end);

static const char *text_path(const char *name) {
  static char path[2048];
  const char *data = getenv("QDIST_TEST_DATA");
  if (data == NULL || *data == '\0') cr_skip_test("QDIST_TEST_DATA does not name a folder with texts");
  snprintf(path, sizeof path, "%s/data/text/%s", data, name);
  return path;
}

static uint64_t fnv1a(const int32_t *ids, int64_t n) {
  uint64_t value = 0xCBF29CE484222325u;
  for (int64_t i = 0; i < n; i++)
    for (int byte = 0; byte < 4; byte++) value = (value ^ ((uint32_t)ids[i] >> 8 * byte & 0xFF)) * 0x100000001B3u;
  return value;
}

static void expect_ids(const qd_json *wanted, const int32_t *ids, const char *what) {
  for (size_t i = 0; i < qd_json_length(wanted); i++)
    cr_expect_eq(ids[i], qd_json_integer(qd_json_at(wanted, i)), "%s, token %zu", what, i);
}

/* What `key` of the golden file says of [kind:]path. */
static void expect_windows(const char *key, const char *kind, const char *path, qd_tokens_request request) {
  const qd_json *wanted = qd_json_get(golden, key);
  char dataset[4096], hash[32];
  qd_tokens tokens;
  snprintf(dataset, sizeof dataset, "%s%s", kind, path);
  request.dataset = dataset, request.pack = true;
  request.sequence_tokens = qd_json_integer(qd_json_get(wanted, "seqlen"));
  MUST(qd_tokens_load(tokenizer, &request, &tokens));
  cr_expect_eq(tokens.text_tokens, qd_json_integer(qd_json_get(wanted, "tokens")), "%s: %" PRId64, key, tokens.text_tokens);
  cr_assert_eq(tokens.rows, qd_json_integer(qd_json_get(wanted, "windows")), "%s: %" PRId64, key, tokens.rows);
  expect_ids(qd_json_get(wanted, "first"), tokens.ids, key);
  expect_ids(qd_json_get(wanted, "last"), tokens.ids + (tokens.rows - 1) * tokens.sequence_tokens, key);
  snprintf(hash, sizeof hash, "%016" PRIx64, fnv1a(tokens.ids, tokens.rows * tokens.sequence_tokens));
  cr_expect_str_eq(hash, qd_json_text(qd_json_get(wanted, "fnv1a")), "%s", key);
  qd_tokens_release(&tokens);
}

static const qd_tokens_request evaluation = {.use = QD_TOKENS_EVALUATION};
static const qd_tokens_request calibration = {.use = QD_TOKENS_CALIBRATION, .rows = 16, .seed = 2};

Test(golden_texts, windows_of_wikitext2) {
  expect_windows("wikitext2", "wikitext2:", text_path("wikitext2.test.raw"), evaluation);
  expect_windows("wikitext2 calibration", "wikitext2:", text_path("wikitext2.train-1MB.txt"), calibration);
}

Test(golden_texts, windows_of_llama_cpp) {
  qd_tokens_request request = evaluation;
  request.llama_cpp = true;
  expect_windows("llama.cpp", "plain:", text_path("wikitext2.test.raw"), request);
}

/* ---- C4 ------------------------------------------------------------------------------------------------------------------ */

static void put_document(FILE *to, const char *text, size_t n) {
  char *copy, *line;
  qd_json *document = qd_json_object();
  MUST(qd_heap_text(text, n, &copy));
  qd_json_set_text(document, "text", copy);
  qd_json_set_text(document, "url", "https://example.com/");
  MUST(qd_json_print(document, 0, &line));
  fprintf(to, "%s\n", line);
  qd_heap_free(line);
  qd_heap_free(copy);
  qd_json_free(document);
}

/* Lines, the long ones cut at the last blank within LONGEST bytes; returns how many. */
static int64_t put_documents(FILE *to, const char *text, size_t n) {
  enum { LONGEST = 1000 };
  int64_t documents = 0;
  for (size_t begin = 0; begin < n;) {
    const char *newline = memchr(text + begin, '\n', n - begin);
    size_t bytes = newline != NULL ? (size_t)(newline - text) - begin : n - begin, cut = bytes;
    if (bytes > LONGEST) {
      for (cut = LONGEST - 1; cut > 0 && text[begin + cut] != ' ';) cut--;
      if (cut == 0) cut = bytes;
    }
    if (cut > 0) put_document(to, text + begin, cut), documents++;
    begin += cut + 1;
  }
  return documents;
}

static const char *make_c4(void) {
  char *text;
  size_t n;
  MUST(qd_file_read(text_path("c4-sample.txt"), (size_t)1 << 28, &text, &n));
  const char *path = qd_temporary_write_text(&folder, "c4.json", "");
  FILE *to = fopen(path, "w");
  cr_assert_not_null(to);
  cr_expect_eq(put_documents(to, text, n), qd_json_integer(qd_json_get(golden, "documents")));
  cr_assert_eq(fclose(to), 0);
  qd_heap_free(text);
  return path;
}

Test(golden_texts, windows_of_c4) {
  const char *path = make_c4();
  expect_windows("c4", "c4:", path, evaluation);
  expect_windows("c4 calibration", "c4:", path, calibration);
  expect_windows("c4-new", "c4-new:", path, evaluation);
  expect_windows("c4 calibration", "c4-new:", path, calibration);
}
