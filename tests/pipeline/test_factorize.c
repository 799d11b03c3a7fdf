#include "pipeline/factorize.h"

#include "tests/pipeline/stage_support.h"

static stand s;
static qd_stats stats;
static qd_weight linear = {.q.scheme.group_size = 4};
static qd_stage_factor factor = {.linears = {1, {&linear}}};
static const qd_block block = {.index = 1};

static void open_fixture(void) {
  double *diagonal;
  open_stand(&s, "cpu", QD_F32);
  stats = (qd_stats){.columns = HIDDEN, .tokens = SEQUENCES * SEQUENCE_TOKENS, .h = {.dtype = QD_F32, .n = HIDDEN}};
  snprintf(stats.what, sizeof stats.what, "block 1: gate_up_input");
  MUST(qd_arena_new(&s.run.stats_arena, HIDDEN, sizeof *diagonal, &diagonal));
  MUST(qd_arena_new(&s.run.stats_arena, qd_tri_elements(HIDDEN), sizeof(float), &stats.h.data));
  memset(stats.h.data, 0, qd_tri_bytes(HIDDEN, QD_F32));
  stats.diagonal = qd_tensor_1d(diagonal, QD_F64, HIDDEN);
}
static void close_fixture(void) { close_stand(&s); }
TestSuite(factorize, .init = open_fixture, .fini = close_fixture);

static float *h_at(int64_t i, int64_t j) { return (float *)stats.h.data + qd_tri_index(i > j ? i : j, i > j ? j : i); }

/* A^T A of some noise. */
static void fill_hessian(void) {
  double a[2 * HIDDEN][HIDDEN];
  uint64_t seed = 3;
  for (int r = 0; r < 2 * HIDDEN; r++)
    for (int c = 0; c < HIDDEN; c++) a[r][c] = noise(&seed) * (1 + c % 3);
  for (int i = 0; i < HIDDEN; i++)
    for (int j = 0; j <= i; j++) {
      double sum = 0;
      for (int r = 0; r < 2 * HIDDEN; r++) sum += a[r][i] * a[r][j];
      *h_at(i, j) = (float)sum;
    }
}

static void kill_column(int column) {
  for (int j = 0; j < HIDDEN; j++) *h_at(column, j) = 0;
}

/* U^T U (H + add) = 1, rows and columns in processing order. */
static void expect_inverse(const double *add) {
  const int32_t *order = factor.order.data;
  const float *u = factor.u.data;
  for (int a = 0; a < HIDDEN; a++)
    for (int b = 0; b < HIDDEN; b++) {
      double sum = 0;
      for (int k = 0; k < HIDDEN; k++) {
        double inverse = 0;
        for (int c = 0; c <= (a < k ? a : k); c++) inverse += (double)u[qd_tri_index(a, c)] * (double)u[qd_tri_index(k, c)];
        int i = order[k], j = order[b];
        sum += inverse * ((double)*h_at(i, j) + (i == j ? add[i] : 0));
      }
      cr_expect(fabs(sum - (a == b)) < 1e-4, "%d, %d: %g", a, b, sum);
    }
}

static double mean_of_live(void) {
  double sum = 0;
  int live = 0;
  for (int c = 0; c < HIDDEN; c++) sum += (double)*h_at(c, c), live += *h_at(c, c) != 0;
  return sum / live;
}

static void factorize(void) { MUST(qd_factorize(&s.run, &block, QD_STAGE_QKV, &stats, &factor)); }

Test(factorize, inverts_the_damped_hessian_in_every_order) {
  double add[HIDDEN];
  fill_hessian();
  for (int c = 0; c < HIDDEN; c++) add[c] = 0.01 * mean_of_live();
  for (qd_act_order order = QD_ORDER_NONE; order <= QD_ORDER_GROUP; order++) {
    int32_t wanted[HIDDEN];
    float diagonal[HIDDEN];
    s.job.act_order = order;
    factorize();
    for (int c = 0; c < HIDDEN; c++) diagonal[c] = *h_at(c, c);
    MUST(qd_method_order(order, 4, diagonal, HIDDEN, wanted));
    cr_expect_eq(memcmp(factor.order.data, wanted, sizeof wanted), 0);
    cr_expect_eq(factor.damping, 0.01);
    cr_expect(!factor.failed);
    expect_inverse(add);
  }
}

Test(factorize, dead_columns_get_the_mean_of_the_live_ones) {
  double add[HIDDEN];
  fill_hessian();
  kill_column(4);
  kill_column(9);
  for (int c = 0; c < HIDDEN; c++) add[c] = 0.01 * mean_of_live() + (c == 4 || c == 9 ? mean_of_live() : 0);
  factorize();
  for (int c = 0; c < HIDDEN; c++) cr_expect_eq(((uint8_t *)factor.dead.data)[c], c == 4 || c == 9);
  expect_inverse(add);
  cr_expect_eq(((int32_t *)factor.order.data)[HIDDEN - 2], 4); /* last, as their diagonal is 0 */
  cr_expect_eq(((int32_t *)factor.order.data)[HIDDEN - 1], 9);
}

