/* The bench's forward: a whole decoder block through the pipeline, its attention, norm and activation by themselves.
 * Shapes: tokens x ffn x hidden; heads of 128, four of them for each head of keys. */
#include "jobs/bench_case.h"
#include "pipeline/decoder.h"
#include "pipeline/plan.h"

#include <math.h>

enum { HEAD = 128, HEADS_A_KEY = 4 };

typedef struct forward {
  qd_model   model;
  qd_block   block;
  qd_decoder decoder;
} forward;

static qd_model model_of(const qd_bench_case *c) {
  int64_t heads = c->k / HEAD > 0 ? c->k / HEAD : 1, shared = heads % HEADS_A_KEY == 0 ? HEADS_A_KEY : 1;
  qd_model m = {.arch = qd_arch_find("llama"),
                .n_blocks = 1,
                .hidden = c->k,
                .ffn = c->n,
                .heads = heads,
                .kv_heads = heads / shared,
                .head_dim = HEAD,
                .vocabulary = 1,
                .max_positions = c->m,
                .norm_eps = 1e-5,
                .rope_factor = 1,
                .dtype = c->dtype};
  for (int i = 0; i < HEAD / 2; i++) m.frequency[i] = pow(10000, -2.0 * i / HEAD);
  return m;
}

/* Two products over the keys that each query sees. */
static double attention_flops(const qd_bench_case *c, int64_t heads) {
  return 4.0 * (double)(heads * HEAD) * (double)c->m * (double)(c->m + 1) / 2;
}

/* ---- the block ----------------------------------------------------------------------------------------------------------- */

static void scale(qd_tensor t, float by) {
  int64_t n = qd_tensor_elements(t);
  for (int64_t i = 0; i < n && t.dtype == QD_F32; i++) ((float *)t.data)[i] *= by;
  for (int64_t i = 0; i < n && t.dtype == QD_BF16; i++)
    ((uint16_t *)t.data)[i] = qd_bf16_from_f32(qd_bf16_to_f32(((uint16_t *)t.data)[i]) * by);
}

/* Linears that keep the size of what they multiply; norms of ones. */
static qd_status new_weight(qd_bench_case *c, const qd_slot *slot, qd_weight *out) {
  *out = (qd_weight){.slot = *slot, .dtype = c->dtype};
  if (slot->rank == 1) {
    QD_TRY(qd_bench_matrix(c, QD_F32, 1, slot->dim[0], &out->compute));
    out->compute = qd_tensor_1d(out->compute.data, QD_F32, slot->dim[0]);
    for (int64_t i = 0; i < slot->dim[0]; i++) ((float *)out->compute.data)[i] = 1;
    return QD_OK;
  }
  QD_TRY(qd_bench_matrix(c, c->dtype, slot->dim[0], slot->dim[1], &out->compute));
  scale(out->compute, (float)sqrt(3.0 / (double)slot->dim[1]));
  c->flops += 2.0 * (double)c->m * (double)slot->dim[0] * (double)slot->dim[1];
  c->bytes += (double)qd_tensor_bytes(out->compute);
  return QD_OK;
}

static qd_status prepare_forward(qd_bench_case *c) {
  forward *f;
  QD_TRY(qd_arena_new(c->arena, 1, sizeof *f, &f));
  *f = (forward){.model = model_of(c)};
  c->state = f;
  f->block.n = qd_model_n_slots(&f->model, 0);
  QD_TRY(qd_arena_new(c->arena, (size_t)f->block.n, sizeof *f->block.weight, &f->block.weight));
  for (int i = 0; i < f->block.n; i++) {
    qd_slot slot;
    qd_model_slot(&f->model, 0, i, &slot);
    QD_TRY(new_weight(c, &slot, &f->block.weight[i]));
  }
  c->flops += attention_flops(c, f->model.heads);
  QD_TRY(qd_bench_matrix(c, c->dtype, c->m, c->k, &c->x));
  QD_TRY(qd_bench_matrix(c, c->dtype, c->m, qd_decoder_mid_widest(&f->model), &c->y));
  return qd_decoder_open(&f->decoder, c->device, &f->model, c->dtype, c->m);
}

static qd_status run_forward(qd_bench_case *c) {
  forward *f = c->state;
  QD_TRY(qd_decoder_enter(&f->decoder, &f->block, c->x, c->y.data));
  QD_FOR_STAGES(stage, &f->model, 0)
    QD_TRY(qd_decoder_advance(&f->decoder, &f->block, stage, c->x, c->y.data));
  return QD_OK;
}

