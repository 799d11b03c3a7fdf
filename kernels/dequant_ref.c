#include "kernels/ref_real.h"

static int code_at(const qd_qtensor *q, int64_t r, int64_t p) {
  const uint8_t *row = (const uint8_t *)q->codes.data + r * q->codes.stride[0];
  int code = 0;
  for (int bit = 0; bit < q->scheme.bits; bit++) {
    int64_t place = p * q->scheme.bits + bit;
    code |= ((row[place / 8] >> (place % 8)) & 1) << bit;
  }
  return code;
}

static qd_real scale_at(const qd_qtensor *q, int64_t r, int64_t g) {
  int64_t index = r * q->scales.stride[0] + g;
  if (q->scales.dtype == QD_F16) return (qd_real)qd_f16_to_f32(((const uint16_t *)q->scales.data)[index]);
  return (qd_real)((const float *)q->scales.data)[index];
}

static int zero_at(const qd_qtensor *q, int64_t r, int64_t g) {
  if (q->zeros.rank == 0) return 1 << (q->scheme.bits - 1);
  return ((const uint8_t *)q->zeros.data)[r * q->zeros.stride[0] + g];
}

qd_status QD_REF(dequant)(qd_device *device, const qd_qtensor *q, qd_tensor w) {
  (void)device;
  int64_t size = qd_scheme_group_size(q->scheme, q->columns);
  for (int64_t r = 0; r < q->rows; r++)
    for (int64_t p = 0; p < q->columns; p++) {
      qd_real value = scale_at(q, r, p / size) * (qd_real)(code_at(q, r, p) - zero_at(q, r, p / size));
      qd_ref_store(w, r * w.stride[0] + p * w.stride[1], value);
    }
  return QD_OK;
}
