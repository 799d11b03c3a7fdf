#include "pipeline/block.h"

qd_weight *qd_block_find(qd_block *block, qd_role role) {
  for (int i = 0; i < block->n; i++)
    if (block->weight[i].slot.role == role) return &block->weight[i];
  return NULL;
}

static qd_status prepare_plain(qd_weight *weight, qd_dtype act, qd_arena *arena) {
  qd_dtype wanted = qd_role_is_matrix(weight->slot.role) ? act : QD_F32;
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

void qd_block_use_stored(qd_block *block) {
  for (int i = 0; i < block->n; i++) {
    if (!block->weight[i].stored) continue;
    block->weight[i].quantized = true;
    block->weight[i].compute = (qd_tensor){0};
  }
}

qd_status qd_weight_expand(qd_device *device, qd_weight *weight, qd_dtype act, qd_arena *arena) {
  QD_TRY(qd_tensor_new_2d(arena, act, weight->q.rows, weight->q.columns, &weight->compute));
  return qd_dequant(device, &weight->q, weight->compute);
}
