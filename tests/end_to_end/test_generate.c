/* Text over ranks: the same tokens and less memory for each; what a signal ends. */
#include <criterion/criterion.h>

#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "kernels/base/heap.h"
#include "storage/json.h"
#include "tests/support/llama_maker.h"
#include "tests/support/program.h"
#include "tests/support/temporary_folder.h"

static qd_temporary_folder folder;
static void open_folder(void) { qd_temporary_folder_open(&folder); }
static void close_folder(void) { qd_temporary_folder_close(&folder); }
TestSuite(generate, .init = open_folder, .fini = close_folder, .timeout = 600);

/* A letter a token. */
static const char tokenizer[] =
    "{\"version\": \"1.0\", \"added_tokens\": [], \"normalizer\": null, \"post_processor\": null, "
    " \"decoder\": {\"type\": \"Fuse\"},"
    " \"pre_tokenizer\": null, \"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0, \"b\": 1, \"c\": 2, \"d\": 3, \"e\": 4,"
    " \"f\": 5, \"g\": 6, \"h\": 7}, \"merges\": []}}";

static const char *make_model(const char *name, qd_made_llama widths) {
  char file[64];
  const char *path = qd_temporary_make_folder(&folder, name);
  qd_make_llama(path, &widths);
  snprintf(file, sizeof file, "%s/tokenizer.json", name);
  qd_temporary_write_text(&folder, file, tokenizer);
  return path;
}

/* Of --json; the tokens as text. */
typedef struct answer {
  char      ids[2048], arithmetic[16];
  long long new_tokens, planned, peak;
} answer;

static answer ask(int ranks, const char *options) {
  qd_json *document;
  char *ids;
  answer a;
  qd_run run = qd_program(ranks, "generate --json %s", options);
  cr_assert_eq(run.exit_code, 0, "%d ranks: %s", ranks, run.err.text);
  cr_assert_eq(qd_json_parse(run.out.text, run.out.n, "answer", &document), QD_OK, "%s", run.out.text);
  cr_assert_eq(qd_json_print(qd_json_get(document, "new_ids"), 0, &ids), QD_OK);
  snprintf(a.ids, sizeof a.ids, "%s", ids);
  qd_heap_free(ids);
  snprintf(a.arithmetic, sizeof a.arithmetic, "%s", qd_json_text(qd_json_get(document, "arithmetic")));
  a.new_tokens = qd_json_integer(qd_json_get(document, "new_tokens"));
  a.planned = qd_json_integer(qd_json_get(document, "planned_host_bytes"));
  a.peak = qd_json_integer(qd_json_get(document, "peak_host_bytes"));
  qd_json_free(document);
  qd_run_close(&run);
  return a;
}

static void quantize(const char *model, const char *store, const char *how) {
  qd_run run = qd_program(0, "quantize -m %s -o %s %s", model, store, how);
  cr_assert_eq(run.exit_code, 0, "%s", run.err.text);
  qd_run_close(&run);
}

/* What stores are made of here: codes, and codes with outliers, of dense and sparse blocks. */
static void make_stores(const char **model, char codes[1024], char outliers[1024]) {
  qd_made_llama widths = {.dtype = QD_BF16, .blocks = 4, .hidden = 32, .ffn = 48, .heads = 4, .kv_heads = 2, .vocabulary = 24,
                          .positions = 256, .experts = 4, .top_k = 2, .expert_ffn = 16, .shared_ffn = 16};
  const char *text = qd_temporary_path(&folder, "text.i32");
  char how[2048];
  *model = make_model("model", widths);
  qd_make_ids(text, 4 * 64, widths.vocabulary, 1);
  snprintf(codes, 1024, "%s", qd_temporary_path(&folder, "store"));
  snprintf(outliers, 1024, "%s", qd_temporary_path(&folder, "outliers"));
  quantize(*model, codes, "--method rtn --group-size 16");
  snprintf(how, sizeof how, "--method spqr --outlier-threshold 0.1 --seqlen 64 -d %s", text);
  quantize(*model, outliers, how);
}

static answer expect_same_tokens(const char *options, long long new_tokens, const int *ranks, int n) {
  answer alone = ask(0, options);
  cr_expect_eq(alone.new_tokens, new_tokens);
  for (int i = 0; i < n; i++) {
    answer a = ask(ranks[i], options);
    cr_expect_str_eq(a.ids, alone.ids, "%d ranks: %s, alone %s", ranks[i], a.ids, alone.ids);
  }
  return alone;
}

