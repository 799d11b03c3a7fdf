/* Some rows of a linear to codes, on this rank alone: what quantize.c does with every rank's share, and sample.c with a few. */
#ifndef QDIST_PIPELINE_ROWS_H
#define QDIST_PIPELINE_ROWS_H

#include "pipeline/factorize.h"

/* n rows: runs of `run` rows, each beginning `step` rows behind the one before. */
typedef struct qd_row_set {
  int64_t first, n, run, step;
} qd_row_set;

static inline qd_row_set qd_rows_together(int64_t first, int64_t n) { return (qd_row_set){first, n, n, n}; }

/* The order in which the columns are processed: none where no factor was had. */
qd_act_order qd_rows_order(const qd_run *run, const qd_stage_factor *factor);

/* A qtensor of that shape, of a linear's scheme, with the factor's order where that is stored, and room for most_outliers. */
typedef struct qd_rows_shape {
  int64_t rows, columns, most_outliers;
} qd_rows_shape;
qd_status qd_rows_new(const qd_run *run, qd_arena *arena, const qd_stage_factor *factor, qd_scheme scheme, qd_rows_shape shape,
                      qd_qtensor *q) QD_MUST_USE;

/* Codes of a row set of linear `index` of the factor's, whose scheme q has, into q (as many rows); error F64 (n): d H d^T of
 * each row, norm (n): w H w^T, NULL: not wanted; |d|^2 and |w|^2 without stats.  Scratch is left as it was found. */
qd_status qd_rows_quantize(qd_run *run, const qd_stage_factor *factor, const qd_stats *stats, int index, qd_row_set rows,
                           qd_qtensor *q, double *error, double *norm) QD_MUST_USE;

/* What it takes of the scratch at most: of n rows of a planned linear. */
size_t qd_rows_scratch(const qd_device *device, const qd_job *job, qd_scheme scheme, int64_t n, int64_t columns);

#endif
