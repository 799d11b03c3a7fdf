/* What a forward takes: of a quantizing job and of an evaluation. */
#include "kernels/scratch.h"
#include "pipeline/plan_parts.h"

static qd_tensor shape_3d(qd_dtype dtype, int64_t a, int64_t b, int64_t c) { return qd_tensor_3d(NULL, dtype, a, b, c); }

size_t qd_plan_attention_scratch(const qd_device *device, const qd_model *m, qd_dtype act, int64_t tokens) {
  size_t most = 0;
  for (int64_t block = 0; block < m->n_blocks; block++) {
    qd_attention_args args = {.q = shape_3d(act, tokens, m->heads, m->head_dim),
                              .k = shape_3d(act, tokens, m->kv_heads, m->head_dim),
                              .v = shape_3d(act, tokens, m->kv_heads, m->head_dim),
                              .window = qd_model_window(m, block)};
    most = qd_larger(most, qd_scratch_attention(device, &args));
  }
  return most;
}

/* ---- sizes that evaluation shares ---------------------------------------------------------------------------------------- */

static size_t row_cost(int64_t tokens, int64_t columns, qd_dtype act) {
  return qd_arena_cost((size_t)(tokens * columns), qd_dtype_bytes(act));
}

/* silu(gate) * up of some width. */
static size_t gate_up_cost(int64_t tokens, int64_t ffn, qd_dtype act) { return ffn > 0 ? 2 * row_cost(tokens, ffn, act) : 0; }

size_t qd_plan_decoder(const qd_model *m, int64_t tokens, qd_dtype act) {
  size_t attention = row_cost(tokens, m->heads * m->head_dim, act) + 2 * row_cost(tokens, m->kv_heads * m->head_dim, act);
  size_t dense = gate_up_cost(tokens, qd_model_columns(m, QD_DOWN_PROJ), act), router = row_cost(tokens, m->experts, QD_F32);
  size_t shared = row_cost(tokens, 1, QD_F32) + gate_up_cost(tokens, m->shared_ffn, act);
  size_t work = qd_larger(qd_larger(attention, dense), qd_larger(router, shared));
  return 2 * qd_arena_cost((size_t)(tokens * (m->head_dim / 2)), sizeof(float)) +
         qd_arena_cost((size_t)(m->head_dim / 2), sizeof(double)) + qd_larger(work, row_cost(tokens, m->hidden, act));
}

size_t qd_plan_activations(const qd_model *model, qd_dtype act, int64_t tokens, int64_t residuals, int64_t mids) {
  size_t element = qd_dtype_bytes(act), mid = (size_t)(tokens * qd_decoder_mid_widest(model)) * element;
  return qd_arena_cost((size_t)residuals, (size_t)(tokens * model->hidden) * element) + qd_arena_cost((size_t)mids, mid);
}

size_t qd_plan_forward_scratch(const qd_device *device, const qd_experts_shape *s) {
  size_t most = qd_plan_attention_scratch(device, s->model, s->act, s->tokens);
  for (int64_t block = 0; block < s->model->n_blocks; block++) {
    int n = qd_model_n_slots(s->model, block);
    for (int i = 0; i < n; i++) {
      qd_slot slot;
      qd_model_slot(s->model, block, i, &slot);
      if (slot.expert > 0) break; /* all are alike */
      int64_t rows = slot.expert < 0 ? s->tokens : qd_experts_window_rows(s);
      if (qd_role_is_linear(slot.role))
        most = qd_larger(most, qd_scratch_qlinear(device, qd_tensor_2d(NULL, s->act, rows, slot.dim[1]), slot.dim[0], true));
    }
  }
  return most;
}

static size_t evaluated_block(const qd_model *model, int64_t block, qd_dtype act, int rank, int ranks) {
  size_t bytes = 0;
  int n = qd_model_n_slots(model, block);
  for (int i = 0; i < n; i++) {
    qd_slot slot;
    qd_model_slot(model, block, i, &slot);
    if (slot.expert >= 0 && qd_partition_expert(slot.expert, ranks) != rank) continue;
    bytes += qd_arena_cost(qd_plan_elements(&slot), qd_dtype_bytes(qd_role_is_matrix(slot.role) ? act : QD_F32));
  }
  return bytes;
}

size_t qd_plan_evaluated_block(const qd_model *model, qd_dtype act, int rank, int ranks) {
  size_t most = evaluated_block(model, QD_REST, act, rank, ranks);
  bool seen[2] = {false, false};
  for (int64_t block = 0; block < model->n_blocks; block++) {
    bool sparse = qd_model_is_sparse(model, block);
    if (!seen[sparse]) most = qd_larger(most, evaluated_block(model, block, act, rank, ranks));
    seen[sparse] = true;
  }
  return most;
}
