/* The bench's statistics and solvers. */
#include "jobs/bench_case.h"

#include <string.h>

static qd_status triangle(qd_bench_case *c, qd_dtype dtype, int64_t n, qd_tri *out) {
  *out = (qd_tri){.dtype = dtype, .n = n};
  QD_TRY(qd_arena_new(c->arena, qd_tri_elements(n), qd_dtype_bytes(dtype), &out->data));
  memset(out->data, 0, qd_tri_bytes(n, dtype));
  return QD_OK;
}

static qd_status prepare_hessian(qd_bench_case *c) {
  int32_t *exponent;
  QD_TRY(qd_bench_matrix(c, c->dtype, c->m, c->k, &c->x));
  QD_TRY(qd_arena_new(c->arena, (size_t)c->k, sizeof *exponent, &exponent));
  for (int64_t j = 0; j < c->k; j++) exponent[j] = 6;
  c->extra[0] = qd_tensor_1d(exponent, QD_I32, c->k);
  c->flops = (double)c->m * (double)c->k * (double)(c->k + 1);
  c->bytes = (double)(qd_tensor_bytes(c->x) + qd_tri_bytes(c->k, QD_I64));
  return triangle(c, QD_I64, c->k, &c->tri[0]);
}

static qd_status run_hessian(qd_bench_case *c) {
  return qd_hessian(c->device, qd_tensor_3d(c->x.data, c->dtype, 1, c->m, c->k), c->extra[0], c->tri[0]);
}

/* A positive matrix without a product: ones beside a heavy diagonal. */
static qd_status prepare_factor(qd_bench_case *c) {
  double *add;
  QD_TRY(triangle(c, QD_F32, c->k, &c->tri[0]));
  QD_TRY(triangle(c, QD_F64, c->k, &c->tri[1]));
  QD_TRY(triangle(c, QD_F32, c->k, &c->tri[2]));
  QD_TRY(qd_arena_new(c->arena, (size_t)c->k, sizeof *add, &add));
  float *h = c->tri[0].data;
  for (int64_t i = 0; i < c->k; i++) {
    for (int64_t j = 0; j < i; j++) h[qd_tri_index(i, j)] = (float)((i * 7 + j * 13) % 17) / 17.0f;
    h[qd_tri_index(i, i)] = (float)c->k, add[i] = 1;
  }
  c->extra[4] = qd_tensor_1d(add, QD_F64, c->k);
  c->flops = 2.0 / 3.0 * (double)c->k * (double)c->k * (double)c->k;
  c->bytes = (double)(qd_tri_bytes(c->k, QD_F64) + 2 * qd_tri_bytes(c->k, QD_F32));
  return QD_OK;
}

static qd_status run_factor(qd_bench_case *c) {
  int64_t pivot;
  qd_factor_args args = {.h = c->tri[0], .add = c->extra[4], .work = c->tri[1], .u = c->tri[2]};
  return qd_factor(c->device, &args, &pivot);
}

static qd_status prepare_grid(qd_bench_case *c) {
  int64_t groups = qd_scheme_groups(c->scheme, c->k);
  QD_TRY(qd_bench_matrix(c, QD_F32, c->n, c->k, &c->w));
  QD_TRY(qd_bench_matrix(c, QD_F32, c->n, groups, &c->extra[0]));
  QD_TRY(qd_bench_matrix(c, QD_U8, c->n, groups, &c->extra[1]));
  QD_TRY(qd_bench_matrix(c, QD_U8, c->n, c->k, &c->extra[2]));
  c->flops = 80.0 * (double)c->n * (double)c->k;
  c->bytes = (double)qd_tensor_bytes(c->w);
  return QD_OK;
}

static qd_status run_grid(qd_bench_case *c) {
  qd_scheme scheme = c->scheme;
  scheme.mse = true;
  return qd_rtn_fit(c->device, c->w, scheme, c->extra[0], c->extra[1]);
}

static qd_status prepare_gptq(qd_bench_case *c) {
  int32_t *stored;
  double *loss;
  QD_TRY(prepare_grid(c));
  QD_TRY(prepare_factor(c));
  QD_TRY(run_factor(c));
  QD_TRY(qd_arena_new(c->arena, (size_t)c->k, sizeof *stored, &stored));
  QD_TRY(qd_arena_new(c->arena, (size_t)c->n, sizeof *loss, &loss));
  QD_TRY(qd_bench_matrix(c, QD_F32, c->n, c->k, &c->y));
  for (int64_t j = 0; j < c->k; j++) stored[j] = (int32_t)j;
  c->extra[3] = qd_tensor_1d(stored, QD_I32, c->k);
  c->x = qd_tensor_1d(loss, QD_F64, c->n);
  c->flops = (double)c->n * (double)c->k * (double)c->k;
  c->bytes = (double)(qd_tensor_bytes(c->w) + qd_tri_bytes(c->k, QD_F32));
  return qd_rtn_fit(c->device, c->w, c->scheme, c->extra[0], c->extra[1]);
}

