#include "kernels/forward_isa.h"
#include "kernels/rows_isa.h"
#include "kernels/vecmath.h"

void QD_ISA(qd_rope_table_row)(const double *frequency, double position, double factor, float *restrict cosine,
                               float *restrict sine, int64_t n) {
  for (int64_t i = 0; i < n; i++) {
    double s, c;
    qd_vm_sincos(position * frequency[i], &s, &c);
    cosine[i] = (float)(c * factor);
    sine[i] = (float)(s * factor);
  }
}

void QD_ISA(qd_rope_row)(void *x, const float *cosine, const float *sine, qd_dtype dtype, int64_t half) {
  float a[QD_PIECE], b[QD_PIECE], ra[QD_PIECE], rb[QD_PIECE];
  for (int64_t at = 0; at < half; at += QD_PIECE) {
    int64_t size = qd_piece(at, half);
    const float *c = cosine + at, *s = sine + at;
    qd_piece_load(x, dtype, at, size, a);
    qd_piece_load(x, dtype, half + at, size, b);
    for (int64_t i = 0; i < size; i++) {
      ra[i] = fmaf(a[i], c[i], -(b[i] * s[i]));
      rb[i] = fmaf(b[i], c[i], a[i] * s[i]);
    }
    qd_piece_store(x, dtype, at, size, ra);
    qd_piece_store(x, dtype, half + at, size, rb);
  }
}
