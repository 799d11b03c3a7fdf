#include "kernels/gemm_cpu.h"
#include "kernels/ops_table.h"

qd_status qd_cpu_matmul(qd_device *device, qd_tensor a, qd_tensor b, bool accumulate, qd_tensor c) {
  qd_gemm(device, accumulate ? QD_GEMM_ADD : QD_GEMM_SET, a, b, c);
  return QD_OK;
}

qd_status qd_cpu_linear(qd_device *device, qd_tensor x, qd_tensor w, const qd_tensor *bias, qd_tensor y) {
  qd_gemm_run(device, &(qd_gemm_product){.mode = QD_GEMM_SET, .a = x, .b = w, .bias = bias, .c = y});
  return QD_OK;
}
