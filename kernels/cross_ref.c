#include "kernels/grid.h"
#include "kernels/ref_real.h"

static int64_t index_of(qd_tensor x, int64_t t, int64_t column) { return t * x.stride[0] + column * x.stride[1]; }

/* Element (i, j) of one unit's (original - x)^T x.   both (T, C). */
static qd_real element(qd_tensor original, qd_tensor x, int64_t i, int64_t j) {
  qd_real sum = 0;
  for (int64_t first = 0; first < x.dim[0]; first += QD_PRODUCT_CHUNK) {
    int64_t end = first + QD_PRODUCT_CHUNK < x.dim[0] ? first + QD_PRODUCT_CHUNK : x.dim[0];
    qd_real s = 0;
    for (int64_t t = first; t < end; t++) {
      qd_real d = qd_ref_load(original, index_of(original, t, i)) - qd_ref_load(x, index_of(x, t, i));
      s = qd_real_fma(d, qd_ref_load(x, index_of(x, t, j)), s);
    }
    sum = first == 0 ? s : sum + s;
  }
  return sum;
}

qd_status QD_REF(cross)(qd_device *device, const qd_cross_args *args) {
  (void)device;
  const int32_t *f = args->row_exponent.data, *e = args->column_exponent.data;
  uint64_t *sum = args->total.data;
  for (int64_t u = 0; u < args->x.dim[0]; u++) {
    qd_tensor original = qd_tensor_at(args->original, u), x = qd_tensor_at(args->x, u);
    for (int64_t r = 0; r < args->total.dim[0]; r++)
      for (int64_t j = 0, i = args->first + r; j < args->total.dim[1]; j++)
        sum[r * args->total.stride[0] + j] += qd_grid_units((double)element(original, x, i, j) * ldexp(1, 42 - f[i] - e[j]));
  }
  return QD_OK;
}

qd_status QD_REF(cross_values)(qd_device *device, qd_tensor total, qd_tensor row_exponent, qd_tensor column_exponent,
                               qd_tensor values) {
  (void)device;
  const int32_t *f = row_exponent.data, *e = column_exponent.data;
  const int64_t *from = total.data;
  for (int64_t i = 0; i < total.dim[0]; i++)
    for (int64_t j = 0; j < total.dim[1]; j++)
      qd_ref_store(values, i * values.stride[0] + j,
                   (qd_real)((double)from[i * total.stride[0] + j] * ldexp(1, f[i] + e[j] - 42)));
  return QD_OK;
}
