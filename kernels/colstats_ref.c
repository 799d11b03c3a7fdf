#include "kernels/ref_real.h"

qd_status QD_REF(colstats)(qd_device *device, qd_tensor x, qd_tensor stats) {
  (void)device;
  double *out = stats.data;
  for (int64_t c = 0; c < x.dim[1]; c++) {
    double sum = 0, squares = 0, largest = 0;
    for (int64_t t = 0; t < x.dim[0]; t++) {
      double value = (double)qd_ref_load(x, t * x.stride[0] + c * x.stride[1]);
      sum = sum + value;
      squares = fma(value, value, squares);
      largest = fabs(value) > largest ? fabs(value) : largest;
    }
    out[c * stats.stride[1]] = sum;
    out[stats.stride[0] + c * stats.stride[1]] = squares;
    out[2 * stats.stride[0] + c * stats.stride[1]] = largest;
  }
  return QD_OK;
}
