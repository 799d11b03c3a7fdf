#include "pipeline/outliers.h"

#include "tests/pipeline/stage_support.h"

#include <math.h>

enum { ROWS = 300, COLUMNS = 5 };

Test(outliers, variance_and_tau_by_hand) {
  static float w[ROWS][COLUMNS];
  double variance[COLUMNS], wanted[COLUMNS], mean = 0;
  uint8_t dead[COLUMNS] = {0, 0, 1, 0, 0};
  int32_t order[COLUMNS] = {3, 1, 0, 4, 2};
  static float u[QD_TRI_TILE * QD_TRI_TILE];
  uint64_t seed = 4;
  stand s;
  open_stand(&s, "cpu", QD_F32);
  for (int c = 0; c < COLUMNS; c++) {
    double sum = 0, squares = 0;
    for (int r = 0; r < ROWS; r++) w[r][c] = (float)((c + 1) * noise(&seed) + c), sum += (double)w[r][c];
    for (int r = 0; r < ROWS; r++) squares += pow((double)w[r][c] - sum / ROWS, 2);
    wanted[c] = dead[c] ? 0 : squares / (ROWS - 1);
  }
  qd_tensor out = qd_tensor_1d(variance, QD_F64, COLUMNS);
  MUST(qd_outliers_variance(&s.device, qd_tensor_2d(w, QD_F32, ROWS, COLUMNS), dead, out));
  for (int c = 0; c < COLUMNS; c++) cr_expect(fabs(variance[c] - wanted[c]) <= 1e-12 * wanted[c], "%d", c);
  for (int p = 0; p < COLUMNS; p++) {
    u[qd_tri_index(p, p)] = (float)(1 << p);
    mean += wanted[order[p]] / (double)(1 << 2 * p) / COLUMNS;
  }
  qd_tri factor = {u, QD_F32, COLUMNS};
  cr_expect(fabs(qd_outliers_tau(0.2, out, factor, order) / (0.2 * mean) - 1) < 1e-12);
  cr_expect(isinf(qd_outliers_tau(INFINITY, out, factor, order)));
  memset(variance, 0, sizeof variance);
  cr_expect(isinf(qd_outliers_tau(0.2, out, factor, order)), "rows that are alike have no scale");
  close_stand(&s);
}

/* One rank has them all: nothing moves, and the parts are cut to their number. */
Test(outliers, are_counted_and_bounded) {
  qd_scheme scheme = {.bits = 3, .group_size = 4, .scale_dtype = QD_F16, .spqr = true, .scale_bits = 3, .zero_bits = 3,
                      .stat_group = 2};
  qd_arena arena;
  qd_qtensor q;
  qd_comm *comm = open_team();
  MUST(qd_arena_open(&arena, "test", (size_t)1 << 20));
  MUST(qd_qtensor_new(&arena, scheme, 6, 8, false, &q));
  MUST(qd_outliers_new(&arena, 7, &q));
  cr_expect_eq(qd_outliers_of(&q), 0);
  int32_t *pointer = q.outlier_rows.data;
  for (int r = 1; r <= 6; r++) pointer[r] = r;
  for (int i = 0; i < 6; i++) ((uint16_t *)q.outlier_columns.data)[i] = (uint16_t)i;
  MUST(qd_outliers_share(comm, &(qd_range){0, 6}, 7, &q));
  cr_expect(qd_outliers_of(&q) == 6 && q.outlier_values.dim[0] == 6 && pointer[6] == 6);
  for (int i = 0; i < 6; i++) cr_expect_eq(((uint16_t *)q.outlier_columns.data)[i], i);
  cr_expect_eq(qd_outliers_share(comm, &(qd_range){0, 6}, 5, &q), QD_ENUMERIC);
  cr_expect_eq(qd_outliers_most(1 << 20, 1 << 20), INT32_MAX);
  qd_arena_close(&arena);
  qd_team_close(comm, false, 0);
}
