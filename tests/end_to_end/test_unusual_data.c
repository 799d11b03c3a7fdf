/* Data that is unusual but right: it works, and what comes out is as good as it can be. */
#define _XOPEN_SOURCE 700
#include "tests/end_to_end/bad_input_support.h"
#include "tests/support/folder.h"

TestSuite(unusual_data, .init = setup, .fini = teardown, .timeout = 900);

/* ---- what is to be seen -------------------------------------------------------------------------------------------------- */

static void belongs_here(const char *kind) {
  const qd_table_row *row = qd_bad_input_row(kind);
  cr_expect_eq(row->exit_code, -1, "%s is refused, says the table", kind);
  cr_expect_str_eq(row->suite, criterion_current_test->category, "%s", kind);
  cr_expect_str_eq(row->test, criterion_current_test->name, "%s", kind);
}

/* The text that a command prints, after it ended well and without a number that is none. */
static char *printed(int ranks, const char *const *words) {
  qd_run run = run_words(ranks, words);
  char *text = run.out.text;
  cr_assert_eq(run.exit_code, 0, "%s: %s", words[0], run.err.text);
  for (int i = 0; i < 2; i++) {
    const char *said = i == 0 ? run.out.text : run.err.text;
    cr_expect(strstr(said, "nan") == NULL && strstr(said, " inf") == NULL && strstr(said, "null") == NULL, "%s", said);
  }
  run.out.text = NULL;
  qd_run_close(&run);
  return text;
}

/* "relative_error": X of the tensor, from `inspect --json`. */
static double error_of(const char *inspected, const char *name) {
  const char *at = strstr(inspected, name);
  cr_assert_not_null(at, "%s is not in the store", name);
  at = strstr(at, "\"relative_error\": ");
  cr_assert_not_null(at);
  return strtod(at + strlen("\"relative_error\": "), NULL);
}

#define INSPECT (const char *const[]){"inspect", "--json", out, NULL}

static void expect_same_of_three(const char **words) {
  const char *three = qd_temporary_path(&folder, "three");
  words[8] = three;
  qd_heap_free(printed(3, words));
  const char *difference = qd_folder_difference(out, three, false);
  cr_expect_null(difference, "%s", difference);
  qd_temporary_remove(three);
}

/* Quantized with these options, to the same bits by three ranks (once a kind); sound; and evaluated to a finite number. */
static char *expect_works(const char *const *kind_and_more) {
  const char *kind = kind_and_more[0], *const *more = kind_and_more + 1;
  const char *words[MAX_WORDS] = {QUANTIZE};
  int n = 9;
  while (*more != NULL) words[n++] = *more++;
  if (kind != NULL) belongs_here(kind);
  qd_heap_free(printed(0, words));
  if (kind != NULL) expect_same_of_three(words);
  qd_heap_free(printed(0, (const char *const[]){"verify", out, NULL}));
  qd_heap_free(printed(0, (const char *const[]){EVALUATE, NULL}));
  char *inspected = printed(0, INSPECT);
  qd_temporary_remove(out);
  return inspected;
}

/* The kind, or NULL where the table has none; then options. */
#define WORKS(...) expect_works((const char *const[]){__VA_ARGS__, NULL})

/* The error of one tensor is at most so much. */
static void expect_error(char *inspected, const char *name, double most) {
  double error = error_of(inspected, name);
  cr_expect(error >= 0 && error <= most, "%s: %g, at most %g is expected", name, error, most);
  qd_heap_free(inspected);
}

/* ---- values -------------------------------------------------------------------------------------------------------------- */

static const char up[] = "model.layers.1.mlp.up_proj.weight";
static float values[FFN * HIDDEN];

/* up_proj of block 1 with the usual values, to be changed. */
static void take_values(void) {
  list_tensors();
  for (int i = 0; i < FFN * HIDDEN; i++) values[i] = qd_made_value(up, i);
  find_tensor(up)->data = values;
}

static void fill_row(int row, float value) {
  for (int c = 0; c < HIDDEN; c++) values[row * HIDDEN + c] = value;
}

