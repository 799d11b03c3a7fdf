#include "pipeline/decoder.h"

#include "pipeline/plan.h"

#include <math.h>

static const struct { const char *name; qd_role first, last; } stages[] = {
#define QD_STAGE_ROW(code, name, first, last) {name, first, last},
    QD_STAGE_LIST(QD_STAGE_ROW)
#undef QD_STAGE_ROW
};

const char *qd_stage_input_name(qd_stage stage) { return stages[stage].name; }
qd_role qd_stage_first(qd_stage stage) { return stages[stage].first; }
qd_role qd_stage_last(qd_stage stage) { return stages[stage].last; }

bool qd_stage_is_of(const qd_model *model, int64_t block, qd_stage stage) {
  bool sparse = qd_model_is_sparse(model, block);
  if (block == QD_REST) return stage == QD_STAGE_HEAD;
  switch (stage) {
    case QD_STAGE_QKV:
    case QD_STAGE_O: return true;
    case QD_STAGE_GATE_UP:
    case QD_STAGE_DOWN: return !sparse;
    case QD_STAGE_EXPERT_GATE_UP:
    case QD_STAGE_EXPERT_DOWN: return sparse;
    case QD_STAGE_SHARED_GATE_UP:
    case QD_STAGE_SHARED_DOWN: return sparse && model->shared_ffn > 0;
    case QD_STAGE_HEAD:
    case QD_N_STAGES: break;
  }
  return false;
}

qd_stage qd_stage_next(const qd_model *model, int64_t block, qd_stage stage) {
  while (stage < QD_N_STAGES && !qd_stage_is_of(model, block, stage)) stage++;
  return stage;
}

/* A dense block has four stages. */
int qd_stage_owner(int64_t block, qd_stage stage, int ranks) { return (int)((block * 4 + (int64_t)stage) % ranks); }

/* ---- mid ----------------------------------------------------------------------------------------------------------------- */

int64_t qd_decoder_mid_columns(const qd_model *model, qd_stage stage) {
  return stage == QD_STAGE_HEAD ? model->hidden : qd_model_columns(model, qd_stage_first(stage));
}

int64_t qd_decoder_sum_columns(const qd_model *model) {
  return model->shared_ffn > model->hidden ? model->shared_ffn : model->hidden;
}

/* Input, sum and gate. */
static int64_t sparse_columns(const qd_model *model) { return qd_decoder_sum_columns(model) + model->hidden + 1; }

int64_t qd_decoder_mid_held(const qd_model *model, int64_t block, qd_stage stage) {
  if (stage >= QD_N_STAGES) return 0;
  bool summed = qd_model_is_sparse(model, block) && stage >= QD_STAGE_SHARED_GATE_UP;
  return summed ? sparse_columns(model) : qd_decoder_mid_columns(model, stage);
}

int64_t qd_decoder_mid_widest(const qd_model *model) {
  int64_t widest = qd_model_has_blocks(model, true) ? sparse_columns(model) : 0;
  for (qd_stage stage = 0; stage < QD_N_STAGES; stage++) {
    int64_t columns = qd_decoder_mid_columns(model, stage);
    if (columns > widest) widest = columns;
  }
  return widest;
}

qd_sparse_mid qd_decoder_sparse_mid(const qd_decoder *decoder, void *mid) {
  int64_t t = decoder->tokens, hidden = decoder->model->hidden;
  size_t element = qd_dtype_bytes(decoder->act), sum = (size_t)(t * qd_decoder_sum_columns(decoder->model)) * element;
  unsigned char *at = mid;
  return (qd_sparse_mid){.x = qd_tensor_2d(mid, decoder->act, t, hidden),
                         .sum = qd_tensor_2d(at + sum, decoder->act, t, hidden),
                         .gate = qd_tensor_1d(at + sum + (size_t)(t * hidden) * element, decoder->act, t)};
}

bool qd_decoder_touches_residual(const qd_model *model, int64_t block, qd_stage stage) {
  return stage == QD_STAGE_O || qd_stage_next(model, block, (qd_stage)(stage + 1)) == QD_N_STAGES;
}

/* ---- opening ------------------------------------------------------------------------------------------------------------- */

static qd_status make_tables(qd_decoder *decoder) {
  int64_t pairs = decoder->model->head_dim / 2;
  QD_TRY(qd_tensor_new_2d(&decoder->arena, QD_F32, decoder->tokens, pairs, &decoder->cosine));
  QD_TRY(qd_tensor_new_2d(&decoder->arena, QD_F32, decoder->tokens, pairs, &decoder->sine));
  double *frequency;
  QD_TRY(qd_arena_new(&decoder->arena, (size_t)pairs, sizeof *frequency, &frequency));
  for (int64_t i = 0; i < pairs; i++) frequency[i] = decoder->model->frequency[i];
  decoder->frequency = qd_tensor_1d(frequency, QD_F64, pairs);
  return qd_decoder_place(decoder, 0, decoder->tokens);
}

