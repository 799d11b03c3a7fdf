#define _POSIX_C_SOURCE 200809L
#include "jobs/bench.h"

#include "jobs/yardstick.h"
#include "kernels/base/log.h"
#include "kernels/ops.h"
#include "kernels/peak.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* One case being measured: operands in an arena, a run, what it counts. */
typedef struct bench_case bench_case;
struct bench_case {
  qd_device *device;
  qd_arena   arena;
  qd_dtype   dtype;
  int64_t    m, n, k;
  qd_tensor  x, w, y, extra[5];
  qd_tri     tri[3];
  double     flops, bytes;
};

typedef struct bench_op {
  const char *name;
  qd_dtype    dtype;
  int64_t     m, n, k; /* the usual shape */
  int         yardstick; /* index of the rate that it is compared with: 0 fp32, 1 bf16, -1 none */
  qd_status (*prepare)(bench_case *c);
  qd_status (*run)(bench_case *c);
} bench_op;

/* ---- operands ------------------------------------------------------------------------------------------------------------ */

/* Numbers without a pattern that matters to a rate: a multiplicative congruence, between -1 and 1. */
static void fill(qd_tensor t) {
  uint32_t state = 12345;
  int64_t n = qd_tensor_elements(t);
  for (int64_t i = 0; i < n; i++) {
    state = state * 1664525u + 1013904223u;
    float value = (float)(state >> 8) / 8388608.0f - 1.0f;
    if (t.dtype == QD_F32) ((float *)t.data)[i] = value;
    else if (t.dtype == QD_F64) ((double *)t.data)[i] = (double)value;
    else ((uint16_t *)t.data)[i] = qd_bf16_from_f32(value);
  }
}

static qd_status operand(bench_case *c, qd_dtype dtype, int64_t rows, int64_t columns, qd_tensor *out) {
  QD_TRY(qd_tensor_new_2d(&c->arena, dtype, rows, columns, out));
  if (dtype == QD_F32 || dtype == QD_BF16 || dtype == QD_F64) fill(*out);
  else memset(out->data, 0, qd_tensor_bytes(*out));
  return QD_OK;
}

static qd_status triangle(bench_case *c, qd_dtype dtype, int64_t n, qd_tri *out) {
  *out = (qd_tri){.dtype = dtype, .n = n};
  QD_TRY(qd_arena_new(&c->arena, qd_tri_elements(n), qd_dtype_bytes(dtype), &out->data));
  memset(out->data, 0, qd_tri_bytes(n, dtype));
  return QD_OK;
}

/* ---- products ------------------------------------------------------------------------------------------------------------ */

static qd_status prepare_product(bench_case *c) {
  QD_TRY(operand(c, c->dtype, c->m, c->k, &c->x));
  QD_TRY(operand(c, c->dtype, c->n, c->k, &c->w));
  QD_TRY(operand(c, c->dtype == QD_F64 ? QD_F64 : QD_F32, c->m, c->n, &c->y));
  c->flops = 2.0 * (double)c->m * (double)c->n * (double)c->k;
  c->bytes = (double)(qd_tensor_bytes(c->x) + qd_tensor_bytes(c->w) + qd_tensor_bytes(c->y));
  return QD_OK;
}

static qd_status run_product(bench_case *c) { return qd_matmul(c->device, c->x, qd_tensor_transposed(c->w), false, c->y); }

/* ---- statistics and solvers ---------------------------------------------------------------------------------------------- */

static qd_status prepare_hessian(bench_case *c) {
  int32_t *exponent;
  QD_TRY(operand(c, c->dtype, c->m, c->k, &c->x));
  QD_TRY(qd_arena_new(&c->arena, (size_t)c->k, sizeof *exponent, &exponent));
  for (int64_t j = 0; j < c->k; j++) exponent[j] = 6;
  c->extra[0] = qd_tensor_1d(exponent, QD_I32, c->k);
  c->flops = (double)c->m * (double)c->k * (double)(c->k + 1);
  c->bytes = (double)(qd_tensor_bytes(c->x) + qd_tri_bytes(c->k, QD_I64));
  return triangle(c, QD_I64, c->k, &c->tri[0]);
}

static qd_status run_hessian(bench_case *c) {
  return qd_hessian(c->device, qd_tensor_3d(c->x.data, c->dtype, 1, c->m, c->k), c->extra[0], c->tri[0]);
}