static qd_status run_gptq(qd_bench_case *c) {
  memcpy(c->y.data, c->w.data, qd_tensor_bytes(c->w));
  qd_gptq_args args = {.w = c->y, .u = c->tri[2], .stored = c->extra[3], .scheme = c->scheme, .block = QD_GPTQ_BLOCK,
                       .code = c->extra[2], .scale = c->extra[0], .zero = c->extra[1], .loss = c->x};
  return qd_gptq(c->device, &args);
}

/* 3 bits in groups of 16 with statistics of 3 bits over 16 rows, and the threshold of SpQR's authors. */
static qd_status prepare_spqr(qd_bench_case *c) {
  qd_spqr_args *args;
  double *loss, scale = 0;
  int64_t groups = (c->k + 15) / 16, runs = (c->n + 15) / 16;
  void *second;
  QD_TRY(prepare_grid(c));
  QD_TRY(prepare_factor(c));
  QD_TRY(run_factor(c));
  QD_TRY(qd_arena_new(c->arena, 1, sizeof *args, &args));
  QD_TRY(qd_arena_new(c->arena, (size_t)c->n, sizeof *loss, &loss));
  QD_TRY(qd_arena_new(c->arena, (size_t)(runs * groups * QD_SECOND), sizeof(uint16_t), &second));
  *args = (qd_spqr_args){.u = c->tri[2], .block = QD_GPTQ_BLOCK, .loss = qd_tensor_1d(loss, QD_F64, c->n),
                         .scheme = {.bits = 3, .group_size = 16, .scale_dtype = QD_F16, .spqr = true, .scale_bits = 3,
                                    .zero_bits = 3, .stat_group = 16},
                         .second = qd_tensor_3d(second, QD_F16, runs, groups, QD_SECOND)};
  QD_TRY(qd_bench_matrix(c, QD_F32, c->n, c->k, &args->w));
  QD_TRY(qd_bench_matrix(c, QD_U8, c->n, c->k, &args->code));
  QD_TRY(qd_bench_matrix(c, QD_U8, c->n, c->k, &args->outlier));
  QD_TRY(qd_bench_matrix(c, QD_F16, c->n, c->k, &args->value));
  QD_TRY(qd_bench_matrix(c, QD_U8, c->n, groups, &args->scale_code));
  QD_TRY(qd_bench_matrix(c, QD_U8, c->n, groups, &args->zero_code));
  QD_TRY(qd_bench_matrix(c, QD_F32, c->n, groups, &args->scale));
  QD_TRY(qd_bench_matrix(c, QD_F32, c->n, groups, &args->zero));
  for (int64_t j = 0; j < c->k; j++) {
    double u = (double)((const float *)args->u.data)[qd_tri_index(j, j)];
    scale += 1 / (3 * u * u * (double)c->k); /* the variance of uniform weights is 1 / 3 */
  }
  args->tau = 0.2 * scale;
  c->state = args;
  c->flops = (double)c->n * (double)c->k * (double)c->k;
  c->bytes = (double)(qd_tensor_bytes(c->w) + qd_tri_bytes(c->k, QD_F32));
  return QD_OK;
}

static qd_status run_spqr(qd_bench_case *c) {
  qd_spqr_args *args = c->state;
  memcpy(args->w.data, c->w.data, qd_tensor_bytes(c->w));
  return qd_spqr(c->device, args);
}

static const qd_bench_op ops[] = {
    {"hessian", QD_F32, 0, 2048, 0, 2048, 0, 0, 4096, QD_BESIDE_SQUARE, prepare_hessian, run_hessian, NULL},
    {"hessian", QD_BF16, 0, 2048, 0, 2048, 0, 0, 4096, QD_BESIDE_SQUARE, prepare_hessian, run_hessian, NULL},
    {"factor", QD_F64, 0, 0, 0, 2048, 0, 0, 4096, QD_BESIDE_SQUARE, prepare_factor, run_factor, NULL},
    {"gptq", QD_F32, 4, 0, 2048, 2048, 0, 4096, 4096, QD_BESIDE_SQUARE, prepare_gptq, run_gptq, NULL},
    {"spqr", QD_F32, 3, 0, 512, 2048, 0, 4096, 4096, QD_BESIDE_SQUARE, prepare_spqr, run_spqr, NULL},
    {"mse_grid", QD_F32, 4, 0, 512, 2048, 0, 0, 0, QD_BESIDE_NOTHING, prepare_grid, run_grid, NULL},
};
const qd_bench_group qd_bench_solvers = QD_BENCH_GROUP(ops);
