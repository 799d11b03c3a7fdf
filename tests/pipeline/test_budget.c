#include "pipeline/budget.h"

#include <criterion/criterion.h>

#include <math.h>
#include <string.h>

static const qd_scheme open_scheme = {.scale_dtype = QD_F16, .spqr = true, .scale_bits = 3, .zero_bits = 3, .stat_group = 16};

static void expect_choice(double avg_bits, int bits, int64_t group_size) {
  double low, high;
  qd_scheme s = open_scheme;
  cr_expect(qd_budget_choose(&s, avg_bits, &low, &high), "%g", avg_bits);
  cr_expect(s.bits == bits && s.group_size == group_size, "%g: %d bits in groups of %d", avg_bits, s.bits, (int)s.group_size);
}

/* 3 + 6 / 16 + 64 / 256 = 3.625, 4 + 6 / 128 + 64 / 2048 = 4.078125 and so on. */
Test(budget, takes_the_best_setting_that_fits) {
  expect_choice(3.99, 3, 16);
  expect_choice(3.625, 3, 16);
  expect_choice(3.6, 3, 32);
  expect_choice(3.2, 3, 64);
  expect_choice(3.1, 3, 128);
  expect_choice(3.07, 2, 16);
  expect_choice(2.5, 2, 32);
  expect_choice(2.1, 2, 128);
  expect_choice(4.07, 3, 16);
  expect_choice(4.08, 4, 128);
  expect_choice(4.16, 4, 64);
  expect_choice(4.625, 4, 16);
  expect_choice(8.7, 8, 16);
}

Test(budget, tells_the_range_of_what_was_given) {
  double low, high;
  qd_scheme s = open_scheme;
  cr_expect_not(qd_budget_choose(&s, 2.0, &low, &high));
  cr_expect(fabs(low - (2 + 6 / 128. + 64 / 2048.)) < 1e-12 && fabs(high - (8 + 6 / 16. + 64 / 256. + 4)) < 1e-12);
  s.bits = 3, s.group_size = 16;
  cr_expect_not(qd_budget_choose(&s, 3.6, &low, &high));
  cr_expect(fabs(low - 3.625) < 1e-12 && fabs(high - 7.625) < 1e-12, "%g %g", low, high);
  s = open_scheme, s.group_size = 32;
  cr_expect(qd_budget_choose(&s, 3.6, &low, &high) && s.bits == 3);
}

/* 4 + 6 / 7 + 64 / 112 = 5.4286: groups that a person chose, where only the bits are open. */
Test(budget, takes_bits_for_groups_beside_the_table) {
  double low, high;
  qd_scheme s = open_scheme;
  s.group_size = 7;
  cr_expect(qd_budget_choose(&s, 5.5, &low, &high) && s.bits == 4 && s.group_size == 7, "%d bits", s.bits);
  cr_expect(fabs(low - (2 + 10 / 7.)) < 1e-12 && fabs(high - (12 + 10 / 7.)) < 1e-12, "%g to %g", low, high);
  s = open_scheme, s.group_size = QD_PER_CHANNEL;
  cr_expect(qd_budget_choose(&s, 3.99, &low, &high) && s.bits == 3);
  s = open_scheme, s.group_size = 2;
  cr_expect_not(qd_budget_choose(&s, 3.99, &low, &high));
  cr_expect(low == 7 && high == 17, "%g to %g", low, high);
}

/* ---- a whole job --------------------------------------------------------------------------------------------------------- */

static qd_model model;
static qd_job job;

static void setup(void) {
  model = (qd_model){.arch = qd_arch_find("llama"), .n_blocks = 2, .hidden = 64, .ffn = 96, .heads = 4, .kv_heads = 4,
                     .head_dim = 16, .vocabulary = 50};
  job = (qd_job){.model = "MODEL", .avg_bits = 4, .scheme = open_scheme};
  job.scheme.bits = 3, job.scheme.group_size = 16;
}
TestSuite(budget, .init = setup);

static const int64_t block_weights = 4 * 64 * 64 + 3 * 64 * 96;

Test(budget, spreads_what_is_left_over_what_is_left) {
  qd_budget b;
  cr_assert_eq(qd_budget_open(&b, &job, &model), QD_OK, "%s", qd_error_text());
  cr_expect_eq(b.weights, 2 * block_weights);
  cr_expect(fabs(qd_budget_share(&b) - (4 - 3.625) / 32) < 1e-12);
  qd_budget_spend(&b, 0, block_weights);
  cr_expect(fabs(qd_budget_share(&b) - 2 * (4 - 3.625) / 32) < 1e-12, "what was saved is spent later");
  qd_budget_spend(&b, block_weights, block_weights / 2);
  cr_expect_eq(qd_budget_share(&b), 0, "nothing is left");
  b.spent_outliers = -block_weights;
  cr_expect_eq(qd_budget_share(&b), QD_MOST_WANTED_OUTLIERS);
}

Test(budget, counts_a_head_that_is_quantized) {
  qd_budget b;
  job.head_bits = 4;
  cr_assert_eq(qd_budget_open(&b, &job, &model), QD_OK, "%s", qd_error_text());
  cr_expect_eq(b.weights, 2 * block_weights + 50 * 64);
  double wanted = (2 * (double)block_weights * (4 - 3.625) + 50 * 64 * (4 - 4.625)) / 32;
  cr_expect(fabs(b.outliers - wanted) < 1e-6, "%g instead of %g", b.outliers, wanted);
}

Test(budget, refuses_what_cannot_be_reached) {
  qd_budget b;
  job.avg_bits = 3.6;
  cr_expect_eq(qd_budget_open(&b, &job, &model), QD_EINVAL);
  cr_expect(strstr(qd_error_text(), "3.6250") != NULL && strstr(qd_error_text(), "7.6250") != NULL, "%s", qd_error_text());
  job.avg_bits = 0;
  cr_expect_eq(qd_budget_open(&b, &job, &model), QD_OK, "a fixed threshold has no budget");
}
