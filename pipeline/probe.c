#include "pipeline/probe.h"

#include "kernels/base/heap.h"
#include "kernels/base/log.h"
#include "kernels/scratch.h"
#include "workers/agree.h"

#include <math.h>
#include <string.h>

enum { TOKENS = 256, COLUMNS = 1024, SOLVED = 512, ROWS = 64, READ_BYTES = 32 << 20, WIRE_BYTES = 16 << 20 };
static const double least_seconds = 0.02, assumed_wire = 1e9; /* 10 Gbit/s, where there is no other rank to ask */

typedef struct bench {
  qd_device *device;
  qd_dtype   act;
  qd_scheme  scheme;
  qd_tensor  x, w, y;                  /* act */
  qd_tensor  rows, code, scale, zero;  /* F32 (ROWS, SOLVED) and its grid */
  qd_tensor  exponent, add, stored, loss, value;
  qd_tri     total, h, work, u;
} bench;

/* ---- what is measured ---------------------------------------------------------------------------------------------------- */

static qd_status do_linear(bench *b) { return qd_linear(b->device, b->x, b->w, NULL, b->y); }

static qd_status do_hessian(bench *b) {
  qd_tensor unit = qd_tensor_3d(b->x.data, b->act, 1, TOKENS, SOLVED); /* the same numbers, another shape */
  return qd_hessian(b->device, unit, b->exponent, b->total);
}

static qd_status do_factor(bench *b) {
  int64_t pivot;
  qd_factor_args args = {.h = b->h, .add = b->add, .work = b->work, .u = b->u};
  return qd_factor(b->device, &args, &pivot);
}

static qd_status do_fit(bench *b) { return qd_rtn_fit(b->device, b->rows, b->scheme, b->scale, b->zero); }

static qd_status do_solve(bench *b) {
  qd_gptq_args args = {.w = b->rows,
                       .u = b->u,
                       .stored = b->stored,
                       .scheme = b->scheme,
                       .block = QD_GPTQ_BLOCK,
                       .code = b->code,
                       .scale = b->scale,
                       .zero = b->zero,
                       .loss = b->loss};
  return qd_gptq(b->device, &args);
}

static qd_status do_measure(bench *b) { return qd_sqerror(b->device, b->rows, b->h, b->value); }

/* Once to warm up, then for a while: calls a second. */
static qd_status rate_of(bench *b, qd_status (*work)(bench *), double units, double *rate) {
  QD_TRY(work(b));
  double start = qd_seconds(), spent = 0;
  int calls = 0;
  for (; spent < least_seconds; calls++, spent = qd_seconds() - start) QD_TRY(work(b));
  *rate = units * calls / spent;
  return QD_OK;
}

/* ---- data ---------------------------------------------------------------------------------------------------------------- */

static void fill(qd_tensor t, uint64_t state) {
  for (int64_t i = 0; i < qd_tensor_elements(t); i++) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    float value = (float)((double)(state >> 40) * 0x1p-23 - 1);
    if (t.dtype == QD_BF16) ((uint16_t *)t.data)[i] = qd_bf16_from_f32(value);
    else ((float *)t.data)[i] = value;
  }
}

static qd_status new_tri(qd_arena *arena, qd_dtype dtype, qd_tri *out) {
  *out = (qd_tri){.dtype = dtype, .n = SOLVED};
  QD_TRY(qd_arena_new(arena, qd_tri_elements(SOLVED), qd_dtype_bytes(dtype), &out->data));
  memset(out->data, 0, qd_tri_bytes(SOLVED, dtype));
  return QD_OK;
}

static qd_status new_vector(qd_arena *arena, qd_dtype dtype, qd_tensor *out) {
  *out = qd_tensor_1d(NULL, dtype, SOLVED);
  QD_TRY(qd_arena_new(arena, SOLVED, qd_dtype_bytes(dtype), &out->data));
  memset(out->data, 0, qd_tensor_bytes(*out));
  return QD_OK;
}

