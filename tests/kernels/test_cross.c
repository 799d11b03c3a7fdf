#include "tests/kernels/statistics_support.h"

TestSuite(cross, .fini = drop_all);
TestSuite(subtract, .fini = drop_all);

/* Two streams and what an op makes of them. */
typedef struct problem {
  qd_tensor original, x;
  int32_t  *row, *column;
} problem;

static problem random_problem(qd_dtype dtype, int64_t units, int64_t tokens, int64_t columns, uint64_t state) {
  problem p = {0};
  int64_t n = units * tokens * columns;
  p.x = qd_tensor_3d(random_vector(dtype, n, &state).data, dtype, units, tokens, columns);
  p.original = qd_tensor_3d(random_vector(dtype, n, &state).data, dtype, units, tokens, columns);
  p.row = new_bytes((size_t)columns, sizeof *p.row), p.column = new_bytes((size_t)columns, sizeof *p.column);
  for (int64_t j = 0; j < columns; j++) p.row[j] = (int32_t)(6 + j % 3), p.column[j] = (int32_t)(5 + j % 4);
  return p;
}

static void drop_problem(problem p) { drop(p.x.data), drop(p.original.data), drop(p.row), drop(p.column); }

/* Rows [first, first + n) of the sum; `total` is (rows, columns) with some room behind each row. */
static qd_status cross(qd_device *device, const problem *p, int64_t first, int64_t n, qd_tensor total) {
  int64_t columns = p->x.dim[2];
  qd_cross_args args = {.original = p->original, .x = p->x,
                        .row_exponent = qd_tensor_1d(p->row, QD_I32, columns),
                        .column_exponent = qd_tensor_1d(p->column, QD_I32, columns),
                        .first = first, .total = qd_tensor_rows(total, first, n)};
  return qd_cross(device, &args);
}

static qd_tensor new_total(int64_t columns) {
  qd_tensor total = qd_tensor_2d(new_bytes((size_t)(columns * (columns + 3)), sizeof(int64_t)), QD_I64, columns, columns);
  total.stride[0] = columns + 3;
  return total;
}

static qd_tensor total_of(qd_device *device, const problem *p, int64_t panel) {
  int64_t columns = p->x.dim[2];
  qd_tensor total = new_total(columns);
  for (int64_t first = 0; first < columns; first += panel)
    cr_assert_eq(cross(device, p, first, columns - first < panel ? columns - first : panel, total), QD_OK, "%s",
                 qd_error_text());
  return total;
}

static bool same_total(qd_tensor a, qd_tensor b) {
  return memcmp(a.data, b.data, (size_t)(a.dim[0] * a.stride[0]) * sizeof(int64_t)) == 0;
}

static qd_tensor reference(const problem *p) {
  qd_device device;
  open_device(&device, "ref", QD_ISA_PORTABLE, 1);
  qd_tensor total = total_of(&device, p, p->x.dim[2] + 1);
  qd_device_close(&device);
  return total;
}

Test(cross, cpu_equals_ref) {
  static const int64_t shapes[][3] = {{2, 5, 1}, {3, 1, 7}, {2, 300, 64}, {1, 257, 255}, {1, 33, 520}, {0, 4, 9}, {2, 0, 9}};
  static const int64_t panels[] = {1000, 100};
  for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
    for (int half = 0; half < 2; half++) {
      const int64_t *d = shapes[s];
      problem p = random_problem(half ? QD_BF16 : QD_F32, d[0], d[1], d[2], SEED + s);
      qd_tensor expected = reference(&p);
      qd_device device;
      for (int step = 0; next_cpu(&device, &step);) {
        qd_tensor got = total_of(&device, &p, panels[step % 2]);
        cr_expect(same_total(expected, got), "%s, %d threads: (%d, %d, %d) differs", qd_isa_name(device.isa), device.threads,
                  (int)d[0], (int)d[1], (int)d[2]);
        drop(got.data);
        qd_device_close(&device);
      }
      drop(expected.data);
      drop_problem(p);
    }
}

/* Units in any order, and sequences whose rows lie apart. */
Test(cross, order_of_units_does_not_show) {
  enum { U = 4, T = 30, C = 45 };
  problem p = random_problem(QD_F32, U, T, C + 4, SEED);
  p.x.dim[2] = p.original.dim[2] = C;
  qd_tensor expected = reference(&p), got = new_total(C);
  qd_device device;
  open_device(&device, "cpu", QD_ISA_PORTABLE, 2);
  for (int64_t u = U - 1; u >= 0; u--) {
    problem one = p;
    one.x = qd_tensor_rows(p.x, u, 1), one.original = qd_tensor_rows(p.original, u, 1);
    cr_assert_eq(cross(&device, &one, 0, C, got), QD_OK);
  }
  cr_expect(same_total(expected, got));
  qd_device_close(&device);
}

static double exact(const problem *p, int64_t i, int64_t j) {
  double sum = 0;
  const int64_t *d = p->x.dim;
  for (int64_t t = 0; t < d[0] * d[1]; t++)
    sum += (get(p->original, t * d[2] + i) - get(p->x, t * d[2] + i)) * get(p->x, t * d[2] + j);
  return sum;
}

