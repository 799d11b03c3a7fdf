#include "kernels/ref_real.h"

static qd_real h_at(qd_tri h, int64_t i, int64_t j) {
  size_t at = qd_tri_index(i, j);
  return h.dtype == QD_F64 ? (qd_real)((const double *)h.data)[at] : (qd_real)((const float *)h.data)[at];
}

/* Product over the columns of i's tile row of x_j H_ij, H_ij = 0 from the diagonal on. */
static qd_real below_diagonal(qd_tensor x, qd_tri h, int64_t r, int64_t i) {
  int64_t end = (i / QD_TRI_TILE + 1) * QD_TRI_TILE < h.n ? (i / QD_TRI_TILE + 1) * QD_TRI_TILE : h.n;
  qd_real sum = 0;
  for (int64_t first = 0; first < end; first += QD_TRI_TILE) {
    qd_real s = 0;
    for (int64_t j = first; j < end && j < first + QD_TRI_TILE; j++)
      s = qd_real_fma(qd_ref_load(x, r * x.stride[0] + j * x.stride[1]), j < i ? h_at(h, i, j) : 0, s);
    sum = first == 0 ? s : sum + s;
  }
  return sum;
}

qd_status QD_REF(sqerror)(qd_device *device, qd_tensor x, qd_tri h, qd_tensor value) {
  (void)device;
  for (int64_t r = 0; r < x.dim[0]; r++) {
    double v = 0;
    for (int64_t i = 0; i < h.n; i++) {
      double xi = (double)qd_ref_load(x, r * x.stride[0] + i * x.stride[1]);
      v = v + xi * (2 * (double)below_diagonal(x, h, r, i) + (double)h_at(h, i, i) * xi);
    }
    ((double *)value.data)[r * value.stride[0]] = v;
  }
  return QD_OK;
}
