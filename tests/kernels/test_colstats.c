#include "tests/kernels/statistics_support.h"

TestSuite(colstats, .fini = drop_all);

static qd_tensor new_stats(int64_t columns) { return qd_tensor_2d(new_bytes((size_t)(3 * columns), 8), QD_F64, 3, columns); }

static void stats_of(const char *name, qd_tensor x, qd_tensor stats) {
  qd_device device;
  open_device(&device, name, QD_ISA_PORTABLE, 1);
  cr_assert_eq(qd_colstats(&device, x, stats), QD_OK, "%s", qd_error_text());
  qd_device_close(&device);
}

static void compare(qd_tensor x) {
  qd_tensor expected = new_stats(x.dim[1]), got = new_stats(x.dim[1]);
  stats_of("ref", x, expected);
  qd_device device;
  for (int step = 0; next_cpu(&device, &step);) {
    memset(got.data, 1, qd_tensor_bytes(got));
    cr_assert_eq(qd_colstats(&device, x, got), QD_OK, "%s", qd_error_text());
    cr_expect_arr_eq(got.data, expected.data, qd_tensor_bytes(got), "%s, %d threads: %s (%d, %d) differs",
                     qd_isa_name(device.isa), device.threads, qd_dtype_name(x.dtype), (int)x.dim[0], (int)x.dim[1]);
    qd_device_close(&device);
  }
}

Test(colstats, cpu_equals_ref) {
  static const int64_t shapes[][2] = {{1, 1}, {7, 64}, {256, 255}, {64, 257}, {300, 352}, {0, 5}, {3, 0}, {33, 130}};
  for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
    for (int half = 0; half < 2; half++) {
      uint64_t state = SEED + s;
      int64_t rows = shapes[s][0], columns = shapes[s][1];
      qd_tensor all = random_vector(half ? QD_BF16 : QD_F32, (rows + 1) * (columns + 3), &state);
      compare(qd_tensor_2d(all.data, all.dtype, rows, columns));
      qd_tensor wide = qd_tensor_2d(all.data, all.dtype, rows, columns + 3);
      compare(qd_tensor_columns(wide, 2, columns));
      compare(qd_tensor_transposed(wide));
      drop(all.data);
    }
}

Test(colstats, known_values) {
  float x[3][2] = {{1, 0}, {-5, 0}, {3, 0}};
  qd_tensor stats = new_stats(2);
  stats_of("cpu", qd_tensor_2d(x, QD_F32, 3, 2), stats);
  const double expected[6] = {-1, 0, 35, 0, 5, 0};
  cr_expect_arr_eq(stats.data, expected, sizeof expected);
}

/* Sums are in double already, so that ref64 may not differ by a bit. */
Test(colstats, ref_equals_ref64) {
  uint64_t state = SEED;
  qd_tensor all = random_vector(QD_F32, 100 * 37, &state), x = qd_tensor_2d(all.data, QD_F32, 100, 37);
  qd_tensor expected = new_stats(37), got = new_stats(37);
  stats_of("ref64", as_f64(x), expected);
  stats_of("ref", x, got);
  cr_expect_arr_eq(got.data, expected.data, qd_tensor_bytes(got));
}

Test(colstats, refuses_what_does_not_fit) {
  qd_device device;
  open_device(&device, "cpu", QD_ISA_PORTABLE, 1);
  float x[6] = {0};
  double stats[9] = {0};
  qd_tensor xt = qd_tensor_2d(x, QD_F32, 2, 3);
  cr_expect_eq(qd_colstats(&device, xt, qd_tensor_2d(stats, QD_F64, 3, 2)), QD_ESHAPE);
  cr_expect_eq(qd_colstats(&device, xt, qd_tensor_2d(stats, QD_F64, 2, 3)), QD_ESHAPE);
  cr_expect_eq(qd_colstats(&device, qd_tensor_1d(x, QD_F32, 6), qd_tensor_2d(stats, QD_F64, 3, 3)), QD_ESHAPE);
  cr_expect_eq(qd_colstats(&device, xt, qd_tensor_2d(stats, QD_F32, 3, 3)), QD_EDTYPE);
  cr_expect_eq(qd_colstats(&device, qd_tensor_2d(x, QD_F16, 2, 3), qd_tensor_2d(stats, QD_F64, 3, 3)), QD_EDTYPE);
  qd_device_close(&device);
}
