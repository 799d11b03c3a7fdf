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

int64_t qd_decoder_mid_columns(const qd_model *model, qd_stage stage) { return qd_model_columns(model, qd_stage_first(stage)); }

int64_t qd_decoder_mid_widest(const qd_model *model) {
  int64_t widest = 0;
  for (qd_stage stage = 0; stage < QD_N_STAGES; stage++) {
    int64_t columns = qd_decoder_mid_columns(model, stage);
    if (columns > widest) widest = columns;
  }
  return widest;
}

bool qd_decoder_touches_residual(qd_stage stage) { return stage == QD_STAGE_O || stage == QD_STAGE_DOWN; }

/* ---- opening ------------------------------------------------------------------------------------------------------------- */

static qd_status make_tables(qd_decoder *decoder) {
  int64_t pairs = decoder->model->head_dim / 2;
  QD_TRY(qd_tensor_new_2d(&decoder->arena, QD_F32, decoder->tokens, pairs, &decoder->cosine));
  QD_TRY(qd_tensor_new_2d(&decoder->arena, QD_F32, decoder->tokens, pairs, &decoder->sine));
  double *frequency;
  QD_TRY(qd_arena_new(&decoder->arena, (size_t)pairs, sizeof *frequency, &frequency));
  for (int64_t i = 0; i < pairs; i++) frequency[i] = decoder->model->frequency[i];
  return qd_rope_table(decoder->device, qd_tensor_1d(frequency, QD_F64, pairs), 0, decoder->model->rope_factor, decoder->cosine,
                       decoder->sine);
}

qd_status qd_decoder_open(qd_decoder *decoder, qd_device *device, const qd_model *model, qd_dtype act, int64_t tokens) {
  *decoder = (qd_decoder){.device = device, .model = model, .act = act, .tokens = tokens};
  QD_TRY(qd_arena_open(&decoder->arena, "decoder", qd_plan_decoder(model, tokens, act)));
  qd_status status = make_tables(decoder);
  if (status != QD_OK) qd_decoder_close(decoder);
  return status;
}

void qd_decoder_close(qd_decoder *decoder) { qd_arena_close(&decoder->arena); }

/* ---- pieces -------------------------------------------------------------------------------------------------------------- */

static qd_status linear(qd_decoder *decoder, qd_block *block, qd_role role, qd_tensor x, qd_tensor y) {
  const qd_weight *weight = qd_block_find(block, role), *bias = qd_block_find(block, role - QD_Q_PROJ + QD_Q_BIAS);
  const qd_tensor *add = bias ? &bias->compute : NULL;
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
  return qd_attention(decoder->device, &args);
}

static qd_status residual_stage(qd_decoder *decoder, qd_block *block, qd_role role, qd_tensor mid, qd_tensor h) {
  qd_tensor delta;
  QD_TRY(new_work(decoder, decoder->model->hidden, &delta));
  QD_TRY(linear(decoder, block, role, mid, delta));
  return qd_add(decoder->device, h, delta, h);
}

static qd_status gate_up_stage(qd_decoder *decoder, qd_block *block, qd_tensor mid, void *out) {
  qd_tensor gate, up, y = qd_tensor_2d(out, decoder->act, decoder->tokens, decoder->model->ffn);
  QD_TRY(new_work(decoder, decoder->model->ffn, &gate));
  QD_TRY(new_work(decoder, decoder->model->ffn, &up));
  QD_TRY(linear(decoder, block, QD_GATE_PROJ, mid, gate));
  QD_TRY(linear(decoder, block, QD_UP_PROJ, mid, up));
  return qd_swiglu(decoder->device, gate, up, y);
}

/* ---- the forward --------------------------------------------------------------------------------------------------------- */

qd_status qd_decoder_embed(qd_decoder *decoder, qd_block *rest, qd_tensor ids, qd_tensor h) {
  return qd_embed(decoder->device, qd_block_find(rest, QD_EMBEDDING)->compute, ids, h);
}

qd_status qd_decoder_enter(qd_decoder *decoder, qd_block *block, qd_tensor h, void *mid) {
  return norm(decoder, block, QD_INPUT_NORM, h, qd_tensor_2d(mid, decoder->act, decoder->tokens, decoder->model->hidden));
}

static qd_status run_stage(qd_decoder *decoder, qd_block *block, qd_stage stage, qd_tensor h, void *mid) {
  qd_tensor x = qd_tensor_2d(mid, decoder->act, decoder->tokens, qd_decoder_mid_columns(decoder->model, stage));
  switch (stage) {
    case QD_STAGE_QKV: return attention_stage(decoder, block, x, mid);
    case QD_STAGE_GATE_UP: return gate_up_stage(decoder, block, x, mid);
    case QD_STAGE_DOWN: return residual_stage(decoder, block, QD_DOWN_PROJ, x, h);
    case QD_STAGE_O:
      QD_TRY(residual_stage(decoder, block, QD_O_PROJ, x, h));
      return norm(decoder, block, QD_POST_NORM, h, qd_tensor_2d(mid, decoder->act, decoder->tokens, decoder->model->hidden));
    case QD_N_STAGES: break;
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
  return qd_linear(decoder->device, rows, head->compute, NULL, logits);
}
