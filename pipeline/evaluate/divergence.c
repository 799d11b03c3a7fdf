#include "pipeline/evaluate/divergence.h"

#include "kernels/base/heap.h"
#include "kernels/vecmath.h"

#include <math.h>
#include <stdlib.h>

qd_mean qd_mean_of(double sum, double squares, int64_t n) {
  double mean = sum / (double)n, variance = squares / (double)n - mean * mean;
  return (qd_mean){mean, n > 1 && variance > 0 ? sqrt(variance / (double)(n - 1)) : 0};
}

/* Sums over predictions; those of products and fourth powers are for errors. */
typedef struct sums {
  double kl, kl_squared, same, nll, nll_squared, reference, reference_squared, product, delta, delta_squared, delta_fourth;
} sums;

static void add_prediction(sums *s, const qd_prediction *p) {
  double delta = qd_vm_exp(-p->nll) - qd_vm_exp(-p->reference_nll), squared = delta * delta;
  s->kl += p->kl, s->kl_squared += p->kl * p->kl, s->same += (double)p->same;
  s->nll += p->nll, s->nll_squared += p->nll * p->nll;
  s->reference += p->reference_nll, s->reference_squared += p->reference_nll * p->reference_nll;
  s->product += p->nll * p->reference_nll;
  s->delta += delta, s->delta_squared += squared, s->delta_fourth += squared * squared;
}

static void add_sums(sums *total, const sums *s) {
  total->kl += s->kl, total->kl_squared += s->kl_squared, total->same += s->same;
  total->nll += s->nll, total->nll_squared += s->nll_squared;
  total->reference += s->reference, total->reference_squared += s->reference_squared, total->product += s->product;
  total->delta += s->delta, total->delta_squared += s->delta_squared, total->delta_fourth += s->delta_fourth;
}

/* The errors of both perplexities are not independent: their covariance is taken off. */
static qd_mean log_ratio(const sums *s, int64_t n) {
  qd_mean own = qd_mean_of(s->nll, s->nll_squared, n), other = qd_mean_of(s->reference, s->reference_squared, n);
  double covariance = n > 1 ? (s->product / (double)n - own.value * other.value) / (double)(n - 1) : 0;
  double variance = own.error * own.error + other.error * other.error - 2 * covariance;
  return (qd_mean){own.value - other.value, variance > 0 ? sqrt(variance) : 0};
}

static qd_mean root(qd_mean square) {
  double value = sqrt(square.value);
  return (qd_mean){value, value > 0 ? 0.5 / value * square.error : 0};
}

static int ascending(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static double percentile(const double *sorted, int64_t n, double fraction) {
  double place = fraction * (double)(n - 1);
  int64_t low = (int64_t)place, high = low + 1 < n ? low + 1 : low;
  double part = place - (double)low;
  return (1 - part) * sorted[low] + part * sorted[high];
}

static qd_status percentiles(const qd_prediction *prediction, int64_t n, qd_divergence *out) {
  double *kl;
  QD_TRY(qd_heap_new((size_t)n, sizeof *kl, &kl));
  for (int64_t i = 0; i < n; i++) kl[i] = prediction[i].kl;
  qsort(kl, (size_t)n, sizeof *kl, ascending);
  out->kl_median = percentile(kl, n, 0.5), out->kl_99 = percentile(kl, n, 0.99);
  out->kl_99_9 = percentile(kl, n, 0.999), out->kl_max = kl[n - 1];
  qd_heap_free(kl);
  return QD_OK;
}

qd_status qd_divergence_of(const qd_prediction *prediction, int64_t windows, int64_t a_window, qd_divergence *out) {
  sums total = {0};
  int64_t n = windows * a_window;
  QD_ASSERT(n > 0);
  for (int64_t w = 0; w < windows; w++) {
    sums one = {0};
    for (int64_t i = 0; i < a_window; i++) add_prediction(&one, &prediction[w * a_window + i]);
    add_sums(&total, &one);
  }
  out->kl = qd_mean_of(total.kl, total.kl_squared, n);
  out->top1 = qd_mean_of(total.same, total.same, n);
  out->log_ratio = log_ratio(&total, n);
  out->delta_p = qd_mean_of(total.delta, total.delta_squared, n);
  out->delta_p_rms = root(qd_mean_of(total.delta_squared, total.delta_fourth, n));
  return percentiles(prediction, n, out);
}
