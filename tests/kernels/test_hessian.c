#include "tests/kernels/statistics_support.h"

TestSuite(hessian, .fini = drop_all);
TestSuite(hessian_grid, .fini = drop_all);
TestSuite(hessian_values, .fini = drop_all);

static const double no_bound = 0x1p62;

static qd_tensor vector_i32(int32_t *data, int64_t n) { return qd_tensor_1d(data, QD_I32, n); }

/* Exponents as a first unit gives them: from the diagonal of unit 0. */
static void grid_of(qd_tensor x, int32_t *exponent) {
  qd_device device;
  open_device(&device, "ref", QD_ISA_PORTABLE, 1);
  int64_t columns = x.dim[2];
  double *diagonal = new_bytes((size_t)columns, sizeof *diagonal);
  for (int64_t t = 0; x.dim[0] > 0 && t < x.dim[1]; t++)
    for (int64_t j = 0; j < columns; j++) {
      double value = get(x, t * x.stride[1] + j * x.stride[2]);
      diagonal[j] += value * value;
    }
  qd_tensor first_unit = qd_tensor_2d(diagonal, QD_F64, 1, columns);
  cr_assert_eq(qd_hessian_grid(&device, first_unit, no_bound, vector_i32(exponent, columns)), QD_OK);
  drop(diagonal);
  qd_device_close(&device);
}

static qd_tri total_on(qd_device *device, qd_tensor x, int32_t *exponent) {
  qd_tri total = new_tri(x.dim[2], QD_I64);
  cr_assert_eq(qd_hessian(device, x, vector_i32(exponent, x.dim[2]), total), QD_OK, "%s", qd_error_text());
  return total;
}

static qd_tri total_of(const char *name, qd_tensor x, int32_t *exponent) {
  qd_device device;
  open_device(&device, name, QD_ISA_PORTABLE, 1);
  qd_tri total = total_on(&device, x, exponent);
  qd_device_close(&device);
  return total;
}

static void compare(qd_tensor x) {
  int32_t *exponent = new_bytes((size_t)x.dim[2], sizeof *exponent);
  grid_of(x, exponent);
  qd_tri expected = total_of("ref", x, exponent);
  qd_device device;
  for (int step = 0; next_cpu(&device, &step);) {
    qd_tri got = total_on(&device, x, exponent);
    cr_expect(same_tri(expected, got), "%s, %d threads: %s (%d, %d, %d) differs", qd_isa_name(device.isa), device.threads,
              qd_dtype_name(x.dtype), (int)x.dim[0], (int)x.dim[1], (int)x.dim[2]);
    drop(got.data);
    qd_device_close(&device);
  }
  drop(expected.data);
  drop(exponent);
}

Test(hessian, cpu_equals_ref) {
  static const int64_t shapes[][3] = {{2, 5, 1},    {3, 1, 7},     {2, 300, 64}, {1, 257, 255}, {2, 64, 256},
                                      {1, 65, 257}, {1, 256, 352}, {1, 33, 700}, {0, 4, 9},     {2, 0, 9}};
  for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
    for (int half = 0; half < 2; half++) {
      uint64_t state = SEED + s;
      const int64_t *d = shapes[s];
      qd_tensor all = random_vector(half ? QD_BF16 : QD_F32, d[0] * d[1] * d[2], &state);
      compare(qd_tensor_3d(all.data, all.dtype, d[0], d[1], d[2]));
      drop(all.data);
    }
}

/* Every second unit, a slice of the columns, and tokens that lie side by side. */
static void compare_strided(void) {
  for (int half = 0; half < 2; half++) {
    uint64_t state = SEED;
    qd_tensor all = random_vector(half ? QD_BF16 : QD_F32, 4 * 70 * 90, &state);
    qd_tensor x = qd_tensor_3d(all.data, all.dtype, 2, 70, 77);
    x.stride[0] = 2 * 70 * 90, x.stride[1] = 90;
    compare(x);
    qd_tensor transposed = qd_tensor_3d(all.data, all.dtype, 2, 77, 90);
    transposed.stride[0] = 77 * 90, transposed.stride[1] = 1, transposed.stride[2] = 77;
    compare(transposed);
    drop(all.data);
  }
}

Test(hessian, cpu_equals_ref_strided) { compare_strided(); }

