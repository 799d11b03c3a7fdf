#include "pipeline/evaluate/perplexity.h"

#include "pipeline/text.h"
#include "tests/pipeline/job_support.h"

static qd_temporary_folder folder;
static void open_folder(void) { qd_temporary_folder_open(&folder); }
static void close_folder(void) { qd_temporary_folder_close(&folder); }
TestSuite(perplexity, .init = open_folder, .fini = close_folder);

static const place fast = {"cpu", NULL, 1};

static qd_status evaluate(qd_evaluation_request request, qd_evaluation *out) {
  qd_comm *comm = open_team();
  qd_device device = open_device(fast);
  qd_status status = qd_evaluate(&request, comm, &device, out);
  qd_device_close(&device);
  qd_team_close(comm, false, 0);
  return status;
}

/* ---- by hand, in double ------------------------------------------------------------------------------------------------- */

static double log_sum_exp(const float *row, int64_t n) {
  double top = -INFINITY, sum = 0;
  for (int64_t i = 0; i < n; i++) top = fmax(top, (double)row[i]);
  for (int64_t i = 0; i < n; i++) sum += exp((double)row[i] - top);
  return log(sum) + top;
}

static int64_t argmax(const float *row, int64_t n) {
  int64_t best = 0;
  for (int64_t i = 1; i < n; i++) best = row[i] > row[best] ? i : best;
  return best;
}

static const float *row_of(const logits *l, int64_t window, int64_t position) {
  return l->value + (window * l->tokens + position) * l->vocabulary;
}

typedef struct by_hand {
  double mean_nll, standard_error, kl, agreement;
  int64_t count;
} by_hand;

/* Positions first .. T - 2 predict their next token. */
static by_hand measure(const logits *l, const logits *reference, const int32_t *ids, int64_t first) {
  by_hand m = {0};
  double squares = 0;
  for (int64_t w = 0; w < l->windows; w++)
    for (int64_t t = first; t < l->tokens - 1; t++, m.count++) {
      const float *row = row_of(l, w, t), *other = reference ? row_of(reference, w, t) : row;
      double sum = log_sum_exp(row, l->vocabulary), other_sum = log_sum_exp(other, l->vocabulary);
      double nll = sum - (double)row[ids[w * l->tokens + t + 1]];
      m.mean_nll += nll, squares += nll * nll;
      m.agreement += argmax(row, l->vocabulary) == argmax(other, l->vocabulary);
      for (int64_t v = 0; v < l->vocabulary; v++) {
        double log_p = (double)other[v] - other_sum, log_q = (double)row[v] - sum;
        m.kl += exp(log_p) * (log_p - log_q);
      }
    }
  double n = (double)m.count;
  m.mean_nll /= n, m.kl /= n, m.agreement /= n;
  m.standard_error = exp(m.mean_nll) * sqrt((squares / n - m.mean_nll * m.mean_nll) / (n - 1));
  return m;
}

static bool near(double a, double b, double relative) { return fabs(a - b) <= relative * fabs(b); }

static void expect_measured(const qd_evaluation *got, by_hand wanted, double relative) {
  cr_expect(near(got->mean_nll, wanted.mean_nll, relative), "%.10g, by hand %.10g", got->mean_nll, wanted.mean_nll);
  cr_expect(near(got->perplexity, exp(wanted.mean_nll), 10 * relative));
  cr_expect(near(got->standard_error, wanted.standard_error, 100 * relative), "%g, by hand %g", got->standard_error,
            wanted.standard_error);
  cr_expect_eq(got->tokens, wanted.count);
}

/* ---- small models ------------------------------------------------------------------------------------------------------- */

static const char *ids_of(const golden *g) {
  return qd_temporary_write(&folder, "ids.i32", g->ids, (size_t)g->expected.tokens * sizeof *g->ids);
}

