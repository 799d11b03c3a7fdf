/* Every family against transformers (tests/golden/make_archs.py), and every device against every other. */
#define _XOPEN_SOURCE 700
#include "tests/pipeline/logits_support.h"

#include <dirent.h>
#include <unistd.h>

#include "tests/support/temporary_folder.h"

/* fp32: rounding differs by about 1e-5 in logits of 10.  bf16 keeps 8 bits: 2 blocks of random weights carry that to a few
 * tenths at worst. */
static const double fp32_bound = 2e-4, bf16_worst = 0.6, bf16_mean = 0.06;

static double mean_difference(const float *a, const float *b, size_t n) {
  double sum = 0;
  for (size_t i = 0; i < n; i++) sum += fabs((double)a[i] - (double)b[i]);
  return sum / (double)n;
}

static void check_fp32(const char *path, const golden *g) {
  place where[8];
  int n = places(where);
  logits first = {0};
  for (int i = 0; i < n; i++) {
    logits got = run_model(path, QD_COMPUTE_FP32, where[i], g->ids, 1, g->expected.tokens);
    cr_assert_eq(got.vocabulary, g->expected.vocabulary);
    if (i == 0) first = got;
    cr_expect_eq(memcmp(got.value, first.value, logits_bytes(&got)), 0, "%s %s differs from ref", where[i].device,
                 where[i].isa);
    if (i > 0) qd_heap_free(got.value);
  }
  double largest = largest_difference(first.value, g->expected.value, logits_bytes(&first) / sizeof(float));
  cr_log_info("%s: fp32, largest difference from transformers %.3g", path, largest);
  cr_expect(largest <= fp32_bound, "%s: the largest difference is %g", path, largest);
  qd_heap_free(first.value);
}

static void check_bf16(const golden *g) {
  place where[8];
  int n = places(where);
  logits first = {0};
  for (int i = 0; i < n; i++) {
    logits got = run_model(g->path, QD_COMPUTE_BF16, where[i], g->ids, 1, g->expected.tokens);
    if (i == 0) first = got;
    cr_expect_eq(memcmp(got.value, first.value, logits_bytes(&got)), 0, "%s %s differs from ref", where[i].device,
                 where[i].isa);
    if (i > 0) qd_heap_free(got.value);
  }
  size_t values = logits_bytes(&first) / sizeof(float);
  double largest = largest_difference(first.value, g->expected.value, values),
         mean = mean_difference(first.value, g->expected.value, values);
  cr_log_info("%s: bf16, differences from transformers' fp32: largest %.3g, mean %.3g", g->path, largest, mean);
  cr_expect(largest <= bf16_worst && mean <= bf16_mean, "%s: bf16 differs by %g at most, %g in the mean", g->path, largest,
            mean);
  cr_expect(largest > fp32_bound, "%s: bf16 arithmetic leaves no trace", g->path);
  qd_heap_free(first.value);
}

static void check_model(const char *name) {
  golden g = golden_open(name);
  check_fp32(g.path, &g);
  check_bf16(&g);
  golden_close(&g);
}

#define GOLDEN_MODELS(X)                                                                               \
  X(llama) X(llama_grouped) X(llama_biases) X(llama_rope_llama3) X(llama_rope_linear) X(llama_bf16)    \
  X(llama_f16) X(llama_sharded) X(mistral_window) X(qwen2) X(qwen2_window) X(qwen3) X(qwen3_biases)    \
  X(mixtral) X(mixtral_window) X(qwen2_moe) X(qwen2_moe_bf16) X(qwen3_moe) X(qwen3_moe_bf16)

