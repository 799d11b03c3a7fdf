#include "kernels/forward_isa.h"
#include "kernels/ops_table.h"

qd_status qd_cpu_route(qd_device *device, const qd_route_args *args) {
#pragma omp parallel num_threads(device->threads)
  {
    float p[QD_MAX_EXPERTS];
    qd_flush_denormals();
#pragma omp for schedule(static)
    for (int64_t t = 0; t < args->logits.dim[0]; t++)
      QD_ISA_CALL(device, qd_route_row, (qd_tensor_at(args->logits, t).data, args->logits.dim[1], args, p, t));
  }
  return QD_OK;
}

static float weight_at(qd_tensor weight, int64_t n) {
  return weight.dtype == QD_BF16 ? qd_bf16_to_f32(((const uint16_t *)weight.data)[n]) : ((const float *)weight.data)[n];
}

/* Rows differ, so threads do not meet. */
qd_status qd_cpu_scatter_add(qd_device *device, qd_tensor y, qd_tensor weight, qd_tensor index, qd_tensor x) {
  const int32_t *row = index.data;
#pragma omp parallel num_threads(device->threads)
  {
    qd_flush_denormals();
#pragma omp for schedule(static)
    for (int64_t n = 0; n < y.dim[0]; n++) {
      void *to = qd_tensor_at(x, index.rank == 0 ? n : row[n]).data;
      QD_ISA_CALL(device, qd_scatter_row, (qd_tensor_at(y, n).data, weight_at(weight, n), to, x.dtype, x.dim[1]));
    }
  }
  return QD_OK;
}

qd_status qd_cpu_sigmoid(qd_device *device, qd_tensor x, qd_tensor y) {
  QD_ISA_CALL(device, qd_sigmoid_row, (x.data, y.data, y.dtype, x.dim[0]));
  return QD_OK;
}
