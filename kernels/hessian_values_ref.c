#include "kernels/ref_real.h"

/* Whole tiles are written: what lies outside the lower triangle becomes zero.  `total` and `h` may be the same memory. */
qd_status QD_REF(hessian_values)(qd_device *device, qd_tri total, qd_tensor exponent, qd_tri h) {
  (void)device;
  const int64_t *from = total.data;
  const int32_t *e = exponent.data;
  int64_t side = (h.n + QD_TRI_TILE - 1) / QD_TRI_TILE;
  for (int64_t ti = 0; ti < side; ti++)
    for (int64_t j = 0; j < (ti + 1) * QD_TRI_TILE; j++)
      for (int64_t i = ti * QD_TRI_TILE; i < (ti + 1) * QD_TRI_TILE; i++) {
        size_t at = qd_tri_index(i, j);
        double value = i < h.n && j <= i ? (double)from[at] * ldexp(1, e[i] + e[j] - 42) : 0;
        if (h.dtype == QD_F64) ((double *)h.data)[at] = value;
        else ((float *)h.data)[at] = (float)value;
      }
  return QD_OK;
}