Test(hessian, cpu_equals_ref_in_bf16_amx) {
  static const int64_t shapes[][3] = {{2, 5, 1}, {1, 257, 255}, {2, 64, 256}, {1, 65, 257}, {0, 4, 9}};
  arithmetic = QD_ARITHMETIC_BF16_AMX;
  for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
    uint64_t state = SEED + s;
    const int64_t *d = shapes[s];
    qd_tensor all = random_vector(QD_BF16, d[0] * d[1] * d[2], &state);
    compare(qd_tensor_3d(all.data, all.dtype, d[0], d[1], d[2]));
    drop(all.data);
  }
  compare_strided();
}

Test(hessian, order_and_grouping_of_units_do_not_show) {
  enum { U = 5, T = 40, C = 70 };
  uint64_t state = SEED;
  qd_tensor all = random_vector(QD_F32, U * T * C, &state), x = qd_tensor_3d(all.data, QD_F32, U, T, C);
  int32_t exponent[C];
  grid_of(x, exponent);
  qd_tri expected = total_of("cpu", x, exponent), got = new_tri(C, QD_I64);
  qd_device device;
  open_device(&device, "cpu", QD_ISA_PORTABLE, 2);
  static const int64_t groups[][2] = {{3, 2}, {1, 1}, {0, 1}, {2, 1}}; /* first unit, units */
  for (size_t g = 0; g < sizeof groups / sizeof *groups; g++)
    cr_assert_eq(qd_hessian(&device, qd_tensor_rows(x, groups[g][0], groups[g][1]), vector_i32(exponent, C), got), QD_OK);
  cr_expect(same_tri(expected, got));
  qd_device_close(&device);
}

/* A chain of 256 and its chunks round with 2^-24 of sum |x_i x_j| each time, the grid with half of its step a unit of X. */
Test(hessian, ref_near_ref64) {
  enum { U = 2, T = 600, C = 33 };
  uint64_t state = SEED;
  qd_tensor all = random_vector(QD_F32, U * T * C, &state), x = qd_tensor_3d(all.data, QD_F32, U, T, C);
  int32_t exponent[C];
  grid_of(x, exponent);
  qd_tri exact = total_of("ref64", as_f64(x), exponent), got = total_of("ref", x, exponent);
  double largest = 0;
  for (int64_t i = 0; i < C; i++)
    for (int64_t j = 0; j <= i; j++) {
      size_t at = qd_tri_index(i, j), ii = qd_tri_index(i, i), jj = qd_tri_index(j, j);
      const int64_t *e = exact.data;
      double scale = sqrt((double)e[ii]) * sqrt((double)e[jj]), error = fabs((double)(((int64_t *)got.data)[at] - e[at]));
      cr_expect_leq(error, (256 + 3) * 0x1p-24 * scale + U, "(%d, %d)", (int)i, (int)j);
      largest = error / scale > largest ? error / scale : largest;
    }
  cr_expect_gt(largest, 0x1p-30, "ref in fp32 cannot be as near to ref64 as %g", largest);
}

Test(hessian, golden_diagonal) {
  qd_tensor x = golden_input();
  static const char *const devices[] = {"cpu", "ref"};
  for (int d = 0; d < 2; d++) {
    int32_t exponent[8];
    grid_of(x, exponent);
    qd_tri total = total_of(devices[d], x, exponent), h = new_tri(8, QD_F64);
    qd_device device;
    open_device(&device, devices[d], QD_ISA_PORTABLE, 1);
    cr_assert_eq(qd_hessian_values(&device, total, vector_i32(exponent, 8), h), QD_OK);
    for (int64_t j = 0; j < 8; j++)
      cr_expect_float_eq(((double *)h.data)[qd_tri_index(j, j)] * 2 / 24, golden_diagonal[j], 6e-7, "column %d", (int)j);
    qd_device_close(&device);
  }
}

