#include "kernels/gemm_cpu.h"
#include "kernels/int8.h"
#include "kernels/ops_table.h"

/* The columns of x in stored order: once, so that packing reads along rows. */
qd_status qd_cpu_gather(qd_device *device, qd_tensor x, qd_tensor order, qd_tensor *out) {
  QD_TRY(qd_tensor_new_2d(&device->scratch, x.dtype, x.dim[0], x.dim[1], out));
  const int32_t *column = order.data;
  int64_t n = x.dim[1], stride = x.stride[1];
#pragma omp parallel for num_threads(device->threads) schedule(static)
  for (int64_t t = 0; t < x.dim[0]; t++) {
    const uint16_t *half = (const uint16_t *)x.data + t * x.stride[0];
    const float *full = (const float *)x.data + t * x.stride[0];
    uint16_t *half_out = (uint16_t *)out->data + t * n;
    float *full_out = (float *)out->data + t * n;
    if (x.dtype == QD_BF16)
      for (int64_t p = 0; p < n; p++) half_out[p] = half[column[p] * stride];
    else
      for (int64_t p = 0; p < n; p++) full_out[p] = full[column[p] * stride];
  }
  return QD_OK;
}

qd_status qd_cpu_qlinear(qd_device *device, qd_tensor x, const qd_qtensor *w, const qd_tensor *bias, qd_tensor y) {
  size_t mark = qd_arena_mark(&device->scratch);
  qd_status status = QD_OK;
  if (qd_qtensor_has_order(w)) QD_TRY_GOTO(status, done, qd_cpu_gather(device, x, w->order, &x));
  if (device->arithmetic == QD_ARITHMETIC_INT8) status = qd_cpu_int8_linear(device, x, w, bias, y);
  else qd_gemm_run(device, &(qd_gemm_product){.mode = QD_GEMM_SET, .a = x, .q = w, .bias = bias, .c = y});
done:
  qd_arena_rewind(&device->scratch, mark);
  return status;
}
