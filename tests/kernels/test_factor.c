#include "tests/kernels/statistics_support.h"

TestSuite(factor, .fini = drop_all);

/* A factor and what it needs. */
typedef struct job {
  qd_factor_args args;
  int64_t n, pivot;
} job;

static job new_job(qd_tri h, const int32_t *order, double add) {
  int64_t n = h.n;
  job j = {.n = n};
  j.args = (qd_factor_args){.h = h, .work = new_tri(n, QD_F64), .u = new_tri(n, h.dtype)};
  j.args.add = qd_tensor_1d(new_bytes((size_t)n, sizeof(double)), QD_F64, n);
  for (int64_t i = 0; i < n; i++) put(j.args.add, i, add * (1 + (double)(i % 3)));
  if (order != NULL) {
    j.args.order = qd_tensor_1d(new_bytes((size_t)n, sizeof *order), QD_I32, n);
    memcpy(j.args.order.data, order, (size_t)n * sizeof *order);
  }
  return j;
}

static void free_job(job *j) {
  drop(j->args.work.data), drop(j->args.u.data);
  drop(j->args.add.data), drop(j->args.order.data);
}

static void run_on(qd_device *device, job *j) {
  memset(j->args.work.data, 0xff, qd_tri_bytes(j->n, QD_F64));
  memset(j->args.u.data, 1, qd_tri_bytes(j->n, j->args.u.dtype));
  cr_assert_eq(qd_factor(device, &j->args, &j->pivot), QD_OK, "%s", qd_error_text());
}

static void run(const char *name, job *j) {
  qd_device device;
  open_device(&device, name, QD_ISA_PORTABLE, 1);
  run_on(&device, j);
  qd_device_close(&device);
}

/* A shuffle of 0 .. n - 1. */
static int32_t *new_order(int64_t n, uint64_t state) {
  int32_t *order = new_bytes((size_t)n, sizeof *order);
  for (int64_t i = 0; i < n; i++) order[i] = (int32_t)i;
  for (int64_t i = n - 1; i > 0; i--) {
    int64_t j = (int64_t)(fabs(random_number(&state)) * (double)i);
    int32_t t = order[i];
    order[i] = order[j], order[j] = t;
  }
  return order;
}

static void compare(qd_tri h, const int32_t *order, double add, int64_t expected_pivot) {
  job expected = new_job(h, order, add), got = new_job(h, order, add);
  run("ref", &expected);
  cr_expect_eq(expected.pivot, expected_pivot, "pivot %" PRId64, expected.pivot);
  qd_device device;
  for (int step = 0; next_cpu(&device, &step);) {
    run_on(&device, &got);
    cr_expect_eq(got.pivot, expected.pivot);
    if (expected.pivot < 0)
      cr_expect(same_tri(expected.args.u, got.args.u), "%s, %d threads: %d columns differ", qd_isa_name(device.isa),
                device.threads, (int)h.n);
    qd_device_close(&device);
  }
  free_job(&expected), free_job(&got);
}

Test(factor, cpu_equals_ref) {
  static const int64_t sizes[] = {0, 1, 7, 64, 255, 256, 257, 352, 700};
  for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
    qd_tri h = random_hessian(sizes[s], SEED + s);
    int32_t *order = new_order(sizes[s], SEED);
    if (sizes[s] != 700) compare(h, NULL, 0.01, -1);
    compare(h, order, 0.1, -1);
    drop(order), drop(h.data);
  }
}

/* Off-diagonal elements so small that products of a few underflow, and many exact zeros: the signs of zeros must not show. */
Test(factor, cpu_equals_ref_near_zero) {
  enum { N = 530 };
  qd_tri h = new_tri(N, QD_F32);
  float *data = h.data;
  uint64_t state = SEED;
  for (int64_t i = 0; i < N; i++) {
    data[qd_tri_index(i, i)] = 1;
    for (int64_t j = i > 3 ? i - 3 : 0; j < i; j++) data[qd_tri_index(i, j)] = (float)(random_number(&state) * 1e-30);
    if (i % 5 == 0) data[qd_tri_index(i, i / 2)] = i == 0 ? 1 : (float)-1e-34;
  }
  compare(h, NULL, 0.5, -1);
}

/* h and everything before the last rounding is the same in ref64. */
Test(factor, ref_is_ref64_rounded_once) {
  enum { N = 290 };
  qd_tri h = random_hessian(N, SEED), wide = new_tri(N, QD_F64);
  for (size_t i = 0; i < qd_tri_elements(N); i++) ((double *)wide.data)[i] = (double)((float *)h.data)[i];
  job narrow = new_job(h, NULL, 0.01), exact = new_job(wide, NULL, 0.01);
  run("ref", &narrow), run("ref64", &exact);
  for (size_t i = 0; i < qd_tri_elements(N); i++)
    cr_assert_eq(((float *)narrow.args.u.data)[i], (float)((double *)exact.args.u.data)[i]);
}

