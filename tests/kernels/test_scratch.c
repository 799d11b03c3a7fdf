/* Bounds are reached exactly: with a byte less an operation fails, with the bound it runs. */
#include "kernels/scratch.h"

#include <criterion/criterion.h>
#include <string.h>


#define MUST(call) cr_assert_eq((call), QD_OK, "%s", qd_error_text())

static const char *const devices[] = {"cpu", "ref"};
static const int thread_counts[] = {1, 3};

typedef struct stand {
  qd_device device;
  qd_arena  data;
} stand;

static void open_stand(stand *s, const char *device, int threads) {
  MUST(qd_device_open(&s->device, (qd_device_options){.name = device, .threads = threads, .scratch_bytes = QD_SCRATCH_LATER}));
  MUST(qd_arena_open(&s->data, "data", (size_t)256 << 20));
}

static void close_stand(stand *s) {
  qd_device_close(&s->device);
  qd_arena_close(&s->data);
}

static void *zeros(stand *s, size_t bytes) {
  void *data;
  MUST(qd_arena_new(&s->data, bytes, 1, &data));
  memset(data, 0, bytes);
  return data;
}

/* The operation, with the scratch that its bound says and with too little. */
static void expect_bound(stand *s, size_t bound, qd_status (*run)(stand *s, void *context), void *context) {
  size_t packing = qd_arena_cost(qd_device_packing_bytes(&s->device), 1);
  MUST(qd_device_reserve(&s->device, bound));
  MUST(run(s, context));
  cr_expect_eq(s->device.scratch.peak_bytes, packing + bound, "%s, %d threads: took %zu, bound %zu", s->device.name,
               s->device.threads, s->device.scratch.peak_bytes - packing, bound);
  cr_expect_eq(s->device.scratch.used_bytes, packing);
  if (bound == 0) return;
  MUST(qd_device_reserve(&s->device, bound - 1));
  cr_expect_eq(run(s, context), QD_ENOMEM);
}

#define FOR_EACH_DEVICE                                     \
  for (int d = 0; d < 2; d++)                               \
    for (int t = 0; t < 2; t++)                             \
      for (stand s, *once = (open_stand(&s, devices[d], thread_counts[t]), &s); once != NULL; close_stand(&s), once = NULL)

/* ---- the forward -------------------------------------------------------------------------------------------------------- */

static qd_status run_attention(stand *s, void *context) { return qd_attention(&s->device, context); }

static void expect_attention(stand *s, int64_t queries, int64_t keys, int64_t head, int64_t window, qd_dtype act) {
  size_t bytes = qd_dtype_bytes(act);
  qd_attention_args args = {.q = qd_tensor_3d(zeros(s, (size_t)(queries * 4 * head) * bytes), act, queries, 4, head),
                            .k = qd_tensor_3d(zeros(s, (size_t)(keys * 2 * head) * bytes), act, keys, 2, head),
                            .v = qd_tensor_3d(zeros(s, (size_t)(keys * 2 * head) * bytes), act, keys, 2, head),
                            .out = qd_tensor_3d(zeros(s, (size_t)(queries * 4 * head) * bytes), act, queries, 4, head),
                            .scale = 1, .window = window};
  expect_bound(s, qd_scratch_attention(&s->device, &args), run_attention, &args);
}

Test(scratch, attention) {
  FOR_EACH_DEVICE {
    expect_attention(&s, 7, 7, 4, 0, QD_F32);
    expect_attention(&s, 300, 300, 16, 0, QD_BF16);
    expect_attention(&s, 700, 700, 10, 33, QD_F32); /* the window limits what a tile sees */
    expect_attention(&s, 1, 90, 128, 0, QD_BF16);
  }
}

typedef struct product {
  qd_tensor  x, y;
  qd_qtensor w;
} product;

static qd_status run_qlinear(stand *s, void *context) {
  product *p = context;
  return qd_qlinear(&s->device, p->x, &p->w, NULL, p->y);
}