static qd_status new_matrices(bench *b, qd_arena *arena) {
  int64_t groups = qd_scheme_groups(b->scheme, SOLVED);
  QD_TRY(qd_tensor_new_2d(arena, b->act, TOKENS, COLUMNS, &b->x));
  QD_TRY(qd_tensor_new_2d(arena, b->act, COLUMNS, COLUMNS, &b->w));
  QD_TRY(qd_tensor_new_2d(arena, b->act, TOKENS, COLUMNS, &b->y));
  QD_TRY(qd_tensor_new_2d(arena, QD_F32, ROWS, SOLVED, &b->rows));
  QD_TRY(qd_tensor_new_2d(arena, QD_U8, ROWS, SOLVED, &b->code));
  QD_TRY(qd_tensor_new_2d(arena, QD_F32, ROWS, groups, &b->scale));
  QD_TRY(qd_tensor_new_2d(arena, QD_U8, ROWS, groups, &b->zero));
  fill(b->x, 1), fill(b->w, 2), fill(b->rows, 3);
  return QD_OK;
}

/* H is the unit matrix, so that there is a factor. */
static qd_status open_bench(bench *b) {
  qd_arena *arena = &b->device->scratch;
  QD_TRY(new_matrices(b, arena));
  QD_TRY(new_vector(arena, QD_I32, &b->exponent));
  QD_TRY(new_vector(arena, QD_I32, &b->stored));
  QD_TRY(new_vector(arena, QD_F64, &b->add));
  QD_TRY(new_vector(arena, QD_F64, &b->loss));
  QD_TRY(new_vector(arena, QD_F64, &b->value));
  b->loss.dim[0] = b->value.dim[0] = ROWS;
  QD_TRY(new_tri(arena, QD_I64, &b->total));
  QD_TRY(new_tri(arena, QD_F32, &b->h));
  QD_TRY(new_tri(arena, QD_F64, &b->work));
  QD_TRY(new_tri(arena, QD_F32, &b->u));
  for (int32_t i = 0; i < SOLVED; i++) {
    ((float *)b->h.data)[qd_tri_index(i, i)] = 1;
    ((int32_t *)b->stored.data)[i] = i;
    ((int32_t *)b->exponent.data)[i] = 10;
  }
  return QD_OK;
}

/* What open_bench takes, and the operations. */
static size_t bench_bytes(const qd_device *device, qd_scheme scheme) {
  qd_gptq_args args = {.w = qd_tensor_2d(NULL, QD_F32, ROWS, SOLVED), .scheme = scheme, .block = QD_GPTQ_BLOCK,
                       .scale = qd_tensor_2d(NULL, QD_F32, ROWS, qd_scheme_groups(scheme, SOLVED))};
  size_t matrices =
      sizeof(float) * (2 * TOKENS * COLUMNS + COLUMNS * COLUMNS) + ROWS * SOLVED * (sizeof(float) * 2 + 2 * sizeof(uint8_t));
  size_t triangles = qd_tri_elements(SOLVED) * (8 + 4 + 8 + 4), vectors = 8 * SOLVED * sizeof(double);
  size_t work = qd_scratch_factor(device, SOLVED) + qd_scratch_gptq(device, &args) + qd_scratch_hessian(device, SOLVED) +
                qd_scratch_sqerror(device);
  return matrices + triangles + vectors + work + 16 * QD_ARENA_ALIGNMENT;
}

static qd_status measure_operations(const qd_plan *plan, qd_device *device, qd_probe *out) {
  bench b = {.device = device, .act = plan->request.act, .scheme = plan->request.job->scheme};
  const double square = (double)ROWS * SOLVED * SOLVED / 2;
  QD_TRY(qd_device_reserve(device, bench_bytes(device, b.scheme)));
  size_t mark = qd_arena_mark(&device->scratch);
  QD_TRY(open_bench(&b));
  QD_TRY(rate_of(&b, do_linear, (double)TOKENS * COLUMNS * COLUMNS, &out->linear));
  QD_TRY(rate_of(&b, do_hessian, (double)TOKENS * SOLVED * SOLVED / 2, &out->hessian));
  QD_TRY(rate_of(&b, do_factor, (double)SOLVED * SOLVED * SOLVED / 3, &out->factor));
  QD_TRY(rate_of(&b, do_fit, (double)ROWS * SOLVED, &out->fit));
  QD_TRY(rate_of(&b, do_solve, square, &out->solve));
  QD_TRY(rate_of(&b, do_measure, square, &out->measure));
  qd_arena_rewind(&device->scratch, mark);
  return QD_OK;
}

