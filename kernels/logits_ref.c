#include "kernels/lanes_ref.h"
#include "kernels/vecmath.h"

#ifdef QD_REAL64
#define real_exp exp
#define double_exp exp
#define double_log log
#else
#define real_exp qd_vm_expf
#define double_exp qd_vm_exp
#define double_log qd_vm_log
#endif

/* Index of the first largest logit of a row; -1 of none. */
static int64_t argmax(qd_tensor logits, int64_t at) {
  int64_t best = -1;
  for (int64_t v = 0; v < logits.dim[1]; v++)
    if (best < 0 || qd_ref_load(logits, at + v) > qd_ref_load(logits, at + best)) best = v;
  return best;
}

static double row_nll(qd_tensor logits, int64_t at, int32_t target) {
  if (target < 0) return 0;
  qd_real top = qd_ref_load(logits, at + argmax(logits, at));
  double sum = 0;
  for (int64_t run = 0; run < logits.dim[1]; run += QD_SUM_RUN) {
    qd_real lane[QD_LANES] = {0};
    for (int64_t v = run; v < run + QD_SUM_RUN && v < logits.dim[1]; v++)
      lane[v % QD_LANES] += real_exp(qd_ref_load(logits, at + v) - top);
    sum += qd_ref_lanes_total(lane);
  }
  return double_log(sum) + (double)top - (double)qd_ref_load(logits, at + target);
}

qd_status QD_REF(nll)(qd_device *device, qd_tensor logits, qd_tensor target, qd_tensor nll) {
  (void)device;
  for (int64_t t = 0; t < logits.dim[0]; t++)
    ((double *)nll.data)[t] = row_nll(logits, t * logits.stride[0], ((const int32_t *)target.data)[t]);
  return QD_OK;
}

/* log(sum_v exp(logit_v - top)) */
static double log_sum(qd_tensor logits, int64_t at, double top) {
  double lane[QD_LANES] = {0};
  for (int64_t v = 0; v < logits.dim[1]; v++) lane[v % QD_LANES] += double_exp((double)qd_ref_load(logits, at + v) - top);
  return double_log(qd_ref_lanes_total_double(lane));
}

static double row_kl(qd_tensor p, int64_t pt, int64_t p_best, qd_tensor q, int64_t qt, int64_t q_best) {
  double p_top = qd_ref_load(p, pt + p_best), q_top = qd_ref_load(q, qt + q_best);
  double p_sum = log_sum(p, pt, p_top), q_sum = log_sum(q, qt, q_top);
  double lane[QD_LANES] = {0};
  for (int64_t v = 0; v < p.dim[1]; v++) {
    double log_p = (double)qd_ref_load(p, pt + v) - p_top - p_sum, log_q = (double)qd_ref_load(q, qt + v) - q_top - q_sum;
    if (log_p > -16) lane[v % QD_LANES] += double_exp(log_p) * (log_p - log_q);
  }
  return qd_ref_lanes_total_double(lane);
}

qd_status QD_REF(kl)(qd_device *device, qd_tensor p, qd_tensor q, qd_tensor kl, qd_tensor same) {
  (void)device;
  for (int64_t t = 0; t < p.dim[0]; t++) {
    int64_t pt = t * p.stride[0], qt = t * q.stride[0], p_best = argmax(p, pt), q_best = argmax(q, qt);
    ((double *)kl.data)[t] = p_best < 0 ? 0 : row_kl(p, pt, p_best, q, qt, q_best);
    ((int32_t *)same.data)[t] = p_best == q_best;
  }
  return QD_OK;
}