/* Dense blocks and sparse ones, codes with and without outliers, and originals, on more ranks than there are blocks. */
Test(generate, the_same_tokens_on_any_number_of_ranks) {
  static const int ranks[] = {1, 2, 3, 8};
  char options[3][2048], store[1024], outliers[1024];
  const char *model;
  make_stores(&model, store, outliers);
  snprintf(options[0], sizeof options[0], "-m %s -p abcabh --max-new-tokens 30 --temperature 1 --seed 5", store);
  snprintf(options[1], sizeof options[1], "-m %s -p hg --max-new-tokens 20 --compute-dtype fp32 --threads 2", model);
  snprintf(options[2], sizeof options[2], "-m %s -p abcabh --max-new-tokens 20 --temperature 1 --seed 6", outliers);
  for (int o = 0; o < 3; o++) expect_same_tokens(options[o], o == 0 ? 30 : 20, ranks, 4);
}

Test(generate, the_same_tokens_in_int8) {
  static const int ranks[] = {1, 2, 3};
  char options[2][2048], store[2][1024];
  const char *model;
  make_stores(&model, store[0], store[1]);
  for (int o = 0; o < 2; o++) {
    snprintf(options[o], sizeof options[o],
             "-m %s -p abcabh --max-new-tokens 20 --temperature 1 --seed 5 --arithmetic int8 --threads %d", store[o], 1 + o);
    answer a = expect_same_tokens(options[o], 20, ranks, 3);
    cr_expect_str_eq(a.arithmetic, "int8");
#if !defined(__SANITIZE_ADDRESS__) /* whose memory comes on top */
    cr_expect_leq(a.peak, a.planned + a.planned / 10, "%lld of %lld planned", a.peak, a.planned);
#endif
  }
}

/* 80 MB of weights. */
Test(generate, memory_falls_with_ranks) {
#if defined(__SANITIZE_ADDRESS__)
  cr_skip_test("SKIPPED: AddressSanitizer's memory is in the way");
#endif
  char options[2048];
  qd_made_llama widths = {.dtype = QD_F32, .blocks = 24, .hidden = 256, .ffn = 768, .heads = 4, .kv_heads = 4, .vocabulary = 24,
                          .positions = 4096};
  snprintf(options, sizeof options, "-m %s -p abc --max-new-tokens 9", make_model("model", widths));
  answer alone = ask(1, options), of_four = ask(4, options);
  cr_expect_str_eq(of_four.ids, alone.ids);
  cr_expect_leq(alone.peak, alone.planned + alone.planned / 10, "%lld of %lld planned", alone.peak, alone.planned);
  cr_expect_leq(of_four.peak, of_four.planned + of_four.planned / 10, "%lld of %lld planned", of_four.peak, of_four.planned);
  cr_expect_leq(of_four.peak + (40 << 20), alone.peak, "%lld alone, %lld of four ranks", alone.peak, of_four.peak);
  cr_expect_leq(of_four.planned + (40 << 20), alone.planned, "%lld alone, %lld of four ranks", alone.planned, of_four.planned);
}

static void expect_stopped(int ranks, int signal) {
  qd_made_llama widths = {.dtype = QD_F32, .blocks = 2, .hidden = 16, .ffn = 16, .heads = 2, .kv_heads = 2, .vocabulary = 24,
                          .positions = 1 << 18};
  qd_run run = qd_program_start(ranks, "generate -m %s -p abc --max-new-tokens 200000", make_model("model", widths));
  cr_assert(qd_run_until(&run, "plan:"), "%s", run.err.text);
  qd_run_signal_ranks(&run, signal);
  qd_run_finish(&run);
  cr_expect_not(run.timed_out);
  cr_expect_eq(run.exit_code, 75, "exit code %d: %s", run.exit_code, run.err.text);
  cr_expect_not_null(strstr(run.err.text, "a signal ended it after"), "%s", run.err.text);
  qd_run_close(&run);
}

Test(generate, a_signal_ends_it) { expect_stopped(0, SIGTERM); }
Test(generate, ctrl_c_ends_it) { expect_stopped(0, SIGINT); }
Test(generate, a_signal_ends_all_ranks) { expect_stopped(3, SIGTERM); }

/* What is printed is the text, and nothing but it. */
Test(generate, prints_the_text) {
  qd_made_llama widths = {.dtype = QD_F32, .blocks = 1, .hidden = 16, .ffn = 16, .heads = 2, .kv_heads = 2, .vocabulary = 8,
                          .positions = 64};
  const char *model = make_model("model", widths), *file = qd_temporary_write_text(&folder, "prompt.txt", "abc");
  qd_run run = qd_program(2, "generate -m %s --prompt-file %s --max-new-tokens 12", model, file);
  cr_assert_eq(run.exit_code, 0, "%s", run.err.text);
  cr_expect_eq(run.out.n, 13, "12 letters and a newline, got: %s", run.out.text);
  cr_expect_eq(strspn(run.out.text, "abcdefgh"), 12);
  cr_expect_not_null(strstr(run.err.text, "3 prompt tokens"), "%s", run.err.text);
  qd_run_close(&run);
}
