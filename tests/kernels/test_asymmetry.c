#include "tests/kernels/golden_gptaq.h"
#include "tests/kernels/statistics_support.h"

TestSuite(asymmetry, .fini = drop_all);

/* ---- any layer ----------------------------------------------------------------------------------------------------------- */

typedef struct problem {
  int64_t   n;
  qd_tensor cross, order;
  qd_tri    u;
} problem;

static qd_tensor permutation(int64_t n, uint64_t *state) {
  int32_t *order = new_bytes((size_t)n + 1, sizeof *order);
  for (int64_t i = 0; i < n; i++) order[i] = (int32_t)i;
  for (int64_t i = n - 1; i > 0; i--) {
    int64_t with = (int64_t)((random_number(state) + 1) / 2 * (double)i);
    int32_t swap = order[i];
    order[i] = order[with], order[with] = swap;
  }
  return qd_tensor_1d(order, QD_I32, n);
}

static problem random_problem(int64_t n, bool ordered, qd_dtype dtype) {
  uint64_t state = SEED + (uint64_t)n;
  problem p = {.n = n, .u = new_tri(n, dtype)};
  p.cross = qd_tensor_2d(random_vector(dtype, n * (n + 2) + 1, &state).data, dtype, n, n);
  p.cross.stride[0] = n + 2;
  if (ordered) p.order = permutation(n, &state);
  qd_tensor u = qd_tensor_1d(p.u.data, dtype, (int64_t)qd_tri_elements(n));
  for (int64_t j = 0; j < n; j++)
    for (int64_t c = 0; c <= j; c++)
      put(u, (int64_t)qd_tri_index(j, c), c == j ? 1 + random_number(&state) / 2 : random_number(&state) / 4);
  return p;
}

static qd_tri run(qd_device *device, const problem *p, double alpha) {
  qd_tri out = new_tri(p->n, p->u.dtype);
  memset(out.data, 0x55, qd_tri_bytes(p->n, out.dtype));
  qd_asymmetry_args args = {.cross = p->cross, .order = p->order, .u = p->u, .alpha = alpha, .p = out};
  cr_assert_eq(qd_asymmetry(device, &args), QD_OK, "%s", qd_error_text());
  return out;
}

Test(asymmetry, cpu_equals_ref) {
  static const int64_t sizes[] = {0, 1, 7, 255, 256, 257, 530};
  for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
    for (int ordered = 0; ordered < (sizes[s] > 500 ? 1 : 2); ordered++) {
      problem p = random_problem(sizes[s], ordered, QD_F32);
      qd_device device;
      open_device(&device, "ref", QD_ISA_PORTABLE, 1);
      qd_tri expected = run(&device, &p, 0.25);
      qd_device_close(&device);
      for (int step = 0; next_cpu(&device, &step);) {
        qd_tri got = run(&device, &p, 0.25);
        cr_expect(same_tri(expected, got), "%d columns: %s with %d threads differs", (int)p.n, qd_isa_name(device.isa),
                  device.threads);
        drop(got.data);
        qd_device_close(&device);
      }
    }
}

static double u_at(const problem *p, int64_t c, int64_t j) {
  qd_tensor u = qd_tensor_1d(p->u.data, p->u.dtype, (int64_t)qd_tri_elements(p->n));
  return j < c ? 0 : get(u, (int64_t)qd_tri_index(j, c));
}

/* Straight from the definition, with full matrices. */
static double dense(const problem *p, int64_t a, int64_t j) {
  const int32_t *order = p->order.data;
  double sum = 0;
  for (int64_t k = a + 1; k < p->n; k++) {
    double t = 0;
    for (int64_t b = 0; b < p->n; b++) t += get(p->cross, order[a] * p->cross.stride[0] + order[b]) * u_at(p, k, b);
    sum += t * u_at(p, k, j);
  }
  return sum;
}

Test(asymmetry, ref64_is_the_dense_product) {
  problem p = random_problem(40, true, QD_F64);
  qd_device device;
  open_device(&device, "ref64", QD_ISA_PORTABLE, 1);
  qd_tri got = run(&device, &p, 0.5);
  for (int64_t j = 0; j < p.n; j++)
    for (int64_t a = 0; a <= j; a++) {
      double value = ((double *)got.data)[qd_tri_index(j, a)], expected = a < j ? 0.5 * dense(&p, a, j) : 0;
      cr_expect_float_eq(value, expected, 1e-12, "P[%d][%d] is %g, expected %g", (int)a, (int)j, value, expected);
    }
  qd_device_close(&device);
}