static void finish_forward(qd_bench_case *c) {
  forward *f = c->state;
  if (f != NULL) qd_decoder_close(&f->decoder);
}

/* ---- its parts ----------------------------------------------------------------------------------------------------------- */

static qd_status prepare_attention(qd_bench_case *c) {
  qd_model m = model_of(c);
  QD_TRY(qd_bench_matrix(c, c->dtype, c->m, m.heads * HEAD, &c->x));
  QD_TRY(qd_bench_matrix(c, c->dtype, c->m, m.kv_heads * HEAD, &c->extra[0]));
  QD_TRY(qd_bench_matrix(c, c->dtype, c->m, m.kv_heads * HEAD, &c->extra[1]));
  QD_TRY(qd_bench_matrix(c, c->dtype, c->m, m.heads * HEAD, &c->y));
  c->flops = attention_flops(c, m.heads);
  c->bytes = 2 * (double)(qd_tensor_bytes(c->x) + qd_tensor_bytes(c->extra[0]));
  return QD_OK;
}

static qd_tensor in_heads(qd_tensor t) { return qd_tensor_3d(t.data, t.dtype, t.dim[0], t.dim[1] / HEAD, HEAD); }

static qd_status run_attention(qd_bench_case *c) {
  qd_attention_args args = {.q = in_heads(c->x), .k = in_heads(c->extra[0]), .v = in_heads(c->extra[1]), .out = in_heads(c->y),
                            .scale = (float)(1 / sqrt((double)HEAD))};
  return qd_attention(c->device, &args);
}

static qd_status prepare_rows(qd_bench_case *c) {
  QD_TRY(qd_bench_matrix(c, c->dtype, c->m, c->k, &c->x));
  QD_TRY(qd_bench_matrix(c, c->dtype, c->m, c->k, &c->y));
  QD_TRY(qd_bench_matrix(c, QD_F32, 1, c->k, &c->w));
  c->flops = 4.0 * (double)c->m * (double)c->k;
  c->bytes = 2 * (double)qd_tensor_bytes(c->x);
  return QD_OK;
}

static qd_status run_norm(qd_bench_case *c) {
  return qd_rmsnorm(c->device, c->x, qd_tensor_1d(c->w.data, QD_F32, c->k), 1e-5, c->y);
}

static qd_status prepare_swiglu(qd_bench_case *c) {
  QD_TRY(prepare_rows(c));
  QD_TRY(qd_bench_matrix(c, c->dtype, c->m, c->k, &c->extra[0]));
  c->bytes = 3 * (double)qd_tensor_bytes(c->x);
  return QD_OK;
}

static qd_status run_swiglu(qd_bench_case *c) { return qd_swiglu(c->device, c->x, c->extra[0], c->y); }

static const qd_bench_op ops[] = {
    {"forward", QD_F32, 0, 256, 5632, 2048, 2048, 0, 0, QD_BESIDE_SQUARE, prepare_forward, run_forward, finish_forward},
    {"forward", QD_BF16, 0, 256, 5632, 2048, 2048, 0, 0, QD_BESIDE_SQUARE, prepare_forward, run_forward, finish_forward},
    {"attention", QD_F32, 0, 1024, 0, 2048, 2048, 0, 0, QD_BESIDE_SQUARE, prepare_attention, run_attention, NULL},
    {"attention", QD_BF16, 0, 1024, 0, 2048, 2048, 0, 0, QD_BESIDE_SQUARE, prepare_attention, run_attention, NULL},
    {"rmsnorm", QD_F32, 0, 1024, 0, 2048, 0, 0, 0, QD_BESIDE_NOTHING, prepare_rows, run_norm, NULL},
    {"rmsnorm", QD_BF16, 0, 1024, 0, 2048, 0, 0, 0, QD_BESIDE_NOTHING, prepare_rows, run_norm, NULL},
    {"swiglu", QD_F32, 0, 512, 0, 5632, 0, 0, 0, QD_BESIDE_NOTHING, prepare_swiglu, run_swiglu, NULL},
    {"swiglu", QD_BF16, 0, 512, 0, 5632, 0, 0, 0, QD_BESIDE_NOTHING, prepare_swiglu, run_swiglu, NULL},
};
const qd_bench_group qd_bench_forward = QD_BENCH_GROUP(ops);
