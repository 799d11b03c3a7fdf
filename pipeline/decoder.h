/* The forward of a Llama-family decoder block, cut into stages: linears that share their input.
 *
 *   QKV      mid = norm(h)      -> q, k, v -> (norms) -> rotary -> attention = next mid
 *   O        mid                -> h = h + o(mid);  next mid = norm(h)
 *   GATE_UP  mid                -> silu(gate) * up = next mid
 *   DOWN     mid                -> h = h + down(mid)
 *
 * So after the last stage the block *is* advanced: one pass.  h is the residual stream (T, hidden), mid the input of the coming
 * stage (T, its columns), both act dtype. */
#ifndef QDIST_PIPELINE_DECODER_H
#define QDIST_PIPELINE_DECODER_H

#include "pipeline/block.h"

/*    code               name             linears */
#define QD_STAGE_LIST(X)                                                    \
  X(QD_STAGE_QKV,     "qkv_input",     QD_Q_PROJ, QD_V_PROJ)                \
  X(QD_STAGE_O,       "o_input",       QD_O_PROJ, QD_O_PROJ)                \
  X(QD_STAGE_GATE_UP, "gate_up_input", QD_GATE_PROJ, QD_UP_PROJ)            \
  X(QD_STAGE_DOWN,    "down_input",    QD_DOWN_PROJ, QD_DOWN_PROJ)

typedef enum qd_stage {
#define QD_STAGE_CODE(code, name, first, last) code,
  QD_STAGE_LIST(QD_STAGE_CODE)
#undef QD_STAGE_CODE
  QD_N_STAGES
} qd_stage;

const char *qd_stage_input_name(qd_stage stage);
qd_role     qd_stage_first(qd_stage stage); /* its linears are the roles first .. last */
qd_role     qd_stage_last(qd_stage stage);

typedef struct qd_decoder {
  qd_device      *device;
  const qd_model *model;
  qd_dtype        act;
  int64_t         tokens;        /* T of a sequence */
  qd_tensor       cosine, sine;  /* F32 (T, D/2) */
  qd_arena        arena;         /* intermediates of one sequence, and the tables */
} qd_decoder;

qd_status qd_decoder_open(qd_decoder *decoder, qd_device *device, const qd_model *model, qd_dtype act,
                          int64_t tokens) QD_MUST_USE;
void      qd_decoder_close(qd_decoder *decoder);

/* Columns of mid before `stage`; and the widest of them. */
int64_t qd_decoder_mid_columns(const qd_model *model, qd_stage stage);
int64_t qd_decoder_mid_widest(const qd_model *model);

/* Whether a stage changes h; the others only go from mid to mid. */
bool qd_decoder_touches_residual(qd_stage stage);

/* h = the embeddings of ids (I32, T). */
qd_status qd_decoder_embed(qd_decoder *decoder, qd_block *rest, qd_tensor ids, qd_tensor h) QD_MUST_USE;

/* mid = the input of the first stage. */
qd_status qd_decoder_enter(qd_decoder *decoder, qd_block *block, qd_tensor h, void *mid) QD_MUST_USE;

/* Run one stage: reads mid, updates h, leaves the next stage's input in mid (nothing after the last one).  A linear that is not
 * expanded is multiplied by the fused kernel: same bits. */
qd_status qd_decoder_advance(qd_decoder *decoder, qd_block *block, qd_stage stage, qd_tensor h, void *mid) QD_MUST_USE;

/* The final norm of h, in place of h; then logits F32 (rows, V) of some of its rows. */
qd_status qd_decoder_final_norm(qd_decoder *decoder, qd_block *rest, qd_tensor h) QD_MUST_USE;
qd_status qd_decoder_logits(qd_decoder *decoder, qd_block *rest, qd_tensor rows, qd_tensor logits) QD_MUST_USE;

#endif