/* Both signs, NaN and a sum that overflows; every instruction set the same. */
Test(hessian, saturates_at_the_limit) {
  enum { C = 21 };
  qd_tensor x = qd_tensor_3d(new_bytes(2 * C, sizeof(float)), QD_F32, 1, 2, C);
  for (int64_t j = 0; j < C; j++) put(x, j, j % 2 ? -1e12 : 1e12 * (double)(j + 1));
  put(x, 5, (double)INFINITY), put(x, C + 5, 1), put(x, 6, 0), put(x, C + 6, 3e-14), put(x, 18, 0);
  int32_t exponent[C] = {0};
  exponent[20] = 40; /* 2.1e13^2 2^(42 - 80) is no longer beyond the limit */
  qd_tri total = total_of("ref", x, exponent);
  const int64_t limit = (int64_t)1 << 62, *t = total.data;
  cr_expect_eq(t[qd_tri_index(0, 0)], limit);
  cr_expect_eq(t[qd_tri_index(1, 0)], -limit);
  cr_expect_eq(t[qd_tri_index(3, 1)], limit);
  cr_expect_eq(t[qd_tri_index(6, 5)], limit, "0 times infinity counts as the limit");
  cr_expect_eq(t[qd_tri_index(18, 5)], limit);
  cr_expect_eq(t[qd_tri_index(20, 20)], (int64_t)rint((double)(2.1e13f * 2.1e13f) * 0x1p-38));
  cr_expect_eq(t[qd_tri_index(6, 6)], 0);
  qd_device device;
  for (int step = 0; next_cpu(&device, &step);) {
    qd_tri got = total_on(&device, x, exponent);
    cr_expect(same_tri(total, got), "%s differs", qd_isa_name(device.isa));
    cr_assert_eq(qd_hessian(&device, x, vector_i32(exponent, C), got), QD_OK);
    cr_expect_eq(((int64_t *)got.data)[0], INT64_MIN, "sums wrap round and do not trap");
    qd_device_close(&device);
  }
}

/* All sizes of numbers between 2^-3 units and beyond the limit, halves among them. */
Test(hessian, rounds_alike_at_every_size) {
  enum { C = 150 };
  qd_tensor x = qd_tensor_3d(new_bytes(C, sizeof(float)), QD_F32, 1, 1, C);
  uint64_t state = SEED;
  int32_t exponent[C];
  for (int j = 0; j < C; j++) {
    exponent[j] = 21;
    double size = ldexp(1, j / 4 - 2);
    put(x, j, j % 2 ? size * (1 + fabs(random_number(&state))) : size * (j % 4 ? 1 : -1));
  }
  qd_tri expected = total_of("ref", x, exponent);
  qd_device device;
  for (int step = 0; next_cpu(&device, &step);) {
    qd_tri got = total_on(&device, x, exponent);
    cr_expect(same_tri(expected, got), "%s differs", qd_isa_name(device.isa));
    qd_device_close(&device);
  }
}

Test(hessian, zero_columns_stay_zero) {
  enum { T = 20, C = 300 };
  uint64_t state = SEED;
  qd_tensor all = random_vector(QD_F32, T * C, &state), x = qd_tensor_3d(all.data, QD_F32, 1, T, C);
  for (int64_t t = 0; t < T; t++) put(x, t * C + 7, 0), put(x, t * C + 280, 0);
  int32_t exponent[C];
  grid_of(x, exponent);
  qd_tri total = total_of("cpu", x, exponent);
  for (int64_t i = 280; i < C; i++) cr_expect_eq(((int64_t *)total.data)[qd_tri_index(i, i == 280 ? 20 : 7)], 0);
  for (int64_t j = 0; j <= 280; j++) cr_expect_eq(((int64_t *)total.data)[qd_tri_index(280, j)], 0);
}

/* ---- the grid ---- */

static qd_status grid(double *diagonal, int64_t units, int64_t columns, double bound, int32_t *exponent) {
  qd_device device;
  open_device(&device, "cpu", QD_ISA_PORTABLE, 1);
  qd_tensor all = qd_tensor_2d(diagonal, QD_F64, units, columns);
  qd_status status = qd_hessian_grid(&device, all, bound, vector_i32(exponent, columns));
  qd_device_close(&device);
  return status;
}

Test(hessian_grid, exponents_of_the_first_unit_that_is_not_zero) {
  double diagonal[3][4] = {{0, 0, 0, 0}, {4, 1, 0, 0x1p-60}, {1e-6, 1e-6, 1e-6, 1e-6}};
  int32_t e[4];
  cr_assert_eq(grid(diagonal[0], 3, 4, no_bound, e), QD_OK);
  cr_expect_arr_eq(e, ((int32_t[]){2, 1, 2 - 20, 2 - 20}), sizeof e);
  cr_assert_eq(grid(diagonal[0], 1, 4, no_bound, e), QD_OK);
  cr_expect_arr_eq(e, ((int32_t[4]){0}), sizeof e);
  cr_assert_eq(grid(diagonal[0], 0, 4, no_bound, e), QD_OK);
  cr_expect_arr_eq(e, ((int32_t[4]){0}), sizeof e);
}