/* The inputs of q, k, v and of gate, up have a column that is always zero. */
Test(unusual_data, columns_that_are_always_zero) {
  static float norm[HIDDEN] = {1, 1, 1, 0, 1, 1, 1, 1};
  find_tensor("model.layers.0.input_layernorm.weight")->data = norm;
  find_tensor("model.layers.1.post_attention_layernorm.weight")->data = norm;
  make_model();
  expect_error(WORKS("a dead column"), up, 0.01);
  expect_error(WORKS(NULL, "--act-order", "dynamic", "--group-size", "4"), up, 0.01);
  static float nothing[HIDDEN];
  find_tensor("model.layers.0.input_layernorm.weight")->data = nothing; /* all columns of a stage */
  make_model();
  expect_error(WORKS(NULL), up, 0.01);
}

Test(unusual_data, rows_without_variety) {
  take_values();
  fill_row(0, 0);
  make_model();
  expect_error(WORKS("a row of zeros"), up, 0.01);
  expect_error(WORKS(NULL, "--method", "rtn", "--sym"), up, 0.01);
  fill_row(5, 0.03f);
  fill_row(7, -0.02f);
  make_model();
  expect_error(WORKS("a constant row"), up, 0.01);
  for (int r = 1; r < FFN; r++) fill_row(r, values[r]);
  for (int i = HIDDEN; i < FFN * HIDDEN; i++) values[i] = values[HIDDEN * (i / HIDDEN)];
  make_model();
  expect_error(WORKS(NULL), up, 0.01);
}

Test(unusual_data, rows_that_are_alike) {
  take_values();
  for (int i = HIDDEN; i < FFN * HIDDEN; i++) values[i] = values[i % HIDDEN];
  make_model();
  expect_error(WORKS("duplicated rows"), up, 0.01);
}

/* Its group is spoiled, the others are not: groups of 4 halve the weights that suffer. */
Test(unusual_data, a_weight_far_from_the_others) {
  take_values();
  values[3] = 1000;
  make_model();
  expect_error(WORKS("one huge outlier", "--group-size", "4"), up, 0.01);
  expect_error(WORKS(NULL, "--method", "rtn", "--group-size", "-1", "--bits", "2"), up, 0.2);
}

static void scale_values(float by) {
  take_values();
  for (int i = 0; i < FFN * HIDDEN; i++) values[i] *= by;
  make_model();
}

static void expect_warning(bool wanted, const char *const *more) {
  const char *words[MAX_WORDS] = {QUANTIZE};
  int n = 9;
  while (*more != NULL) words[n++] = *more++;
  qd_run run = run_words(0, words);
  const char *warning = strstr(run.err.text, "scales are so small that fp16 rounds them coarsely");
  cr_expect_eq(run.exit_code, 0, "%s", run.err.text);
  cr_expect_eq(warning != NULL, wanted, "%s", run.err.text);
  if (wanted) cr_expect_not_null(strstr(run.err.text, up), "%s", run.err.text);
  qd_run_close(&run);
  qd_temporary_remove(out);
}

#define WARNS(wanted, ...) expect_warning(wanted, (const char *const[]){__VA_ARGS__, NULL})

/* A scale below 2^-20 loses bits in fp16, which is told; one below 2^-24 becomes 2^-24, never 0; fp32 holds it. */
Test(unusual_data, weights_too_small_for_fp16_scales) {
  scale_values(1e-2f);
  WARNS(false, "--bits", "4");
  scale_values(1e-6f);
  WARNS(true, "--bits", "4");
  WARNS(false, "--bits", "4", "--scale-dtype", "f32");
  expect_error(WORKS("scales below fp16's"), up, 1);
  expect_error(WORKS(NULL, "--scale-dtype", "f32"), up, 0.01);
}

Test(unusual_data, weights_below_the_normal_numbers) {
  scale_values(1e-39f);
  expect_error(WORKS("denormal weights"), up, 1);
  expect_error(WORKS(NULL, "--scale-dtype", "f32", "--method", "rtn"), up, 1);
}

/* ---- amounts ------------------------------------------------------------------------------------------------------------- */