Test(asymmetry, refuses_what_does_not_fit) {
  problem p = random_problem(5, true, QD_F32);
  qd_tri out = new_tri(5, QD_F32);
  qd_device device;
  open_device(&device, "cpu", QD_ISA_PORTABLE, 1);
  const qd_asymmetry_args good = {p.cross, p.order, p.u, 1, out};
  qd_asymmetry_args bad = good;
  cr_expect_eq(qd_asymmetry(&device, &good), QD_OK);
  bad.cross.dim[0] = 4;
  cr_expect_eq(qd_asymmetry(&device, &bad), QD_ESHAPE);
  bad = good, bad.p.n = 4;
  cr_expect_eq(qd_asymmetry(&device, &bad), QD_ESHAPE);
  bad = good, bad.cross.dtype = QD_F64;
  cr_expect_eq(qd_asymmetry(&device, &bad), QD_EDTYPE);
  ((int32_t *)p.order.data)[1] = ((int32_t *)p.order.data)[2];
  cr_expect_eq(qd_asymmetry(&device, &good), QD_EINVAL);
  qd_device_close(&device);
}

/* ---- a whole layer, against equations written down elsewhere ------------------------------------------------------------- */

enum { T = 24, C = 8, R = 3 };

static double x[T][C], diagonal[2][C]; /* of X, and of the difference */
static int32_t exponent[2][C], order[C];

static void take_inputs(const struct golden_gptaq *g) {
  memcpy(x, golden_x, sizeof x);
  memset(diagonal, 0, sizeof diagonal);
  for (int t = 0; t < T; t++)
    for (int c = 0; c < C; c++) {
      if (c == g->dead) x[t][c] = 0;
      diagonal[0][c] += x[t][c] * x[t][c];
      diagonal[1][c] += (golden_original[t][c] - x[t][c]) * (golden_original[t][c] - x[t][c]);
    }
}

static double counted(int c) { return diagonal[0][c] > 0 ? diagonal[0][c] : T / 2.0; } /* the example's H is 2 / T X^T X */

static void find_order(bool act_order) {
  for (int c = 0; c < C; c++) order[c] = c;
  for (int c = 1; act_order && c < C; c++)
    for (int i = c; i > 0 && counted(order[i]) > counted(order[i - 1]); i--) {
      int32_t swap = order[i];
      order[i] = order[i - 1], order[i - 1] = swap;
    }
}

static qd_tri factor_of(qd_device *device, qd_tensor inputs) {
  double add[C], mean = 0;
  int64_t pivot;
  qd_tri total = new_tri(C, QD_I64), h = new_tri(C, QD_F64), u = new_tri(C, QD_F64);
  for (int c = 0; c < C; c++) mean += counted(c) / C;
  for (int c = 0; c < C; c++) add[c] = 0.01 * mean + (diagonal[0][c] > 0 ? 0 : T / 2.0);
  qd_tensor e = qd_tensor_1d(exponent[0], QD_I32, C);
  cr_assert_eq(qd_hessian(device, inputs, e, total), QD_OK);
  cr_assert_eq(qd_hessian_values(device, total, e, h), QD_OK);
  qd_factor_args args = {h, qd_tensor_1d(order, QD_I32, C), qd_tensor_1d(add, QD_F64, C), new_tri(C, QD_F64), u};
  cr_assert_eq(qd_factor(device, &args, &pivot), QD_OK);
  cr_assert_eq(pivot, -1);
  return u;
}

static qd_tri asymmetry_of(qd_device *device, qd_tensor inputs, qd_tensor original, qd_tri u, double alpha) {
  int64_t total[C * C] = {0};
  double cross[C * C];
  qd_tensor f = qd_tensor_1d(exponent[1], QD_I32, C), e = qd_tensor_1d(exponent[0], QD_I32, C);
  qd_cross_args sum = {original, inputs, f, e, 0, qd_tensor_2d(total, QD_I64, C, C)};
  cr_assert_eq(qd_cross(device, &sum), QD_OK, "%s", qd_error_text());
  cr_assert_eq(qd_cross_values(device, sum.total, f, e, qd_tensor_2d(cross, QD_F64, C, C)), QD_OK);
  qd_asymmetry_args args = {qd_tensor_2d(cross, QD_F64, C, C), qd_tensor_1d(order, QD_I32, C), u, alpha, new_tri(C, QD_F64)};
  cr_assert_eq(qd_asymmetry(device, &args), QD_OK, "%s", qd_error_text());
  return args.p;
}

