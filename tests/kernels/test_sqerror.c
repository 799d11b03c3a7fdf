#include "tests/kernels/statistics_support.h"

TestSuite(sqerror, .fini = drop_all);

static qd_tensor new_value(int64_t rows) { return qd_tensor_1d(new_bytes((size_t)rows, sizeof(double)), QD_F64, rows); }

static qd_tensor value_of(const char *name, qd_tensor x, qd_tri h) {
  qd_device device;
  open_device(&device, name, QD_ISA_PORTABLE, 1);
  qd_tensor value = new_value(x.dim[0]);
  cr_assert_eq(qd_sqerror(&device, x, h, value), QD_OK, "%s", qd_error_text());
  qd_device_close(&device);
  return value;
}

/* A symmetric matrix that need not be definite. */
static qd_tri random_tri(int64_t n, qd_dtype dtype, uint64_t *state) {
  qd_tri h = new_tri(n, dtype);
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j <= i; j++) {
      float value = (float)random_number(state);
      if (dtype == QD_F64) ((double *)h.data)[qd_tri_index(i, j)] = (double)value;
      else ((float *)h.data)[qd_tri_index(i, j)] = value;
    }
  return h;
}

static void compare(qd_tensor x, qd_tri h) {
  qd_tensor expected = value_of("ref", x, h), got = new_value(x.dim[0]);
  qd_device device;
  for (int step = 0; next_cpu(&device, &step);) {
    memset(got.data, 1, qd_tensor_bytes(got));
    cr_assert_eq(qd_sqerror(&device, x, h, got), QD_OK, "%s", qd_error_text());
    cr_expect_arr_eq(got.data, expected.data, qd_tensor_bytes(got), "%s, %d threads: (%d, %d) differs", qd_isa_name(device.isa),
                     device.threads, (int)x.dim[0], (int)x.dim[1]);
    qd_device_close(&device);
  }
  drop(expected.data), drop(got.data);
}

Test(sqerror, cpu_equals_ref) {
  static const int64_t shapes[][2] = {{1, 1},    {7, 7},   {9, 64},  {300, 65}, {13, 255}, {8, 256},
                                      {17, 257}, {3, 352}, {5, 700}, {0, 4},    {3, 0}};
  for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
    uint64_t state = SEED + s;
    int64_t rows = shapes[s][0], columns = shapes[s][1];
    qd_tri h = random_tri(columns, QD_F32, &state);
    qd_tensor all = random_vector(QD_F32, (rows + 1) * (columns + 3), &state);
    compare(qd_tensor_2d(all.data, QD_F32, rows, columns), h);
    compare(qd_tensor_columns(qd_tensor_2d(all.data, QD_F32, rows, columns + 3), 3, columns), h);
    compare(qd_tensor_transposed(qd_tensor_2d(all.data, QD_F32, columns, rows)), h);
    drop(all.data), drop(h.data);
  }
}

/* Weights are mostly zeros after their columns have been taken out; -0 and zeros must not show. */
Test(sqerror, cpu_equals_ref_with_zeros) {
  enum { R = 10, C = 300 };
  uint64_t state = SEED;
  qd_tri h = random_tri(C, QD_F32, &state);
  qd_tensor all = random_vector(QD_F32, R * C, &state);
  for (int64_t i = 0; i < R * C; i++)
    if (random_number(&state) < 0.7) put(all, i, random_number(&state) < 0 ? -0.0 : 0.0);
  memset(all.data, 0, C * sizeof(float));
  compare(qd_tensor_2d(all.data, QD_F32, R, C), h);
  qd_tensor value = value_of("cpu", qd_tensor_2d(all.data, QD_F32, 1, C), h);
  cr_expect_eq(get(value, 0), 0);
}

static double quadratic_form(qd_tensor x, int64_t r, qd_tri h, double *magnitude) {
  double sum = 0;
  *magnitude = 0;
  for (int64_t i = 0; i < h.n; i++)
    for (int64_t j = 0; j < h.n; j++) {
      size_t at = i > j ? qd_tri_index(i, j) : qd_tri_index(j, i);
      double term = get(x, r * h.n + i) * get(x, r * h.n + j) * (double)((float *)h.data)[at];
      sum += term;
      *magnitude += fabs(term);
    }
  return sum;
}

/* ref64 is x H x^T to double's accuracy; ref's chains round with 2^-24 of sum |x_i H_ij x_j| at most 256 + 2 times. */
Test(sqerror, is_the_quadratic_form) {
  enum { R = 6, C = 300 };
  uint64_t state = SEED, same = SEED;
  qd_tri h = random_tri(C, QD_F32, &state), wide = random_tri(C, QD_F64, &same);
  qd_tensor all = random_vector(QD_F32, R * C, &state), x = qd_tensor_2d(all.data, QD_F32, R, C);
  qd_tensor exact = value_of("ref64", as_f64(x), wide), got = value_of("ref", x, h);
  for (int64_t r = 0; r < R; r++) {
    double magnitude, expected = quadratic_form(x, r, h, &magnitude);
    cr_expect_leq(fabs(get(exact, r) - expected), 1e-13 * magnitude, "row %d", (int)r);
    cr_expect_leq(fabs(get(got, r) - expected), 258 * 0x1p-24 * magnitude, "row %d", (int)r);
  }
}

Test(sqerror, refuses_what_does_not_fit) {
  qd_device device;
  open_device(&device, "cpu", QD_ISA_PORTABLE, 1);
  float x[6] = {0};
  double value[3];
  qd_tri h = new_tri(3, QD_F32);
  qd_tensor xt = qd_tensor_2d(x, QD_F32, 2, 3);
  cr_expect_eq(qd_sqerror(&device, xt, h, qd_tensor_1d(value, QD_F64, 3)), QD_ESHAPE);
  cr_expect_eq(qd_sqerror(&device, xt, (qd_tri){h.data, QD_F32, 2}, qd_tensor_1d(value, QD_F64, 2)), QD_ESHAPE);
  cr_expect_eq(qd_sqerror(&device, xt, (qd_tri){h.data, QD_F64, 3}, qd_tensor_1d(value, QD_F64, 2)), QD_EDTYPE);
  cr_expect_eq(qd_sqerror(&device, qd_tensor_2d(x, QD_BF16, 2, 3), h, qd_tensor_1d(value, QD_F64, 2)), QD_EDTYPE);
  cr_expect_eq(qd_sqerror(&device, xt, h, qd_tensor_1d(value, QD_F32, 2)), QD_EDTYPE);
  qd_device_close(&device);
}
