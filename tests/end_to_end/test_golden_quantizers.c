/* Against the public reference code of GPTQ, of SpQR and of rounding to nearest on real models: the rows of
 * reference_quantizers.json, its token windows beside it.  Promises: with --compat reference the reference's figures; by
 * default an error (of SpQR a perplexity) no larger than its best recipe's; and in every single linear GPTQ's error below that
 * of rounding.  QDIST_TEST_FULL=1 does what takes long as well. */
#include "storage/json.h"
#include "tests/support/program.h"
#include "tests/support/temporary_folder.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_JOBS = 64, N_RANKS = 2 };

typedef struct job {
  const char *key;
  bool gptq, mse, reference; /* reference: --compat reference with the row's options; else our defaults */
  int64_t bits, group;
  const char *act_order;
  double ppl_min, ppl_max, error; /* wanted; error 0: no such row, the job is there to be compared */
  bool done;
  double perplexity;              /* 0: not evaluated */
  double mean_error;
  qd_json *facts;                 /* what inspect tells of the store, by linear as well */
} job;

typedef struct model {
  const char *name, *data;
  bool full;
  int64_t window, calibration_windows;
  qd_json *document;
  job job[MAX_JOBS];
  int n;
} model;

static qd_temporary_folder folder;
static void open_folder(void) { qd_temporary_folder_open(&folder); }
static void close_folder(void) { qd_temporary_folder_close(&folder); }
TestSuite(golden_quantizers, .init = open_folder, .fini = close_folder);

#define MUST(call) cr_assert_eq((call), QD_OK, "%s", qd_error_text())

/* ---- the rows ------------------------------------------------------------------------------------------------------------ */

static double number(const qd_json *object, const char *key) {
  const qd_json *value = qd_json_get(object, key);
  cr_assert(qd_json_is_number(value), "there is no number \"%s\"", key);
  return qd_json_number(value);
}

static const char *text_or(const qd_json *object, const char *key, const char *otherwise) {
  const char *text = qd_json_text(qd_json_get(object, key));
  return text != NULL ? text : otherwise;
}

static bool flag(const qd_json *object, const char *key) {
  bool out;
  MUST(qd_json_take_bool(object, "a row", key, false, &out));
  return out;
}

static job *add_job(model *m, job j) {
  cr_assert_lt(m->n, MAX_JOBS);
  m->job[m->n] = j;
  return &m->job[m->n++];
}

static void add_row(model *m, const char *key, const qd_json *row) {
  const char *method = text_or(row, "method", "");
  bool gptq = strcmp(method, "gptq") == 0;
  if (!gptq && strcmp(method, "rtn") != 0) return;
  add_job(m, (job){.key = key, .gptq = gptq, .reference = true,
                   .mse = flag(row, "mse"), .act_order = text_or(row, "act_order", "none"),
                   .bits = (int64_t)number(row, "bits"), .group = (int64_t)number(row, "group_size"),
                   .ppl_min = number(row, "ppl_min"), .ppl_max = number(row, "ppl_max"),
                   .error = number(row, "mean_relative_error")});
}

/* The row of the smallest error with these bits and this group; NULL when none of them is GPTQ's. */
static const job *best_row(const model *m, int n_rows, int64_t bits, int64_t group) {
  const job *best = NULL;
  bool has_gptq = false;
  for (const job *j = m->job; j < m->job + n_rows; j++) {
    if (j->bits != bits || j->group != group) continue;
    has_gptq = has_gptq || j->gptq;
    if (best == NULL || j->error < best->error) best = j;
  }
  return has_gptq ? best : NULL;
}

/* What is compared with rounding linear by linear, where no row has it. */
static void add_plain_gptq(model *m, int n_rows, int64_t bits, int64_t group) {
  for (const job *j = m->job; j < m->job + n_rows; j++)
    if (j->gptq && !j->mse && j->bits == bits && j->group == group) return;
  job plain = {.key = "gptq for comparison", .gptq = true, .reference = true, .act_order = "none"};
  plain.bits = bits, plain.group = group;
  add_job(m, plain);
}

