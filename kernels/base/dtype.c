#include "kernels/base/dtype.h"

const char *qd_dtype_name(qd_dtype dtype) {
  switch (dtype) {
#define QD_DTYPE_CASE(code, name, bytes) \
  case code: return name;
    QD_DTYPE_LIST(QD_DTYPE_CASE)
#undef QD_DTYPE_CASE
  }
  return "unknown dtype";
}

size_t qd_dtype_bytes(qd_dtype dtype) {
  switch (dtype) {
#define QD_DTYPE_CASE(code, name, bytes) \
  case code: return bytes;
    QD_DTYPE_LIST(QD_DTYPE_CASE)
#undef QD_DTYPE_CASE
  }
  return 0;
}

bool qd_dtype_find(const char *name, qd_dtype *out) {
#define QD_DTYPE_MATCH(code, code_name, bytes) \
  if (strcmp(name, code_name) == 0) return *out = code, true;
  QD_DTYPE_LIST(QD_DTYPE_MATCH)
#undef QD_DTYPE_MATCH
  return false;
}

/* Done on the bits, not by a multiplication: the result must not depend on whether denormals are flushed. */
float qd_f16_to_f32(uint16_t bits) {
  uint32_t sign = (uint32_t)(bits & 0x8000u) << 16, exponent = (bits >> 10) & 0x1fu, mantissa = bits & 0x3ffu, wide;
  if (exponent == 31) wide = sign | 0x7f800000u | mantissa << 13;
  else if (exponent != 0) wide = sign | (exponent + 112) << 23 | mantissa << 13;
  else if (mantissa == 0) wide = sign;
  else {
    exponent = 113;
    while (!(mantissa & 0x400u)) mantissa <<= 1, exponent--;
    wide = sign | exponent << 23 | (mantissa & 0x3ffu) << 13;
  }
  float value;
  memcpy(&value, &wide, sizeof value);
  return value;
}

uint16_t qd_f16_from_f32(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  uint16_t sign = (uint16_t)((bits >> 16) & 0x8000u);
  uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return (uint16_t)(sign | 0x7e00u);
  if (magnitude >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u); /* 65520 and up round to Inf */
  if (magnitude >= 0x38800000u) {                                  /* normal in fp16 */
    uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u);
    return (uint16_t)(sign | ((rounded - 0x38000000u) >> 13));
  }
  if (magnitude < 0x33000000u) return sign; /* below half of the smallest denormal */
  uint32_t shift = 126 - (magnitude >> 23), mantissa = (magnitude & 0x7fffffu) | 0x800000u;
  uint32_t kept = mantissa >> shift, rest = mantissa & ((1u << shift) - 1), half = 1u << (shift - 1);
  return (uint16_t)(sign | (kept + (rest > half || (rest == half && (kept & 1u)))));
}

void qd_widen(const void *from, qd_dtype dtype, float *to, size_t n) {
  QD_ASSERT(dtype == QD_F32 || dtype == QD_F16 || dtype == QD_BF16);
  const uint16_t *half = from;
  if (dtype == QD_F32) memmove(to, from, n * sizeof *to);
  else if (dtype == QD_BF16) for (size_t i = 0; i < n; i++) to[i] = qd_bf16_to_f32(half[i]);
  else for (size_t i = 0; i < n; i++) to[i] = qd_f16_to_f32(half[i]);
}

void qd_narrow_bf16(const void *from, qd_dtype dtype, uint16_t *to, size_t n) {
  QD_ASSERT(dtype == QD_F32 || dtype == QD_F16 || dtype == QD_BF16);
  const uint16_t *half = from;
  const float *wide = from;
  if (dtype == QD_BF16) memmove(to, from, n * sizeof *to);
  else if (dtype == QD_F32) for (size_t i = 0; i < n; i++) to[i] = qd_bf16_from_f32(wide[i]);
  else for (size_t i = 0; i < n; i++) to[i] = qd_bf16_from_f32(qd_f16_to_f32(half[i]));
}
