/* Weights that are kept as they are (SpQR, arXiv:2306.03078): by which measure a weight is one, and how parts travel whose size
 * is known only when every rank has quantized its rows. */
#ifndef QDIST_PIPELINE_OUTLIERS_H
#define QDIST_PIPELINE_OUTLIERS_H

#include "kernels/tri.h"
#include "pipeline/block.h"
#include "workers/comm.h"
#include "workers/partition.h"

/* A linear's outliers at most, as a share of its weights: what memory is planned for.  What each costs: value and column.  The
 * threshold that the reference's authors recommend, and where a search begins. */
#define QD_MOST_OUTLIERS 0.25
#define QD_OUTLIER_BITS 32
#define QD_FIRST_THRESHOLD 0.2

int64_t qd_outliers_most(int64_t rows, int64_t columns);

/* Room for `most` outliers in a new qtensor, which then has none; and what a qtensor with it takes of an arena, whatever order
 * it has. */
qd_status qd_outliers_new(qd_arena *arena, int64_t most, qd_qtensor *q) QD_MUST_USE;
size_t    qd_outliers_qtensor_cost(qd_scheme scheme, int64_t rows, int64_t columns, int64_t most);

/* Outliers of a qtensor's rows (or of a view of some); 0 where the scheme has none. */
int64_t qd_outliers_of(const qd_qtensor *q);

/* Variance of each column over the rows of a weight, unbiased, 0 where a column is dead (NULL: none is): from sums and sums of
 * squares in double over tiles of QD_LOSS_TILE rows, added in order.   variance F64 (C). */
qd_status qd_outliers_variance(qd_device *device, qd_tensor weight, const uint8_t *dead, qd_tensor variance) QD_MUST_USE;
size_t    qd_outliers_variance_scratch(int64_t columns);

/* tau = threshold * mean over columns of variance / u_c^2, u_c the factor's diagonal, in processing order; INFINITY where that
 * is 0: rows that are all alike have no scale. */
double qd_outliers_tau(double threshold, qd_tensor variance, qd_tri u, const int32_t *order);

/* One rank has quantized all rows: from the room that it had, the parts are cut to what is there. */
void qd_outliers_settle(qd_qtensor *q);

/* The shape of a qtensor with n outliers, from that of one with none. */
void qd_outliers_shape(qd_qtensor *q, int64_t n);

/* Every rank has the outliers of its share of the rows (rank r: rows_of[r], in order), from the first of the parts on; row
 * pointers of them begin with 0.  Afterwards all have all.  QD_ENUMERIC: more than `most`.  Collective. */
qd_status qd_outliers_share(qd_comm *comm, const qd_range *rows_of, int64_t most, qd_qtensor *q) QD_MUST_USE;

#endif
