#include "kernels/ref_real.h"

enum { TILE = QD_TRI_TILE };

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* cross between the columns at positions a and b. */
static double cross_at(const qd_asymmetry_args *args, int64_t a, int64_t b) {
  const int32_t *order = args->order.rank == 0 ? NULL : args->order.data;
  int64_t i = order ? order[a] : a, j = order ? order[b] : b;
  return (double)qd_ref_load(args->cross, i * args->cross.stride[0] + j);
}

/* U[c][j]. */
static double u_at(qd_tri u, int64_t c, int64_t j) {
  if (j < c) return 0;
  size_t index = qd_tri_index(j, c);
  return u.dtype == QD_F64 ? ((const double *)u.data)[index] : (double)((const float *)u.data)[index];
}

/* T[a][k] = sum over b of cross(a, b) U[k][b]. */
static double left(const qd_asymmetry_args *args, int64_t a, int64_t k) {
  double sum = 0;
  for (int64_t first = k / TILE * TILE; first < args->u.n; first += TILE) {
    double s = 0;
    for (int64_t b = first; b < least(first + TILE, args->u.n); b++) s = fma(cross_at(args, a, b), u_at(args->u, k, b), s);
    sum = first == k / TILE * TILE ? s : sum + s;
  }
  return sum;
}

/* sum over k of T[a][k] U[k][j]. */
static double right(const qd_asymmetry_args *args, const double *t, int64_t a, int64_t j) {
  double sum = 0;
  for (int64_t first = a / TILE * TILE; first <= j; first += TILE) {
    double s = 0;
    for (int64_t k = first; k < least(first + TILE, args->u.n); k++) s = fma(t[k], u_at(args->u, k, j), s);
    sum = first == a / TILE * TILE ? s : sum + s;
  }
  return sum;
}

static void store(qd_tri p, int64_t j, int64_t a, double value) {
  if (p.dtype == QD_F64)
    ((double *)p.data)[qd_tri_index(j, a)] = value;
  else
    ((float *)p.data)[qd_tri_index(j, a)] = (float)value;
}

/* Whole tiles are written: what lies outside the strictly lower triangle becomes zero. */
qd_status QD_REF(asymmetry)(qd_device *device, const qd_asymmetry_args *args) {
  int64_t n = args->u.n, padded = (n + TILE - 1) / TILE * TILE;
  size_t mark = qd_arena_mark(&device->scratch);
  double *t;
  QD_TRY(qd_arena_new(&device->scratch, (size_t)padded, sizeof *t, &t));
  for (int64_t a = 0; a < padded; a++) {
    for (int64_t k = 0; k < n && a < n; k++) t[k] = k > a ? left(args, a, k) : 0;
    for (int64_t j = a / TILE * TILE; j < padded; j++)
      store(args->p, j, a, j > a && j < n ? args->alpha * right(args, t, a, j) : 0);
  }
  qd_arena_rewind(&device->scratch, mark);
  return QD_OK;
}
