/* Choices by a sample.  How much damping a stage's linears want, and which threshold gives the outliers that are to be had, is
 * tried on a few rows of each linear: QD_SAMPLE_ROWS in whole runs of shared statistics, spread evenly over it.  What counts is
 * the true loss, tr(D H D^T) with the undamped H, each linear's scaled up to all its rows; since more outliers cost more bits,
 * losses are compared at equal bits, by the 6.02 dB that a bit is worth to a uniform quantizer. */
#ifndef QDIST_PIPELINE_SAMPLE_H
#define QDIST_PIPELINE_SAMPLE_H

#include "pipeline/factorize.h"
#include "pipeline/rows.h"

enum { QD_SAMPLE_ROWS = 128 };

typedef struct qd_sampled {
  double threshold; /* that was taken: factor->threshold, or the one that was found */
  double share;     /* of outliers */
  double cost;      /* the loss, as if there were no outliers at the same bits */
} qd_sampled;

/* The rows of a sample of a linear of so many rows whose rows are coupled in runs of `unit`. */
qd_row_set qd_sample_rows(int64_t rows, int64_t unit);

/* With the factor's threshold.  Not collective. */
qd_status qd_sample(qd_run *run, const qd_stage_factor *factor, const qd_stats *stats, qd_sampled *out) QD_MUST_USE;

/* With the threshold that gives a share of outliers: a few passes, each by the law share ~ threshold^-2.3 of weights as
 * models have them, from QD_FIRST_THRESHOLD on, then by halves.  Not collective. */
qd_status qd_sample_find(qd_run *run, qd_stage_factor *factor, const qd_stats *stats, double share,
                         qd_sampled *out) QD_MUST_USE;

/* Scratch of both at most, of a planned linear. */
size_t qd_sample_scratch(const qd_device *device, const qd_job *job, qd_scheme scheme, int64_t rows, int64_t columns);

#endif