/* One window: the logits are transformers'. */
Test(perplexity, of_one_window_against_transformers) {
  golden g = golden_open("qwen2");
  qd_evaluation got;
  qd_evaluation_request request = {
      .model = g.path, .dataset = ids_of(&g), .sequence_tokens = g.expected.tokens, .compute = QD_COMPUTE_FP32};
  MUST(evaluate(request, &got));
  expect_measured(&got, measure(&g.expected, NULL, g.ids, 0), 1e-5);
  cr_expect_eq(got.windows, 1);
  cr_expect_eq(got.arithmetic, QD_ARITHMETIC_F32);
  cr_expect(!got.has_reference);
  request.style = QD_PPL_LLAMA_CPP; /* no tokenizer, so no BOS */
  MUST(evaluate(request, &got));
  expect_measured(&got, measure(&g.expected, NULL, g.ids, g.expected.tokens / 2), 1e-5);
  golden_close(&g);
}

Test(perplexity, of_windows_and_of_the_first_of_them) {
  enum { T = 8 };
  golden g = golden_open("llama");
  qd_evaluation got;
  logits l = run_model(g.path, QD_COMPUTE_BF16, fast, g.ids, 3, T);
  qd_evaluation_request request = {.model = g.path, .dataset = ids_of(&g), .sequence_tokens = T, .compute = QD_COMPUTE_BF16};
  MUST(evaluate(request, &got));
  expect_measured(&got, measure(&l, NULL, g.ids, 0), 1e-6);
  cr_expect_eq(got.windows, 3);
  cr_expect_eq(got.arithmetic, QD_ARITHMETIC_BF16_PAIRS);
  request.max_windows = l.windows = 2, request.style = QD_PPL_LLAMA_CPP;
  MUST(evaluate(request, &got));
  expect_measured(&got, measure(&l, NULL, g.ids, T / 2), 1e-6);
  cr_expect_eq(got.windows, 2);
  qd_heap_free(l.value);
  golden_close(&g);
}

Test(perplexity, divergence_from_a_reference) {
  enum { T = 12 };
  golden g = golden_open("llama");
  qd_evaluation got;
  const char *ids = ids_of(&g);
  char reference[PATH_BYTES];
  snprintf(reference, sizeof reference, "%s", golden_path("qwen3"));
  logits l = run_model(g.path, QD_COMPUTE_FP32, fast, g.ids, 2, T),
         r = run_model(reference, QD_COMPUTE_FP32, fast, g.ids, 2, T);
  by_hand wanted = measure(&l, &r, g.ids, 0), of_reference = measure(&r, NULL, g.ids, 0);
  MUST(evaluate((qd_evaluation_request){.model = g.path, .reference = reference, .dataset = ids, .sequence_tokens = T}, &got));
  expect_measured(&got, wanted, 1e-6);
  cr_assert(got.has_reference);
  double kl = got.divergence.kl.value; /* terms below e^-16 are left out */
  cr_expect(near(kl, wanted.kl, 1e-4), "%g, by hand %g", kl, wanted.kl);
  cr_expect_eq(got.divergence.top1.value, wanted.agreement);
  cr_expect(near(got.reference_mean_nll, of_reference.mean_nll, 1e-6));
  MUST(evaluate((qd_evaluation_request){.model = g.path, .reference = g.path, .dataset = ids, .sequence_tokens = T}, &got));
  cr_expect_eq(got.divergence.kl.value, 0);
  cr_expect_eq(got.divergence.top1.value, 1);
  cr_expect(near(got.reference_mean_nll, got.mean_nll, 1e-14));
  qd_heap_free(l.value);
  qd_heap_free(r.value);
  golden_close(&g);
}

