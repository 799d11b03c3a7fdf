#include "kernels/scheme.h"

double qd_scheme_bits_per_weight(qd_scheme scheme, int64_t rows, int64_t columns, bool has_order) {
  double groups = (double)qd_scheme_groups(scheme, columns);
  double group_bits = 8.0 * (double)qd_dtype_bytes(scheme.scale_dtype) + (scheme.symmetric ? 0 : scheme.bits);
  double order_bits = has_order ? 32.0 / (double)rows : 0;
  return scheme.bits + groups * group_bits / (double)columns + order_bits;
}

qd_status qd_scheme_check(qd_scheme scheme) {
  QD_CHECK(scheme.bits >= QD_MIN_BITS && scheme.bits <= QD_MAX_BITS, QD_EINVAL, "bits must be %d to %d, got %d", QD_MIN_BITS,
           QD_MAX_BITS, scheme.bits);
  QD_CHECK(scheme.group_size == QD_PER_CHANNEL || scheme.group_size >= 1, QD_EINVAL,
           "the group size must be -1 (per channel) or at least 1, got %" PRId64, scheme.group_size);
  QD_CHECK(scheme.scale_dtype == QD_F16 || scheme.scale_dtype == QD_F32, QD_EINVAL, "scales are F16 or F32, not %s",
           qd_dtype_name(scheme.scale_dtype));
  return QD_OK;
}