/* Each row's first factor is the difference, each column's second the input: not the other way round. */
Test(cross, is_the_difference_against_the_input) {
  enum { U = 2, T = 40, C = 11 };
  for (int half = 0; half < 2; half++) {
    problem p = random_problem(half ? QD_BF16 : QD_F32, U, T, C, SEED);
    qd_tensor total = reference(&p), values = qd_tensor_2d(new_bytes(C * C, 4), QD_F32, C, C);
    qd_device device;
    open_device(&device, "cpu", QD_ISA_PORTABLE, 1);
    cr_assert_eq(qd_cross_values(&device, total, qd_tensor_1d(p.row, QD_I32, C), qd_tensor_1d(p.column, QD_I32, C), values),
                 QD_OK);
    for (int64_t i = 0; i < C; i++)
      for (int64_t j = 0; j < C; j++)
        cr_expect_float_eq(get(values, i * C + j), exact(&p, i, j), 2e-5, "(%d, %d): %g, expected %g", (int)i, (int)j,
                           get(values, i * C + j), exact(&p, i, j));
    qd_device_close(&device);
  }
}

Test(cross, values_are_units_of_both_grids) {
  int64_t units[6] = {5, -3, 7, 0, INT64_C(1) << 60, -1};
  int32_t row[2] = {21, 22}, column[3] = {21, 23, 1};
  float got[8];
  static const float expected[6] = {5, -12, 7 * 0x1p-20f, 0, 0x1p63f, -0x1p-19f};
  qd_device device;
  for (int step = 0; next_cpu(&device, &step);) {
    qd_tensor values = qd_tensor_2d(got, QD_F32, 2, 3);
    values.stride[0] = 4;
    cr_assert_eq(qd_cross_values(&device, qd_tensor_2d(units, QD_I64, 2, 3), qd_tensor_1d(row, QD_I32, 2),
                                 qd_tensor_1d(column, QD_I32, 3), values), QD_OK);
    for (int i = 0; i < 6; i++)
      cr_expect_eq(got[i / 3 * 4 + i % 3], expected[i], "element %d: %g", i, (double)got[i / 3 * 4 + i % 3]);
    qd_device_close(&device);
  }
}

Test(cross, refuses_what_does_not_fit) {
  enum { C = 5 };
  problem p = random_problem(QD_F32, 1, 3, C, SEED), bad = p;
  qd_tensor total = new_total(C);
  qd_device device;
  open_device(&device, "cpu", QD_ISA_PORTABLE, 1);
  cr_expect_eq(cross(&device, &p, 0, C, total), QD_OK);
  qd_cross_args args = {p.original, p.x, qd_tensor_1d(p.row, QD_I32, C), qd_tensor_1d(p.column, QD_I32, C), 1, total};
  cr_expect_eq(qd_cross(&device, &args), QD_EINVAL, "more rows than there are");
  bad.original.dim[1] = 2;
  cr_expect_eq(cross(&device, &bad, 0, C, total), QD_ESHAPE);
  bad = p, bad.original.dtype = QD_BF16;
  cr_expect_eq(cross(&device, &bad, 0, C, total), QD_EDTYPE);
  bad = p, bad.x.stride[2] = 2;
  cr_expect_eq(cross(&device, &bad, 0, C, total), QD_ESHAPE);
  p.row[2] = 401;
  cr_expect_eq(cross(&device, &p, 0, C, total), QD_EINVAL);
  qd_device_close(&device);
}

Test(subtract, cpu_equals_ref_and_is_not_rounded) {
  static const int64_t shapes[][2] = {{0, 5}, {1, 1}, {3, 255}, {2, 257}, {5, 600}};
  for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
    for (int half = 0; half < 2; half++) {
      uint64_t state = SEED + s;
      int64_t rows = shapes[s][0], columns = shapes[s][1], gap = 3, n = rows * columns;
      qd_dtype dtype = half ? QD_BF16 : QD_F32;
      qd_tensor a = qd_tensor_2d(random_vector(dtype, rows * (columns + gap) + 1, &state).data, dtype, rows, columns), b = a;
      a.stride[0] = columns + gap;
      b.data = random_vector(dtype, n + 1, &state).data;
      qd_tensor y = qd_tensor_2d(new_bytes((size_t)n + 1, 4), QD_F32, rows, columns);
      qd_device device;
      for (int step = 0; next_cpu(&device, &step);) {
        memset(y.data, 1, (size_t)n * 4);
        cr_assert_eq(qd_subtract(&device, a, b, y), QD_OK);
        for (int64_t i = 0; i < n; i++)
          cr_assert_eq(get(y, i), (double)((float)get(a, i / columns * a.stride[0] + i % columns) - (float)get(b, i)));
        qd_device_close(&device);
      }
      open_device(&device, "ref", QD_ISA_PORTABLE, 1);
      qd_tensor z = qd_tensor_2d(new_bytes((size_t)n + 1, 4), QD_F32, rows, columns);
      cr_assert_eq(qd_subtract(&device, a, b, z), QD_OK);
      cr_expect_eq(memcmp(y.data, z.data, (size_t)n * 4), 0);
      cr_expect_eq(qd_subtract(&device, a, b, a), dtype == QD_BF16 ? QD_EDTYPE : QD_OK);
      qd_device_close(&device);
    }
}