static void expect_qlinear(stand *s, qd_dtype act, bool has_order) {
  enum { TOKENS = 5, ROWS = 33, COLUMNS = 70 };
  product p = {.x = qd_tensor_2d(zeros(s, TOKENS * COLUMNS * 4), act, TOKENS, COLUMNS),
               .y = qd_tensor_2d(zeros(s, TOKENS * ROWS * 4), act, TOKENS, ROWS)};
  MUST(qd_qtensor_new(&s->data, (qd_scheme){.bits = 3, .group_size = 16, .scale_dtype = QD_F16}, ROWS, COLUMNS, has_order,
                      &p.w));
  memset(p.w.codes.data, 0, qd_tensor_bytes(p.w.codes));
  memset(p.w.scales.data, 0, qd_tensor_bytes(p.w.scales));
  memset(p.w.zeros.data, 0, qd_tensor_bytes(p.w.zeros));
  for (int32_t c = 0; has_order && c < COLUMNS; c++) ((int32_t *)p.w.order.data)[c] = COLUMNS - 1 - c;
  expect_bound(s, qd_scratch_qlinear(&s->device, p.x, ROWS, has_order), run_qlinear, &p);
}

Test(scratch, qlinear) {
  FOR_EACH_DEVICE {
    expect_qlinear(&s, QD_F32, false);
    expect_qlinear(&s, QD_F32, true);
    expect_qlinear(&s, QD_BF16, true);
    MUST(qd_device_use_arithmetic(&s.device, QD_ARITHMETIC_INT8));
    expect_qlinear(&s, QD_F32, false);
    expect_qlinear(&s, QD_F32, true);
  }
}

/* ---- statistics and solvers ---------------------------------------------------------------------------------------------- */

typedef struct solving {
  int64_t   n;
  qd_tensor x, exponent, add, order, value, sum, cross;
  qd_tri    total, h, work, u;
} solving;

static qd_tri new_tri(stand *s, qd_dtype dtype, int64_t n) {
  return (qd_tri){.data = zeros(s, qd_tri_bytes(n, dtype)), .dtype = dtype, .n = n};
}

static solving new_solving(stand *s, int64_t n) {
  size_t wide = (size_t)n * sizeof(double);
  solving v = {.n = n,
               .x = qd_tensor_3d(zeros(s, (size_t)(9 * n) * 4), QD_F32, 1, 9, n),
               .exponent = qd_tensor_1d(zeros(s, wide), QD_I32, n),
               .add = qd_tensor_1d(zeros(s, wide), QD_F64, n),
               .order = qd_tensor_1d(zeros(s, wide), QD_I32, n),
               .value = qd_tensor_1d(zeros(s, wide), QD_F64, 9),
               .sum = qd_tensor_2d(zeros(s, wide * (size_t)n), QD_I64, n, n),
               .cross = qd_tensor_2d(zeros(s, wide * (size_t)n), QD_F32, n, n),
               .total = new_tri(s, QD_I64, n),
               .h = new_tri(s, QD_F32, n),
               .work = new_tri(s, QD_F64, n),
               .u = new_tri(s, QD_F32, n)};
  for (int32_t i = 0; i < n; i++) ((double *)v.add.data)[i] = 1, ((int32_t *)v.order.data)[i] = (int32_t)n - 1 - i;
  return v;
}

static qd_status run_hessian(stand *s, void *context) {
  solving *v = context;
  QD_TRY(qd_hessian(&s->device, v->x, v->exponent, v->total));
  return qd_hessian_values(&s->device, v->total, v->exponent, v->h);
}

static qd_status run_sqerror(stand *s, void *context) {
  solving *v = context;
  return qd_sqerror(&s->device, qd_tensor_2d(v->x.data, QD_F32, 9, v->n), v->h, v->value);
}

static qd_status run_factor(stand *s, void *context) {
  solving *v = context;
  int64_t pivot;
  return qd_factor(&s->device, &(qd_factor_args){.h = v->h, .order = v->order, .add = v->add, .work = v->work, .u = v->u},
                   &pivot);
}

static qd_status run_cross(stand *s, void *context) {
  solving *v = context;
  QD_TRY(qd_cross(&s->device, &(qd_cross_args){v->x, v->x, v->exponent, v->exponent, 0, v->sum}));
  return qd_cross_values(&s->device, v->sum, v->exponent, v->exponent, v->cross);
}

