#include "pipeline/generate/sampling.h"

#include <criterion/criterion.h>
#include <math.h>

enum { V = 8, DRAWS = 40000 };
static const float eight[V] = {0.5f, 2.0f, -1.0f, 2.0f, 0.0f, 1.0f, -3.0f, 0.25f};

static int32_t choose(const qd_sampling *s, const float *logit, int64_t n, uint64_t index) {
  static unsigned char work[V * QD_SAMPLING_WORK_BYTES] __attribute__((aligned(16)));
  return qd_sampling_choose(s, qd_tensor_1d((void *)(uintptr_t)logit, QD_F32, n), index, work);
}

/* How often each token is drawn. */
static void draw(qd_sampling s, double share[V]) {
  for (int v = 0; v < V; v++) share[v] = 0;
  for (uint64_t i = 0; i < DRAWS; i++) share[choose(&s, eight, V, i)] += 1.0 / DRAWS;
}

static void expect_shares(qd_sampling s, const bool kept[V]) {
  double share[V], sum = 0;
  for (int v = 0; v < V; v++) sum += kept[v] ? exp((double)eight[v] / s.temperature) : 0;
  draw(s, share);
  for (int v = 0; v < V; v++) {
    double wanted = kept[v] ? exp((double)eight[v] / s.temperature) / sum : 0;
    cr_expect(fabs(share[v] - wanted) <= 0.015, "token %d: %g, wanted %g", v, share[v], wanted);
    cr_expect(kept[v] || share[v] == 0, "token %d was left out and drawn", v);
  }
}

Test(sampling, without_a_temperature_takes_the_likeliest_the_lower_of_equals) {
  cr_expect_eq(choose(&(qd_sampling){.top_p = 1}, eight, V, 5), 1);
  cr_expect_eq(choose(&(qd_sampling){.top_p = 1}, eight + 2, 1, 0), 0);
}

Test(sampling, draws_by_the_softmax) {
  static const bool all[V] = {true, true, true, true, true, true, true, true};
  expect_shares((qd_sampling){.temperature = 1, .top_p = 1}, all);
  expect_shares((qd_sampling){.temperature = 2.5, .top_p = 1, .seed = 9}, all);
}

Test(sampling, leaves_out_by_top_k_top_p_and_min_p) {
  /* probabilities: 1 and 3 of 0.335 each, 5 of 0.123, 0 of 0.075, 7 of 0.058, 4 of 0.045, ... */
  expect_shares((qd_sampling){.temperature = 1, .top_p = 1, .top_k = 3}, (bool[V]){[1] = true, [3] = true, [5] = true});
  expect_shares((qd_sampling){.temperature = 1, .top_p = 0.7}, (bool[V]){[1] = true, [3] = true, [5] = true});
  expect_shares((qd_sampling){.temperature = 1, .top_p = 0.6}, (bool[V]){[1] = true, [3] = true});
  expect_shares((qd_sampling){.temperature = 1, .top_p = 0.8, .top_k = 3}, (bool[V]){[1] = true, [3] = true});
  expect_shares((qd_sampling){.temperature = 1, .top_p = 1, .min_p = 0.2},
                (bool[V]){[0] = true, [1] = true, [3] = true, [5] = true});
  expect_shares((qd_sampling){.temperature = 1, .top_p = 0, .seed = 3}, (bool[V]){[1] = true});
  expect_shares((qd_sampling){.temperature = 1, .top_p = 1, .min_p = 1}, (bool[V]){[1] = true, [3] = true});
}

Test(sampling, numbers_are_counted) {
  qd_sampling s = {.temperature = 1, .top_p = 1, .seed = 1}, other = {.temperature = 1, .top_p = 1, .seed = 2};
  int differ = 0;
  for (uint64_t i = 0; i < 100; i++) {
    cr_expect_eq(choose(&s, eight, V, i), choose(&s, eight, V, i));
    differ += choose(&s, eight, V, i) != choose(&other, eight, V, i);
  }
  cr_expect_gt(differ, 20);
  /* Known answers: whoever changes the generator changes every drawn text. */
  cr_expect_eq(qd_sampling_uniform(0, 1, 0), 0x1.2924d85d00396p-1, "%a", qd_sampling_uniform(0, 1, 0));
  cr_expect_eq(qd_sampling_uniform(7, 1, 41), 0x1.e0f95d7ab7d29p-1, "%a", qd_sampling_uniform(7, 1, 41));
}

Test(sampling, numbers_are_even) {
  double sum = 0, squares = 0;
  for (uint64_t i = 0; i < DRAWS; i++) {
    double u = qd_sampling_uniform(3, 1, i);
    cr_assert(u >= 0 && u < 1);
    sum += u, squares += u * u;
  }
  cr_expect(fabs(sum / DRAWS - 0.5) < 0.01 && fabs(squares / DRAWS - 1.0 / 3) < 0.01);
}