/* Each in the arithmetic it has, on one device: the numbers are those of either alone. */
Test(perplexity, of_a_store_and_a_reference_in_two_arithmetics) {
  golden g = golden_open("llama_bf16");
  qd_evaluation amx, pairs, other, both;
  char store[QD_TEMPORARY_PATH_BYTES];
  snprintf(store, sizeof store, "%s", qd_temporary_path(&folder, "store"));
  qd_job job = small_job(g.path, store);
  job.compute = QD_COMPUTE_BF16_AMX;
  MUST(run_job(&job));
  qd_evaluation_request request = {.model = store, .dataset = ids_of(&g), .sequence_tokens = 12};
  MUST(evaluate(request, &amx));
  request.compute = QD_COMPUTE_BF16;
  MUST(evaluate(request, &other));
  request.model = g.path;
  MUST(evaluate(request, &pairs));
  request.model = store, request.reference = g.path, request.compute = QD_COMPUTE_MODEL;
  MUST(evaluate(request, &both));
  cr_expect_neq(amx.mean_nll, other.mean_nll, "the arithmetic leaves no trace");
  cr_expect_eq(both.arithmetic, QD_ARITHMETIC_BF16_AMX);
  cr_expect_eq(both.mean_nll, amx.mean_nll);
  cr_expect(near(both.reference_mean_nll, pairs.mean_nll, 1e-14), "%.17g, alone %.17g", both.reference_mean_nll,
            pairs.mean_nll);
  golden_close(&g);
}

/* The same store, as it is and with rounded activations: both planned and computed each in its own arithmetic, the head too. */
Test(perplexity, of_int8_against_the_store_in_its_own_arithmetic) {
  enum { T = 128 };
  char store[PATH_BYTES], text[PATH_BYTES];
  snprintf(text, sizeof text, "%s", write_ids(&folder, "text.i32", 3 * T));
  for (int bf16 = 0; bf16 < 2; bf16++) {
    qd_evaluation own, fp32, int8, both;
    snprintf(store, sizeof store, "%s", qd_temporary_path(&folder, bf16 ? "bf16" : "f32"));
    qd_job job = small_job(golden_path(bf16 ? "llama_bf16" : "llama"), store);
    gptq_job(&job, text, QD_ORDER_DYNAMIC);
    job.head_bits = 8;
    MUST(run_job(&job));
    qd_evaluation_request request = {.model = store, .dataset = text, .sequence_tokens = T};
    MUST(evaluate(request, &own));
    request.compute = QD_COMPUTE_FP32;
    MUST(evaluate(request, &fp32));
    request.compute = QD_COMPUTE_INT8;
    MUST(evaluate(request, &int8));
    request.reference = store;
    MUST(evaluate(request, &both));
    cr_expect(both.arithmetic == QD_ARITHMETIC_INT8 && int8.arithmetic == QD_ARITHMETIC_INT8);
    cr_expect_eq(both.reference_arithmetic, bf16 ? QD_ARITHMETIC_BF16_PAIRS : QD_ARITHMETIC_F32);
    cr_expect_eq(both.mean_nll, int8.mean_nll);
    cr_expect(near(both.reference_mean_nll, own.mean_nll, 1e-14), "%.17g, alone %.17g", both.reference_mean_nll, own.mean_nll);
    cr_expect(both.divergence.kl.value > 1e-8 && both.divergence.kl.value < 1e-2, "KL %g", both.divergence.kl.value);
    request.reference_compute = QD_COMPUTE_FP32;
    MUST(evaluate(request, &both));
    cr_expect_eq(both.reference_arithmetic, QD_ARITHMETIC_F32);
    cr_expect(near(both.reference_mean_nll, fp32.mean_nll, 1e-14), "%.17g, alone %.17g", both.reference_mean_nll,
              fp32.mean_nll);
    cr_expect_neq(int8.mean_nll, fp32.mean_nll, "int8 leaves no trace");
  }
}

/* ---- with a tokenizer --------------------------------------------------------------------------------------------------- */

static const char demo[] = QDIST_SOURCE_DIR "/jobs/demo/qdist-tiny";
static const char words[] =
    "The packages are checked before the release, and every maintainer reads what the others have written about it. "
    "A file that is not there cannot be read; whoever looks for it finds out soon enough, and asks again later.";

