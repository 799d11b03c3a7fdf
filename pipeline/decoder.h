/* The forward of a Llama-family decoder block, cut into stages: linears that share their input.
 *
 *   QKV      mid = norm(h)      -> q, k, v -> (norms) -> rotary -> attention = next mid
 *   O        mid                -> h = h + o(mid);  next mid = norm(h)
 * a dense block:
 *   GATE_UP  mid                -> silu(gate) * up = next mid
 *   DOWN     mid                -> h = h + down(mid)
 * a sparse one, which has experts (mid has parts then: x = norm(h), and the sum of the experts' outputs):
 *   EXPERT_GATE_UP, EXPERT_DOWN   sum = weighted outputs of each token's experts, by ascending expert (experts.h)
 *   SHARED_GATE_UP x              -> silu(gate) * up in the place of x;  g = sigmoid(shared router(x))
 *   SHARED_DOWN                   -> sum = sum + g down(x)
 *   and after the last of them       h = h + sum
 * behind the last block:
 *   HEAD     mid = norm(h)      its linear is the head; quantized only where a job asks for it, and never advanced through
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
  X(QD_STAGE_DOWN,    "down_input",    QD_DOWN_PROJ, QD_DOWN_PROJ)          \
  X(QD_STAGE_EXPERT_GATE_UP, "expert_gate_up_input", QD_EXPERT_GATE_PROJ, QD_EXPERT_UP_PROJ)   \
  X(QD_STAGE_EXPERT_DOWN,    "expert_down_input",    QD_EXPERT_DOWN_PROJ, QD_EXPERT_DOWN_PROJ) \
  X(QD_STAGE_SHARED_GATE_UP, "shared_gate_up_input", QD_SHARED_GATE_PROJ, QD_SHARED_UP_PROJ)   \
  X(QD_STAGE_SHARED_DOWN,    "shared_down_input",    QD_SHARED_DOWN_PROJ, QD_SHARED_DOWN_PROJ) \
  X(QD_STAGE_HEAD,           "head_input",           QD_HEAD, QD_HEAD)

typedef enum qd_stage {
#define QD_STAGE_CODE(code, name, first, last) code,
  QD_STAGE_LIST(QD_STAGE_CODE)
#undef QD_STAGE_CODE
  QD_N_STAGES
} qd_stage;

const char *qd_stage_input_name(qd_stage stage);
qd_role     qd_stage_first(qd_stage stage); /* its linears are the roles first .. last */
qd_role     qd_stage_last(qd_stage stage);

/* Whether a block has the stage; the first one at or behind `stage` that it has (QD_N_STAGES: none); whether the stage is of
 * experts, who share no input: experts.h. */
bool     qd_stage_is_of(const qd_model *model, int64_t block, qd_stage stage);
qd_stage qd_stage_next(const qd_model *model, int64_t block, qd_stage stage);
static inline bool qd_stage_is_routed(qd_stage stage) {
  return stage == QD_STAGE_EXPERT_GATE_UP || stage == QD_STAGE_EXPERT_DOWN;
}

/* for (stages of block b) */
#define QD_FOR_STAGES(stage, model, b)                                                              \
  for (qd_stage stage = qd_stage_next((model), (b), (qd_stage)0); stage < QD_N_STAGES; \
       stage = qd_stage_next((model), (b), (qd_stage)(stage + 1)))

/* Whose the factor of a stage is: another rank's at each stage. */
int qd_stage_owner(int64_t block, qd_stage stage, int ranks);

typedef struct qd_decoder {
  qd_device      *device;
  const qd_model *model;
  qd_dtype        act;
  int64_t         tokens;        /* T of a sequence */
  qd_tensor       frequency;     /* F64 (D/2) */
  qd_tensor       cosine, sine;  /* F32 (T, D/2) */
  int64_t         first;         /* position of the first token */
  qd_kv          *kv;            /* the block's cache, of which `first` positions are there: k and v join them; NULL: the
                                    sequence sees itself alone */
  qd_arena        arena;         /* intermediates of one sequence, and the tables */
} qd_decoder;

qd_status qd_decoder_open(qd_decoder *decoder, qd_device *device, const qd_model *model, qd_dtype act,
                          int64_t tokens) QD_MUST_USE;
void      qd_decoder_close(qd_decoder *decoder);

/* From now on sequences of so many tokens, at most as many as it was opened for. */
void qd_decoder_set_tokens(qd_decoder *decoder, int64_t tokens);

/* What comes next are `tokens` tokens, at most as many as it was opened for, at the positions from `first` on. */
qd_status qd_decoder_place(qd_decoder *decoder, int64_t first, int64_t tokens) QD_MUST_USE;

/* Columns of a stage's input, which is where mid begins; 0: the model has no such stage.  _held: columns that mid has in all
 * before the stage, other parts with it.  _widest: that mid ever has.  _sum: where a sparse block's sum begins (T of them are
 * one element each), its gate behind it. */
int64_t qd_decoder_mid_columns(const qd_model *model, qd_stage stage);
int64_t qd_decoder_mid_held(const qd_model *model, int64_t block, qd_stage stage);
int64_t qd_decoder_mid_widest(const qd_model *model);
int64_t qd_decoder_sum_columns(const qd_model *model);

/* The parts of a sparse block's mid of one sequence: x (T, hidden), the sum (T, hidden), the shared expert's gate (T). */
typedef struct qd_sparse_mid { qd_tensor x, sum, gate; } qd_sparse_mid;
qd_sparse_mid qd_decoder_sparse_mid(const qd_decoder *decoder, void *mid);

/* Whether a stage changes h; the others only go from mid to mid. */
bool qd_decoder_touches_residual(const qd_model *model, int64_t block, qd_stage stage);

/* h = the embeddings of ids (I32, T). */
qd_status qd_decoder_embed(qd_decoder *decoder, qd_block *rest, qd_tensor ids, qd_tensor h) QD_MUST_USE;

/* mid = the input of the first stage; of QD_REST: of the head. */
qd_status qd_decoder_enter(qd_decoder *decoder, qd_block *block, qd_tensor h, void *mid) QD_MUST_USE;

/* Run one stage, not one of experts: reads mid, updates h, leaves the next stage's input in mid (nothing after the last one).
 * A linear in panels is multiplied by them, one that is not expanded by the fused kernel: same bits. */
qd_status qd_decoder_advance(qd_decoder *decoder, qd_block *block, qd_stage stage, qd_tensor h, void *mid) QD_MUST_USE;

/* y = weight x + bias, any number of rows, as the decoder multiplies: expanded or fused, with an order or without. */
qd_status qd_decoder_linear(qd_decoder *decoder, const qd_weight *weight, const qd_weight *bias, qd_tensor x,
                            qd_tensor y) QD_MUST_USE;

/* The experts of each token of x (T, hidden): index I32 and weight F32 (T, k), as qd_route gives them. */
qd_status qd_decoder_route(qd_decoder *decoder, qd_block *block, qd_tensor x, qd_tensor index, qd_tensor weight) QD_MUST_USE;

/* h = h + sum: the end of a sparse block without a shared expert. */
qd_status qd_decoder_add_sum(qd_decoder *decoder, qd_tensor h, void *mid) QD_MUST_USE;

/* The final norm of h, in place of h; then logits F32 (rows, V) of some of its rows. */
qd_status qd_decoder_final_norm(qd_decoder *decoder, qd_block *rest, qd_tensor h) QD_MUST_USE;
qd_status qd_decoder_logits(qd_decoder *decoder, qd_block *rest, qd_tensor rows, qd_tensor logits) QD_MUST_USE;

#endif