static void add_defaults(model *m, int n_rows) {
  static const int64_t groups[] = {-1, 128, 64, 32};
  for (int64_t bits = 4; bits >= 2; bits--)
    for (int g = 0; g < 4; g++) {
      const job *best = best_row(m, n_rows, bits, groups[g]);
      if (best == NULL) continue;
      job *added = add_job(m, *best);
      added->key = "gptq by default", added->gptq = true, added->reference = false;
    }
}

static void read_rows(model *m) {
  char path[1024];
  const char *key;
  const qd_json *row;
  snprintf(path, sizeof path, "%s/golden/reference_quantizers.json", m->data);
  MUST(qd_json_read(path, (size_t)64 << 20, &m->document));
  const qd_json *golden = qd_json_get(qd_json_get(m->document, "models"), m->name), *rows = qd_json_get(golden, "jobs");
  m->window = (int64_t)number(golden, "window");
  m->calibration_windows = (int64_t)number(golden, "calibration_windows");
  for (size_t i = 0; qd_json_member(rows, i, &key, &row); i++) add_row(m, key, row);
  int n_rows = m->n;
  cr_assert_gt(n_rows, 0);
  add_plain_gptq(m, n_rows, 4, -1);
  add_plain_gptq(m, n_rows, 3, -1);
  add_plain_gptq(m, n_rows, 3, 128);
  add_defaults(m, n_rows);
}

/* ---- what a job gives ---------------------------------------------------------------------------------------------------- */

/* On two cores each store of qdist-tiny takes 4 s and each of its perplexities 10 s: by default 4 bits in groups, which it
 * hardly notices, are left out, and only the chosen rows are evaluated. */
static bool is_whole(const model *m) { return m->full || strcmp(m->name, "qdist-tiny") != 0; }
static bool is_due(const model *m, const job *j) { return is_whole(m) || j->bits < 4 || j->group < 0; }

static bool is_evaluated(const model *m, const job *j) {
  static const char *const chosen[] = {
      "gptq by default", "gptq_w3_g128", "gptq_w3_g128_actorder_static_mse", "gptq_w2_g64_actorder_static_mse"};
  if (j->error <= 0) return false;
  if (is_whole(m)) return true;
  for (size_t i = 0; i < sizeof chosen / sizeof *chosen; i++)
    if (strcmp(j->key, chosen[i]) == 0) return true;
  return false;
}

static qd_json *json_of(qd_run run) {
  qd_json *out;
  cr_assert_eq(run.exit_code, 0, "%s", run.err.text);
  MUST(qd_json_parse(run.out.text, run.out.n, "standard output", &out));
  qd_run_close(&run);
  return out;
}

static void quantize(const model *m, const job *j, const char *store) {
  char recipe[64] = "", source[1024];
  if (j->reference) {
    bool ordered = strcmp(j->act_order, "none") != 0;
    snprintf(recipe, sizeof recipe, "--compat reference%s%s%s", j->mse ? " --mse" : "", ordered ? " --act-order " : "",
             ordered ? j->act_order : "");
  }
  snprintf(source, sizeof source, "-m %s/data/models/%s -d %s/golden/windows/%s.calibration.i32 --seqlen %d --nsamples %d",
           m->data, m->name, m->data, m->name, (int)m->window, (int)m->calibration_windows);
  qd_run run = qd_program(N_RANKS, "quantize %s --compute-dtype fp32 --method %s -b %d -g %d %s -o %s", source,
                          j->gptq ? "gptq" : "rtn", (int)j->bits, (int)j->group, recipe, store);
  cr_assert_eq(run.exit_code, 0, "%s: %s", j->key, run.err.text);
  qd_run_close(&run);
}

static double perplexity(const model *m, const char *store) {
  static const char format[] = "evaluate -m %s -d %s/golden/windows/%s.evaluation.i32 --seqlen %d --compute-dtype fp32 --json";
  qd_json *facts = json_of(qd_program(N_RANKS, format, store, m->data, m->name, (int)m->window));
  double out = number(facts, "perplexity");
  qd_json_free(facts);
  return out;
}

