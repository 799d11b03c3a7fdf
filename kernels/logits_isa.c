#include "kernels/forward_isa.h"
#include "kernels/rows_isa.h"
#include "kernels/vecmath.h"

/* Sum of exp(x - top) over one run of at most QD_SUM_RUN elements. */
static float run_sum(const float *x, int64_t n, float top) {
  float lane[QD_LANES] = {0}, piece[QD_PIECE];
  for (int64_t at = 0; at < n; at += QD_PIECE) {
    int64_t size = qd_piece(at, n);
    for (int64_t i = 0; i < size; i++) piece[i] = qd_vm_expf(x[at + i] - top);
    qd_lanes_add(lane, piece, size);
  }
  return qd_lanes_total(lane);
}

double QD_ISA(qd_nll_row)(const float *logits, int64_t n, int32_t target) {
  if (target < 0) return 0;
  float top = qd_row_max(logits, n);
  double sum = 0;
  for (int64_t run = 0; run < n; run += QD_SUM_RUN)
    sum += run_sum(logits + run, n - run < QD_SUM_RUN ? n - run : QD_SUM_RUN, top);
  return qd_vm_log(sum) + (double)top - (double)logits[target];
}

static double log_sum(const float *x, int64_t n, double top) {
  double lane[QD_LANES] = {0}, piece[QD_PIECE];
  for (int64_t at = 0; at < n; at += QD_PIECE) {
    int64_t size = qd_piece(at, n);
    for (int64_t i = 0; i < size; i++) piece[i] = qd_vm_exp((double)x[at + i] - top);
    qd_lanes_add_double(lane, piece, size);
  }
  return qd_vm_log(qd_lanes_total_double(lane));
}

static double divergence(const float *p, const float *q, int64_t n, double p_top, double q_top) {
  double p_sum = log_sum(p, n, p_top), q_sum = log_sum(q, n, q_top);
  double lane[QD_LANES] = {0}, piece[QD_PIECE];
  for (int64_t at = 0; at < n; at += QD_PIECE) {
    int64_t size = qd_piece(at, n);
    for (int64_t i = 0; i < size; i++) {
      double log_p = (double)p[at + i] - p_top - p_sum, log_q = (double)q[at + i] - q_top - q_sum;
      piece[i] = qd_vm_pick64(log_p > -16, qd_vm_exp(log_p) * (log_p - log_q), 0);
    }
    qd_lanes_add_double(lane, piece, size);
  }
  return qd_lanes_total_double(lane);
}

static int64_t first_equal(const float *x, int64_t n, float top) {
  int64_t i = 0;
  while (i < n && x[i] != top) i++;
  return i;
}

double QD_ISA(qd_kl_row)(const float *p, const float *q, int64_t n, int32_t *same) {
  float p_top = qd_row_max(p, n), q_top = qd_row_max(q, n);
  *same = first_equal(p, n, p_top) == first_equal(q, n, q_top);
  return n == 0 ? 0 : divergence(p, q, n, p_top, q_top);
}
