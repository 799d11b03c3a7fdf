#include "kernels/codes.h"
#include "kernels/ops_table.h"

/* A row of any stride, by runs. */
static void dequantize_strided(const qd_device *device, const qd_qtensor *q, int64_t row, qd_tensor w) {
  float run[QD_CODES_RUN];
  uint16_t *half = w.data;
  float *full = w.data;
  for (int64_t first = 0; first < q->columns; first += QD_CODES_RUN) {
    int64_t n = q->columns - first < QD_CODES_RUN ? q->columns - first : QD_CODES_RUN;
    QD_ISA_CALL(device, qd_codes_dequantize, (q, row, first, n, QD_F32, run));
    for (int64_t i = 0; i < n; i++) {
      int64_t index = row * w.stride[0] + (first + i) * w.stride[1];
      if (w.dtype == QD_BF16)
        half[index] = qd_bf16_from_f32(run[i]);
      else
        full[index] = run[i];
    }
  }
}

qd_status qd_cpu_dequant(qd_device *device, const qd_qtensor *q, qd_tensor w) {
#pragma omp parallel num_threads(device->threads)
  {
    qd_flush_denormals();
#pragma omp for schedule(static)
    for (int64_t r = 0; r < q->rows; r++) {
      unsigned char *row = (unsigned char *)w.data + (size_t)(r * w.stride[0]) * qd_dtype_bytes(w.dtype);
      if (w.stride[1] == 1)
        QD_ISA_CALL(device, qd_codes_dequantize, (q, r, 0, q->columns, w.dtype, row));
      else
        dequantize_strided(device, q, r, w);
    }
  }
  return QD_OK;
}
