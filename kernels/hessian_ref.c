#include "kernels/chain_ref.h"
#include "kernels/grid.h"

/* Element (i, j) of one unit's X^T X.   x (T, C). */
static qd_real element(qd_ref_order order, qd_tensor x, int64_t i, int64_t j) {
  qd_real sum = 0;
  for (int64_t t = 0; t < x.dim[0]; t += QD_PRODUCT_CHUNK) {
    int64_t at = t * x.stride[0], n = x.dim[0] - t < QD_PRODUCT_CHUNK ? x.dim[0] - t : QD_PRODUCT_CHUNK;
    qd_real s = qd_ref_chain(order, (qd_ref_operand){x, at + i * x.stride[1], x.stride[0], n},
                             (qd_ref_operand){x, at + j * x.stride[1], x.stride[0], n});
    sum = t == 0 ? s : sum + s;
  }
  return sum;
}

qd_status QD_REF(hessian)(qd_device *device, qd_tensor x, qd_tensor exponent, qd_tri total) {
  qd_ref_order order = qd_ref_order_of(device, x.dtype);
  const int32_t *e = exponent.data;
  uint64_t *sum = total.data;
  for (int64_t u = 0; u < x.dim[0]; u++)
    for (int64_t i = 0; i < total.n; i++)
      for (int64_t j = 0; j <= i; j++)
        sum[qd_tri_index(i, j)] +=
            qd_grid_units((double)element(order, qd_tensor_at(x, u), i, j) * ldexp(1, 42 - e[i] - e[j]));
  return QD_OK;
}
