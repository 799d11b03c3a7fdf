#include "kernels/forward_isa.h"
#include "kernels/rows_isa.h"
#include "kernels/vecmath.h"

void QD_ISA(qd_swiglu_row)(const void *gate, const void *up, void *y, qd_dtype dtype, int64_t n) {
  float g[QD_PIECE], u[QD_PIECE];
  for (int64_t at = 0; at < n; at += QD_PIECE) {
    int64_t size = qd_piece(at, n);
    qd_piece_load(gate, dtype, at, size, g);
    qd_piece_load(up, dtype, at, size, u);
    for (int64_t i = 0; i < size; i++) u[i] *= g[i] / (1.0f + qd_vm_expf(-g[i]));
    qd_piece_store(y, dtype, at, size, u);
  }
}

void QD_ISA(qd_add_row)(const void *a, const void *b, void *y, qd_dtype dtype, int64_t n) {
  float s[QD_PIECE], t[QD_PIECE];
  for (int64_t at = 0; at < n; at += QD_PIECE) {
    int64_t size = qd_piece(at, n);
    qd_piece_load(a, dtype, at, size, s);
    qd_piece_load(b, dtype, at, size, t);
    for (int64_t i = 0; i < size; i++) s[i] += t[i];
    qd_piece_store(y, dtype, at, size, s);
  }
}

void QD_ISA(qd_subtract_row)(const void *a, const void *b, float *y, qd_dtype dtype, int64_t n) {
  float t[QD_PIECE];
  for (int64_t at = 0; at < n; at += QD_PIECE) {
    int64_t size = qd_piece(at, n);
    qd_piece_load(a, dtype, at, size, y + at);
    qd_piece_load(b, dtype, at, size, t);
    for (int64_t i = 0; i < size; i++) y[at + i] -= t[i];
  }
}

/* A number is not finite when all bits of its exponent are set. */
static bool any_16(const uint16_t *x, uint16_t exponent, int64_t n) {
  uint16_t found = 0;
  for (int64_t i = 0; i < n; i++) found |= (uint16_t)((x[i] & exponent) == exponent);
  return found != 0;
}

static bool any_32(const uint32_t *x, uint32_t exponent, int64_t n) {
  uint32_t found = 0;
  for (int64_t i = 0; i < n; i++) found |= (uint32_t)((x[i] & exponent) == exponent);
  return found != 0;
}

static bool any_nonfinite(const void *x, qd_dtype dtype, int64_t at, int64_t n) {
  if (dtype == QD_F32) return any_32((const uint32_t *)x + at, 0x7f800000u, n);
  return any_16((const uint16_t *)x + at, dtype == QD_BF16 ? 0x7f80u : 0x7c00u, n);
}

int64_t QD_ISA(qd_nonfinite_row)(const void *x, qd_dtype dtype, int64_t n) {
  for (int64_t at = 0; at < n; at += QD_PIECE) {
    int64_t size = qd_piece(at, n);
    if (!any_nonfinite(x, dtype, at, size)) continue;
    while (!any_nonfinite(x, dtype, at, 1)) at++;
    return at;
  }
  return -1;
}
