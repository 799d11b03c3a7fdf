#include "kernels/scheme.h"

double qd_scheme_bits_per_weight(qd_scheme scheme, int64_t rows, int64_t columns, bool has_order) {
  double groups = (double)qd_scheme_groups(scheme, columns);
  double group_bits = 8.0 * (double)qd_dtype_bytes(scheme.scale_dtype) + (scheme.symmetric ? 0 : scheme.bits);
  double order_bits = has_order ? 32.0 / (double)rows : 0;
  return scheme.bits + groups * group_bits / (double)columns + order_bits;
}

double qd_scheme_formula_bits(qd_scheme scheme, double outlier_share) {
  double bits = scheme.bits + 32 * outlier_share, group = (double)scheme.group_size;
  if (scheme.group_size == QD_PER_CHANNEL) return bits;
  double scale = scheme.scale_bits > 0 ? scheme.scale_bits : 16, zero = scheme.zero_bits > 0 ? scheme.zero_bits : 16;
  if (scheme.round_zero) zero = scheme.bits;
  return bits + (scale + zero) / group + (scheme.round_zero ? 32 : 64) / (group * (double)scheme.stat_group);
}

static bool are_bits_of_a_statistic(int bits) { return bits == 0 || (bits >= QD_MIN_BITS && bits <= QD_MAX_BITS); }

static qd_status check_spqr(qd_scheme scheme) {
  QD_CHECK(are_bits_of_a_statistic(scheme.scale_bits), QD_EINVAL, "scales have 0 or %d to %d bits, got %d", QD_MIN_BITS,
           QD_MAX_BITS, scheme.scale_bits);
  QD_CHECK(are_bits_of_a_statistic(scheme.zero_bits), QD_EINVAL, "zero points have 0 or %d to %d bits, got %d", QD_MIN_BITS,
           QD_MAX_BITS, scheme.zero_bits);
  QD_CHECK(scheme.stat_group >= 1, QD_EINVAL, "statistics are shared by at least 1 row, got %" PRId64, scheme.stat_group);
  QD_CHECK(!scheme.mse, QD_EINVAL, "the grid of SpQR has no search for a clipping");
  return QD_OK;
}

qd_status qd_scheme_check(qd_scheme scheme) {
  QD_CHECK(scheme.bits >= QD_MIN_BITS && scheme.bits <= QD_MAX_BITS, QD_EINVAL, "bits must be %d to %d, got %d", QD_MIN_BITS,
           QD_MAX_BITS, scheme.bits);
  QD_CHECK(scheme.group_size == QD_PER_CHANNEL || scheme.group_size >= 1, QD_EINVAL,
           "the group size must be -1 (per channel) or at least 1, got %" PRId64, scheme.group_size);
  QD_CHECK(scheme.scale_dtype == QD_F16 || scheme.scale_dtype == QD_F32, QD_EINVAL, "scales are F16 or F32, not %s",
           qd_dtype_name(scheme.scale_dtype));
  if (scheme.spqr) QD_TRY(check_spqr(scheme));
  return QD_OK;
}
