#include "pipeline/block.h"

qd_weight *qd_block_find(qd_block *block, qd_role role) {
  for (int i = 0; i < block->n; i++)
    if (block->weight[i].slot.role == role) return &block->weight[i];
  return NULL;
}

static bool is_matrix(qd_role role) { return qd_role_is_linear(role) || role == QD_EMBEDDING || role == QD_HEAD; }

static qd_status prepare_plain(qd_weight *weight, qd_dtype act, qd_arena *arena) {
  qd_dtype wanted = is_matrix(weight->slot.role) ? act : QD_F32;
  weight->compute = weight->original;
  if (weight->dtype == wanted) return QD_OK;
  size_t n = (size_t)qd_tensor_elements(weight->original);
  weight->compute.dtype = wanted;
  QD_TRY(qd_arena_new(arena, n, qd_dtype_bytes(wanted), &weight->compute.data));
  if (wanted == QD_BF16) qd_narrow_bf16(weight->original.data, weight->dtype, weight->compute.data, n);
  else qd_widen(weight->original.data, weight->dtype, weight->compute.data, n);
  return QD_OK;
}

qd_status qd_block_prepare(qd_block *block, qd_dtype act, qd_arena *arena) {
  for (int i = 0; i < block->n; i++)
    if (!block->weight[i].quantized) QD_TRY(prepare_plain(&block->weight[i], act, arena));
  return QD_OK;
}

qd_status qd_block_check_finite(const qd_block *block, qd_device *device, const char *model) {
  for (int i = 0; i < block->n; i++) {
    const qd_weight *weight = &block->weight[i];
    int64_t index;
    if (weight->quantized) continue;
    QD_TRY(qd_find_nonfinite(device, weight->original, &index));
    QD_CHECK(index < 0, QD_EBADINPUT, "%s: element %" PRId64 " of %s is NaN or infinite", model, index, weight->slot.name);
  }
  return QD_OK;
}

qd_status qd_weight_expand(qd_device *device, qd_weight *weight, qd_dtype act, qd_arena *arena) {
  QD_TRY(qd_tensor_new_2d(arena, act, weight->q.rows, weight->q.columns, &weight->compute));
  return qd_dequant(device, &weight->q, weight->compute);
}

static size_t bytes_of_slots(const qd_model *model, int64_t block) {
  qd_slot slots[QD_MAX_SLOTS];
  size_t bytes = 0;
  int n = qd_model_slots(model, block, slots);
  for (int i = 0; i < n; i++) {
    size_t elements = (size_t)slots[i].dim[0] * (size_t)(slots[i].rank == 2 ? slots[i].dim[1] : 1);
    /* fp32 copy of the original, fp32 effective weight, and codes of a byte with scales for groups of one: the worst case */
    bytes += 3 * qd_arena_cost(elements, sizeof(float)) + 2 * qd_arena_cost(elements, sizeof(float)) + 65536;
  }
  return bytes;
}

size_t qd_block_arena_bytes(const qd_model *model) {
  size_t block = bytes_of_slots(model, 0), rest = bytes_of_slots(model, QD_REST);
  return block > rest ? block : rest;
}