Test(unusual_data, few_tokens) {
  expect_error(WORKS("fewer calibration tokens than columns", "--nsamples", "1", "--seqlen", "4"), up, 0.1);
  expect_error(WORKS("sequences of one or two tokens", "--seqlen", "2"), up, 0.1);
  expect_error(WORKS(NULL, "--seqlen", "1"), up, 0.1);
  expect_error(WORKS(NULL, "--seqlen", "1", "--nsamples", "1"), up, 0.1);
}

Test(unusual_data, more_ranks_than_sequences) {
  expect_error(WORKS("more ranks than sequences", "--nsamples", "1"), up, 0.1);
  const char *const words[] = {"plan", "--model", model, "--nsamples", "2", "--seqlen", "16", "--ranks", "5", NULL};
  char *plan = printed(0, words);
  cr_expect_not_null(strstr(plan, "ranks 2 to 4 have no sequence to run: they only quantize rows"), "%s", plan);
  qd_heap_free(plan);
}

Test(unusual_data, a_model_of_one_block) {
  int n = 0;
  qd_made_tensor few[TENSORS];
  for (int t = 0; t < TENSORS; t++)
    if (strstr(names[t], "layers.1.") == NULL) few[n++] = tensors[t];
  qd_make_model(model, sound, few, n, 1);
  change_config("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1");
  expect_error(WORKS("a model of one block"), "model.layers.0.mlp.up_proj.weight", 0.01);
}

/* ---- files --------------------------------------------------------------------------------------------------------------- */

static void spoil_alignment(int blanks) {
  char *bytes, *header;
  size_t n;
  const char *path = qd_temporary_path(&folder, "model/model.safetensors");
  cr_assert_eq(qd_file_read(path, 1 << 20, &bytes, &n), QD_OK);
  uint64_t length;
  memcpy(&length, bytes, sizeof length);
  cr_assert_eq(qd_heap_new((size_t)length + (size_t)blanks, 1, &header), QD_OK);
  memcpy(header, bytes + 8, (size_t)length);
  memset(header + length, ' ', (size_t)blanks);
  qd_make_raw_safetensors(path, header, (size_t)length + (size_t)blanks, bytes + 8 + length, n - 8 - (size_t)length);
  qd_heap_free(header);
  qd_heap_free(bytes);
}

/* A header may have any length, so that tensors begin at odd addresses. */
Test(unusual_data, tensors_at_odd_addresses) {
  const char *aligned = qd_temporary_path(&folder, "aligned");
  qd_heap_free(printed(0, (const char *const[]){QUANTIZE, "--output", aligned, NULL}));
  for (int blanks = 1; blanks < 8; blanks += 2) {
    make_model();
    spoil_alignment(blanks);
    qd_heap_free(printed(0, (const char *const[]){QUANTIZE, NULL}));
    const char *difference = qd_folder_difference(aligned, out, false);
    cr_expect_null(difference, "%d blanks: %s", blanks, difference);
    qd_temporary_remove(out);
  }
  make_model();
  spoil_alignment(3);
  expect_error(WORKS("unaligned tensors"), up, 0.01);
}

Test(unusual_data, a_tensor_without_elements_that_is_not_needed) {
  qd_made_tensor more[TENSORS + 1];
  memcpy(more, tensors, sizeof tensors);
  more[TENSORS] = (qd_made_tensor){.name = "model.layers.0.self_attn.rotary_emb.inv_freq", .dtype = QD_F32, .rank = 1};
  qd_make_model(model, sound, more, TENSORS + 1, 1);
  expect_error(WORKS("a tensor of zero size"), up, 0.01);
}

/* Nothing is written there; as root permissions do not hold, so that the folder is only looked at afterwards. */
Test(unusual_data, a_model_that_may_only_be_read) {
  char before[4096];
  snprintf(before, sizeof before, "%s", qd_folder_names(model));
  cr_assert_eq(chmod(qd_temporary_path(&folder, "model/config.json"), 0444), 0);
  cr_assert_eq(chmod(qd_temporary_path(&folder, "model/model.safetensors"), 0444), 0);
  cr_assert_eq(chmod(model, 0555), 0);
  expect_error(WORKS("a model folder that is read-only"), up, 0.01);
  cr_expect_str_eq(qd_folder_names(model), before);
  cr_assert_eq(chmod(model, 0755), 0);
}