qd_status qd_decoder_place(qd_decoder *decoder, int64_t first, int64_t tokens) {
  decoder->first = first;
  qd_decoder_set_tokens(decoder, tokens);
  return qd_rope_table(decoder->device, decoder->frequency, first, decoder->model->rope_factor, decoder->cosine, decoder->sine);
}

qd_status qd_decoder_open(qd_decoder *decoder, qd_device *device, const qd_model *model, qd_dtype act, int64_t tokens) {
  *decoder = (qd_decoder){.device = device, .model = model, .act = act, .tokens = tokens};
  QD_TRY(qd_arena_open(&decoder->arena, "decoder", qd_plan_decoder(model, tokens, act)));
  qd_status status = make_tables(decoder);
  if (status != QD_OK) qd_decoder_close(decoder);
  return status;
}

void qd_decoder_set_tokens(qd_decoder *decoder, int64_t tokens) {
  decoder->tokens = decoder->cosine.dim[0] = decoder->sine.dim[0] = tokens;
}

void qd_decoder_close(qd_decoder *decoder) { qd_arena_close(&decoder->arena); }

/* ---- pieces -------------------------------------------------------------------------------------------------------------- */

qd_status qd_decoder_linear(qd_decoder *decoder, const qd_weight *weight, const qd_weight *bias, qd_tensor x, qd_tensor y) {
  const qd_tensor *add = bias ? &bias->compute : NULL;
  if (weight->panels != NULL) return qd_panels_linear(decoder->device, x, weight->panels, add, y);
  if (weight->quantized && weight->compute.rank == 0) return qd_qlinear(decoder->device, x, &weight->q, add, y);
  if (!weight->quantized || !qd_qtensor_has_order(&weight->q)) return qd_linear(decoder->device, x, weight->compute, add, y);
  qd_tensor gathered; /* an expanded weight lies in stored order */
  size_t mark = qd_arena_mark(&decoder->device->scratch);
  QD_TRY(qd_tensor_new_2d(&decoder->device->scratch, x.dtype, x.dim[0], x.dim[1], &gathered));
  QD_TRY(qd_gather_columns(decoder->device, x, weight->q.order, gathered));
  QD_TRY(qd_linear(decoder->device, gathered, weight->compute, add, y));
  qd_arena_rewind(&decoder->device->scratch, mark);
  return QD_OK;
}

static qd_status linear(qd_decoder *decoder, qd_block *block, qd_role role, qd_tensor x, qd_tensor y) {
  const qd_weight *bias = role < QD_N_BIASED ? qd_block_find(block, role - QD_Q_PROJ + QD_Q_BIAS) : NULL;
  return qd_decoder_linear(decoder, qd_block_find(block, role), bias, x, y);
}

static qd_status new_work(qd_decoder *decoder, int64_t columns, qd_tensor *out) {
  return qd_tensor_new_2d(&decoder->arena, decoder->act, decoder->tokens, columns, out);
}

static qd_status norm(qd_decoder *decoder, qd_block *block, qd_role role, qd_tensor x, qd_tensor y) {
  return qd_rmsnorm(decoder->device, x, qd_block_find(block, role)->compute, decoder->model->norm_eps, y);
}

/* Heads of q or k: the norm over each head where the family has one, then the rotary embedding. */
static qd_status finish_heads(qd_decoder *decoder, qd_block *block, qd_role head_norm, qd_tensor x, int64_t heads) {
  int64_t d = decoder->model->head_dim;
  if (qd_block_find(block, head_norm) != NULL) {
    qd_tensor rows = qd_tensor_reshape_2d(x, decoder->tokens * heads, d);
    QD_TRY(norm(decoder, block, head_norm, rows, rows));
  }
  return qd_rope(decoder->device, qd_tensor_3d(x.data, x.dtype, decoder->tokens, heads, d), decoder->cosine, decoder->sine);
}

/* Of the sequence itself, or of all that the cache has with it. */
static qd_status attend(qd_decoder *decoder, const qd_attention_args *args) {
  if (decoder->kv == NULL) return qd_attention(decoder->device, args);
  QD_TRY(qd_kv_append(decoder->device, decoder->kv, decoder->first, args->k, args->v));
  return qd_kv_attend(decoder->device, &(qd_kv_attend_args){.q = args->q, .out = args->out, .kv = decoder->kv,
                                                            .scale = args->scale, .window = args->window});
}

