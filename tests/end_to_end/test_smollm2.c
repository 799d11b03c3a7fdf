/* SmolLM2-135M-Instruct from its GGUF file, against what transformers makes of the same file.  The file is fetched once
 * (jobs/fetch-smollm2.sh); where it cannot be had the tests are skipped. */
#include "storage/json.h"
#include "storage/tokenizer.h"
#include "tests/end_to_end/bad_input_support.h"

#define FILE_NAME "SmolLM2-135M-Instruct.Q4_1.gguf"

TestSuite(smollm2, .init = setup, .fini = teardown, .timeout = 1800);

static const char file[] = QDIST_BINARY_DIR "/models/" FILE_NAME;

static void need_file(void) {
  static const char *const command[] = {QDIST_SOURCE_DIR "/jobs/fetch-smollm2.sh", QDIST_BINARY_DIR "/models", NULL};
  qd_run run = qd_run_command(command, NULL, 1000);
  if (run.exit_code != 0) cr_skip_test("SKIPPED: %s", run.err.text);
  qd_run_close(&run);
}

static const char *data(const char *name) {
  static char path[1024];
  const char *root = getenv("QDIST_TEST_DATA");
  if (root == NULL) cr_skip_test("QDIST_TEST_DATA does not name a folder with golden values of real models");
  snprintf(path, sizeof path, "%s/%s", root, name);
  return path;
}

static qd_json *read_golden(void) {
  qd_json *golden;
  cr_assert_eq(qd_json_read(data("golden/smollm2-135m.json"), 1 << 24, &golden), QD_OK, "%s", qd_error_text());
  return golden;
}

/* The first characters of the text that the golden values are of, in the test's folder. */
static const char *write_text(const qd_json *golden, char **text, size_t *n) {
  int64_t characters = qd_json_integer(qd_json_get(golden, "tokenized_chars"));
  size_t end = 0;
  cr_assert_eq(qd_file_read(data("data/text/wikitext2.test.raw"), 1 << 28, text, n), QD_OK, "%s", qd_error_text());
  while (end < *n && (((unsigned char)(*text)[end] & 0xC0) == 0x80 || characters-- > 0)) end++;
  *n = end;
  return qd_temporary_write(&folder, "prefix.txt", *text, *n);
}

static bool same_ids(const int32_t *id, size_t n, const qd_json *expected) {
  bool same = n >= qd_json_length(expected);
  for (size_t i = 0; same && i < qd_json_length(expected); i++) same = id[i] == qd_json_integer(qd_json_at(expected, i));
  return same;
}

Test(smollm2, tokens_are_those_of_the_golden_file) {
  need_file();
  qd_json *golden = read_golden();
  const qd_json *list = qd_json_get(golden, "tokenizer");
  qd_tokenizer *t;
  char *text;
  size_t n, n_ids;
  int32_t *id;
  cr_assert_eq(qd_tokenizer_open(file, &t), QD_OK, "%s", qd_error_text());
  for (size_t i = 0; i < qd_json_length(list); i++) {
    const qd_json *one = qd_json_get(qd_json_at(list, i), "text"), *expected = qd_json_get(qd_json_at(list, i), "ids");
    cr_assert_eq(qd_tokenizer_encode(t, qd_json_text(one), qd_json_text_bytes(one), QD_BOS_AUTO, &id, &n_ids), QD_OK);
    cr_expect(n_ids == qd_json_length(expected) && same_ids(id, n_ids, expected), "\"%s\"", qd_json_text(one));
    qd_heap_free(id);
  }
  write_text(golden, &text, &n);
  cr_assert_eq(qd_tokenizer_encode(t, text, n, QD_BOS_AUTO, &id, &n_ids), QD_OK, "%s", qd_error_text());
  cr_expect_eq((int64_t)n_ids, qd_json_integer(qd_json_get(golden, "n_tokens")));
  cr_expect(same_ids(id, n_ids, qd_json_get(golden, "first_ids")));
  qd_heap_free(id), qd_heap_free(text);
  qd_tokenizer_close(t);
  qd_json_free(golden);
}

/* One window of 512; over all twelve the mean is as near. */
Test(smollm2, likelihood_is_that_of_transformers) {
  need_file();
  qd_json *golden = read_golden(), *got;
  char *text;
  size_t n;
  const char *path = write_text(golden, &text, &n);
  qd_run run = run_words(0, (const char *const[]){"evaluate", "--model", file, "--dataset", path, "--seqlen", "512",
                                                  "--max-windows", "1", "--json", NULL});
  expect_code(&run, 0, "evaluate");
  cr_assert_eq(qd_json_parse(run.out.text, run.out.n, "output", &got), QD_OK, "%s", qd_error_text());
  double nll = qd_json_number(qd_json_get(got, "mean_nll"));
  const qd_json *values = qd_json_get(qd_json_get(golden, "fp32"), "gptq_convention");
  double expected = qd_json_number(qd_json_get(values, "first_window_nll"));
  cr_log_info("mean NLL %.9g, transformers %.9g", nll, expected);
  cr_expect(fabs(nll - expected) <= 1e-4 * expected, "%.9g, expected %.9g", nll, expected);
  cr_expect_str_eq(qd_json_text(qd_json_get(got, "arithmetic")), "f32");
  qd_json_free(got), qd_json_free(golden);
  qd_heap_free(text);
  qd_run_close(&run);
}
