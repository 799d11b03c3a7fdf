/* What the exact sums on a fixed-point grid share (ops.h: qd_hessian_grid): element (i, j) counts in units of
 * 2^(e_i + e_j - 42). */
#ifndef QDIST_KERNELS_GRID_H
#define QDIST_KERNELS_GRID_H

#include "kernels/base/tensor.h"

#include <math.h>

typedef enum qd_grid_direction { QD_TO_UNITS = -1, QD_FROM_UNITS = 1 } qd_grid_direction;

/* Powers of two a column, whose product for i and j is 2^(42 - e_i - e_j) (to units) or 2^(e_i + e_j - 42) (from units). */
static inline qd_status qd_grid_powers(qd_arena *arena, qd_tensor exponent, qd_grid_direction direction, double **out) {
  const int32_t *e = exponent.data;
  QD_TRY(qd_arena_new(arena, (size_t)exponent.dim[0], sizeof **out, out));
  for (int64_t j = 0; j < exponent.dim[0]; j++) (*out)[j] = ldexp(1, (int)direction * (e[j] - 21));
  return QD_OK;
}

/* A sum as a number of units: saturates at +-2^62, where a NaN goes too. */
static inline uint64_t qd_grid_units(double value) {
  static const double limit = 0x1p62;
  value = value < limit ? value : limit;
  value = value > -limit ? value : -limit;
  return (uint64_t)(int64_t)rint(value);
}

#endif
