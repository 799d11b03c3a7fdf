/* Who does what: pure functions of sizes and the number of ranks.  Results never depend on them. */
#ifndef QDIST_WORKERS_PARTITION_H
#define QDIST_WORKERS_PARTITION_H

#include "kernels/base/status.h"

typedef struct qd_range {
  int64_t first, n;
} qd_range;

/* The part of 0 .. total - 1 that rank takes: consecutive, sizes differ by at most one, the larger first. */
qd_range qd_partition_even(int64_t total, int rank, int size);

/* Whose an expert is: in turn, so that any run of `size` experts, a round, has each rank once at most; how many rounds n
 * experts take; and which of them a rank has in a round, -1: none. */
int     qd_partition_expert(int64_t expert, int size);
int64_t qd_partition_expert_rounds(int64_t n, int size);
int64_t qd_partition_expert_of(int64_t n, int64_t round, int rank, int size);

/* Rows of several linears over ranks by cost.  Linear i has rows[i] rows of cost[i] each; a share is a range of rows of one
 * linear, cut at multiples of `tile`.  Gives the shares in (linear, row) order with their ranks: consecutive shares go to
 * ascending ranks, and no such cut makes the largest rank's cost smaller. */
typedef struct qd_share {
  int      linear, rank;
  qd_range rows;
} qd_share;
/* *n_shares at most n_linears + size; `shares` has room for that. */
void qd_partition_rows(int n_linears, const int64_t *rows, const double *cost, int64_t tile, int size, qd_share *shares,
                       int *n_shares);

#endif
