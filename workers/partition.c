#include "workers/partition.h"

#include <math.h>

qd_range qd_partition_even(int64_t total, int rank, int size) {
  QD_ASSERT(total >= 0 && size > 0 && rank >= 0 && rank < size);
  int64_t each = total / size, larger = total % size;
  return (qd_range){each * rank + (rank < larger ? rank : larger), each + (rank < larger)};
}

int qd_partition_expert(int64_t expert, int size) { return (int)(expert % size); }

int64_t qd_partition_expert_rounds(int64_t n, int size) { return (n + size - 1) / size; }

int64_t qd_partition_expert_of(int64_t n, int64_t round, int rank, int size) {
  int64_t expert = round * size + rank;
  return expert < n ? expert : -1;
}

typedef struct rows_problem {
  int n_linears, size;
  const int64_t *rows;
  const double *cost;
  int64_t tile;
} rows_problem;

/* How many of the `left` rows may join a rank that has room for this much cost: all, or whole tiles. */
static int64_t rows_that_fit(const rows_problem *p, double row_cost, int64_t left, double room) {
  if ((double)left * row_cost <= room) return left;
  double tiles = floor(room / ((double)p->tile * row_cost));
  if (!(tiles >= 1.0)) return 0;
  return tiles * (double)p->tile >= (double)left ? left : (int64_t)tiles * p->tile;
}

/* Fill rank after rank up to `bound`; the last one takes what is left.  True if that stays within the bound too.
 * Without `shares` it only answers. */
static bool fill_ranks(const rows_problem *p, double bound, qd_share *shares, int *n_shares) {
  int rank = 0, n = 0;
  double used = 0.0;
  for (int i = 0; i < p->n_linears; i++) {
    for (int64_t row = 0, take; row < p->rows[i]; row += take) {
      int64_t left = p->rows[i] - row;
      take = rank == p->size - 1 ? left : rows_that_fit(p, p->cost[i], left, bound - used);
      if (take > 0 && shares != NULL) shares[n++] = (qd_share){i, rank, {row, take}};
      used += (double)take * p->cost[i];
      if (take < left) {
        rank++;
        used = 0.0;
      }
    }
  }
  if (n_shares != NULL) *n_shares = n;
  return used <= bound;
}

/* No partition is better than an even one, nor than the dearest tile by itself. */
static double lower_bound(const rows_problem *p, double *total) {
  double dearest = 0.0;
  *total = 0.0;
  for (int i = 0; i < p->n_linears; i++) {
    QD_ASSERT(p->rows[i] >= 0 && p->cost[i] >= 0.0 && isfinite((double)p->rows[i] * p->cost[i]));
    *total += (double)p->rows[i] * p->cost[i];
    double tile_cost = (double)(p->rows[i] < p->tile ? p->rows[i] : p->tile) * p->cost[i];
    if (tile_cost > dearest) dearest = tile_cost;
  }
  return fmax(dearest, *total / p->size);
}

/* The least bound that the greedy cut can keep, by bisection: consecutive shares leave the greedy cut nothing to lose. */
void qd_partition_rows(int n_linears, const int64_t *rows, const double *cost, int64_t tile, int size, qd_share *shares,
                       int *n_shares) {
  QD_ASSERT(n_linears >= 0 && tile > 0 && size > 0);
  rows_problem p = {n_linears, size, rows, cost, tile};
  double high, low = lower_bound(&p, &high);
  if (fill_ranks(&p, low, NULL, NULL)) high = low;
  for (int step = 0; step < 60 && low < high; step++) {
    double middle = low + 0.5 * (high - low);
    if (fill_ranks(&p, middle, NULL, NULL)) high = middle;
    else low = middle;
  }
  fill_ranks(&p, high, shares, n_shares);
}
