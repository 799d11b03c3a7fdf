#include "kernels/ops_table.h"

qd_status qd_cpu_hessian_grid(qd_device *device, qd_tensor diagonal, double bound, qd_tensor exponent) {
  return qd_ref_hessian_grid(device, diagonal, bound, exponent);
}
