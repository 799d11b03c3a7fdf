#include "kernels/lanes_ref.h"

static void norm_row(qd_tensor x, qd_tensor w, double eps, qd_tensor y, int64_t t) {
  int64_t columns = x.dim[1], xt = t * x.stride[0], yt = t * y.stride[0];
  double lane[QD_LANES] = {0};
  for (int64_t i = 0; i < columns; i++) {
    double value = qd_ref_load(x, xt + i);
    lane[i % QD_LANES] += value * value;
  }
  double mean = qd_ref_lanes_total_double(lane) / (double)columns;
  qd_real r = (qd_real)(1 / sqrt(mean + eps));
  for (int64_t i = 0; i < columns; i++) {
    qd_real normed = qd_ref_round(qd_ref_load(x, xt + i) * r, x.dtype);
    qd_ref_store(y, yt + i, normed * qd_ref_load(w, i));
  }
}

qd_status QD_REF(rmsnorm)(qd_device *device, qd_tensor x, qd_tensor w, double eps, qd_tensor y) {
  (void)device;
  for (int64_t t = 0; t < x.dim[0]; t++) norm_row(x, w, eps, y, t);
  return QD_OK;
}