/* 4.5 in units of 2^(2 * 2 - 42) is 4.5 * 2^38; a bound of 2^20 is reached until e has grown by 11: 4.5 * 2^16 < 2^20. */
Test(hessian_grid, grows_until_every_total_is_below_the_bound) {
  double diagonal[2][2] = {{4, 1}, {0.5, 3}};
  int32_t e[2];
  cr_assert_eq(grid(diagonal[0], 2, 2, no_bound, e), QD_OK);
  cr_expect_arr_eq(e, ((int32_t[]){2, 1}), sizeof e);
  cr_assert_eq(grid(diagonal[0], 2, 2, 0x1p20, e), QD_OK);
  int grown = e[0] - 2;
  cr_expect_eq(e[1] - 1, grown);
  bool fits = true, fitted_before = true;
  for (int j = 0; j < 2; j++) {
    double total = diagonal[0][j] + diagonal[1][j];
    fits = fits && total < ldexp(0x1p20, 2 * e[j] - 42);
    fitted_before = fitted_before && total < ldexp(0x1p20, 2 * (e[j] - 1) - 42);
  }
  cr_expect(fits && !fitted_before, "grown by %d", grown);
  double at_bound[1] = {1}; /* e = 1: one unit is 2^-40 */
  cr_assert_eq(grid(at_bound, 1, 1, 0x1p40, e), QD_OK);
  cr_expect_eq(e[0], 2, "a total that equals the bound has reached it");
  cr_assert_eq(grid(at_bound, 1, 1, 0x1p40 + 1, e), QD_OK);
  cr_expect_eq(e[0], 1);
}

/* The bound's purpose: a grid from a small first unit, widened, holds the total. */
Test(hessian_grid, widened_grid_holds_the_total) {
  enum { U = 3, T = 8, C = 5 };
  uint64_t state = SEED;
  qd_tensor all = random_vector(QD_F32, U * T * C, &state), x = qd_tensor_3d(all.data, QD_F32, U, T, C);
  double diagonal[U][C] = {{0}};
  for (int64_t i = 0; i < U * T * C; i++) {
    double value = get(x, i) * (i < T * C ? 1 : 30000);
    put(x, i, value);
    diagonal[i / (T * C)][i % C] += value * value;
  }
  int32_t narrow[C], wide[C];
  cr_assert_eq(grid(diagonal[0], U, C, no_bound, narrow), QD_OK);
  cr_assert_eq(grid(diagonal[0], U, C, 0x1p20, wide), QD_OK);
  const int64_t *total = total_of("cpu", x, wide).data, *fine = total_of("cpu", x, narrow).data;
  int64_t largest = 0;
  for (int64_t i = 0; i < C; i++) {
    int64_t units = total[qd_tri_index(i, i)];
    largest = units > largest ? units : largest;
    double ratio = ldexp((double)fine[qd_tri_index(i, i)], 2 * (narrow[i] - wide[i])) / (double)units;
    cr_expect_float_eq(ratio, 1, 1e-4, "column %d", (int)i);
  }
  cr_expect(largest < 1 << 20 && largest >= 1 << 18, "%" PRId64, largest);
}

Test(hessian_grid, refuses_bad_numbers_without_hanging) {
  int32_t e[2];
  static const double bad[] = {NAN, INFINITY, -1};
  for (int i = 0; i < 3; i++) {
    double diagonal[2][2] = {{1, 1}, {1, bad[i]}};
    cr_expect_eq(grid(diagonal[0], 2, 2, no_bound, e), QD_ENUMERIC);
    cr_expect(strstr(qd_error_text(), "unit 1, column 1") != NULL, "%s", qd_error_text());
  }
  double huge[2][2] = {{1, 1e308}, {1, 1e308}};
  cr_expect_eq(grid(huge[0], 2, 2, no_bound, e), QD_ENUMERIC);
  double one[2] = {1, 1};
  cr_expect_eq(grid(one, 1, 2, 0, e), QD_EINVAL);
  cr_expect_eq(grid(one, 1, 2, (double)NAN, e), QD_EINVAL);
  cr_expect_eq(grid(one, 1, 2, 0x1p-1000, e), QD_OK);
}

/* ---- the values ---- */

