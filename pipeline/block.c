#include "pipeline/block.h"

#include "workers/partition.h"

#include <stdio.h>

const char *qd_block_label(int64_t block, char text[QD_BLOCK_LABEL_BYTES]) {
  if (block == QD_REST) snprintf(text, QD_BLOCK_LABEL_BYTES, "model");
  else snprintf(text, QD_BLOCK_LABEL_BYTES, "block %" PRId64, block);
  return text;
}

qd_weight *qd_block_find(qd_block *block, qd_role role) {
  for (int i = 0; i < block->n; i++)
    if (block->weight[i].slot.role == role) return &block->weight[i];
  return NULL;
}

/* The experts' tensors come last, expert by expert. */
qd_weight *qd_block_find_expert(qd_block *block, qd_role role, int64_t expert) {
  int64_t first = 0, each = 0;
  while (first < block->n && block->weight[first].slot.expert < 0) first++;
  while (first + each < block->n && block->weight[first + each].slot.expert == 0) each++;
  for (int64_t i = first + expert * each; i < block->n && i < first + (expert + 1) * each; i++)
    if (block->weight[i].slot.role == role) return &block->weight[i];
  return NULL;
}

bool qd_block_computes(const qd_block *block, const qd_weight *weight) {
  return weight->slot.expert < 0 || block->ranks < 2 || qd_partition_expert(weight->slot.expert, block->ranks) == block->rank;
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
    if (!block->weight[i].quantized && qd_block_computes(block, &block->weight[i]))
      QD_TRY(prepare_plain(&block->weight[i], act, arena));
  return QD_OK;
}

qd_status qd_block_check_finite(const qd_block *block, qd_device *device, const char *model) {
  for (int i = 0; i < block->n; i++) {
    const qd_weight *weight = &block->weight[i];
    int64_t index;
    if (weight->quantized || !qd_block_computes(block, weight)) continue; /* an expert's owner looks at its values */
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
