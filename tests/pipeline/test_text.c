#include "pipeline/text.h"

#include "tests/pipeline/logits_support.h"
#include "tests/support/temporary_folder.h"

static qd_temporary_folder folder;
static qd_comm *comm;
static qd_tokens tokens;
static qd_tokenizer *tokenizer;

static void open_fixture(void) {
  qd_temporary_folder_open(&folder);
  comm = open_team();
}

static void close_fixture(void) {
  qd_tokenizer_close(tokenizer);
  qd_tokens_release(&tokens);
  qd_team_close(comm, false, 0);
  qd_temporary_folder_close(&folder);
}

TestSuite(text, .init = open_fixture, .fini = close_fixture);

static const char tokenizer_folder[] = QDIST_SOURCE_DIR "/tests/golden/tokenizers/llama2";

static const char *ids_up_to(int64_t n) {
  int32_t *ids = must_new((size_t)n, sizeof *ids);
  for (int64_t i = 0; i < n; i++) ids[i] = (int32_t)i;
  const char *path = qd_temporary_write(&folder, "x.i32", ids, (size_t)n * sizeof *ids);
  qd_heap_free(ids);
  return path;
}

static qd_status load(const char *from, int64_t vocabulary, int64_t max_positions, qd_tokens_request request) {
  qd_model model = {.vocabulary = vocabulary, .max_positions = max_positions};
  request.use = QD_TOKENS_EVALUATION, request.vocabulary = vocabulary;
  qd_tokenizer_close(tokenizer);
  qd_tokens_release(&tokens);
  return qd_text_load(comm, from, &model, &request, &tokens, &tokenizer);
}

static void expect_refusal(qd_status got, qd_status expected, const char *first, const char *second) {
  cr_expect_eq(got, expected, "%s", qd_error_text());
  cr_expect(strstr(qd_error_text(), first) != NULL && strstr(qd_error_text(), second) != NULL, "%s", qd_error_text());
  cr_expect_null(tokenizer); /* whoever fails leaves nothing open */
}

Test(text, a_row_is_as_long_as_the_model_unless_told) {
  const char *path = ids_up_to(6144);
  MUST(load(folder.path, 6144, 96, (qd_tokens_request){.dataset = path}));
  cr_expect_eq(tokens.sequence_tokens, 96);
  cr_expect_eq(tokens.rows, 64);
  MUST(load(folder.path, 6144, 131072, (qd_tokens_request){.dataset = path}));
  cr_expect_eq(tokens.sequence_tokens, 2048);
  MUST(load(folder.path, 6144, 100, (qd_tokens_request){.dataset = path, .sequence_tokens = 6, .rows = 3}));
  cr_expect_eq(tokens.sequence_tokens, 6);
  cr_expect_eq(tokens.rows, 3);
  for (int i = 0; i < 18; i++) cr_expect_eq(tokens.ids[i], i);
}

Test(text, a_row_longer_than_the_model_is_refused) {
  const char *path = ids_up_to(200);
  expect_refusal(load(folder.path, 200, 100, (qd_tokens_request){.dataset = path, .sequence_tokens = 101}), QD_EINVAL,
                 "--seqlen 101", "100");
  MUST(load(folder.path, 200, 100, (qd_tokens_request){.dataset = path, .sequence_tokens = 100}));
}

Test(text, ids_need_no_tokenizer) {
  const char *path = ids_up_to(50);
  MUST(load(folder.path, 50, 10, (qd_tokens_request){.dataset = path}));
  cr_expect_null(tokenizer);
  expect_refusal(load(folder.path, 49, 10, (qd_tokens_request){.dataset = path}), QD_EBADINPUT, "x.i32", "49");
  MUST(load(tokenizer_folder, 5000, 10, (qd_tokens_request){.dataset = path}));
  cr_expect_not_null(tokenizer); /* it is there: it can show the first row */
}

Test(text, plain_text_needs_one) {
  const char *path = qd_temporary_write_text(&folder, "x.txt", "Once upon a time, there was a girl. She had a dog and a cat.");
  expect_refusal(load(folder.path, 5000, 10, (qd_tokens_request){.dataset = path}), QD_ENOTFOUND, "has no tokenizer.json",
                 "x.txt");
  MUST(load(tokenizer_folder, 5000, 10, (qd_tokens_request){.dataset = path}));
  cr_assert_not_null(tokenizer);
  cr_expect_eq(tokens.ids[0], qd_tokenizer_bos(tokenizer));
  cr_expect_geq(tokens.text_tokens, 10);
}

Test(text, a_tokenizer_that_is_larger_than_the_vocabulary_is_refused) {
  const char *path = qd_temporary_write_text(&folder, "x.txt", "Once upon a time, there was a girl. She had a dog and a cat.");
  MUST(load(tokenizer_folder, 5000, 10, (qd_tokens_request){.dataset = path}));
  int64_t size = qd_tokenizer_size(tokenizer);
  char text[32];
  snprintf(text, sizeof text, "%lld", (long long)size);
  MUST(load(tokenizer_folder, size, 10, (qd_tokens_request){.dataset = path}));
  expect_refusal(load(tokenizer_folder, size - 1, 10, (qd_tokens_request){.dataset = path}), QD_EBADINPUT, tokenizer_folder,
                 text);
}

Test(text, what_is_wrong_with_the_text_is_said) {
  expect_refusal(load(tokenizer_folder, 5000, 10, (qd_tokens_request){.dataset = "no such file.txt"}), QD_ENOTFOUND,
                 "no such file.txt", "");
  const char *path = qd_temporary_write_text(&folder, "short.txt", "a");
  expect_refusal(load(tokenizer_folder, 5000, 10, (qd_tokens_request){.dataset = path}), QD_EBADINPUT, "short.txt", "10");
}