/* H_jj = 1 of H = 2 / n X^T X is n / 2 of X^T X; it counts in the mean and in the order. */
Test(factorize, dead_columns_as_the_reference_has_them) {
  double add[HIDDEN], sum = 0, dead = SEQUENCES / 2.0;
  fill_hessian();
  kill_column(4);
  for (int c = 5; c < HIDDEN; c++)
    for (int j = 0; j < HIDDEN; j++) *h_at(c, j) *= 1e-4f; /* smaller than a dead one */
  for (int c = 0; c < HIDDEN; c++) sum += (double)*h_at(c, c);
  for (int c = 0; c < HIDDEN; c++) add[c] = 0.01 * (sum + dead) / HIDDEN + (c == 4 ? dead : 0);
  s.job.scheme.compat = true;
  factorize();
  expect_inverse(add);
  cr_expect_eq(((int32_t *)factor.order.data)[4], 4);
}

Test(factorize, a_stage_without_any_input_still_has_a_factor) {
  factorize();
  for (int c = 0; c < HIDDEN; c++) cr_expect_eq(((uint8_t *)factor.dead.data)[c], 1);
  cr_expect(!factor.failed);
}

/* ---- GPTAQ's part of it -------------------------------------------------------------------------------------------------- */

static double u_at(int64_t c, int64_t j) { return c <= j ? (double)((const float *)factor.u.data)[qd_tri_index(j, c)] : 0; }

/* alpha triu(D U^T, strictly) U, D in processing order. */
static double p_by_hand(const float *cross, int64_t a, int64_t j) {
  const int32_t *order = factor.order.data;
  double sum = 0;
  for (int64_t k = a + 1; k < HIDDEN; k++) {
    double t = 0;
    for (int64_t b = 0; b < HIDDEN; b++) t += (double)cross[order[a] * HIDDEN + order[b]] * u_at(k, b);
    sum += t * u_at(k, j);
  }
  return 0.25 * sum;
}

Test(factorize, gives_the_asymmetry_in_the_same_order) {
  float cross[HIDDEN * HIDDEN];
  uint64_t seed = 8;
  fill_hessian();
  for (int i = 0; i < HIDDEN * HIDDEN; i++) cross[i] = (float)noise(&seed);
  stats.cross = qd_tensor_2d(cross, QD_F32, HIDDEN, HIDDEN);
  factorize();
  cr_expect_eq(factor.p.n, 0, "of equal streams there is none");
  stats.asymmetric = true, s.job.gptaq = true, s.job.gptaq_alpha = 0.25;
  for (qd_act_order order = QD_ORDER_NONE; order <= QD_ORDER_GROUP; order++) {
    s.job.act_order = order;
    factorize();
    cr_assert_eq(factor.p.n, HIDDEN);
    for (int64_t j = 0; j < HIDDEN; j++)
      for (int64_t a = 0; a < j; a++) {
        double got = (double)((float *)factor.p.data)[qd_tri_index(j, a)], wanted = p_by_hand(cross, a, j);
        cr_expect(fabs(got - wanted) < 1e-6, "%s, %d, %d: %g instead of %g", qd_act_order_name(order), (int)a, (int)j, got,
                  wanted);
      }
  }
}

/* ---- the ladder --------------------------------------------------------------------------------------------------------- */

/* An off-diagonal element that is larger than the diagonal: positive only with damping above `excess` of it. */
static void spoil(float excess) {
  for (int c = 0; c < HIDDEN; c++) *h_at(c, c) = 1;
  *h_at(3, 7) = 1 + excess;
}

Test(factorize, damping_climbs_until_there_is_a_factor) {
  spoil(0.05f);
  factorize();
  cr_expect(!factor.failed);
  cr_expect(fabs(factor.damping - 0.1) < 1e-12, "%g", factor.damping);
  s.job.damp = 0;
  factorize();
  cr_expect(!factor.failed);
  cr_expect(fabs(factor.damping - 0.1) < 1e-12, "%g", factor.damping); /* 0, 1e-4, 1e-3, 0.01, 0.1 */
}

Test(factorize, a_hessian_beyond_the_ladder_falls_back_to_rounding) {
  spoil(3e4f);
  factorize();
  cr_expect(factor.failed);
  cr_expect(fabs(factor.damping - 1e3) < 1e-6, "%g", factor.damping); /* 0.01 and five steps */
}

Test(factorize, or_ends_the_job) {
  spoil(3e4f);
  s.job.on_failure = QD_FAILURE_STOP;
  cr_expect_eq(qd_factorize(&s.run, &block, QD_STAGE_GATE_UP, &stats, &factor), QD_ENUMERIC);
  cr_expect(strstr(qd_error_text(), "block 1") != NULL && strstr(qd_error_text(), "gate_up_input") != NULL, "%s",
            qd_error_text());
}

/* What one rank does for itself is what it does for all. */
Test(factorize, alone_it_gives_the_same) {
  qd_stage_factor alone = {.linears = factor.linears};
  fill_hessian();
  factorize();
  MUST(qd_factorize_here(&s.run, &stats, &alone));
  cr_expect_eq(memcmp(alone.u.data, factor.u.data, qd_tri_bytes(HIDDEN, QD_F32)), 0);
  cr_expect_eq(memcmp(alone.order.data, factor.order.data, qd_tensor_bytes(factor.order)), 0);
  cr_expect(alone.damping == factor.damping && !alone.failed);
}

Test(factorize, a_method_without_a_factor_gets_none) {
  fill_hessian();
  s.job.method = &qd_method_rtn;
  factorize();
  cr_expect_null(factor.u.data);
  cr_expect_eq(factor.damping, 0);
}