/* ---- files and wires ----------------------------------------------------------------------------------------------------- */

static const qd_source_tensor *largest_tensor(const qd_source *source) {
  const qd_source_tensor *largest = NULL;
  for (size_t i = 0; i < qd_source_tensors(source); i++) {
    const qd_source_tensor *t = qd_source_tensor_at(source, i);
    if (largest == NULL || t->bytes > largest->bytes) largest = t;
  }
  return largest;
}

static qd_status measure_reading(const qd_plan *plan, unsigned char *buffer, qd_probe *out) {
  const qd_source_tensor *tensor = largest_tensor(plan->request.source);
  size_t n = tensor->bytes < READ_BYTES ? (size_t)tensor->bytes : READ_BYTES;
  double start = qd_seconds();
  QD_TRY(qd_source_read(plan->request.source, tensor, 0, buffer, n));
  double spent = qd_seconds() - start;
  out->read = (double)n / (spent > 1e-6 ? spent : 1e-6);
  return QD_OK;
}

static qd_status measure_wire(qd_comm *comm, unsigned char *buffer, qd_probe *out) {
  out->wire = assumed_wire;
  if (comm->size == 1) return QD_OK;
  QD_TRY(qd_comm_bcast(comm, buffer, WIRE_BYTES, 0));
  QD_TRY(qd_comm_barrier(comm));
  double start = qd_seconds();
  QD_TRY(qd_comm_bcast(comm, buffer, WIRE_BYTES, 0));
  QD_TRY(qd_comm_barrier(comm));
  out->wire = WIRE_BYTES / (qd_seconds() - start);
  return QD_OK;
}

static qd_status probe_with(const qd_plan *plan, qd_comm *comm, qd_device *device, unsigned char *buffer, qd_probe *out) {
  QD_TRY_ALL(comm, measure_operations(plan, device, out));
  QD_TRY_ALL(comm, measure_reading(plan, buffer, out));
  return measure_wire(comm, buffer, out);
}

qd_status qd_probe_run(const qd_plan *plan, qd_comm *comm, qd_device *device, qd_probe *out) {
  unsigned char *buffer = NULL;
  *out = (qd_probe){0};
  QD_TRY_ALL(comm, qd_heap_new(READ_BYTES, 1, &buffer));
  qd_status status = probe_with(plan, comm, device, buffer, out);
  qd_heap_free(buffer);
  return status;
}

/* ---- the job at these rates ---------------------------------------------------------------------------------------------- */

/* One sequence through a block: products, and attention over half of all pairs. */
static double forward_products(const qd_plan_request *r, const qd_plan_kind *kind) {
  double weights = 0, tokens = (double)r->tokens;
  for (int i = 0; i < kind->n; i++)
    if (qd_role_is_linear(kind->tensor[i].slot.role))
      weights += (double)kind->tensor[i].slot.dim[0] * (double)kind->tensor[i].slot.dim[1] *
                 (kind->tensor[i].slot.expert < 0 ? 1 : (double)r->model->top_k / (double)r->model->experts);
  return tokens * weights + tokens * tokens * (double)(r->model->heads * r->model->head_dim);
}

/* Grids, the loop, and the errors of what was lost and of what was there. */
static double quantize_seconds(const qd_plan_request *r, const qd_plan_kind *kind, const qd_probe *p) {
  double seconds = 0;
  for (int i = 0; i < kind->n; i++) {
    const qd_plan_tensor *t = &kind->tensor[i];
    if (!t->quantized) continue;
    double weights = (double)t->slot.dim[0] * (double)t->slot.dim[1], squares = weights * (double)t->slot.dim[1] / 2;
    seconds += weights / p->fit;
    if (r->job->method->needs_factor) seconds += (qd_job_is_asymmetric(r->job) ? 2 : 1) * squares / p->solve;
    if (r->sequences > 0) seconds += 2 * squares / p->measure;
  }
  return seconds / r->ranks;
}

