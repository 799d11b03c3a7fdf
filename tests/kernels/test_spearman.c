/* The order by likeness: a published one, and equal bits on every device. */
#include "tests/kernels/golden_example.h"
#include "tests/kernels/solver_fixture.h"

enum { ROWS = 37, COLUMNS = 23 };

static void order_on(const char *name, const char *isa, int threads, qd_tensor w, int32_t *order) {
  qd_device device;
  must_open(&device, name, isa, threads);
  cr_assert_eq(qd_spearman_order(&device, w, qd_tensor_1d(order, QD_I32, w.dim[1])), QD_OK, "%s", qd_error_text());
  qd_device_close(&device);
}

Test(spearman, published_order) {
  static const int32_t wanted[8] = {0, 4, 5, 1, 6, 2, 3, 7};
  double w[3][8];
  int32_t order[8];
  memcpy(w, golden_w, sizeof w);
  order_on("ref64", NULL, 1, qd_tensor_2d(w, QD_F64, 3, 8), order);
  cr_expect_eq(memcmp(order, wanted, sizeof wanted), 0, "%d %d %d %d %d %d %d %d", order[0], order[1], order[2], order[3],
               order[4], order[5], order[6], order[7]);
}

/* Columns with equals, and two that are constant. */
Test(spearman, cpu_equals_ref) {
  static float w[ROWS * COLUMNS];
  int32_t wanted[COLUMNS], got[COLUMNS];
  uint64_t seed = 5;
  variant all[MOST_VARIANTS];
  for (int i = 0; i < ROWS * COLUMNS; i++) w[i] = i % COLUMNS == 3 || i % COLUMNS == 9 ? 1 : (float)rint(4 * normal(&seed));
  order_on("ref", NULL, 1, qd_tensor_2d(w, QD_F32, ROWS, COLUMNS), wanted);
  for (int i = variants(all) - 1; i >= 0; i--) {
    order_on("cpu", qd_isa_name(all[i].isa), all[i].threads, qd_tensor_2d(w, QD_F32, ROWS, COLUMNS), got);
    cr_expect_eq(memcmp(wanted, got, sizeof got), 0);
  }
  int64_t sum = 0;
  for (int c = 0; c < COLUMNS; c++) sum += wanted[c];
  cr_expect_eq(sum, COLUMNS * (COLUMNS - 1) / 2);
}