/* A positive matrix without a product: ones beside a heavy diagonal. */
static qd_status prepare_factor(bench_case *c) {
  double *add;
  QD_TRY(triangle(c, QD_F32, c->k, &c->tri[0]));
  QD_TRY(triangle(c, QD_F64, c->k, &c->tri[1]));
  QD_TRY(triangle(c, QD_F32, c->k, &c->tri[2]));
  QD_TRY(qd_arena_new(&c->arena, (size_t)c->k, sizeof *add, &add));
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

static qd_status run_factor(bench_case *c) {
  int64_t pivot;
  qd_factor_args args = {.h = c->tri[0], .add = c->extra[4], .work = c->tri[1], .u = c->tri[2]};
  return qd_factor(c->device, &args, &pivot);
}

static const qd_scheme bench_scheme = {.bits = 4, .group_size = 128, .scale_dtype = QD_F16};

static qd_status prepare_grid(bench_case *c) {
  int64_t groups = qd_scheme_groups(bench_scheme, c->k);
  QD_TRY(operand(c, QD_F32, c->n, c->k, &c->w));
  QD_TRY(operand(c, QD_F32, c->n, groups, &c->extra[0]));
  QD_TRY(operand(c, QD_U8, c->n, groups, &c->extra[1]));
  QD_TRY(operand(c, QD_U8, c->n, c->k, &c->extra[2]));
  c->flops = 80.0 * (double)c->n * (double)c->k;
  c->bytes = (double)qd_tensor_bytes(c->w);
  return QD_OK;
}

static qd_status run_grid(bench_case *c) {
  qd_scheme scheme = bench_scheme;
  scheme.mse = true;
  return qd_rtn_fit(c->device, c->w, scheme, c->extra[0], c->extra[1]);
}

static qd_status prepare_gptq(bench_case *c) {
  int32_t *stored;
  double *loss;
  QD_TRY(prepare_grid(c));
  QD_TRY(prepare_factor(c));
  QD_TRY(run_factor(c));
  QD_TRY(qd_arena_new(&c->arena, (size_t)c->k, sizeof *stored, &stored));
  QD_TRY(qd_arena_new(&c->arena, (size_t)c->n, sizeof *loss, &loss));
  QD_TRY(operand(c, QD_F32, c->n, c->k, &c->y));
  for (int64_t j = 0; j < c->k; j++) stored[j] = (int32_t)j;
  c->extra[3] = qd_tensor_1d(stored, QD_I32, c->k);
  c->x = qd_tensor_1d(loss, QD_F64, c->n);
  c->flops = (double)c->n * (double)c->k * (double)c->k;
  c->bytes = (double)(qd_tensor_bytes(c->w) + qd_tri_bytes(c->k, QD_F32));
  return qd_rtn_fit(c->device, c->w, bench_scheme, c->extra[0], c->extra[1]);
}

static qd_status run_gptq(bench_case *c) {
  memcpy(c->y.data, c->w.data, qd_tensor_bytes(c->w));
  qd_gptq_args args = {.w = c->y, .u = c->tri[2], .stored = c->extra[3], .scheme = bench_scheme, .block = QD_GPTQ_BLOCK,
                       .code = c->extra[2], .scale = c->extra[0], .zero = c->extra[1], .loss = c->x};
  return qd_gptq(c->device, &args);
}

static const bench_op ops[] = {
    {"gemm", QD_F32, 2048, 2048, 2048, 0, prepare_product, run_product},
    {"gemm", QD_BF16, 2048, 2048, 2048, 1, prepare_product, run_product},
    {"gemm", QD_F64, 1024, 1024, 1024, -1, prepare_product, run_product},
    {"hessian", QD_F32, 2048, 0, 2048, 0, prepare_hessian, run_hessian},
    {"hessian", QD_BF16, 2048, 0, 2048, 1, prepare_hessian, run_hessian},
    {"factor", QD_F64, 0, 0, 2048, -1, prepare_factor, run_factor},
    {"gptq", QD_F32, 0, 2048, 2048, 0, prepare_gptq, run_gptq},
    {"mse_grid", QD_F32, 0, 512, 2048, -1, prepare_grid, run_grid},
};
enum { N_OPS = (int)(sizeof ops / sizeof ops[0]) };

/* ---- choosing ------------------------------------------------------------------------------------------------------------ */

const char *qd_bench_names(void) {
  static char names[128];
  names[0] = '\0';
  for (int i = 0; i < N_OPS; i++)
    if (i == 0 || strcmp(ops[i].name, ops[i - 1].name) != 0)
      snprintf(names + strlen(names), sizeof names - strlen(names), "%s%s", i ? ", " : "", ops[i].name);
  return names;
}

bool qd_bench_select(qd_bench_request *request, const char *name) {
  unsigned found = 0;
  for (int i = 0; i < N_OPS; i++)
    if (strcmp(ops[i].name, name) == 0) found |= 1u << i;
  request->selected |= found;
  return found != 0;
}

bool qd_bench_shape(const char *text, int64_t shape[3]) {
  for (int i = 0; i < 3; i++) {
    char *end;
    long value = strtol(text, &end, 10);
    if (end == text || value < 1 || value > 65536) return false;
    for (int j = i; j < 3; j++) shape[j] = value;
    if (*end == '\0') return true;
    if (*end != 'x') return false;
    text = end + 1;
  }
  return false;
}

/* ---- measuring ----------------------------------------------------------------------------------------------------------- */

static double thread_seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* With one thread its CPU time, so that whatever else runs on the machine does not count; with more, the clock on the wall. */
static double bench_seconds(const qd_device *device) { return device->threads > 1 ? qd_seconds() : thread_seconds(); }

static double peak_of(const qd_device *device, qd_dtype dtype) {
  double best = 0;
  for (int i = 0; i < 5; i++) {
    double start = thread_seconds(), flops = qd_peak_run(device, dtype, 2000000),
           rate = flops / (thread_seconds() - start) / 1e9;
    best = rate > best ? rate : best;
  }
  return best;
}

static qd_status yardstick_of(qd_device *device, const qd_bench_request *request, qd_dtype dtype, double *rate) {
  bench_case c = {.device = device, .dtype = dtype, .m = request->shape[0] ? request->shape[0] : 2048,
                  .n = request->shape[1] ? request->shape[1] : 2048, .k = request->shape[2] ? request->shape[2] : 2048};
  qd_yardstick *yardstick;
  *rate = 0;
  if (qd_yardstick_name() == NULL) return QD_OK;
  QD_TRY(qd_arena_open(&c.arena, "bench", (size_t)64 << 30));
  qd_status status = prepare_product(&c);
  if (status == QD_OK &&
      qd_yardstick_open(c.x, c.w, c.y, &yardstick) == QD_OK) { /* an older CPU may have no bf16 product there */
    for (int i = 0; i <= request->repeats; i++) {
      double start = bench_seconds(device);
      qd_yardstick_run(yardstick);
      double here = c.flops / (bench_seconds(device) - start) / 1e9;
      if (i > 0 && here > *rate) *rate = here;
    }
    qd_yardstick_close(yardstick);
  }
  qd_arena_close(&c.arena);
  return status;
}

static qd_status time_case(bench_case *c, const bench_op *op, int repeats, double *seconds) {
  QD_TRY(op->prepare(c));
  *seconds = 1e300;
  for (int i = 0; i <= repeats; i++) {
    double start = bench_seconds(c->device);
    QD_TRY(op->run(c));
    double here = bench_seconds(c->device) - start;
    if (i > 0 && here < *seconds) *seconds = here;
  }
  return QD_OK;
}

static void shape_text(const bench_op *op, const bench_case *c, char *text, size_t size) {
  text[0] = '\0';
  int64_t usual[3] = {op->m, op->n, op->k}, here[3] = {c->m, c->n, c->k};
  for (int i = 0; i < 3; i++)
    if (usual[i]) snprintf(text + strlen(text), size - strlen(text), "%s%" PRId64, text[0] ? "x" : "", here[i]);
}

static qd_status measure(qd_device *device, const bench_op *op, const qd_bench_request *request, qd_bench *out) {
  const int64_t *shape = request->shape;
  bench_case c = {.device = device, .dtype = op->dtype, .m = shape[0] ? shape[0] : op->m, .n = shape[1] ? shape[1] : op->n,
                  .k = shape[2] ? shape[2] : op->k};
  qd_bench_row *row = &out->row[out->n++];
  *row = (qd_bench_row){.op = op->name, .dtype = qd_dtype_name(op->dtype)};
  QD_TRY(qd_arena_open(&c.arena, "bench", (size_t)64 << 30));
  qd_status status = time_case(&c, op, request->repeats, &row->seconds);
  if (status == QD_OK) {
    shape_text(op, &c, row->shape, sizeof row->shape);
    double peak = op->dtype == QD_F64 ? peak_of(device, QD_F64) : out->peak[op->dtype == QD_BF16];
    row->gflops = c.flops / row->seconds / 1e9, row->gbytes_per_second = c.bytes / row->seconds / 1e9;
    row->share_of_peak = row->gflops / (peak * device->threads);
    if (op->yardstick >= 0 && out->yardstick[op->yardstick] > 0)
      row->share_of_yardstick = row->gflops / out->yardstick[op->yardstick];
  }
  qd_arena_close(&c.arena);
  return status;
}

qd_status qd_bench_run(qd_device *device, const qd_bench_request *request, qd_bench *out) {
  *out = (qd_bench){.isa = qd_isa_name(device->isa), .threads = device->threads};
  qd_yardstick_limit(device);
  out->peak[0] = peak_of(device, QD_F32), out->peak[1] = peak_of(device, QD_BF16);
  QD_TRY(yardstick_of(device, request, QD_F32, &out->yardstick[0]));
  QD_TRY(yardstick_of(device, request, QD_BF16, &out->yardstick[1]));
  for (int i = 0; i < N_OPS; i++)
    if (request->selected == 0 || (request->selected >> i & 1u)) QD_TRY(measure(device, &ops[i], request, out));
  return QD_OK;
}
