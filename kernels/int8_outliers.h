/* SpQR's outliers beside int8 products on the cpu device: each row's chain in fp32, added to what its codes gave. */
#ifndef QDIST_KERNELS_INT8_OUTLIERS_H
#define QDIST_KERNELS_INT8_OUTLIERS_H

#include "kernels/int8.h"

bool qd_int8_has_outliers(const qd_qtensor *q);

/* y += outliers, + bias (or NULL). */
typedef struct qd_int8_addition {
  qd_tensor x; /* in stored order */
  const qd_qtensor *q;
  const qd_panels *panels; /* of q, where it has any; else NULL */
  const qd_tensor *bias;
  qd_tensor y;
} qd_int8_addition;

/* Work from the device's scratch. */
typedef struct qd_int8_outlier_room {
  float *steps;  /* of some rows */
  float *tokens; /* 16 of them by columns, for each thread */
} qd_int8_outlier_room;
qd_status qd_cpu_int8_outlier_room(qd_device *device, int64_t columns, qd_int8_outlier_room *out) QD_MUST_USE;
size_t qd_cpu_int8_outlier_scratch(const qd_device *device, int64_t columns);

void qd_cpu_int8_add_outliers(qd_device *device, const qd_int8_addition *a, qd_int8_outlier_room room);

/* What panels keep for it: memory that qd_panels_outlier_bytes has announced. */
qd_status qd_cpu_int8_keep_outliers(qd_device *device, qd_arena *arena, const qd_qtensor *q, qd_panels *out) QD_MUST_USE;

#endif
