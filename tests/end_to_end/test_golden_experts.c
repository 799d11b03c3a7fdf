/* Against the reference code of GPTQ on a real model with experts: the rows moe_gptq_*_routed and moe_rtn_* of
 * reference_trainers.json, its token windows beside it.  What is rounded is the reference's to the last digit given; GPTQ's
 * errors and perplexity are no larger, but for the noise of another order of sums.  And our defaults are no worse than either.
 * QDIST_TEST_FULL=1 does what takes long as well. */
#include "storage/json.h"
#include "tests/support/program.h"
#include "tests/support/temporary_folder.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N_RANKS = 2, KINDS = 3 };
static const char model_name[] = "qdist-tiny-moe";
static const char *const kinds[KINDS] = {"attention", "gate_up", "down"};

static qd_temporary_folder folder;
static const char *data;
static qd_json *document;

static void open_folder(void) { qd_temporary_folder_open(&folder); }
static void close_folder(void) {
  qd_json_free(document);
  qd_temporary_folder_close(&folder);
}
TestSuite(golden_experts, .init = open_folder, .fini = close_folder);

#define MUST(call) cr_assert_eq((call), QD_OK, "%s", qd_error_text())

static double number(const qd_json *object, const char *key) {
  const qd_json *value = qd_json_get(object, key);
  cr_assert(qd_json_is_number(value), "there is no number \"%s\"", key);
  return qd_json_number(value);
}

static bool is_full(void) {
  const char *full = getenv("QDIST_TEST_FULL");
  return full != NULL && strcmp(full, "1") == 0;
}

static const qd_json *golden_model(void) {
  char path[1024];
  data = getenv("QDIST_TEST_DATA");
  if (data == NULL || *data == '\0') cr_skip_test("QDIST_TEST_DATA does not name a folder with golden values of real models");
  snprintf(path, sizeof path, "%s/golden/reference_trainers.json", data);
  MUST(qd_json_read(path, (size_t)64 << 20, &document));
  return qd_json_get(qd_json_get(document, "models"), model_name);
}

static qd_json *json_of(qd_run run) {
  qd_json *out;
  cr_assert_eq(run.exit_code, 0, "%s", run.err.text);
  MUST(qd_json_parse(run.out.text, run.out.n, "standard output", &out));
  qd_run_close(&run);
  return out;
}

static const char *quantize(const qd_json *golden, const char *name, const char *options) {
  static char store[1024];
  snprintf(store, sizeof store, "%s", qd_temporary_path(&folder, name));
  qd_run run = qd_program(N_RANKS,
                          "quantize -m %s/data/models/%s -d %s/golden/windows/%s.calibration.i32 --seqlen %d --nsamples %d "
                          "--compute-dtype fp32 %s -o %s",
                          data, model_name, data, model_name, (int)number(golden, "window"),
                          (int)number(golden, "calibration_windows"), options, store);
  cr_assert_eq(run.exit_code, 0, "%s: %s", name, run.err.text);
  qd_run_close(&run);
  return store;
}

static double perplexity(const qd_json *golden, const char *store) {
  qd_json *facts = json_of(
      qd_program(N_RANKS, "evaluate -m %s -d %s/golden/windows/%s.evaluation.i32 --seqlen %d --compute-dtype fp32 --json",
                 store, data, model_name, (int)number(golden, "window")));
  double out = number(facts, "perplexity");
  qd_json_free(facts);
  return out;
}

/* ---- errors by kind ------------------------------------------------------------------------------------------------------ */

static int kind_of(const char *role) {
  if (strcmp(role, "expert_down_proj") == 0) return 2;
  return strncmp(role, "expert_", 7) == 0;
}

/* Means over linears; gate and up of an expert count as one, experts without tokens not at all. */
static void mean_errors(const char *store, double error[KINDS]) {
  qd_json *facts = json_of(qd_program(0, "inspect %s --json", store));
  const qd_json *tensors = qd_json_get(facts, "tensors");
  int n[KINDS] = {0};
  double gate_error = 0, gate_norm = 0;
  memset(error, 0, KINDS * sizeof *error);
  for (size_t i = 0; i < qd_json_length(tensors); i++) {
    const qd_json *t = qd_json_at(tensors, i);
    const char *role = qd_json_text(qd_json_get(t, "role"));
    if (strcmp(qd_json_text(qd_json_get(t, "scheme")), "none") == 0 || number(t, "tokens") == 0) continue;
    double loss = number(t, "loss"), relative = number(t, "relative_error");
    int kind = kind_of(role);
    if (strcmp(role, "expert_gate_proj") == 0) {
      gate_error = loss, gate_norm = loss / relative;
      continue;
    }
    if (kind == 1) relative = (gate_error + loss) / (gate_norm + loss / relative);
    error[kind] += relative, n[kind]++;
  }
  for (int k = 0; k < KINDS; k++) error[k] /= n[k];
  qd_json_free(facts);
}

/* ---- rows ---------------------------------------------------------------------------------------------------------------- */

