/* The command as a person starts it; rates themselves are nobody's promise. */
#include "storage/json.h"
#include "tests/support/program.h"

#include <criterion/criterion.h>
#include <string.h>

static qd_json *bench(const char *arguments) {
  qd_json *out = NULL;
  qd_run run = qd_program(0, "bench --threads 1 --repeats 1 --json %s", arguments);
  cr_assert_eq(run.exit_code, 0, "%s: %s", arguments, run.err.text);
  cr_assert_eq(qd_json_parse(run.out.text, strlen(run.out.text), "bench", &out), QD_OK, "%s", run.out.text);
  qd_run_close(&run);
  return out;
}

static double number(const qd_json *object, const char *key) { return qd_json_number(qd_json_get(object, key)); }

static void expect_positive(const qd_json *object, const char *const *keys) {
  for (; *keys != NULL; keys++)
    cr_expect_gt(number(object, *keys), 0, "%s of %s", *keys, qd_json_text(qd_json_get(object, "op")));
}

static const qd_json *row(const qd_json *out, size_t index, const char *op, const char *dtype, const char *shape) {
  const qd_json *row = qd_json_at(qd_json_get(out, "ops"), index);
  cr_assert_not_null(row);
  cr_expect_str_eq(qd_json_text(qd_json_get(row, "op")), op);
  cr_expect_str_eq(qd_json_text(qd_json_get(row, "dtype")), dtype);
  cr_expect_str_eq(qd_json_text(qd_json_get(row, "shape")), shape);
  return row;
}

Test(bench, names_peak_yardstick_and_each_rate) {
  static const char *const rates[] = {"fp32_gflops", "bf16_gflops", NULL};
  static const char *const keys[] = {"seconds", "gflops", "gbytes_per_second", "share_of_peak", NULL};
  qd_json *out = bench("gemm --shape 96x64x128");
  expect_positive(qd_json_get(out, "peak"), rates);
  cr_expect_gt(number(out, "triad_gbytes_per_second"), 0);
  static const char *const dtypes[] = {"F32", "BF16", "F64"};
  for (size_t i = 0; i < 3; i++) {
    const qd_json *gemm = row(out, i, "gemm", dtypes[i], "96x64x128");
    expect_positive(gemm, keys);
    double flops = 2.0 * 96 * 64 * 128, counted = number(gemm, "gflops") * 1e9 * number(gemm, "seconds");
    cr_expect_float_eq(counted, flops, 1e-6 * flops, "%g flops counted, expected %g", counted, flops);
  }
  const qd_json *yardstick = qd_json_get(out, "yardstick"); /* absent where oneDNN was not found */
  if (yardstick != NULL) {
    cr_expect_gt(number(yardstick, "fp32_gflops"), 0);
    cr_expect_gt(number(row(out, 0, "gemm", "F32", "96x64x128"), "share_of_yardstick"), 0);
  }
  qd_json_free(out);
}

Test(bench, codes_are_compared_with_memory_units_and_the_dense_product) {
  static const char *const one[] = {"share_of_triad", "share_of_loop", "times_dense", "bits", NULL};
  qd_json *out = bench("qmatmul --shape 1x70x256 --group-size -1");
  const qd_json *ops = qd_json_get(out, "ops");
  for (size_t i = 0; i < qd_json_length(ops); i++) expect_positive(qd_json_at(ops, i), one);
  cr_expect_eq(qd_json_length(ops), 5, "2, 3, 4 and 8 bits in fp32 and 4 in bf16, once each: there are %zu rows",
               qd_json_length(ops));
  qd_json_free(out);
}

Test(bench, int8_is_compared_with_the_same_codes_in_fp32) {
  static const char *const shares[] = {"share_of_peak", "share_of_triad", "times_f32", "bits", NULL};
  qd_json *out = bench("int8 int8_spqr --shape 1x70x256");
  const qd_json *ops = qd_json_get(out, "ops");
  for (size_t i = 0; i < qd_json_length(ops); i++) expect_positive(qd_json_at(ops, i), shares);
  cr_expect_eq(qd_json_length(ops), 5, "2, 3, 4 and 8 bits, and 3 on SpQR's grid: there are %zu rows", qd_json_length(ops));
  cr_expect_gt(number(qd_json_get(out, "peak"), "int8_gflops"), 0);
  qd_json_free(out);
}

/* Every operation runs at a shape that fits none of its tiles. */
Test(bench, all_operations_run_at_any_shape) {
  qd_json *out = bench("--shape 5x70x130 --group-size 30");
  const qd_json *ops = qd_json_get(out, "ops");
  static const char *const expected[] = {"gemm",    "token",  "qmatmul",  "int8",     "int8_spqr", "dequant",
                                         "hessian", "factor", "gptq",     "mse_grid", "forward",   "attention",
                                         "rmsnorm", "swiglu", "compress", "digest",   "gguf"};
  size_t next = 0, n = sizeof expected / sizeof *expected;
  for (size_t i = 0; i < qd_json_length(ops); i++) {
    const char *op = qd_json_text(qd_json_get(qd_json_at(ops, i), "op"));
    cr_expect_gt(number(qd_json_at(ops, i), "seconds"), 0, "%s", op);
    if (next < n && strcmp(op, expected[next]) == 0) next++;
  }
  cr_expect_eq(next, n, "%s is missing", next < n ? expected[next] : "");
  qd_json_free(out);
}

static void expect_refused(const char *arguments, const char *message) {
  qd_run run = qd_program(0, "bench %s", arguments);
  cr_expect_eq(run.exit_code, 2, "%s: %s", arguments, run.err.text);
  cr_expect(strstr(run.err.text, message) != NULL, "%s: %s", arguments, run.err.text);
  qd_run_close(&run);
}

Test(bench, help_names_the_operations) {
  qd_run run = qd_program(0, "bench --help");
  cr_expect_eq(run.exit_code, 0);
  static const char *const names[] = {"gemm", "qmatmul", "mse_grid", "digest", "MxMxM"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    cr_expect_not_null(strstr(run.out.text, names[i]), "%s: %s", names[i], run.out.text);
  qd_run_close(&run);
}

Test(bench, nonsense_is_refused) {
  expect_refused("gem", "there is no operation \"gem\" in the bench (gemm, ");
  expect_refused("gemm --shape 0", "--shape takes M, MxN or MxNxK");
  expect_refused("gemm --shape 3x4x5x6", "--shape takes M, MxN or MxNxK");
  expect_refused("gemm --repeats 0", "--repeats");
  expect_refused("qmatmul --group-size 0", "--group-size takes -1 or 1 to 65536");
}