/* ---- against ordinary dense arithmetic ---- */

/* The damped matrix in the order of u, full and dense. */
static double *dense_matrix(const job *j) {
  double *m = new_bytes((size_t)(j->n * j->n), sizeof *m);
  const int32_t *order = j->args.order.data;
  for (int64_t p = 0; p < j->n; p++)
    for (int64_t q = 0; q < j->n; q++) {
      int64_t a = order ? order[p] : p, b = order ? order[q] : q;
      size_t at = a > b ? qd_tri_index(a, b) : qd_tri_index(b, a);
      m[p * j->n + q] = j->args.h.dtype == QD_F64 ? ((double *)j->args.h.data)[at] : (double)((float *)j->args.h.data)[at];
      if (p == q) m[p * j->n + q] += get(j->args.add, a);
    }
  return m;
}

/* U, upper, from the triangle that holds it transposed. */
static double *dense_u(const job *j) {
  double *u = new_bytes((size_t)(j->n * j->n), sizeof *u);
  for (int64_t c = 0; c < j->n; c++)
    for (int64_t k = c; k < j->n; k++) {
      size_t at = qd_tri_index(k, c);
      u[c * j->n + k] = j->args.u.dtype == QD_F64 ? ((double *)j->args.u.data)[at] : (double)((float *)j->args.u.data)[at];
    }
  return u;
}

/* m = its lower Cholesky factor. */
static void cholesky(double *m, int64_t n) {
  for (int64_t j = 0; j < n; j++)
    for (int64_t i = j; i < n; i++) {
      double sum = m[i * n + j];
      for (int64_t k = 0; k < j; k++) sum -= m[i * n + k] * m[j * n + k];
      m[i * n + j] = i == j ? sqrt(sum) : sum / m[j * n + j];
    }
}

/* The inverse of a symmetric positive matrix, by Gauss and Jordan. */
static double *new_inverse(const double *m, int64_t n) {
  double *a = new_bytes((size_t)(n * n), sizeof *a), *x = new_bytes((size_t)(n * n), sizeof *x);
  memcpy(a, m, (size_t)(n * n) * sizeof *a);
  for (int64_t i = 0; i < n; i++) x[i * n + i] = 1;
  for (int64_t k = 0; k < n; k++) {
    double pivot = a[k * n + k];
    for (int64_t j = 0; j < n; j++) a[k * n + j] /= pivot, x[k * n + j] /= pivot;
    for (int64_t i = 0; i < n; i++) {
      double factor = a[i * n + k];
      for (int64_t j = 0; i != k && j < n; j++) a[i * n + j] -= factor * a[k * n + j], x[i * n + j] -= factor * x[k * n + j];
    }
  }
  drop(a);
  return x;
}

/* U^T U M = I, and U = the upper factor of M^-1 = (its lower factor)^T. */
static void check_u(const job *j, double tolerance) {
  int64_t n = j->n;
  double *m = dense_matrix(j), *u = dense_u(j), *inverse = new_inverse(m, n), *p = new_bytes((size_t)(n * n), sizeof *p);
  for (int64_t c = 0; c < n; c++)
    for (int64_t a = c; a < n; a++)
      for (int64_t b = c; b < n; b++) p[a * n + b] += u[c * n + a] * u[c * n + b];
  double worst = 0;
  for (int64_t a = 0; a < n; a++)
    for (int64_t b = 0; b < n; b++) {
      double sum = a == b ? -1 : 0;
      for (int64_t k = 0; k < n; k++) sum += p[a * n + k] * m[k * n + b];
      worst = fabs(sum) > worst ? fabs(sum) : worst;
    }
  cr_expect_leq(worst, tolerance, "|U^T U H - I| of %d columns", (int)n);
  cholesky(inverse, n);
  worst = 0;
  for (int64_t c = 0; c < n; c++)
    for (int64_t k = c; k < n; k++) {
      double error = fabs(u[c * n + k] - inverse[k * n + c]) / inverse[c * n + c];
      worst = error > worst ? error : worst;
    }
  cr_expect_leq(worst, tolerance, "U against the factor of the inverse, %d columns", (int)n);
}

Test(factor, u_factors_the_inverse) {
  static const int64_t sizes[] = {1, 2, 65, 270};
  for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
    qd_tri h = random_hessian(sizes[s], SEED + s);
    int32_t *order = new_order(sizes[s], SEED);
    job natural = new_job(h, NULL, 0.02), shuffled = new_job(h, order, 0.02);
    run("cpu", &natural), run("cpu", &shuffled);
    check_u(&natural, 1e-5), check_u(&shuffled, 1e-5);
  }
}

