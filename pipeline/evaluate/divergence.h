/* Figures of two models' predictions side by side, as llama.cpp's perplexity --kl-divergence has them (tools/perplexity).  The
 * error of a mean is sqrt((E[x^2] - E[x]^2) / (n - 1)). */
#ifndef QDIST_PIPELINE_EVALUATE_DIVERGENCE_H
#define QDIST_PIPELINE_EVALUATE_DIVERGENCE_H

#include "kernels/base/status.h"

/* What is measured of one prediction; the last three are 0 without a reference. */
typedef struct qd_prediction {
  double  nll, reference_nll; /* of the token that came, nats */
  double  kl;                 /* from the reference's distribution to the model's (qd_kl) */
  int64_t same;               /* 1: both would have said the same */
} qd_prediction;

typedef struct qd_mean { double value, error; } qd_mean;

typedef struct qd_divergence {
  qd_mean kl;                                      /* nats */
  double  kl_median, kl_99, kl_99_9, kl_max;       /* percentile f: by linear interpolation at f (n - 1) */
  qd_mean top1;                                    /* share of predictions with the same first choice */
  qd_mean log_ratio;                               /* ln(perplexity / the reference's), over all predictions */
  qd_mean delta_p, delta_p_rms;                    /* of p(token that came), model minus reference */
} qd_divergence;

/* Sums are taken a window at a time, then over windows, in order.  n = windows x a_window. */
qd_status qd_divergence_of(const qd_prediction *prediction, int64_t windows, int64_t a_window,
                           qd_divergence *out) QD_MUST_USE;

/* The mean with its error of n values from their sum and the sum of their squares. */
qd_mean qd_mean_of(double sum, double squares, int64_t n);

#endif
