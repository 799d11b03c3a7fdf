#include "kernels/ref_real.h"

qd_status QD_REF(dequant)(qd_device *device, const qd_qtensor *q, qd_tensor w) {
  (void)device;
  int64_t size = qd_scheme_group_size(q->scheme, q->columns);
  for (int64_t r = 0; r < q->rows; r++) {
    for (int64_t p = 0; p < q->columns; p++) {
      qd_real scale = (qd_real)qd_qtensor_scale(q, r, p / size), zero = (qd_real)qd_qtensor_zero(q, r, p / size);
      qd_ref_store(w, r * w.stride[0] + p * w.stride[1], scale * ((qd_real)qd_qtensor_code(q, r, p) - zero));
    }
    const int32_t *outliers = q->scheme.spqr ? (const int32_t *)q->outlier_rows.data + r : (const int32_t[]){0, 0};
    for (int64_t i = outliers[0]; i < outliers[1]; i++)
      qd_ref_store(w, r * w.stride[0] + qd_qtensor_outlier_column(q, i) * w.stride[1],
                   (qd_real)qd_f16_to_f32(((const uint16_t *)q->outlier_values.data)[i]));
  }
  return QD_OK;
}
