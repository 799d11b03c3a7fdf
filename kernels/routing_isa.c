#include "kernels/forward_isa.h"
#include "kernels/rows_isa.h"
#include "kernels/vecmath.h"

static void probabilities(const float *logits, int64_t n, float *p) {
  float lane[QD_LANES] = {0}, top = qd_row_max(logits, n);
  for (int64_t j = 0; j < n; j++) p[j] = qd_vm_expf(logits[j] - top);
  qd_lanes_add(lane, p, n);
  float sum = qd_lanes_total(lane);
  for (int64_t j = 0; j < n; j++) p[j] = p[j] / sum;
}

/* Where among the first `taken`, sorted by descending p, a later expert belongs: behind its equals. */
static void insert(const float *p, int32_t *index, int64_t taken, int64_t k, int32_t j) {
  int64_t at = taken;
  while (at > 0 && p[j] > p[index[at - 1]]) at--;
  if (at == k) return;
  for (int64_t i = taken < k ? taken : k - 1; i > at; i--) index[i] = index[i - 1];
  index[at] = j;
}

static void sort_ascending(int32_t *index, int64_t k) {
  for (int64_t i = 1; i < k; i++) {
    int32_t moved = index[i];
    int64_t j = i;
    for (; j > 0 && moved < index[j - 1]; j--) index[j] = index[j - 1];
    index[j] = moved;
  }
}

void QD_ISA(qd_route_row)(const float *logits, int64_t n, const qd_route_args *args, float *p, int64_t row) {
  int64_t k = args->index.dim[1];
  int32_t *index = (int32_t *)args->index.data + row * args->index.stride[0];
  float *weight = (float *)args->weight.data + row * args->weight.stride[0];
  probabilities(logits, n, p);
  for (int32_t j = 0; j < n; j++) insert(p, index, j < k ? j : k, k, j);
  float sum = p[index[0]];
  for (int64_t i = 1; i < k; i++) sum = sum + p[index[i]];
  sort_ascending(index, k);
  for (int64_t i = 0; i < k; i++) {
    float value = args->renormalise ? p[index[i]] / sum : p[index[i]];
    weight[i] = args->weights == QD_BF16 ? qd_round_bf16(value) : value;
  }
}

void QD_ISA(qd_scatter_row)(const void *y, float weight, void *x, qd_dtype dtype, int64_t n) {
  float from[QD_PIECE], to[QD_PIECE];
  for (int64_t at = 0; at < n; at += QD_PIECE) {
    int64_t size = qd_piece(at, n);
    qd_piece_load(y, dtype, at, size, from);
    qd_piece_load(x, dtype, at, size, to);
    for (int64_t i = 0; i < size; i++) to[i] = fmaf(weight, from[i], to[i]);
    qd_piece_store(x, dtype, at, size, to);
  }
}

void QD_ISA(qd_sigmoid_row)(const float *x, void *y, qd_dtype dtype, int64_t n) {
  float piece[QD_PIECE];
  for (int64_t at = 0; at < n; at += QD_PIECE) {
    int64_t size = qd_piece(at, n);
    for (int64_t i = 0; i < size; i++) piece[i] = 1.0f / (1.0f + qd_vm_expf(-x[at + i]));
    qd_piece_store(y, dtype, at, size, piece);
  }
}
