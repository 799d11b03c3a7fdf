#include "kernels/forward_isa.h"
#include "kernels/rows_isa.h"
#include "kernels/vecmath.h"

static int64_t down_to_lanes(int64_t n) { return n / QD_LANES * QD_LANES; }
static int64_t up_to_lanes(int64_t n) { return down_to_lanes(n + QD_LANES - 1); }

static void fill(float *x, int64_t first, int64_t end, float value) {
  for (int64_t j = first; j < end; j++) x[j] = value;
}

/* x[j] = exp(x[j] - top) over columns [first, end), multiples of 16, of which column 0 is key `start`; returns the sum. */
static float exponentials(float *x, int64_t start, int64_t first, int64_t end, float top) {
  double total = 0;
  for (int64_t at = first; at < end;) {
    int64_t run_end = ((start + at) / QD_SUM_RUN + 1) * QD_SUM_RUN - start;
    if (run_end > end) run_end = end;
    float lane[QD_LANES] = {0};
    for (; at < run_end; at += qd_piece(at, run_end)) {
      int64_t size = qd_piece(at, run_end);
      for (int64_t j = at; j < at + size; j++) x[j] = qd_vm_expf(x[j] - top);
      qd_lanes_add(lane, x + at, size);
    }
    total += qd_lanes_total(lane);
  }
  return (float)total;
}

/* An unseen key among seen ones in 16 lanes gets the score -Inf, whose exponential adds an exact zero. */
void QD_ISA(qd_softmax_row)(float *x, uint16_t *restrict p, float scale, qd_seen_keys keys) {
  int64_t seen = keys.first_seen - keys.start, seen_end = seen + keys.n_seen, width = keys.end - keys.start;
  int64_t first = down_to_lanes(seen), end = up_to_lanes(seen_end);
  for (int64_t j = seen; j < seen_end; j++) x[j] *= scale;
  fill(x, 0, first, 0);
  fill(x, first, seen, -INFINITY);
  fill(x, seen_end, end, -INFINITY);
  fill(x, end, width, 0);
  float inverse = 1.0f / exponentials(x, keys.start, first, end, qd_row_max(x + seen, keys.n_seen));
  for (int64_t j = first; j < end; j++) x[j] *= inverse;
  if (p != NULL)
    for (int64_t j = 0; j < width; j++) p[j] = qd_bf16_from_f32(x[j]);
}

void QD_ISA(qd_attention_out_row)(const float *sum, void *out, qd_dtype dtype, int64_t n) {
  float piece[QD_PIECE];
  for (int64_t at = 0; at < n; at += QD_PIECE) {
    int64_t size = qd_piece(at, n);
    for (int64_t i = 0; i < size; i++) piece[i] = sum[at + i] + 0.0f; /* no -0 */
    qd_piece_store(out, dtype, at, size, piece);
  }
}
