#include "kernels/ref_real.h"

#include <float.h>

enum { SPREAD = 20 }; /* a column's grid is at most 2^20 times finer than the coarsest */

static double at(qd_tensor diagonal, int64_t unit, int64_t column) {
  return ((const double *)diagonal.data)[unit * diagonal.stride[0] + column * diagonal.stride[1]];
}

/* The first unit that is not all zero, or -1. */
static qd_status first_unit(qd_tensor diagonal, int64_t *first) {
  *first = -1;
  for (int64_t unit = 0; unit < diagonal.dim[0]; unit++)
    for (int64_t column = 0; column < diagonal.dim[1]; column++) {
      double value = at(diagonal, unit, column);
      QD_CHECK(value >= 0 && value <= DBL_MAX, QD_ENUMERIC,
               "the Hessian's diagonal must be finite and not negative; unit %" PRId64 ", column %" PRId64 " has %g", unit,
               column, value);
      if (value > 0 && *first < 0) *first = unit;
    }
  return QD_OK;
}

static void grid_of_unit(qd_tensor diagonal, int64_t unit, int32_t *exponent) {
  int64_t columns = diagonal.dim[1];
  int largest = INT32_MIN;
  for (int64_t j = 0; j < columns; j++) {
    int e = INT32_MIN;
    if (at(diagonal, unit, j) > 0) (void)frexp(sqrt(at(diagonal, unit, j)), &e);
    exponent[j] = e;
    largest = e > largest ? e : largest;
  }
  for (int64_t j = 0; j < columns; j++)
    if (exponent[j] < largest - SPREAD) exponent[j] = largest - SPREAD;
}

/* How much all exponents must grow for column j, which has grown by `grown` already. */
static qd_status growth(qd_tensor diagonal, int64_t j, double bound, int32_t exponent, int *grown) {
  double total = 0;
  for (int64_t unit = 0; unit < diagonal.dim[0]; unit++) total = total + at(diagonal, unit, j);
  QD_CHECK(total <= DBL_MAX, QD_ENUMERIC, "the Hessian's diagonal overflows in column %" PRId64, j);
  while (total >= ldexp(bound, 2 * (exponent + *grown) - 42)) ++*grown;
  return QD_OK;
}

/* By algorithm: the cpu device calls this too. */
qd_status QD_REF(hessian_grid)(qd_device *device, qd_tensor diagonal, double bound, qd_tensor exponent) {
  (void)device;
  int32_t *e = exponent.data;
  int64_t unit, columns = diagonal.dim[1];
  int grown = 0;
  QD_TRY(first_unit(diagonal, &unit));
  for (int64_t j = 0; j < columns; j++) e[j] = 0;
  if (unit < 0) return QD_OK;
  grid_of_unit(diagonal, unit, e);
  for (int64_t j = 0; j < columns; j++) QD_TRY(growth(diagonal, j, bound, e[j], &grown));
  for (int64_t j = 0; j < columns; j++) e[j] += grown;
  return QD_OK;
}
