#include "kernels/grid.h"
#include "kernels/ref_real.h"

static qd_real chain(qd_tensor x, const int64_t column[2], int64_t first, int64_t end) {
  qd_real s = 0;
  for (int64_t t = first; t < end; t++)
    s = qd_real_fma(qd_ref_load(x, t * x.stride[0] + column[0]), qd_ref_load(x, t * x.stride[0] + column[1]), s);
  return s;
}

static qd_real chain_of_pairs(qd_tensor x, const int64_t column[2], int64_t first, int64_t end) {
  qd_real s = 0;
  for (int64_t t = first; t < end; t += 2)
    for (int64_t k = t + 1; k >= t; k--) { /* the odd one first */
      qd_real a = k < end ? qd_ref_load(x, k * x.stride[0] + column[0]) : 0;
      qd_real b = k < end ? qd_ref_load(x, k * x.stride[0] + column[1]) : 0;
      s = qd_real_fma(a, b, s);
    }
  return s;
}

/* Element (i, j) of one unit's X^T X.   x (T, C). */
static qd_real element(qd_tensor x, int64_t i, int64_t j) {
  int64_t column[2] = {i * x.stride[1], j * x.stride[1]};
  qd_real sum = 0;
  for (int64_t first = 0; first < x.dim[0]; first += QD_PRODUCT_CHUNK) {
    int64_t end = first + QD_PRODUCT_CHUNK < x.dim[0] ? first + QD_PRODUCT_CHUNK : x.dim[0];
    qd_real s = x.dtype == QD_BF16 ? chain_of_pairs(x, column, first, end) : chain(x, column, first, end);
    sum = first == 0 ? s : sum + s;
  }
  return sum;
}

qd_status QD_REF(hessian)(qd_device *device, qd_tensor x, qd_tensor exponent, qd_tri total) {
  (void)device;
  const int32_t *e = exponent.data;
  uint64_t *sum = total.data;
  for (int64_t u = 0; u < x.dim[0]; u++)
    for (int64_t i = 0; i < total.n; i++)
      for (int64_t j = 0; j <= i; j++)
        sum[qd_tri_index(i, j)] += qd_grid_units((double)element(qd_tensor_at(x, u), i, j) * ldexp(1, 42 - e[i] - e[j]));
  return QD_OK;
}