#define GOLDEN_TEST(name) \
  Test(archs, name) { check_model(#name); }
GOLDEN_MODELS(GOLDEN_TEST)

Test(archs, every_golden_model_is_tested) {
  static const char *const names[] = {
#define GOLDEN_NAME(name) #name,
      GOLDEN_MODELS(GOLDEN_NAME)
#undef GOLDEN_NAME
  };
  size_t found = 0, n = sizeof names / sizeof *names;
  DIR *folder = opendir(QDIST_SOURCE_DIR "/tests/golden/archs");
  cr_assert_not_null(folder);
  for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
    if (entry->d_name[0] == '.') continue;
    size_t i = 0;
    while (i < n && strcmp(names[i], entry->d_name) != 0) i++;
    cr_expect(i < n, "%s has no test", entry->d_name);
    found++;
  }
  closedir(folder);
  cr_expect_eq(found, n);
}

Test(archs, threads_do_not_show) {
  golden g = golden_open("llama_grouped");
  logits one = run_model(g.path, QD_COMPUTE_FP32, (place){"cpu", NULL, 1}, g.ids, 1, g.expected.tokens);
  logits three = run_model(g.path, QD_COMPUTE_FP32, (place){"cpu", NULL, 3}, g.ids, 1, g.expected.tokens);
  cr_expect_eq(memcmp(one.value, three.value, logits_bytes(&one)), 0);
  qd_heap_free(one.value);
  qd_heap_free(three.value);
  golden_close(&g);
}

/* The same weights under the configuration that transformers 4 wrote. */
static void check_old_keys(const char *name) {
  static const char *const links[][2] = {{"model.safetensors", "model.safetensors"}, {"config.v4.json", "config.json"}};
  golden g = golden_open(name);
  qd_temporary_folder folder;
  qd_temporary_folder_open(&folder);
  for (int i = 0; i < 2; i++) {
    char target[PATH_BYTES];
    snprintf(target, sizeof target, "%s/%s", g.path, links[i][0]);
    cr_assert_eq(symlink(target, qd_temporary_path(&folder, links[i][1])), 0);
  }
  check_fp32(folder.path, &g);
  qd_temporary_folder_close(&folder);
  golden_close(&g);
}

Test(archs, old_keys_of_llama3_scaling) { check_old_keys("llama_rope_llama3"); }
Test(archs, old_keys_of_linear_scaling) { check_old_keys("llama_rope_linear"); }

/* ---- real models ------------------------------------------------------------------------------------------------------- */

static const char *path_of_data(const char *name) {
  static char path[PATH_BYTES];
  const char *data = getenv("QDIST_TEST_DATA");
  if (data == NULL || *data == '\0') cr_skip_test("QDIST_TEST_DATA does not name a folder with golden values of real models");
  snprintf(path, sizeof path, "%s/%s", data, name);
  return path;
}

/* Logits of tokens 0 .. 63 at the listed positions, log-sum-exp and the largest logit's token. */
static void check_positions(const qd_json *expected, const logits *got) {
  const qd_json *positions = qd_json_get(expected, "positions"), *rows = qd_json_get(expected, "values_of_tokens_0_to_63");
  const qd_json *sums = qd_json_get(expected, "logsumexp"), *tops = qd_json_get(expected, "argmax");
  double worst = 0, worst_sum = 0;
  for (size_t i = 0; i < qd_json_length(positions); i++) {
    const float *row = got->value + qd_json_integer(qd_json_at(positions, i)) * got->vocabulary;
    float wanted[64];
    cr_assert_eq(qd_json_length(qd_json_at(rows, i)), 64);
    read_numbers(qd_json_at(rows, i), wanted);
    worst = fmax(worst, largest_difference(row, wanted, 64));
    int64_t top = 0;
    double sum = 0;
    for (int64_t v = 0; v < got->vocabulary; v++) top = row[v] > row[top] ? v : top;
    for (int64_t v = 0; v < got->vocabulary; v++) sum += exp((double)row[v] - (double)row[top]);
    worst_sum = fmax(worst_sum, fabs(log(sum) + (double)row[top] - qd_json_number(qd_json_at(sums, i))));
    cr_expect_eq(top, qd_json_integer(qd_json_at(tops, i)));
  }
  cr_log_info("largest difference of logits %.3g, of their log-sum-exp %.3g", worst, worst_sum);
  cr_expect(worst <= fp32_bound && worst_sum <= fp32_bound, "logits differ by %g, their log-sum-exp by %g", worst, worst_sum);
}

static void check_real_model(const char *name, const char *model) {
  enum { TOKENS = 32 };
  char file[128];
  qd_json *document;
  int64_t n;
  snprintf(file, sizeof file, "golden/%s.json", name);
  MUST(qd_json_read(path_of_data(file), (size_t)64 << 20, &document));
  int32_t *ids = read_ids(qd_json_get(document, "first_ids"), &n);
  cr_assert_geq(n, TOKENS);
  logits got = run_model(model, QD_COMPUTE_FP32, (place){"cpu", NULL, 1}, ids, 1, TOKENS);
  const qd_json *expected = qd_json_get(qd_json_get(document, "fp32"), "logits");
  cr_assert_gt(qd_json_length(qd_json_get(expected, "positions")), 0);
  check_positions(expected, &got);
  qd_heap_free(got.value);
  qd_heap_free(ids);
  qd_json_free(document);
}

static void check_data_model(const char *name) {
  char relative[128], model[PATH_BYTES];
  snprintf(relative, sizeof relative, "data/models/%s", name);
  snprintf(model, sizeof model, "%s", path_of_data(relative));
  check_real_model(name, model);
}

Test(archs, real_tiny1m) { check_data_model("tiny1m"); }
Test(archs, real_qdist_tiny_moe) { check_data_model("qdist-tiny-moe"); }
Test(archs, real_babyllama) { check_data_model("babyllama-tok361"); }
Test(archs, real_stories260K) { check_data_model("stories260K"); }
Test(archs, real_qdist_tiny) { check_real_model("qdist-tiny", QDIST_SOURCE_DIR "/jobs/demo/qdist-tiny"); }