static void check_row(const qd_json *golden, const char *key, const qd_json *row) {
  bool gptq = strcmp(qd_json_text(qd_json_get(row, "solver")), "gptq") == 0, evaluates = gptq || is_full();
  char options[160];
  double error[KINDS], tolerance = gptq ? 0.01 : 1e-5;
  snprintf(options, sizeof options, "--method %s -b %d -g %d --compat reference --moe-min-tokens 0", gptq ? "gptq" : "rtn",
           (int)number(row, "bits"), (int)number(row, "group_size"));
  const char *store = quantize(golden, key, options);
  mean_errors(store, error);
  for (int k = 0; k < KINDS; k++) {
    double wanted = number(qd_json_get(row, "mean_relative_error"), kinds[k]);
    printf("%-26s %-10s error %.7f wanted %.7f (%+.3f %%)\n", key, kinds[k], error[k], wanted, 100 * (error[k] / wanted - 1));
    cr_expect(error[k] <= wanted * (1 + tolerance) && (gptq || error[k] >= wanted * (1 - tolerance)),
              "%s, %s: %.7f, wanted %.7f", key, kinds[k], error[k], wanted);
  }
  double ppl = evaluates ? perplexity(golden, store) : 0, most = number(row, "ppl_max");
  if (evaluates) printf("%-26s perplexity %.4f, the reference's %.4f to %.4f\n", key, ppl, number(row, "ppl_min"), most);
  fflush(stdout);
  cr_expect(ppl <= most * (gptq ? 1.005 : 1 + 1e-5), "%s: perplexity %.4f, at most %.4f", key, ppl, most);
}

static bool is_due(const char *key) {
  if (strcmp(key, "moe_rtn_w3_g128") == 0 || strcmp(key, "moe_gptq_w3_g128_routed") == 0 ||
      strcmp(key, "moe_gptq_w2_g64_routed") == 0)
    return true;
  return is_full() && (strncmp(key, "moe_rtn_", 8) == 0 || strstr(key, "_routed") != NULL);
}

Test(golden_experts, rows_of_the_reference) {
  const qd_json *golden = golden_model(), *rows = qd_json_get(golden, "jobs"), *row;
  const char *key;
  int n = 0;
  for (size_t i = 0; qd_json_member(rows, i, &key, &row); i++)
    if (is_due(key)) check_row(golden, key, row), n++;
  cr_expect_geq(n, 3);
}

/* At 2 bits, where it shows. */
Test(golden_experts, defaults_are_no_worse) {
  const qd_json *golden = golden_model(), *row = qd_json_get(qd_json_get(golden, "jobs"), "moe_gptq_w2_g64_routed");
  const char *store = quantize(golden, "defaults", "-b 2 -g 64");
  double error[KINDS], ppl = perplexity(golden, store);
  mean_errors(store, error);
  for (int k = 0; k < KINDS; k++) {
    double wanted = number(qd_json_get(row, "mean_relative_error"), kinds[k]);
    printf("defaults at 2 bits         %-10s error %.7f, the reference's %.7f\n", kinds[k], error[k], wanted);
    cr_expect_leq(error[k], 1.01 * wanted);
  }
  printf("defaults at 2 bits         perplexity %.4f, the reference's %.4f\n", ppl, number(row, "ppl_max"));
  cr_expect_leq(ppl, 1.005 * number(row, "ppl_max"));
}

/* The original: mean NLL in both conventions, and in bf16. */
Test(golden_experts, the_original_is_evaluated_as_transformers_does) {
  static const char *const jobs[][3] = {{"fp32", "gptq", "gptq_convention"}, {"fp32", "llama.cpp", "llamacpp_convention"},
                                        {"bf16", "gptq", "gptq_convention"}, {"bf16", "llama.cpp", "llamacpp_convention"}};
  char path[1024];
  qd_json *golden;
  (void)golden_model();
  snprintf(path, sizeof path, "%s/golden/%s.json", data, model_name);
  MUST(qd_json_read(path, (size_t)64 << 20, &golden));
  for (int i = 0; i < 4; i++) {
    bool bf16 = strcmp(jobs[i][0], "bf16") == 0;
    qd_json *facts =
        json_of(qd_program(N_RANKS,
                           "evaluate -m %s/data/models/%s -d %s/data/text/debian-policy.txt --seqlen 512 --max-windows 64 "
                           "--compute-dtype %s --ppl-style %s --json",
                           data, model_name, data, jobs[i][0], jobs[i][1]));
    double got = number(facts, "mean_nll"),
           wanted = number(qd_json_get(qd_json_get(golden, jobs[i][0]), jobs[i][2]), "mean_nll");
    printf("%s, %s: mean NLL %.9f, wanted %.9f\n", jobs[i][0], jobs[i][1], got, wanted);
    cr_expect(fabs(got / wanted - 1) <= (bf16 ? 3e-3 : 1e-5), "%s, %s: mean NLL %.9f, wanted %.9f", jobs[i][0], jobs[i][1], got,
              wanted);
    qd_json_free(facts);
  }
  qd_json_free(golden);
}