/* Static groups, or the grid of whole rows, which knows the dead weights too. */
static void fit(qd_device *device, const struct golden_gptaq *g, const qd_gptq_args *args) {
  double w[R][C];
  memcpy(w, golden_w, sizeof w);
  for (int r = 0; r < R && g->group > 0 && g->dead >= 0; r++) w[r][g->dead] = 0;
  cr_assert_eq(qd_rtn_fit(device, qd_tensor_2d(w, QD_F64, R, C), args->scheme, args->scale, args->zero), QD_OK);
}

static void check_solution(const struct golden_gptaq *g, const qd_gptq_args *args) {
  int64_t size = g->group > 0 ? g->group : C;
  double total = 0;
  for (int r = 0; r < R; r++) {
    total += ((double *)args->loss.data)[r];
    for (int c = 0; c < C; c++) {
      int64_t group = r * args->scale.dim[1] + c / size;
      int code = ((uint8_t *)args->code.data)[r * C + c], zero = ((uint8_t *)args->zero.data)[group];
      cr_expect_float_eq(((double *)args->scale.data)[group] * (code - zero), g->q[r][c], 1e-9, "Q[%d][%d]", r, c);
    }
  }
  cr_expect_float_eq(total, g->loss * T / 2, 1e-8, "loss %.12g, expected %.12g", total, g->loss * T / 2);
}

static void solve(qd_device *device, const struct golden_gptaq *g, qd_tri u, qd_tri p) {
  double w[R][C], scale[R * 2], loss[R];
  uint8_t code[R * C], zero[R * 2];
  qd_scheme scheme = {.bits = 3, .group_size = g->group, .scale_dtype = QD_F32};
  int64_t groups = qd_scheme_groups(scheme, C);
  for (int r = 0; r < R; r++)
    for (int c = 0; c < C; c++) w[r][c] = order[c] == g->dead ? 0 : golden_w[r][order[c]];
  qd_gptq_args args = {.w = qd_tensor_2d(w, QD_F64, R, C),
                       .u = u,
                       .stored = qd_tensor_1d(order, QD_I32, C),
                       .scheme = scheme,
                       .block = g->block,
                       .code = qd_tensor_2d(code, QD_U8, R, C),
                       .scale = qd_tensor_2d(scale, QD_F64, R, groups),
                       .zero = qd_tensor_2d(zero, QD_U8, R, groups),
                       .loss = qd_tensor_1d(loss, QD_F64, R),
                       .p = p};
  fit(device, g, &args);
  cr_assert_eq(qd_gptq(device, &args), QD_OK, "%s", qd_error_text());
  check_solution(g, &args);
}

/* The exact sums count in units of 2^-42 of the diagonals: nine digits and more. */
static void check_golden(const struct golden_gptaq *g) {
  qd_device device;
  open_device(&device, "ref64", QD_ISA_PORTABLE, 1);
  take_inputs(g);
  find_order(g->act_order);
  for (int k = 0; k < 2; k++)
    cr_assert_eq(
        qd_hessian_grid(&device, qd_tensor_2d(diagonal[k], QD_F64, 1, C), 0x1p62, qd_tensor_1d(exponent[k], QD_I32, C)), QD_OK);
  double original[T][C];
  memcpy(original, golden_original, sizeof original);
  qd_tensor inputs = qd_tensor_3d(x, QD_F64, 1, T, C);
  qd_tri u = factor_of(&device, inputs),
         p = asymmetry_of(&device, inputs, qd_tensor_3d(original, QD_F64, 1, T, C), u, g->alpha);
  for (int j = 0; j < C; j++)
    for (int a = 0; a < j; a++)
      cr_expect_float_eq(((double *)p.data)[qd_tri_index(j, a)], g->p[a][j], 1e-9, "P[%d][%d]", a, j);
  solve(&device, g, u, p);
  qd_device_close(&device);
}

Test(asymmetry, golden_layers) {
  for (size_t i = 0; i < sizeof golden_gptaq / sizeof *golden_gptaq; i++) check_golden(&golden_gptaq[i]);
}