/* Experts: every token is in top_k of them, and each factor is one rank's. */
static void add_statistics(const qd_plan_request *r, const qd_plan_kind *kind, double sequences, const qd_probe *p,
                           qd_probe_time *t) {
  if (r->sequences == 0) return;
  QD_FOR_STAGES(stage, r->model, kind->first_block) {
    bool routed = qd_stage_is_routed(stage);
    double columns = (double)qd_decoder_mid_columns(r->model, stage), times = routed ? (double)r->model->top_k : 1;
    double factors = routed ? ceil((double)r->model->experts / r->ranks) : 1, cube = columns * columns * columns / 3;
    t->sums += times * sequences * (double)r->tokens * columns * columns / 2 / p->hessian;
    if (r->job->method->needs_factor) t->factor += factors * cube / p->factor;
    if (!qd_job_is_asymmetric(r->job) || routed) continue; /* a whole square of the exact sum; arithmetic like the factor's */
    t->sums += sequences * (double)r->tokens * columns * columns / p->hessian;
    t->factor += cube / p->factor;
  }
}

/* Both streams through the head. */
static double report_products(const qd_plan_request *r) {
  double positions = (double)(r->job->kl_positions < r->tokens ? r->job->kl_positions : r->tokens);
  return 2 * positions * (double)r->model->hidden * (double)r->model->vocabulary;
}

static double image_bytes(const qd_plan_kind *kind) {
  double bytes = 0;
  for (int i = 0; i < kind->n; i++)
    bytes += (double)kind->tensor[i].slot.dim[0] * (double)(kind->tensor[i].slot.rank == 2 ? kind->tensor[i].slot.dim[1] : 1) *
             (double)qd_dtype_bytes(kind->tensor[i].dtype);
  return bytes;
}

static qd_probe_time block_seconds(const qd_plan *plan, const qd_plan_kind *kind, const qd_probe *p) {
  const qd_plan_request *r = &plan->request;
  double readers = r->job->readers == QD_READERS_ALL ? r->ranks : 1; /* each node reads the whole image by itself */
  qd_probe_time t = {.codes = quantize_seconds(r, kind, p), .reading = image_bytes(kind) / (p->read * readers)};
  double sequences = (double)plan->rank[0].sequences; /* the first rank has the most */
  double passes = r->sequences == 0 ? 0 : (r->job->true_sequential ? 1 : 2) + (qd_job_keeps_original(r->job) ? 1 : 0);
  if (r->ranks > 1) t.wires = (double)plan->traffic_bytes / (double)(r->ranks - 1) / (double)r->model->n_blocks / p->wire;
  t.forward = sequences * (passes * forward_products(r, kind) + report_products(r)) / p->linear;
  add_statistics(r, kind, sequences, p, &t);
  double work = t.forward + t.sums + t.factor + t.codes + t.wires;
  t.waiting = t.reading > work ? t.reading - work : 0;
  t.total = work + t.waiting;
  return t;
}

qd_probe_time qd_probe_seconds(const qd_plan *plan, const qd_probe *probe) {
  qd_probe_time sum = {0};
  for (size_t k = 0; k + 1 < plan->n_kinds; k++) {
    qd_probe_time one = block_seconds(plan, &plan->kind[k], probe);
    double blocks = (double)plan->kind[k].blocks;
    sum.forward += blocks * one.forward, sum.sums += blocks * one.sums, sum.factor += blocks * one.factor;
    sum.codes += blocks * one.codes, sum.wires += blocks * one.wires, sum.waiting += blocks * one.waiting;
    sum.reading += blocks * one.reading, sum.total += blocks * one.total;
  }
  return sum;
}
