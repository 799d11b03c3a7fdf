#include "pipeline/summary.h"

#include <criterion/criterion.h>

#include <math.h>
#include <string.h>

static qd_record record(const char *scheme, int rank, int64_t rows, int64_t columns) {
  qd_record r = {.expert = -1, .rank = rank, .dim = {rows, columns}, .facts = qd_json_object()};
  strcpy(r.scheme, scheme);
  return r;
}

static qd_record linear(int64_t rows, int64_t columns, double bits, double error) {
  qd_record r = record("uniform", 2, rows, columns);
  qd_json_set_number(r.facts, "bits_per_weight", bits);
  qd_json_set_number(r.facts, "relative_error", error);
  return r;
}

/* 40 x 10 weights at 4.5 bits and 20 x 10 at 3; a norm of 10, an embedding of 50 x 10, a diagonal that is no weight. */
Test(summary, adds_up_blocks_and_the_rest) {
  qd_record first[] = {linear(40, 10, 4.5, 0.02), record("none", 1, 10, 0), record("statistics", 1, 10, 0)},
            second[] = {linear(20, 10, 3, 0.05)};
  qd_record last[] = {record("none", 2, 50, 10)};
  qd_entry_file files[] = {{.name = "a.h5", .bytes = 1000}, {.name = "b.h5", .bytes = 30}, {.name = "c.h5", .bytes = 7}};
  qd_entry blocks[] = {{.n_files = 2, .file = files, .n_records = 3, .record = first}, {.n_records = 1, .record = second}};
  qd_store store = {.n_blocks = 2,
                    .block = blocks,
                    .has_rest = true,
                    .rest = {.n_files = 1, .file = files + 2, .n_records = 1, .record = last}};
  qd_summary s;
  qd_summary_of_store(&store, &s);
  cr_expect_eq(s.quantized_weights, 600);
  cr_expect_eq(s.all_weights, 1110);
  cr_expect_eq(s.bits_per_weight, (400 * 4.5 + 200 * 3) / 600);
  cr_expect_eq(s.bits_per_weight_whole_model, (400 * 4.5 + 200 * 3 + 16 * 510) / 1110);
  cr_expect(fabs(s.mean_relative_error - 0.035) < 1e-15);
  cr_expect_eq(s.file_bytes, 1037);
  store.has_rest = false;
  qd_summary_of_store(&store, &s);
  cr_expect_eq(s.all_weights, 610);
  cr_expect_eq(s.file_bytes, 1030);
  cr_expect_eq(qd_summary_fact(&first[0], "relative_error"), 0.02);
  cr_expect_eq(qd_summary_fact(&first[0], "no such fact"), 0);
  for (int i = 0; i < 3; i++) qd_json_free(first[i].facts);
  qd_json_free(second[0].facts);
  qd_json_free(last[0].facts);
}

/* With calibration text an expert without tokens has no error of outputs; without text all errors are of weights. */
Test(summary, leaves_out_experts_without_tokens) {
  qd_record records[] = {linear(10, 10, 4, 0.02), linear(10, 10, 4, 0.9)};
  qd_json_set_integer(records[0].facts, "tokens", 7);
  qd_json_set_integer(records[1].facts, "tokens", 0);
  qd_entry block = {.n_records = 2, .record = records};
  qd_store store = {.n_blocks = 1, .block = &block, .job = qd_json_object()};
  qd_summary s;
  qd_summary_of_store(&store, &s);
  cr_expect(fabs(s.mean_relative_error - 0.46) < 1e-15);
  qd_json_set(store.job, "dataset", qd_json_object());
  qd_summary_of_store(&store, &s);
  cr_expect_eq(s.mean_relative_error, 0.02);
  cr_expect_eq(s.quantized_weights, 200);
  for (int i = 0; i < 2; i++) qd_json_free(records[i].facts);
  qd_json_free(store.job);
}

Test(summary, of_nothing_is_zero) {
  qd_store store = {0};
  qd_summary s;
  qd_summary_of_store(&store, &s);
  cr_expect_eq(s.all_weights, 0);
  cr_expect_eq(s.bits_per_weight, 0);
  cr_expect_eq(s.bits_per_weight_whole_model, 0);
  cr_expect_eq(s.mean_relative_error, 0);
}