Test(unusual_data, names_with_blanks_and_other_letters) {
  const char *odd = qd_temporary_path(&folder, "m\xc3\xb6" "del 'of' $(me)\t\xff");
  cr_assert_eq(rename(model, odd), 0);
  snprintf(model, sizeof model, "%s", odd);
  snprintf(out, sizeof out, "%s", qd_temporary_path(&folder, "\xe8\xbe\x93\xe5\x87\xba one"));
  const char *text = qd_temporary_path(&folder, "t\xc3\xa9xte un.i32");
  cr_assert_eq(rename(ids, text), 0);
  snprintf(ids, sizeof ids, "%s", text);
  expect_error(WORKS("names with blanks and letters beyond ASCII"), up, 0.01);
}

/* ---- texts --------------------------------------------------------------------------------------------------------------- */

static const char vocabulary[] = "\"a\": 0, \"b\": 1, \"\\n\": 2, \"\\r\": 3, \"\\ufeff\": 4, \"ab\": 5, \" \": 6, \"aba\": 7";

/* The digest of the tokens that the store was made with. */
static void take_digest(const char *text, char digest[64]) {
  const char *path = qd_temporary_write_text(&folder, "text.txt", text);
  char *inspected;
  qd_heap_free(printed(0, (const char *const[]){QUANTIZE_TEXT(path), NULL}));
  inspected = printed(0, INSPECT);
  const char *at = strstr(inspected, "\"text_tokens\": ");
  cr_assert_not_null(at, "%s", inspected);
  snprintf(digest, 64, "%.*s", (int)strcspn(at, ",\n}"), at);
  qd_heap_free(inspected);
  qd_temporary_remove(out);
}

#define LINES(end) "abab" end "aabb" end "baba" end "abba" end "bbaa" end "aaaa" end "bbbb" end "abaa" end

static void expect_tokens(const char *kind, const char *text, int n) {
  char digest[64], wanted[64];
  if (kind != NULL) belongs_here(kind);
  take_digest(text, digest);
  snprintf(wanted, sizeof wanted, "\"text_tokens\": %d", n);
  cr_expect_str_eq(digest, wanted, "%s", text);
}

/* As PyTorch's tools read a text, line ends are as they are in the file, and so is a mark of the byte order. */
Test(unusual_data, line_ends_and_marks_are_text) {
  write_tokenizer("null", "BPE", vocabulary, "");
  expect_tokens(NULL, LINES("\n"), 40);
  expect_tokens("a text with CRLF", LINES("\r\n"), 48);
  expect_tokens("a text with a BOM", "\xef\xbb\xbf" LINES("\n"), 41);
}

Test(unusual_data, merges_in_both_spellings) {
  belongs_here("merges in both spellings");
  write_tokenizer("null", "BPE", vocabulary, "\"a b\", \"ab a\"");
  char old[64], new[64];
  take_digest(LINES("\n"), old);
  write_tokenizer("null", "BPE", vocabulary, "[\"a\", \"b\"], [\"ab\", \"a\"]");
  take_digest(LINES("\n"), new);
  cr_expect_str_eq(old, new);
  cr_expect_str_neq(old, "\"text_tokens\": 40");
}

/* Nothing fails: sequences begin anywhere, again and again.  The log file has what was said before it was opened. */
Test(unusual_data, short_texts_are_told) {
  char log[4096] = "";
  belongs_here("a text with fewer tokens than its sequences take together");
  write_tokenizer("null", "BPE", vocabulary, "");
  const char *path = qd_temporary_write_text(&folder, "text.txt", LINES("\n"));
  qd_heap_free(printed(0, (const char *const[]){QUANTIZE_TEXT(path), "--nsamples", "3", NULL}));
  FILE *file = fopen(qd_temporary_path(&folder, "out/qdist.log"), "r");
  cr_assert_not_null(file);
  cr_assert_gt(fread(log, 1, sizeof log - 1, file), 0);
  fclose(file);
  cr_expect_not_null(strstr(log, "calibration: 3 sequences of 16 tokens, covering 28 of the text's 40 tokens"), "%s", log);
  cr_expect_not_null(strstr(log, "Z warning: the text is short: its 40 tokens are fewer than the 48 "), "%s", log);
}