static void do_job(const model *m, job *j) {
  char name[32];
  snprintf(name, sizeof name, "store-%d", (int)(j - m->job));
  const char *store = qd_temporary_path(&folder, name);
  quantize(m, j, store);
  j->facts = json_of(qd_program(0, "inspect %s --json", store));
  j->mean_error = number(j->facts, "mean_relative_error");
  if (is_evaluated(m, j)) j->perplexity = perplexity(m, store);
  j->done = true;
}

/* ---- the promises -------------------------------------------------------------------------------------------------------- */

static double ppl_tolerance(const job *j) { return j->bits == 2 ? 0.05 : 0.02; }

/* Beyond the reference's own range over runs; 0 within it. */
static double ppl_off(const job *j) {
  if (j->perplexity == 0) return 0;
  return fmax(0, fmax(j->perplexity / j->ppl_max - 1, 1 - j->perplexity / j->ppl_min));
}

static void print_line(const model *m, const job *j, const char *verdict) {
  char ppl[96] = "not evaluated";
  if (j->perplexity > 0) snprintf(ppl, sizeof ppl, "%9.4f [%.4f, %.4f]", j->perplexity, j->ppl_min, j->ppl_max);
  printf("%-17s w%d g%-4d %-34s ppl %-32s error %.6f", m->name, (int)j->bits, (int)j->group, j->key, ppl, j->mean_error);
  if (j->error > 0) printf(" wanted %.6f (%+.3f %%)", j->error, 100 * (j->mean_error / j->error - 1));
  printf("  %s\n", verdict);
  fflush(stdout);
}

/* How far off in units of what is allowed: rounding has no choice, GPTQ's roundings flip with the order of a sum. */
static double off(const job *j) {
  double error_off = fabs(j->mean_error / j->error - 1);
  return j->gptq ? fmax(ppl_off(j) / ppl_tolerance(j), error_off / 0.02) : fmax(ppl_off(j), error_off) / 1e-3;
}

static void check_row(const model *m, const job *j, int *n, int *n_off) {
  double units = off(j);
  bool is_near = units <= 1;
  print_line(m, j, is_near ? "near" : "OFF");
  cr_expect(units <= (j->gptq ? 2 : 1), "%s %s is off by %.2f times what is allowed", m->name, j->key, units);
  *n += j->gptq;
  *n_off += j->gptq && !is_near;
}

static void check_default(const model *m, const job *j) {
  double ppl_limit = j->ppl_max * (1 + ppl_tolerance(j));
  bool is_good = j->mean_error <= 1.01 * j->error && j->perplexity <= ppl_limit;
  print_line(m, j, is_good ? "no worse" : "WORSE");
  cr_expect(is_good, "%s, %d bits, groups of %d: error %.6f, the reference's best %.6f; perplexity %.4f, at most %.4f expected",
            m->name, (int)j->bits, (int)j->group, j->mean_error, j->error, j->perplexity, ppl_limit);
}

static bool is_quantized(const qd_json *tensor) { return strcmp(text_or(tensor, "scheme", ""), "none") != 0; }

static void check_below(const model *m, const job *gptq, const job *rtn) {
  const qd_json *ours = qd_json_get(gptq->facts, "tensors"), *theirs = qd_json_get(rtn->facts, "tensors");
  double worst = 0;
  int n = 0;
  cr_assert_eq(qd_json_length(ours), qd_json_length(theirs));
  for (size_t i = 0; i < qd_json_length(ours); i++) {
    const qd_json *a = qd_json_at(ours, i), *b = qd_json_at(theirs, i);
    const char *name = text_or(a, "name", "");
    cr_assert_str_eq(name, text_or(b, "name", ""));
    if (!is_quantized(a) && !is_quantized(b)) continue;
    double x = number(a, "relative_error"), y = number(b, "relative_error");
    worst = fmax(worst, x / y), n++;
    cr_expect_lt(x, y, "%s %s, %s: error %.6f, rounding's %.6f", m->name, gptq->key, name, x, y);
  }
  cr_expect_eq(n, 7 * (int)number(gptq->facts, "blocks"));
  printf("%-17s w%d g%-4d %-34s error at most %.3f of %s's in each of %d linears\n", m->name, (int)gptq->bits, (int)gptq->group,
         gptq->key, worst, rtn->key, n);
  fflush(stdout);
}

