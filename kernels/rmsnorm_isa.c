#include "kernels/forward_isa.h"
#include "kernels/rows_isa.h"

static double sum_of_squares(const void *x, qd_dtype dtype, int64_t n) {
  double lane[QD_LANES] = {0}, square[QD_PIECE];
  float piece[QD_PIECE];
  for (int64_t at = 0; at < n; at += QD_PIECE) {
    int64_t size = qd_piece(at, n);
    qd_piece_load(x, dtype, at, size, piece);
    for (int64_t i = 0; i < size; i++) square[i] = (double)piece[i] * (double)piece[i];
    qd_lanes_add_double(lane, square, size);
  }
  return qd_lanes_total_double(lane);
}

void QD_ISA(qd_rmsnorm_row)(const void *x, const float *w, double eps, void *y, qd_dtype dtype, int64_t n) {
  float r = (float)(1.0 / sqrt(sum_of_squares(x, dtype, n) / (double)n + eps));
  float piece[QD_PIECE];
  for (int64_t at = 0; at < n; at += QD_PIECE) {
    int64_t size = qd_piece(at, n);
    qd_piece_load(x, dtype, at, size, piece);
    for (int64_t i = 0; i < size; i++) piece[i] *= r;
    if (dtype == QD_BF16)
      for (int64_t i = 0; i < size; i++) piece[i] = qd_round_bf16(piece[i]);
    for (int64_t i = 0; i < size; i++) piece[i] *= w[at + i];
    qd_piece_store(y, dtype, at, size, piece);
  }
}
