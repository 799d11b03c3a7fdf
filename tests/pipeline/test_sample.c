#include "pipeline/sample.h"

#include "pipeline/outliers.h"
#include "tests/pipeline/stage_support.h"

#include <math.h>

Test(sample, rows_are_whole_runs_spread_evenly) {
  qd_row_set all = qd_sample_rows(100, 16), some = qd_sample_rows(4096, 16), large = qd_sample_rows(1000, 300);
  cr_expect(all.first == 0 && all.n == 100 && all.run == 100);
  cr_expect(some.n == QD_SAMPLE_ROWS && some.run == 16 && some.step == 512);
  cr_expect(large.n == 300 && large.run == 300);
  for (int64_t rows = 1; rows < 700; rows++)
    for (int64_t unit = 1; unit < 40; unit++) {
      qd_row_set s = qd_sample_rows(rows, unit);
      int64_t runs = (s.n + s.run - 1) / s.run;
      cr_assert(s.n >= 1 && s.n <= rows && (runs == 1 || s.run == unit));
      cr_assert(s.first + (runs - 1) * s.step + (s.n - (runs - 1) * s.run) <= rows, "%d rows, runs of %d", (int)rows,
                (int)unit);
    }
}

/* ---- a stage ------------------------------------------------------------------------------------------------------------- */

enum { ROWS = 96 };
static stand s;
static float weights[ROWS * HIDDEN];
static qd_weight linear;
static qd_stats stats;
static const qd_block block = {.index = 1};

static void open_fixture(void) {
  uint64_t seed = 9;
  open_stand(&s, "cpu", QD_F32);
  MUST(qd_arena_open(&s.run.block_arena, "block", (size_t)4 << 20));
  s.job.method = &qd_method_spqr, s.job.act_order = QD_ORDER_DYNAMIC, s.job.outlier_threshold = 0.2;
  linear = (qd_weight){.slot = {.role = QD_Q_PROJ, .expert = -1, .rank = 2, .dim = {ROWS, HIDDEN}}, .dtype = QD_F32};
  linear.q.scheme = (qd_scheme){.bits = 2, .group_size = 5, .scale_dtype = QD_F16, .spqr = true, .scale_bits = 3,
                                .zero_bits = 3, .stat_group = 16};
  for (int i = 0; i < ROWS * HIDDEN; i++) weights[i] = (float)(0.1 * noise(&seed) * (1 + 2 * (i % 37 == 0)));
  linear.original = qd_tensor_2d(weights, QD_F32, ROWS, HIDDEN);
  fill_inputs(&s, HIDDEN, 23);
  MUST(qd_calibrate(&s.run, &block, QD_STAGE_QKV, &stats));
}
static void close_fixture(void) {
  qd_arena_close(&s.run.block_arena);
  close_stand(&s);
}
TestSuite(sample, .init = open_fixture, .fini = close_fixture);

static qd_stage_factor factorize(void) {
  qd_stage_factor factor = {.linears = {1, {&linear}}};
  MUST(qd_factorize(&s.run, &block, QD_STAGE_QKV, &stats, &factor));
  return factor;
}

Test(sample, finds_the_threshold_of_a_share) {
  qd_sampled found, again;
  qd_stage_factor factor = factorize();
  MUST(qd_sample_find(&s.run, &factor, &stats, 0.05, &found));
  factor.threshold = found.threshold;
  MUST(qd_sample(&s.run, &factor, &stats, &again));
  cr_expect(fabs(again.share - 0.05) < 0.01, "a share of %g", again.share);
  MUST(qd_sample_find(&s.run, &factor, &stats, 0, &found));
  cr_expect(isinf(found.threshold) && found.share == 0);
}

/* Of the candidates the one whose sample costs least; all rows are in it here. */
Test(sample, damping_is_the_best_of_the_candidates) {
  double best = INFINITY, damping = 0;
  for (int k = 0; k < QD_N_DAMPINGS; k++) {
    qd_sampled one;
    s.job.damp = qd_dampings[k];
    qd_stage_factor factor = factorize();
    MUST(qd_sample(&s.run, &factor, &stats, &one));
    if (one.cost < best) best = one.cost, damping = factor.damping;
  }
  s.job.damp_auto = true;
  qd_stage_factor chosen = factorize();
  cr_expect_eq(chosen.damping, damping);
  s.job.damp_auto = false, s.job.damp = damping;
  qd_stage_factor alone = factorize();
  cr_expect_eq(memcmp(chosen.u.data, alone.u.data, qd_tri_bytes(HIDDEN, QD_F32)), 0, "the factor is not the candidate's");
}

/* The first that sees the weights says whose they are. */
Test(sample, tells_the_tensor_that_no_grid_holds) {
  qd_sampled one;
  qd_stage_factor factor = factorize();
  for (int c = 0; c < HIDDEN; c++) weights[c] *= 1e30f;
  snprintf(linear.slot.name, sizeof linear.slot.name, "some.weight");
  cr_expect_eq(qd_sample(&s.run, &factor, &stats, &one), QD_ENUMERIC);
  cr_expect_not_null(strstr(qd_error_text(), "some.weight, a sample of its rows: rows 0 to 15, group "), "%s", qd_error_text());
}

Test(sample, more_bits_cost) {
  qd_sampled few, many;
  qd_stage_factor factor = factorize();
  factor.threshold = INFINITY;
  MUST(qd_sample(&s.run, &factor, &stats, &few));
  factor.threshold = 1e-6;
  MUST(qd_sample(&s.run, &factor, &stats, &many));
  cr_expect_eq(few.share, 0);
  cr_expect(many.share > 0.2 && many.share <= 1);
}