/* In double nothing but double's own error is left. */
Test(factor, golden_example_in_double) {
  qd_tri h = new_tri(8, QD_F64);
  for (int64_t i = 0; i < 8; i++)
    for (int64_t j = 0; j <= i; j++)
      for (int t = 0; t < 24; t++) ((double *)h.data)[qd_tri_index(i, j)] += golden_x[t][i] * golden_x[t][j] * 2 / 24;
  double mean = 0;
  for (int64_t i = 0; i < 8; i++) mean += ((double *)h.data)[qd_tri_index(i, i)] / 8;
  job j = new_job(h, NULL, 0);
  for (int64_t i = 0; i < 8; i++) put(j.args.add, i, 0.01 * mean);
  run("ref64", &j);
  cr_expect_eq(j.pivot, -1);
  check_u(&j, 1e-12);
}

/* ---- what goes wrong ---- */

Test(factor, names_the_column_of_a_failed_pivot) {
  static const int64_t sizes[] = {1, 9, 257};
  for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
    int64_t n = sizes[s], bad = n / 3;
    qd_tri h = random_hessian(n, SEED);
    float *diagonal = (float *)h.data + qd_tri_index(bad, bad), good = *diagonal;
    int32_t *order = new_order(n, SEED);
    static const float values[] = {-1, NAN, INFINITY};
    for (int v = 0; v < 3; v++) {
      *diagonal = values[v];
      compare(h, NULL, 0, bad);
      compare(h, order, 0, bad);
    }
    *diagonal = good;
    job j = new_job(h, order, 0);
    put(j.args.add, bad, -2 * (double)good);
    run("cpu", &j);
    cr_expect_eq(j.pivot, bad, "a negative addition to column %" PRId64, bad);
  }
}

/* Columns 0 and 2 are equal: the elimination, which begins at the end, finds nothing left at column 0.  Column 3 is dead. */
Test(factor, singular_matrix_and_dead_columns) {
  qd_tri h = new_tri(4, QD_F32);
  static const float m[4][4] = {{4, 0, 0, 0}, {0, 1, 0, 0}, {4, 0, 4, 0}, {0, 0, 0, 0}};
  for (int64_t i = 0; i < 4; i++)
    for (int64_t j = 0; j <= i; j++) ((float *)h.data)[qd_tri_index(i, j)] = m[i][j];
  compare(h, NULL, 0, 3);
  compare(h, NULL, 1, -1);
  job j = new_job(h, NULL, 0);
  put(j.args.add, 3, 1);
  run("cpu", &j);
  cr_expect_eq(j.pivot, 0);
  put(j.args.add, 0, 1), put(j.args.add, 1, 1), put(j.args.add, 2, 1);
  run("cpu", &j);
  check_u(&j, 1e-6);
  cr_expect_eq(((float *)j.args.u.data)[qd_tri_index(3, 3)], 1, "a dead column stands alone");
}

Test(factor, zeros_outside_the_triangle) {
  enum { N = 260 };
  qd_tri h = random_hessian(N, SEED);
  job j = new_job(h, NULL, 0.01);
  run("cpu", &j);
  const float *u = j.args.u.data;
  for (int64_t i = 0; i < N; i++)
    for (int64_t k = i + 1; k < (i / 256 + 1) * 256; k++) cr_assert_eq(u[qd_tri_index(i, k)], 0);
  for (int64_t i = N; i < 512; i++)
    for (int64_t k = 0; k < 512; k++) cr_assert_eq(u[qd_tri_index(i, k)], 0);
}

Test(factor, refuses_what_does_not_fit) {
  qd_device device;
  open_device(&device, "cpu", QD_ISA_PORTABLE, 1);
  static const int32_t twice[3] = {0, 2, 2}, beyond[3] = {0, 1, 3};
  qd_tri h = new_tri(3, QD_F32);
  job j = new_job(h, twice, 1);
  int64_t pivot;
  cr_expect_eq(qd_factor(&device, &j.args, &pivot), QD_EINVAL);
  cr_expect(strstr(qd_error_text(), "column 2 twice") != NULL, "%s", qd_error_text());
  memcpy(j.args.order.data, beyond, sizeof beyond);
  cr_expect_eq(qd_factor(&device, &j.args, &pivot), QD_EINVAL);
  qd_factor_args args = j.args;
  args.order = (qd_tensor){0};
  args.u.n = 2;
  cr_expect_eq(qd_factor(&device, &args, &pivot), QD_ESHAPE);
  args.u.n = 3, args.work.dtype = QD_F32;
  cr_expect_eq(qd_factor(&device, &args, &pivot), QD_EDTYPE);
  args.work.dtype = QD_F64, args.add.dim[0] = 2;
  cr_expect_eq(qd_factor(&device, &args, &pivot), QD_ESHAPE);
  qd_device_close(&device);
}
