#include "kernels/forward_isa.h"
#include "kernels/ops_table.h"

qd_status qd_cpu_rmsnorm(qd_device *device, qd_tensor x, qd_tensor w, double eps, qd_tensor y) {
#pragma omp parallel num_threads(device->threads)
  {
    qd_flush_denormals();
#pragma omp for schedule(static)
    for (int64_t t = 0; t < x.dim[0]; t++)
      QD_ISA_CALL(device, qd_rmsnorm_row,
                  (qd_tensor_at(x, t).data, w.data, eps, qd_tensor_at(y, t).data, x.dtype, x.dim[1]));
  }
  return QD_OK;
}
