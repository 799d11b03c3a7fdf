#include "kernels/chain_ref.h"

static double chain_f64(qd_tensor a, int64_t at, qd_tensor b, int64_t bt, int64_t n) {
  const double *x = (const double *)a.data + at, *y = (const double *)b.data + bt;
  double s = 0;
  for (int64_t k = 0; k < n; k++) s = fma(x[k * a.stride[1]], y[k * b.stride[0]], s);
  return s;
}

static int64_t chunk_size(int64_t k, int64_t n) { return n - k < QD_PRODUCT_CHUNK ? n - k : QD_PRODUCT_CHUNK; }

/* Product of row i of a and column j of b, or with `onto` c = c + chain for every chunk. */
static qd_real element(qd_ref_order order, qd_tensor a, int64_t i, qd_tensor b, int64_t j, const qd_real *onto) {
  qd_real c = onto ? *onto : 0;
  for (int64_t k = 0; k < a.dim[1]; k += QD_PRODUCT_CHUNK) {
    int64_t at = i * a.stride[0] + k * a.stride[1], bt = k * b.stride[0] + j * b.stride[1], n = chunk_size(k, a.dim[1]);
    qd_real s = qd_ref_chain(order, (qd_ref_operand){a, at, a.stride[1], n}, (qd_ref_operand){b, bt, b.stride[0], n});
    c = k == 0 && !onto ? s : c + s;
  }
  return c;
}

static double element_f64(qd_tensor a, int64_t i, qd_tensor b, int64_t j, const double *onto) {
  double c = onto ? *onto : 0;
  for (int64_t k = 0; k < a.dim[1]; k += QD_PRODUCT_CHUNK) {
    int64_t at = i * a.stride[0] + k * a.stride[1], bt = k * b.stride[0] + j * b.stride[1];
    double s = chain_f64(a, at, b, bt, chunk_size(k, a.dim[1]));
    c = k == 0 && !onto ? s : c + s;
  }
  return c;
}

qd_status QD_REF(matmul)(qd_device *device, qd_tensor a, qd_tensor b, bool accumulate, qd_tensor c) {
  qd_ref_order order = qd_ref_order_of(device, a.dtype);
  for (int64_t i = 0; i < c.dim[0]; i++)
    for (int64_t j = 0; j < c.dim[1]; j++) {
      int64_t index = i * c.stride[0] + j;
      if (c.dtype == QD_F64) {
        double *out = (double *)c.data + index;
        *out = element_f64(a, i, b, j, accumulate ? out : NULL);
      } else {
        qd_real old = accumulate ? qd_ref_load(c, index) : 0;
        qd_ref_store(c, index, element(order, a, i, b, j, accumulate ? &old : NULL));
      }
    }
  return QD_OK;
}

qd_status QD_REF(linear)(qd_device *device, qd_tensor x, qd_tensor w, const qd_tensor *bias, qd_tensor y) {
  qd_ref_order order = qd_ref_order_of(device, x.dtype);
  qd_tensor b = qd_tensor_transposed(w);
  for (int64_t i = 0; i < y.dim[0]; i++)
    for (int64_t j = 0; j < y.dim[1]; j++) {
      qd_real sum = element(order, x, i, b, j, NULL);
      if (bias) sum += qd_ref_load(*bias, j * bias->stride[0]);
      qd_ref_store(y, i * y.stride[0] + j, sum);
    }
  return QD_OK;
}
