/* Element types and their exact conversions. */
#ifndef QDIST_KERNELS_BASE_DTYPE_H
#define QDIST_KERNELS_BASE_DTYPE_H

#include "kernels/base/status.h"

#include <string.h>

/*    code     name    bytes */
#define QD_DTYPE_LIST(X) \
  X(QD_F32,  "F32",  4)  \
  X(QD_F16,  "F16",  2)  \
  X(QD_BF16, "BF16", 2)  \
  X(QD_F64,  "F64",  8)  \
  X(QD_U8,   "U8",   1)  \
  X(QD_U16,  "U16",  2)  \
  X(QD_I32,  "I32",  4)  \
  X(QD_I64,  "I64",  8)

typedef enum qd_dtype {
#define QD_DTYPE_CODE(code, name, bytes) code,
  QD_DTYPE_LIST(QD_DTYPE_CODE)
#undef QD_DTYPE_CODE
} qd_dtype;

const char *qd_dtype_name(qd_dtype dtype);
size_t      qd_dtype_bytes(qd_dtype dtype);
bool        qd_dtype_find(const char *name, qd_dtype *out); /* by the names above */

/* Bits of one number.  To bf16 and fp16: round to nearest even; an overflow becomes Inf, a NaN stays a NaN. */
static inline float qd_bf16_to_f32(uint16_t bits) {
  uint32_t wide = (uint32_t)bits << 16;
  float value;
  memcpy(&value, &wide, sizeof value);
  return value;
}

static inline uint16_t qd_bf16_from_f32(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return (uint16_t)((bits >> 16) | 0x40u);
  return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

float    qd_f16_to_f32(uint16_t bits);
uint16_t qd_f16_from_f32(float value);

static inline float qd_round_bf16(float value) { return qd_bf16_to_f32(qd_bf16_from_f32(value)); }

/* n elements of F32, F16 or BF16 to fp32, exactly; or to bf16 (rounded once, through fp32). */
void qd_widen(const void *from, qd_dtype dtype, float *to, size_t n);
void qd_narrow_bf16(const void *from, qd_dtype dtype, uint16_t *to, size_t n);

#endif