/* Both with or both without the search for a clipping. */
static int compare_linears(const model *m) {
  int n = 0;
  for (const job *gptq = m->job; gptq < m->job + m->n; gptq++)
    for (const job *rtn = m->job; rtn < m->job + m->n; rtn++) {
      if (!gptq->gptq || rtn->gptq || !gptq->done || !rtn->done || !gptq->reference) continue;
      if (gptq->bits != rtn->bits || gptq->group != rtn->group || gptq->mse != rtn->mse) continue;
      check_below(m, gptq, rtn);
      n++;
    }
  return n;
}

static void check_jobs(model *m) {
  int n = 0, n_off = 0;
  for (job *j = m->job; j < m->job + m->n; j++) {
    if (!is_due(m, j)) continue;
    do_job(m, j);
    if (!j->reference) check_default(m, j);
    else if (j->error > 0) check_row(m, j, &n, &n_off);
    else print_line(m, j, "");
  }
  cr_expect_gt(n, 0);
  cr_expect_leq(10 * n_off, n, "%d of %d rows are off; nine of ten must be near", n_off, n);
  cr_expect_geq(compare_linears(m), 3);
}

static void check_model(const char *name) {
  static model m;
  const char *full = getenv("QDIST_TEST_FULL");
  m = (model){.name = name, .data = getenv("QDIST_TEST_DATA"), .full = full != NULL && strcmp(full, "1") == 0};
  if (m.data == NULL || *m.data == '\0')
    cr_skip_test("QDIST_TEST_DATA does not name a folder with golden values of real models");
  read_rows(&m);
  check_jobs(&m);
  for (int i = 0; i < m.n; i++) qd_json_free(m.job[i].facts);
  qd_json_free(m.document);
}

Test(golden_quantizers, tiny1m) { check_model("tiny1m"); }
Test(golden_quantizers, babyllama) { check_model("babyllama-tok361"); }
Test(golden_quantizers, qdist_tiny) { check_model("qdist-tiny"); }

/* ---- SpQR ---------------------------------------------------------------------------------------------------------------- */

typedef struct spqr_figures {
  double perplexity, bits, error;
} spqr_figures;

static spqr_figures spqr_of(const model *m, const char *name, const char *options) {
  const char *store = qd_temporary_path(&folder, name);
  qd_run run = qd_program(N_RANKS, "quantize -m %s/data/models/%s -d %s/golden/windows/%s.calibration.i32 --seqlen %d "
                          "--nsamples %d --compute-dtype fp32 --method spqr %s -o %s", m->data, m->name, m->data, m->name,
                          (int)m->window, (int)m->calibration_windows, options, store);
  cr_assert_eq(run.exit_code, 0, "%s", run.err.text);
  qd_run_close(&run);
  qd_json *facts = json_of(qd_program(0, "inspect %s --json", store));
  spqr_figures out = {perplexity(m, store), number(facts, "bits_per_weight"), number(facts, "mean_relative_error")};
  qd_json_free(facts);
  return out;
}

/* Within the reference's range by 3 %, bits within 0.03; at the same bits our defaults below. */
static void check_spqr(const model *m, const char *key, const qd_json *row) {
  char options[160];
  double least = number(row, "ppl_min"), most = number(row, "ppl_max"), bits = number(row, "bits_per_weight");
  int b = (int)number(row, "bits"), g = (int)number(row, "group_size");
  snprintf(options, sizeof options, "--compat reference -b %d -g %d --outlier-threshold %g", b, g,
           number(row, "outlier_threshold"));
  spqr_figures reference = spqr_of(m, key, options);
  snprintf(options, sizeof options, "-b %d -g %d --avg-bits %.4f", b, g, bits);
  spqr_figures ours = spqr_of(m, "ours", options);
  qd_temporary_remove(qd_temporary_path(&folder, "ours"));
  printf("%-17s %-20s reference %.4f at %.4f bits, wanted [%.4f, %.4f] at %.4f; by default %.4f at %.4f\n", m->name, key,
         reference.perplexity, reference.bits, least, most, bits, ours.perplexity, ours.bits);
  cr_expect(reference.perplexity >= 0.97 * least && reference.perplexity <= 1.03 * most, "%s %s: perplexity %.4f", m->name, key,
            reference.perplexity);
  cr_expect(fabs(reference.bits - bits) <= 0.03, "%s %s: %.4f bits", m->name, key, reference.bits);
  cr_expect(fabs(ours.bits - bits) <= 0.02, "%s %s: %.4f bits by --avg-bits", m->name, key, ours.bits);
  cr_expect_lt(ours.perplexity, most, "%s %s: by default %.4f", m->name, key, ours.perplexity);
}

