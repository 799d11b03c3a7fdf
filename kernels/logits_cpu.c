#include "kernels/forward_isa.h"
#include "kernels/ops_table.h"

qd_status qd_cpu_nll(qd_device *device, qd_tensor logits, qd_tensor target, qd_tensor nll) {
  const int32_t *wanted = target.data;
  double *out = nll.data;
#pragma omp parallel num_threads(device->threads)
  {
    qd_flush_denormals();
#pragma omp for schedule(static)
    for (int64_t t = 0; t < logits.dim[0]; t++)
      out[t] = QD_ISA_CALL(device, qd_nll_row, (qd_tensor_at(logits, t).data, logits.dim[1], wanted[t]));
  }
  return QD_OK;
}

qd_status qd_cpu_kl(qd_device *device, qd_tensor p, qd_tensor q, qd_tensor kl, qd_tensor same) {
  double *out = kl.data;
  int32_t *equal = same.data;
#pragma omp parallel num_threads(device->threads)
  {
    qd_flush_denormals();
#pragma omp for schedule(static)
    for (int64_t t = 0; t < p.dim[0]; t++)
      out[t] = QD_ISA_CALL(device, qd_kl_row, (qd_tensor_at(p, t).data, qd_tensor_at(q, t).data, p.dim[1], &equal[t]));
  }
  return QD_OK;
}