Test(perplexity, style_of_llama_cpp_begins_windows_with_bos) {
  enum { T = 12 };
  qd_model model = {.vocabulary = 1 << 20, .max_positions = 512};
  qd_tokens tokens;
  qd_tokenizer *tokenizer;
  qd_evaluation got;
  const char *path = qd_temporary_write_text(&folder, "words.txt", words);
  qd_comm *comm = open_team();
  MUST(qd_text_load(comm, demo, &model,
                    &(qd_tokens_request){.dataset = path, .use = QD_TOKENS_EVALUATION, .sequence_tokens = T}, &tokens,
                    &tokenizer));
  cr_assert_geq(tokens.rows, 3);
  cr_assert(qd_tokenizer_adds_bos(tokenizer));
  logits plain = run_model(demo, QD_COMPUTE_FP32, fast, tokens.ids, tokens.rows, T);
  qd_evaluation_request request = {.model = demo, .dataset = path, .sequence_tokens = T, .compute = QD_COMPUTE_FP32};
  MUST(evaluate(request, &got));
  expect_measured(&got, measure(&plain, NULL, tokens.ids, 0), 1e-6);
  for (int64_t w = 0; w < tokens.rows; w++) tokens.ids[w * T] = qd_tokenizer_bos(tokenizer);
  logits begun = run_model(demo, QD_COMPUTE_FP32, fast, tokens.ids, tokens.rows, T);
  request.style = QD_PPL_LLAMA_CPP;
  MUST(evaluate(request, &got));
  expect_measured(&got, measure(&begun, NULL, tokens.ids, T / 2), 1e-6);
  qd_heap_free(plain.value);
  qd_heap_free(begun.value);
  qd_tokens_release(&tokens);
  qd_tokenizer_close(tokenizer);
  qd_team_close(comm, false, 0);
}

/* ---- refusals ----------------------------------------------------------------------------------------------------------- */

static void expect_refusal(qd_evaluation_request request, qd_status expected, const char *text) {
  qd_evaluation got;
  cr_expect_eq(evaluate(request, &got), expected, "%s", qd_error_text());
  cr_expect(strstr(qd_error_text(), text) != NULL, "%s", qd_error_text());
}

Test(perplexity, says_what_cannot_be_measured) {
  golden g = golden_open("llama");
  const char *ids = ids_of(&g), *text = qd_temporary_write_text(&folder, "words.txt", words);
  expect_refusal((qd_evaluation_request){.model = g.path, .dataset = ids, .sequence_tokens = 2, .style = QD_PPL_LLAMA_CPP},
                 QD_EINVAL, "--seqlen 2");
  expect_refusal((qd_evaluation_request){.model = g.path, .dataset = ids, .sequence_tokens = 1}, QD_EINVAL, "--seqlen 1");
  expect_refusal((qd_evaluation_request){.model = g.path, .dataset = ids, .sequence_tokens = 25}, QD_EBADINPUT, "ids.i32");
  expect_refusal((qd_evaluation_request){.model = g.path, .dataset = text}, QD_ENOTFOUND, "tokenizer");
  expect_refusal((qd_evaluation_request){.model = g.path, .reference = demo, .dataset = ids, .sequence_tokens = 8},
                 QD_EBADINPUT, "vocabulary");
  expect_refusal((qd_evaluation_request){.model = demo, .dataset = text, .sequence_tokens = 1 << 20}, QD_EINVAL, "positions");
  expect_refusal((qd_evaluation_request){.model = folder.path, .dataset = ids}, QD_ENOTFOUND, "config.json");
  expect_refusal((qd_evaluation_request){.model = g.path, .reference = folder.path, .dataset = ids}, QD_ENOTFOUND,
                 "config.json");
  qd_evaluation got;
  MUST(evaluate((qd_evaluation_request){.model = g.path, .dataset = ids, .sequence_tokens = 3, .style = QD_PPL_LLAMA_CPP},
                &got));
  cr_expect_eq(got.tokens, 8);
  golden_close(&g);
}

/* ---- real texts --------------------------------------------------------------------------------------------------------- */