static qd_status run_asymmetry(stand *s, void *context) {
  solving *v = context;
  return qd_asymmetry(&s->device, &(qd_asymmetry_args){v->cross, v->order, v->u, 0.25, v->h});
}

static void expect_cross(stand *s, solving *v) {
  static const qd_dtype acts[] = {QD_F32, QD_BF16};
  for (int a = 0; a < 2; a++) {
    v->x.dtype = acts[a];
    expect_bound(s, qd_scratch_cross(&s->device, v->n, 9, acts[a]), run_cross, v);
  }
  v->x.dtype = QD_F32;
}

Test(scratch, statistics_and_factor) {
  static const int64_t sizes[] = {3, 256, 600, 1003};
  FOR_EACH_DEVICE {
    for (int i = 0; i < 4 && !(d == 1 && i > 2); i++) {
      solving v = new_solving(&s, sizes[i]);
      if (d == 0) expect_bound(&s, qd_scratch_hessian(&s.device, v.n), run_hessian, &v); /* the loops take none */
      expect_bound(&s, qd_scratch_sqerror(&s.device), run_sqerror, &v);
      expect_bound(&s, qd_scratch_factor(&s.device, v.n), run_factor, &v);
      if (d == 0) expect_cross(&s, &v);
      if (d == 0 || i < 2) expect_bound(&s, qd_scratch_asymmetry(&s.device, v.n), run_asymmetry, &v);
    }
  }
}

static qd_status run_gptq(stand *s, void *context) { return qd_gptq(&s->device, context); }

static void expect_gptq(stand *s, int64_t rows, int64_t columns, int64_t group, int64_t block, bool fit, bool asymmetric) {
  qd_scheme scheme = {.bits = 4, .group_size = group, .scale_dtype = QD_F16};
  int64_t groups = qd_scheme_groups(scheme, columns);
  qd_gptq_args args = {.w = qd_tensor_2d(zeros(s, (size_t)(rows * columns) * 4), QD_F32, rows, columns),
                       .u = new_tri(s, QD_F32, columns),
                       .stored = qd_tensor_1d(zeros(s, (size_t)columns * 4), QD_I32, columns),
                       .scheme = scheme,
                       .fit = fit,
                       .block = block,
                       .code = qd_tensor_2d(zeros(s, (size_t)(rows * columns)), QD_U8, rows, columns),
                       .scale = qd_tensor_2d(zeros(s, (size_t)(rows * groups) * 4), QD_F32, rows, groups),
                       .zero = qd_tensor_2d(zeros(s, (size_t)(rows * groups)), QD_U8, rows, groups),
                       .loss = qd_tensor_1d(zeros(s, (size_t)rows * 8), QD_F64, rows)};
  for (int32_t c = 0; c < columns; c++) ((float *)args.u.data)[qd_tri_index(c, c)] = 1, ((int32_t *)args.stored.data)[c] = c;
  for (int64_t i = 0; i < rows * groups; i++) ((float *)args.scale.data)[i] = 1;
  if (asymmetric) args.p = new_tri(s, QD_F32, columns);
  expect_bound(s, qd_scratch_gptq(&s->device, &args), run_gptq, &args);
}

Test(scratch, gptq) {
  FOR_EACH_DEVICE {
    expect_gptq(&s, 5, 40, 16, 128, false, false);
    expect_gptq(&s, 300, 300, 64, 128, true, true);
    expect_gptq(&s, 700, 130, -1, 40, false, true);
    expect_gptq(&s, 33, 520, 8, 300, false, false);
  }
}

/* ---- the arena ----------------------------------------------------------------------------------------------------------- */

Test(scratch, a_device_can_be_given_its_scratch_later) {
  stand s;
  open_stand(&s, "cpu", 2);
  void *memory;
  MUST(qd_device_reserve(&s.device, 4096));
  MUST(qd_arena_new(&s.device.scratch, 4096, 1, &memory));
  cr_expect_eq(qd_arena_new(&s.device.scratch, 1, 1, &memory), QD_ENOMEM);
  cr_expect_not_null(s.device.packing);
  close_stand(&s);
}
