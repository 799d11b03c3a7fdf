/* The arithmetic int8 of products with quantized weights (the sentence is qd_qlinear's in ops.h), under qlinear and panels. */
#ifndef QDIST_KERNELS_INT8_H
#define QDIST_KERNELS_INT8_H

#include "kernels/ops.h"

#include <math.h>

enum { QD_INT8_LARGEST = 127 };

static inline int64_t qd_int8_runs(int64_t columns) { return (columns + QD_INT8_RUN - 1) / QD_INT8_RUN; }

/* a of one run of n <= QD_INT8_RUN activations; returns its s_a. */
static inline float qd_int8_round_run(const float *x, int64_t n, int8_t *a) {
  float top = 0, most = QD_INT8_LARGEST;
  bool finite = true;
  for (int64_t i = 0; i < n; i++) {
    finite = finite && isfinite(x[i]);
    top = fabsf(x[i]) > top ? fabsf(x[i]) : top;
  }
  float scale = finite ? top / most : NAN;
  for (int64_t i = 0; i < n; i++) a[i] = scale > 0 ? (int8_t)fmaxf(fminf(rintf(x[i] / scale), most), -most) : 0;
  return scale;
}

/* x in stored order (T, C), y F32 (T, R), as they come from qd_qlinear's checks.  QD_ENOMEM: scratch. */
qd_status qd_ref_int8_linear(qd_device *device, qd_tensor x, const qd_qtensor *w, const qd_tensor *bias,
                             qd_tensor y) QD_MUST_USE;
qd_status qd_ref64_int8_linear(qd_device *device, qd_tensor x, const qd_qtensor *w, const qd_tensor *bias,
                               qd_tensor y) QD_MUST_USE;
qd_status qd_cpu_int8_linear(qd_device *device, qd_tensor x, const qd_qtensor *w, const qd_tensor *bias,
                             qd_tensor y) QD_MUST_USE;

/* Scratch of the cpu device's products with so many tokens, with panels and without, beside the gathered x. */
size_t qd_cpu_int8_scratch(const qd_device *device, int64_t tokens, int64_t rows, int64_t columns);

/* Scratch of the plain loops: one token's a and s_a. */
static inline size_t qd_ref_int8_scratch(int64_t columns) {
  return qd_arena_cost((size_t)columns, sizeof(int8_t)) + qd_arena_cost((size_t)qd_int8_runs(columns), sizeof(float));
}

/* The cpu device's panels: bytes of them without order and outliers, making (order and outliers are there) and multiplying. */
size_t    qd_cpu_int8_panels_bytes(const qd_device *device, int64_t rows, int64_t columns, qd_scheme scheme);
qd_status qd_cpu_int8_panels(qd_device *device, qd_arena *arena, const qd_qtensor *q, qd_panels *out) QD_MUST_USE;
qd_status qd_cpu_int8_panels_linear(qd_device *device, qd_tensor x, const qd_panels *w, const qd_tensor *bias,
                                    qd_tensor y) QD_MUST_USE;

#endif
