#include "kernels/forward_isa.h"
#include "kernels/ops_table.h"

qd_status qd_cpu_rope_table(qd_device *device, qd_tensor frequency, int64_t first, double factor, qd_tensor cosine,
                            qd_tensor sine) {
#pragma omp parallel num_threads(device->threads)
  {
    qd_flush_denormals();
#pragma omp for schedule(static)
    for (int64_t t = 0; t < cosine.dim[0]; t++)
      QD_ISA_CALL(device, qd_rope_table_row, (frequency.data, (double)(first + t), factor, qd_tensor_at(cosine, t).data,
                                              qd_tensor_at(sine, t).data, frequency.dim[0]));
  }
  return QD_OK;
}

qd_status qd_cpu_rope(qd_device *device, qd_tensor x, qd_tensor cosine, qd_tensor sine) {
#pragma omp parallel num_threads(device->threads)
  {
    qd_flush_denormals();
#pragma omp for schedule(static)
    for (int64_t t = 0; t < x.dim[0]; t++)
      for (int64_t h = 0; h < x.dim[1]; h++)
        QD_ISA_CALL(device, qd_rope_row, (qd_tensor_at(qd_tensor_at(x, t), h).data, qd_tensor_at(cosine, t).data,
                                          qd_tensor_at(sine, t).data, x.dtype, x.dim[2] / 2));
  }
  return QD_OK;
}
