/* Reference loops are written once over qd_real and compiled twice: as device `ref` (fp32, the specification to the bit) and,
 * with QD_REAL64, as `ref64` (everything in double; test builds).  Where an op's contract says F32, ref64 takes and gives F64
 * ("act" too). */
#ifndef QDIST_KERNELS_REF_REAL_H
#define QDIST_KERNELS_REF_REAL_H

#include "kernels/ops_table.h"

#include <math.h>

#ifdef QD_REAL64
typedef double qd_real;
#define QD_REF(name) qd_ref64_##name
#define QD_REAL_DTYPE QD_F64
#define qd_real_fma fma
#define qd_real_sqrt sqrt
#define qd_real_rint rint
#define qd_real_fabs fabs
#else
typedef float qd_real;
#define QD_REF(name) qd_ref_##name
#define QD_REAL_DTYPE QD_F32
#define qd_real_fma fmaf
#define qd_real_sqrt sqrtf
#define qd_real_rint rintf
#define qd_real_fabs fabsf
#endif

/* Element at `index` (in elements) of an act or real tensor; and the rounding of a value to the tensor's dtype on storing. */
static inline qd_real qd_ref_load(qd_tensor t, int64_t index) {
  if (t.dtype == QD_BF16) return (qd_real)qd_bf16_to_f32(((const uint16_t *)t.data)[index]);
  if (t.dtype == QD_F64) return (qd_real)((const double *)t.data)[index];
  return (qd_real)((const float *)t.data)[index];
}

static inline void qd_ref_store(qd_tensor t, int64_t index, qd_real value) {
  if (t.dtype == QD_BF16) ((uint16_t *)t.data)[index] = qd_bf16_from_f32((float)value);
  else if (t.dtype == QD_F64) ((double *)t.data)[index] = (double)value;
  else ((float *)t.data)[index] = (float)value;
}

static inline qd_real qd_ref_round(qd_real value, qd_dtype dtype) {
  return dtype == QD_BF16 ? (qd_real)qd_round_bf16((float)value) : value;
}

#endif
