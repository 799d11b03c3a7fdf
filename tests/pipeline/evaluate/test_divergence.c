#include "pipeline/evaluate/divergence.h"

#include <criterion/criterion.h>
#include <math.h>

static void expect_near(double got, double wanted, const char *what) {
  cr_expect(fabs(got - wanted) <= 1e-12 * fmax(1, fabs(wanted)), "%s: %.17g instead of %.17g", what, got, wanted);
}

/* p(token): 1/2, 1/4, 1/8, 1/16 of the model, 1/2 each of the reference. */
Test(divergence, of_four_predictions_by_hand) {
  const double l = log(2);
  const qd_prediction p[4] = {{l, l, 0.1, 1}, {2 * l, l, 0.4, 1}, {3 * l, l, 0.2, 0}, {4 * l, l, 0.3, 1}};
  qd_divergence one, two;
  cr_assert_eq(qd_divergence_of(p, 1, 4, &one), QD_OK);
  expect_near(one.kl.value, 0.25, "mean");
  expect_near(one.kl.error, sqrt((0.3 / 4 - 0.0625) / 3), "its error");
  expect_near(one.kl_median, 0.25, "median");
  expect_near(one.kl_99, 0.3 + 0.97 * 0.1, "99 %");
  expect_near(one.kl_99_9, 0.3 + 0.997 * 0.1, "99.9 %");
  expect_near(one.kl_max, 0.4, "largest");
  expect_near(one.top1.value, 0.75, "agreement");
  expect_near(one.top1.error, sqrt(0.75 * 0.25 / 3), "its error");
  expect_near(one.log_ratio.value, 1.5 * l, "ln of the ratio");
  expect_near(one.log_ratio.error, sqrt((7.5 - 6.25) * l * l / 3), "its error: the reference has none");
  expect_near(one.delta_p.value, -(0.25 + 0.375 + 0.4375) / 4, "change of p");
  expect_near(one.delta_p_rms.value, sqrt((0.0625 + 0.140625 + 0.19140625) / 4), "its root mean square");
  cr_assert_eq(qd_divergence_of(p, 2, 2, &two), QD_OK);
  expect_near(two.kl.value, one.kl.value, "two windows");
  expect_near(two.log_ratio.error, one.log_ratio.error, "two windows");
}

/* The same model: whatever its predictions, nothing differs, and the errors of two equal perplexities take each other off. */
Test(divergence, of_a_model_from_itself) {
  const qd_prediction p[3] = {{1, 1, 0, 1}, {2, 2, 0, 1}, {5, 5, 0, 1}};
  qd_divergence d;
  cr_assert_eq(qd_divergence_of(p, 1, 3, &d), QD_OK);
  cr_expect_eq(d.kl.value, 0);
  cr_expect_eq(d.top1.value, 1);
  cr_expect_eq(d.top1.error, 0);
  cr_expect_eq(d.log_ratio.value, 0);
  expect_near(d.log_ratio.error * d.log_ratio.error, 0, "error");
  cr_expect_eq(d.delta_p_rms.value, 0);
  cr_expect_eq(d.delta_p_rms.error, 0);
}

Test(divergence, of_one_prediction_has_no_error) {
  const qd_prediction p = {1, 2, 0.5, 0};
  qd_divergence d;
  cr_assert_eq(qd_divergence_of(&p, 1, 1, &d), QD_OK);
  cr_expect_eq(d.kl.error, 0);
  cr_expect_eq(d.kl_median, 0.5);
  cr_expect_eq(d.kl_99_9, 0.5);
  cr_expect_eq(d.log_ratio.error, 0);
}
