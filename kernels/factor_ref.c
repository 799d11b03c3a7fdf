#include "kernels/ref_real.h"

#include "kernels/factor.h"

#include <float.h>

enum { TILE = QD_TRI_TILE, HALF = QD_FACTOR_HALF };

static int64_t tile_start(int64_t i) { return i / TILE * TILE; }
static int64_t tile_end(int64_t i, int64_t n) { return tile_start(i) + TILE < n ? tile_start(i) + TILE : n; }

/* Elements of `work`; X has zeros above the diagonal. */
static double *at(qd_tri work, int64_t i, int64_t j) { return (double *)work.data + qd_tri_index(i, j); }
static double x_at(qd_tri work, int64_t i, int64_t j) { return j <= i ? *at(work, i, j) : 0; }

static int64_t column_of(const qd_factor_args *args, int64_t a) {
  int64_t position = args->work.n - 1 - a;
  return args->order.rank == 0 ? position : ((const int32_t *)args->order.data)[position];
}

static double h_at(qd_tri h, int64_t i, int64_t j) {
  size_t index = i > j ? qd_tri_index(i, j) : qd_tri_index(j, i);
  return h.dtype == QD_F64 ? ((const double *)h.data)[index] : (double)((const float *)h.data)[index];
}

static void fill(const qd_factor_args *args) {
  for (int64_t a = 0; a < args->work.n; a++)
    for (int64_t b = 0; b <= a; b++) {
      double value = h_at(args->h, column_of(args, a), column_of(args, b));
      *at(args->work, a, b) = a == b ? value + ((const double *)args->add.data)[column_of(args, a)] : value;
    }
}

/* An element of M from which everything before column b has been subtracted. */
static double reduced(qd_tri work, int64_t a, int64_t b) {
  double x = *at(work, a, b);
  for (int64_t first = 0; first < tile_start(b); first += TILE) {
    double s = 0;
    for (int64_t k = first; k < first + TILE; k++) s = fma(*at(work, a, k), *at(work, b, k), s);
    x = x - s;
  }
  for (int64_t k = tile_start(b); k < b; k++) x = fma(-*at(work, a, k), *at(work, b, k), x);
  return x;
}

/* Returns the row of the first pivot that fails, or -1. */
static int64_t cholesky(qd_tri work) {
  for (int64_t b = 0; b < work.n; b++) {
    double pivot = reduced(work, b, b);
    if (!(pivot > 0 && pivot <= DBL_MAX)) return b;
    *at(work, b, b) = sqrt(pivot);
    for (int64_t a = b + 1; a < work.n; a++) *at(work, a, b) = reduced(work, a, b) / *at(work, b, b);
  }
  return -1;
}

/* A diagonal tile, column by column: nobody but column b of X needs column b of L, except for its diagonal element, which
 * therefore stays until the end.   x: one column. */
static void invert_diagonal(qd_tri work, int64_t start, int64_t end, double *x) {
  for (int64_t b = start; b < end; b++) {
    for (int64_t a = b; a < end; a++) {
      double value = a == b ? 1 : 0;
      for (int64_t k = b; k < a; k++) value = fma(-*at(work, a, k), x[k - start], value);
      x[a - start] = value / *at(work, a, a);
    }
    for (int64_t a = b + 1; a < end; a++) *at(work, a, b) = x[a - start];
  }
  for (int64_t b = start; b < end; b++) *at(work, b, b) = 1 / *at(work, b, b);
}

/* w(a, b) for the rows below tile column `start`.   w: n x TILE. */
static void multiply_diagonal(qd_tri work, int64_t start, double *w) {
  for (int64_t a = start + TILE; a < work.n; a++)
    for (int64_t b = start; b < start + TILE; b++) {
      double s = 0;
      for (int64_t k = b < start + HALF ? start : start + HALF; k < start + TILE; k++)
        s = fma(*at(work, a, k), x_at(work, k, b), s);
      w[a * TILE + b - start] = s;
    }
}

static void invert_below(qd_tri work, int64_t start, const double *w) {
  for (int64_t a = start + TILE; a < work.n; a++)
    for (int64_t b = start; b < start + TILE; b++) {
      double x = 0;
      for (int64_t first = start + TILE; first <= a; first += TILE) {
        int64_t end = tile_end(first, work.n);
        if (a < first + HALF && end > first + HALF) end = first + HALF;
        double s = 0;
        for (int64_t k = first; k < end; k++) s = fma(x_at(work, a, k), w[k * TILE + b - start], s);
        x = x - s;
      }
      *at(work, a, b) = x;
    }
}

static void store(qd_tri work, qd_tri u) {
  int64_t side = (u.n + TILE - 1) / TILE;
  for (int64_t ti = 0; ti < side; ti++)
    for (int64_t j = ti * TILE; j < (ti + 1) * TILE; j++)
      for (int64_t c = 0; c < (ti + 1) * TILE; c++) {
        double value = j < u.n && c <= j ? *at(work, u.n - 1 - c, u.n - 1 - j) : 0;
        if (u.dtype == QD_F64) ((double *)u.data)[qd_tri_index(j, c)] = value;
        else ((float *)u.data)[qd_tri_index(j, c)] = (float)value;
      }
}

qd_status QD_REF(factor)(qd_device *device, const qd_factor_args *args, int64_t *pivot) {
  qd_tri work = args->work;
  size_t mark = qd_arena_mark(&device->scratch);
  double *w;
  QD_TRY(qd_arena_new(&device->scratch, (size_t)(work.n + 1) * TILE, sizeof *w, &w));
  fill(args);
  int64_t failed = cholesky(work);
  *pivot = failed < 0 ? -1 : column_of(args, failed);
  if (failed < 0) {
    for (int64_t start = 0; start < work.n; start += TILE) invert_diagonal(work, start, tile_end(start, work.n), w);
    for (int64_t start = work.n > 0 ? tile_start(work.n - 1) - TILE : -1; start >= 0; start -= TILE) {
      multiply_diagonal(work, start, w);
      invert_below(work, start, w);
    }
    store(work, args->u);
  }
  qd_arena_rewind(&device->scratch, mark);
  return QD_OK;
}