static void compare_values(int64_t n, qd_dtype dtype, bool in_place) {
  uint64_t state = SEED;
  int32_t *exponent = new_bytes((size_t)n, sizeof *exponent);
  qd_tri total = new_tri(n, QD_I64), expected = new_tri(n, dtype), got = new_tri(n, dtype);
  for (int64_t i = 0; i < n; i++) {
    exponent[i] = (int32_t)(random_number(&state) * 30);
    for (int64_t j = 0; j <= i; j++) ((int64_t *)total.data)[qd_tri_index(i, j)] = (int64_t)(random_number(&state) * 0x1p62);
  }
  memset(got.data, 1, qd_tri_bytes(n, dtype));
  qd_device device;
  open_device(&device, "ref", QD_ISA_PORTABLE, 1);
  cr_assert_eq(qd_hessian_values(&device, total, vector_i32(exponent, n), expected), QD_OK);
  qd_device_close(&device);
  for (int threads = 1; threads <= 2; threads++) {
    open_device(&device, "cpu", QD_ISA_PORTABLE, threads);
    if (in_place) memcpy(got.data, total.data, qd_tri_bytes(n, QD_I64));
    qd_tri from = in_place ? (qd_tri){got.data, QD_I64, n} : total;
    cr_assert_eq(qd_hessian_values(&device, from, vector_i32(exponent, n), got), QD_OK);
    cr_expect(same_tri(expected, got), "%s of %d", qd_dtype_name(dtype), (int)n);
    qd_device_close(&device);
  }
  drop(total.data), drop(expected.data), drop(got.data), drop(exponent);
}

Test(hessian_values, cpu_equals_ref) {
  static const int64_t sizes[] = {0, 1, 7, 255, 256, 257, 352};
  for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
    compare_values(sizes[s], QD_F32, false);
    compare_values(sizes[s], QD_F64, false);
    compare_values(sizes[s], QD_F64, true);
  }
}

Test(hessian_values, known_values) {
  int32_t exponent[2] = {21, 23};
  qd_tri total = new_tri(2, QD_I64), h = new_tri(2, QD_F32);
  int64_t *t = total.data;
  t[qd_tri_index(0, 0)] = 5, t[qd_tri_index(1, 0)] = -3, t[qd_tri_index(1, 1)] = 7;
  memset(h.data, 1, qd_tri_bytes(2, QD_F32));
  qd_device device;
  open_device(&device, "cpu", QD_ISA_PORTABLE, 1);
  cr_assert_eq(qd_hessian_values(&device, total, vector_i32(exponent, 2), h), QD_OK);
  const float *value = h.data;
  cr_expect_eq(value[qd_tri_index(0, 0)], 5);
  cr_expect_eq(value[qd_tri_index(1, 0)], -12);
  cr_expect_eq(value[qd_tri_index(1, 1)], 112);
  cr_expect_eq(value[1], 0, "above the diagonal");
  cr_expect_eq(value[2 * 256], 0, "outside the matrix");
  cr_expect_eq(qd_hessian_values(&device, total, vector_i32(exponent, 2), (qd_tri){total.data, QD_F32, 2}), QD_EDTYPE);
  qd_device_close(&device);
}

Test(hessian, refuses_what_does_not_fit) {
  qd_device device;
  open_device(&device, "cpu", QD_ISA_PORTABLE, 1);
  float x[12] = {0};
  int32_t e[4] = {0};
  qd_tensor xt = qd_tensor_3d(x, QD_F32, 1, 4, 3);
  qd_tri total = new_tri(3, QD_I64);
  cr_expect_eq(qd_hessian(&device, xt, vector_i32(e, 4), total), QD_ESHAPE);
  cr_expect_eq(qd_hessian(&device, xt, vector_i32(e, 3), (qd_tri){total.data, QD_I64, 4}), QD_ESHAPE);
  cr_expect_eq(qd_hessian(&device, xt, vector_i32(e, 3), (qd_tri){total.data, QD_F64, 3}), QD_EDTYPE);
  cr_expect_eq(qd_hessian(&device, qd_tensor_2d(x, QD_F32, 4, 3), vector_i32(e, 3), total), QD_ESHAPE);
  cr_expect_eq(qd_hessian(&device, qd_tensor_3d(x, QD_F16, 1, 4, 3), vector_i32(e, 3), total), QD_EDTYPE);
  e[1] = 401;
  cr_expect_eq(qd_hessian(&device, xt, vector_i32(e, 3), total), QD_EINVAL);
  qd_device_close(&device);
}