static qd_status attention_stage(qd_decoder *decoder, qd_block *block, qd_tensor mid, void *out) {
  const qd_model *m = decoder->model;
  qd_tensor q, k, v;
  QD_TRY(new_work(decoder, m->heads * m->head_dim, &q));
  QD_TRY(new_work(decoder, m->kv_heads * m->head_dim, &k));
  QD_TRY(new_work(decoder, m->kv_heads * m->head_dim, &v));
  QD_TRY(linear(decoder, block, QD_Q_PROJ, mid, q));
  QD_TRY(linear(decoder, block, QD_K_PROJ, mid, k));
  QD_TRY(linear(decoder, block, QD_V_PROJ, mid, v));
  QD_TRY(finish_heads(decoder, block, QD_Q_NORM, q, m->heads));
  QD_TRY(finish_heads(decoder, block, QD_K_NORM, k, m->kv_heads));
  qd_attention_args args = {.q = qd_tensor_3d(q.data, q.dtype, decoder->tokens, m->heads, m->head_dim),
                            .k = qd_tensor_3d(k.data, k.dtype, decoder->tokens, m->kv_heads, m->head_dim),
                            .v = qd_tensor_3d(v.data, v.dtype, decoder->tokens, m->kv_heads, m->head_dim),
                            .out = qd_tensor_3d(out, decoder->act, decoder->tokens, m->heads, m->head_dim),
                            .scale = (float)(1.0 / sqrt((double)m->head_dim)),
                            .window = qd_model_window(m, block->index)};
  return attend(decoder, &args);
}

static qd_status residual_stage(qd_decoder *decoder, qd_block *block, qd_role role, qd_tensor mid, qd_tensor h) {
  qd_tensor delta;
  QD_TRY(new_work(decoder, decoder->model->hidden, &delta));
  QD_TRY(linear(decoder, block, role, mid, delta));
  return qd_add(decoder->device, h, delta, h);
}

/* The linears at and behind `first`; the output takes the place of the input. */
static qd_status gate_up_stage(qd_decoder *decoder, qd_block *block, qd_role first, int64_t ffn, qd_tensor mid) {
  qd_tensor gate, up;
  QD_TRY(new_work(decoder, ffn, &gate));
  QD_TRY(new_work(decoder, ffn, &up));
  QD_TRY(linear(decoder, block, first, mid, gate));
  QD_TRY(linear(decoder, block, first + 1, mid, up));
  return qd_swiglu(decoder->device, gate, up, qd_tensor_2d(mid.data, decoder->act, decoder->tokens, ffn));
}

/* ---- a sparse block ------------------------------------------------------------------------------------------------------ */

/* Rows of a router in fp32, whatever the activations. */
static qd_status router_logits(qd_decoder *decoder, qd_block *block, qd_role router, qd_tensor x, qd_tensor *logits) {
  const qd_weight *weight = qd_block_find(block, router);
  QD_TRY(qd_tensor_new_2d(&decoder->arena, QD_F32, x.dim[0], weight->slot.dim[0], logits));
  return qd_decoder_linear(decoder, weight, NULL, x, *logits);
}

static qd_status route(qd_decoder *decoder, qd_block *block, qd_tensor x, qd_tensor index, qd_tensor weight) {
  const qd_model *m = decoder->model;
  qd_route_args args = {.index = index, .weight = weight, .renormalise = m->renormalises,
                        .weights = m->rounds_weights ? decoder->act : QD_F32};
  QD_TRY(router_logits(decoder, block, QD_ROUTER, x, &args.logits));
  return qd_route(decoder->device, &args);
}

qd_status qd_decoder_route(qd_decoder *decoder, qd_block *block, qd_tensor x, qd_tensor index, qd_tensor weight) {
  size_t mark = qd_arena_mark(&decoder->arena);
  qd_status status = route(decoder, block, x, index, weight);
  qd_arena_rewind(&decoder->arena, mark);
  return status;
}

/* The gate first: the stage's output takes the place of x. */
static qd_status shared_gate_up_stage(qd_decoder *decoder, qd_block *block, void *mid) {
  qd_sparse_mid parts = qd_decoder_sparse_mid(decoder, mid);
  qd_tensor logits;
  QD_TRY(router_logits(decoder, block, QD_SHARED_ROUTER, parts.x, &logits));
  QD_TRY(qd_sigmoid(decoder->device, qd_tensor_1d(logits.data, QD_F32, decoder->tokens), parts.gate));
  return gate_up_stage(decoder, block, QD_SHARED_GATE_PROJ, decoder->model->shared_ffn, parts.x);
}