static const char *path_of_data(const char *name) {
  static char path[PATH_BYTES];
  const char *data = getenv("QDIST_TEST_DATA");
  if (data == NULL || *data == '\0') cr_skip_test("QDIST_TEST_DATA does not name a folder with golden values of real models");
  snprintf(path, sizeof path, "%s/%s", data, name);
  return path;
}

/* Bytes of the first `characters` of UTF-8 text. */
static size_t prefix_bytes(const char *text, size_t n, int64_t characters) {
  size_t i = 0;
  for (; i < n; i++)
    if (((unsigned char)text[i] & 0xc0) != 0x80 && characters-- == 0) break;
  return i;
}

static const char *write_prefix(const qd_json *document) {
  char name[256], *text;
  size_t n;
  snprintf(name, sizeof name, "data/text/%s", qd_json_text(qd_json_get(document, "text")));
  MUST(qd_file_read(path_of_data(name), (size_t)1 << 28, &text, &n));
  const char *path = qd_temporary_write(&folder, "prefix.txt", text,
                                        prefix_bytes(text, n, qd_json_integer(qd_json_get(document, "tokenized_chars"))));
  qd_heap_free(text);
  return path;
}

static void expect_convention(const qd_json *values, const char *key, qd_evaluation_request request, double relative) {
  qd_evaluation got;
  double wanted = qd_json_number(qd_json_get(qd_json_get(values, key), "mean_nll"));
  cr_assert_gt(wanted, 0);
  MUST(evaluate(request, &got));
  cr_log_info("%s: mean NLL %.9g, transformers %.9g, relative difference %.2g; %.1f s", key, got.mean_nll, wanted,
              fabs(got.mean_nll - wanted) / wanted, got.seconds);
  cr_expect(near(got.mean_nll, wanted, relative), "%s: %.9g instead of %.9g", key, got.mean_nll, wanted);
}

static void check_golden(const char *name, qd_compute compute, qd_ppl_style style, double relative) {
  char file[128];
  qd_json *document;
  snprintf(file, sizeof file, "golden/%s.json", name);
  MUST(qd_json_read(path_of_data(file), (size_t)64 << 20, &document));
  qd_evaluation_request request = {.model = demo,
                                   .dataset = write_prefix(document),
                                   .style = style,
                                   .compute = compute,
                                   .pack = true,
                                   .sequence_tokens = qd_json_integer(qd_json_get(document, "window")),
                                   .max_windows = qd_json_integer(qd_json_get(document, "windows"))};
  const qd_json *values = qd_json_get(document, compute == QD_COMPUTE_FP32 ? "fp32" : "bf16");
  expect_convention(values, style == QD_PPL_GPTQ ? "gptq_convention" : "llamacpp_convention", request, relative);
  qd_json_free(document);
}

/* 32,768 tokens each.  PyTorch rounds to bf16 after every operation, qdist does not: hence the wider bound. */
#define FP32_BOUND 1e-5
#define BF16_BOUND 3e-3

Test(perplexity, golden_text_fp32_gptq) { check_golden("qdist-tiny", QD_COMPUTE_FP32, QD_PPL_GPTQ, FP32_BOUND); }
Test(perplexity, golden_text_fp32_llama_cpp) { check_golden("qdist-tiny", QD_COMPUTE_FP32, QD_PPL_LLAMA_CPP, FP32_BOUND); }
Test(perplexity, golden_text_bf16_gptq) { check_golden("qdist-tiny", QD_COMPUTE_BF16, QD_PPL_GPTQ, BF16_BOUND); }
Test(perplexity, golden_wikitext2_fp32_gptq) { check_golden("qdist-tiny.wikitext2", QD_COMPUTE_FP32, QD_PPL_GPTQ, FP32_BOUND); }
Test(perplexity, golden_wikitext2_bf16_llama_cpp) {
  check_golden("qdist-tiny.wikitext2", QD_COMPUTE_BF16, QD_PPL_LLAMA_CPP, BF16_BOUND);
}