/* The row that is recommended; all of them where time does not matter. */
static void check_spqr_rows(const char *name) {
  static model m;
  const char *key, *full = getenv("QDIST_TEST_FULL");
  const qd_json *row;
  m = (model){.name = name, .data = getenv("QDIST_TEST_DATA"), .full = full != NULL && strcmp(full, "1") == 0};
  if (m.data == NULL || *m.data == '\0')
    cr_skip_test("QDIST_TEST_DATA does not name a folder with golden values of real models");
  read_rows(&m);
  const qd_json *rows = qd_json_get(qd_json_get(qd_json_get(m.document, "models"), name), "jobs");
  for (size_t i = 0; qd_json_member(rows, i, &key, &row); i++)
    if (strcmp(text_or(row, "method", ""), "spqr") == 0 && (m.full || strcmp(key, "spqr_w3g16_t0.2") == 0))
      check_spqr(&m, key, row);
  qd_json_free(m.document);
}

Test(golden_quantizers, spqr_tiny1m) { check_spqr_rows("tiny1m"); }
Test(golden_quantizers, spqr_babyllama) { check_spqr_rows("babyllama-tok361"); }

/* ---- GPTAQ --------------------------------------------------------------------------------------------------------------- */

typedef struct distance {
  double kl, stream_error; /* means over blocks */
} distance;

static distance distance_of(const char *data, const char *options, const char *name) {
  const char *store = qd_temporary_path(&folder, name);
  char path[1100];
  qd_json *manifest;
  distance out = {0, 0};
  qd_run run = qd_program(N_RANKS, "quantize -m %s/data/models/tiny1m -d %s/golden/windows/tiny1m.calibration.i32 --seqlen 256 "
                          "--nsamples 32 --compute-dtype fp32 -b 2 -g 64 --report-kl %s -o %s", data, data, options, store);
  cr_assert_eq(run.exit_code, 0, "%s", run.err.text);
  qd_run_close(&run);
  snprintf(path, sizeof path, "%s/manifest.json", store);
  MUST(qd_json_read(path, (size_t)64 << 20, &manifest));
  const qd_json *blocks = qd_json_get(manifest, "blocks");
  double n = (double)qd_json_length(blocks);
  for (size_t b = 0; b < qd_json_length(blocks); b++) {
    const qd_json *facts = qd_json_get(qd_json_at(blocks, b), "facts");
    out.kl += number(facts, "kl") / n, out.stream_error += number(facts, "stream_error") / n;
  }
  qd_json_free(manifest);
  return out;
}

/* What the linears' own errors cannot tell: how far the outputs are from the original's. */
Test(golden_quantizers, gptaq_stays_nearer_to_the_original) {
  const char *data = getenv("QDIST_TEST_DATA");
  if (data == NULL || *data == '\0') cr_skip_test("QDIST_TEST_DATA does not name a folder with real models");
  distance plain = distance_of(data, "", "plain"), gptaq = distance_of(data, "--gptaq", "gptaq");
  printf("tiny1m            w2 g64   KL %.4f, with --gptaq %.4f; error of the residual stream %.4f, with --gptaq %.4f\n",
         plain.kl, gptaq.kl, plain.stream_error, gptaq.stream_error);
  cr_expect_lt(gptaq.kl, 0.95 * plain.kl);
  cr_expect_lt(gptaq.stream_error, 0.95 * plain.stream_error);
}