static qd_status shared_down_stage(qd_decoder *decoder, qd_block *block, qd_tensor x, qd_tensor h) {
  qd_sparse_mid parts = qd_decoder_sparse_mid(decoder, x.data);
  qd_tensor y;
  QD_TRY(new_work(decoder, decoder->model->hidden, &y));
  QD_TRY(linear(decoder, block, QD_SHARED_DOWN_PROJ, x, y));
  QD_TRY(qd_scatter_add(decoder->device, y, parts.gate, (qd_tensor){0}, parts.sum));
  return qd_decoder_add_sum(decoder, h, x.data);
}

qd_status qd_decoder_add_sum(qd_decoder *decoder, qd_tensor h, void *mid) {
  return qd_add(decoder->device, h, qd_decoder_sparse_mid(decoder, mid).sum, h);
}

/* ---- the forward --------------------------------------------------------------------------------------------------------- */

/* The effective weight of the tokens' rows alone. */
static qd_status embed_codes(qd_decoder *decoder, const qd_qtensor *table, qd_tensor ids, qd_tensor h) {
  for (int64_t t = 0; t < ids.dim[0]; t++) {
    int64_t id = ((const int32_t *)ids.data)[t * ids.stride[0]];
    QD_CHECK(id >= 0 && id < table->rows, QD_EBADINPUT,
             "embed: the id %" PRId64 " at position %" PRId64 " is not below %" PRId64, id, t, table->rows);
    qd_qtensor row = qd_qtensor_rows(table, id, 1);
    QD_TRY(qd_dequant(decoder->device, &row, qd_tensor_rows(h, t, 1)));
  }
  return QD_OK;
}

qd_status qd_decoder_embed(qd_decoder *decoder, qd_block *rest, qd_tensor ids, qd_tensor h) {
  const qd_weight *table = qd_block_find(rest, QD_EMBEDDING);
  return table->quantized ? embed_codes(decoder, &table->q, ids, h) : qd_embed(decoder->device, table->compute, ids, h);
}

qd_status qd_decoder_enter(qd_decoder *decoder, qd_block *block, qd_tensor h, void *mid) {
  qd_role before = block->index == QD_REST ? QD_FINAL_NORM : QD_INPUT_NORM;
  return norm(decoder, block, before, h, qd_tensor_2d(mid, decoder->act, decoder->tokens, decoder->model->hidden));
}

static qd_status run_stage(qd_decoder *decoder, qd_block *block, qd_stage stage, qd_tensor h, void *mid) {
  qd_tensor x = qd_tensor_2d(mid, decoder->act, decoder->tokens, qd_decoder_mid_columns(decoder->model, stage));
  switch (stage) {
    case QD_STAGE_QKV: return attention_stage(decoder, block, x, mid);
    case QD_STAGE_GATE_UP: return gate_up_stage(decoder, block, QD_GATE_PROJ, decoder->model->ffn, x);
    case QD_STAGE_DOWN: return residual_stage(decoder, block, QD_DOWN_PROJ, x, h);
    case QD_STAGE_O:
      QD_TRY(residual_stage(decoder, block, QD_O_PROJ, x, h));
      return norm(decoder, block, QD_POST_NORM, h, qd_tensor_2d(mid, decoder->act, decoder->tokens, decoder->model->hidden));
    case QD_STAGE_SHARED_GATE_UP: return shared_gate_up_stage(decoder, block, mid);
    case QD_STAGE_SHARED_DOWN: return shared_down_stage(decoder, block, x, h);
    case QD_STAGE_EXPERT_GATE_UP:
    case QD_STAGE_EXPERT_DOWN: /* experts.c */
    case QD_STAGE_HEAD:
    case QD_N_STAGES: QD_ASSERT(!"a stage of one sequence by itself");
  }
  return QD_OK;
}

qd_status qd_decoder_advance(qd_decoder *decoder, qd_block *block, qd_stage stage, qd_tensor h, void *mid) {
  size_t mark = qd_arena_mark(&decoder->arena);
  qd_status status = run_stage(decoder, block, stage, h, mid);
  qd_arena_rewind(&decoder->arena, mark);
  return status;
}

qd_status qd_decoder_final_norm(qd_decoder *decoder, qd_block *rest, qd_tensor h) {
  return norm(decoder, rest, QD_FINAL_NORM, h, h);
}

qd_status qd_decoder_logits(qd_decoder *decoder, qd_block *rest, qd_tensor rows, qd_tensor logits) {
  const qd_weight *head = qd_block_find(rest, decoder->model->tied ? QD_EMBEDDING : QD_HEAD);
  return qd_decoder_linear(decoder, head, NULL, rows, logits);
}
