#include "workers/partition.h"

#include <criterion/criterion.h>
#include <math.h>

enum { MAX_LINEARS = 9, MAX_RANKS = 40 };

static uint64_t state = 88172645463325252u;

/* xorshift64: the same cases every time. */
static int64_t below(int64_t n) {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return (int64_t)(state % (uint64_t)n);
}

Test(partition, even_covers_everything_once) {
  for (int size = 1; size <= 17; size++) {
    for (int64_t total = 0; total <= 40; total++) {
      int64_t at = 0;
      for (int rank = 0; rank < size; rank++) {
        qd_range range = qd_partition_even(total, rank, size);
        cr_assert_eq(range.first, at);
        cr_assert(range.n == total / size + (rank < total % size));
        at += range.n;
      }
      cr_assert_eq(at, total);
    }
  }
}

Test(partition, even_of_a_huge_total) {
  qd_range last = qd_partition_even(INT64_MAX, 999, 1000);
  cr_assert_eq(last.first + last.n, INT64_MAX);
}

typedef struct rows_case {
  int n, size;
  int64_t rows[MAX_LINEARS], tile;
  double cost[MAX_LINEARS];
} rows_case;

static rows_case random_case(void) {
  rows_case c = {.n = (int)below(MAX_LINEARS + 1), .size = 1 + (int)below(MAX_RANKS), .tile = 1 + below(20)};
  for (int i = 0; i < c.n; i++) {
    c.rows[i] = below(5) == 0 ? 0 : below(300);
    c.cost[i] = below(7) == 0 ? 0.0 : (double)below(1000) / 8.0; /* sums of these are exact */
  }
  return c;
}

/* The greedy cut on whole tiles, one after the other: the plain version of what is tested. */
static bool keeps(const rows_case *c, double bound) {
  int rank = 0;
  double used = 0.0;
  for (int i = 0; i < c->n; i++) {
    for (int64_t row = 0; row < c->rows[i]; row += c->tile) {
      int64_t n = c->rows[i] - row < c->tile ? c->rows[i] - row : c->tile;
      double tile_cost = (double)n * c->cost[i];
      if (tile_cost > bound) return false;
      if (used + tile_cost > bound) {
        rank++;
        used = 0.0;
      }
      used += tile_cost;
    }
  }
  return rank < c->size;
}

/* Costs are multiples of 1/8, so the least bound is one as well. */
static double least_bound(const rows_case *c) {
  int64_t low = -1, high = 0;
  for (int i = 0; i < c->n; i++) high += (int64_t)(8.0 * c->cost[i]) * c->rows[i];
  while (high - low > 1) {
    int64_t middle = low + (high - low) / 2;
    if (keeps(c, (double)middle / 8.0)) high = middle;
    else low = middle;
  }
  return (double)high / 8.0;
}

static void check_cover(const rows_case *c, const qd_share *shares, int n) {
  int s = 0, rank = 0;
  for (int i = 0; i < c->n; i++) {
    int64_t row = 0;
    while (row < c->rows[i]) {
      cr_assert_lt(s, n);
      cr_assert(shares[s].linear == i && shares[s].rows.first == row && shares[s].rows.n > 0);
      cr_assert_eq(shares[s].rows.first % c->tile, 0);
      cr_assert(shares[s].rank >= rank && shares[s].rank < c->size);
      rank = shares[s].rank;
      row += shares[s].rows.n;
      s++;
    }
    cr_assert_eq(row, c->rows[i]);
  }
  cr_assert_eq(s, n);
  for (s = 1; s < n; s++) cr_assert(shares[s].linear != shares[s - 1].linear || shares[s].rank != shares[s - 1].rank);
}

static double dearest_rank(const rows_case *c, const qd_share *shares, int n) {
  double used[MAX_RANKS] = {0}, most = 0.0;
  for (int s = 0; s < n; s++) {
    used[shares[s].rank] += (double)shares[s].rows.n * c->cost[shares[s].linear];
    most = fmax(most, used[shares[s].rank]);
  }
  return most;
}

static void check(const rows_case *c) {
  qd_share shares[MAX_LINEARS + MAX_RANKS];
  int n = -1;
  qd_partition_rows(c->n, c->rows, c->cost, c->tile, c->size, shares, &n);
  cr_assert(n >= 0 && n <= c->n + c->size);
  check_cover(c, shares, n);
  double most = dearest_rank(c, shares, n), least = least_bound(c);
  cr_assert_eq(most, least, "dearest rank %g, possible %g", most, least);
}

Test(partition, rows_are_covered_once_and_no_cut_is_better) {
  for (int i = 0; i < 20000; i++) {
    rows_case c = random_case();
    check(&c);
  }
}

Test(partition, one_giant_linear_goes_to_all) {
  rows_case c = {.n = 1, .size = 8, .rows = {28672}, .tile = 128, .cost = {8192.0 * 8192.0}};
  check(&c);
}

Test(partition, more_ranks_than_tiles) {
  rows_case c = {.n = 2, .size = 16, .rows = {100, 129}, .tile = 128, .cost = {3.0, 1.0}};
  check(&c);
}

Test(partition, one_rank_takes_all_whatever_the_rounding) {
  const int64_t rows[3] = {1001, 333, 77};
  const double cost[3] = {0.1, 1e-9, 1e17};
  qd_share shares[4];
  int n;
  qd_partition_rows(3, rows, cost, 10, 1, shares, &n);
  cr_assert_eq(n, 3);
  for (int i = 0; i < 3; i++) cr_assert(shares[i].rank == 0 && shares[i].rows.first == 0 && shares[i].rows.n == rows[i]);
}

/* Costs whose sums round: nothing is lost and the loads stay within the even share and a tile. */
Test(partition, any_costs) {
  for (int i = 0; i < 2000; i++) {
    rows_case c = random_case();
    double total = 0.0, tile = 0.0;
    for (int l = 0; l < c.n; l++) {
      c.cost[l] *= 0.1 * pow(10.0, (double)below(12));
      total += (double)c.rows[l] * c.cost[l];
      tile = fmax(tile, (double)c.tile * c.cost[l]);
    }
    qd_share shares[MAX_LINEARS + MAX_RANKS];
    int n;
    qd_partition_rows(c.n, c.rows, c.cost, c.tile, c.size, shares, &n);
    check_cover(&c, shares, n);
    cr_assert_leq(dearest_rank(&c, shares, n), (total / c.size + tile) * (1.0 + 1e-9));
  }
}

/* Round by round every expert has its turn once, on its owner, and no rank two at a time. */
Test(partition, experts_take_turns) {
  for (int size = 1; size <= 9; size++)
    for (int64_t n = 0; n <= 20; n++) {
      int64_t next = 0;
      for (int64_t round = 0; round < qd_partition_expert_rounds(n, size); round++)
        for (int rank = 0; rank < size; rank++) {
          int64_t expert = qd_partition_expert_of(n, round, rank, size);
          cr_assert_eq(expert, next < n ? next : -1);
          if (expert < 0) continue;
          cr_assert_eq(qd_partition_expert(expert, size), rank);
          next++;
        }
      cr_assert_eq(next, n);
    }
}
