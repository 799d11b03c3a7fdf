/* Sixteen rows side by side, in a *_isa.c file: one AVX-512 register, two of AVX2, or a loop.  All is correctly rounded. */
#ifndef QDIST_KERNELS_ROWS16_H
#define QDIST_KERNELS_ROWS16_H

#include <math.h>
#include <stdint.h>

#if defined(__AVX512F__)
#include <immintrin.h>

typedef __m512 v16;

static inline v16 v16_load(const float *x) { return _mm512_loadu_ps(x); }
static inline void v16_store(float *x, v16 a) { _mm512_storeu_ps(x, a); }
static inline v16 v16_set(float x) { return _mm512_set1_ps(x); }
static inline v16 v16_add(v16 a, v16 b) { return _mm512_add_ps(a, b); }
static inline v16 v16_sub(v16 a, v16 b) { return _mm512_sub_ps(a, b); }
static inline v16 v16_mul(v16 a, v16 b) { return _mm512_mul_ps(a, b); }
static inline v16 v16_div(v16 a, v16 b) { return _mm512_div_ps(a, b); }
static inline v16 v16_fma(v16 a, v16 b, v16 c) { return _mm512_fmadd_ps(a, b, c); }
static inline v16 v16_fnma(v16 a, v16 b, v16 c) { return _mm512_fnmadd_ps(a, b, c); } /* fma(-a, b, c) */
static inline v16 v16_max(v16 a, v16 b) { return _mm512_max_ps(a, b); }               /* a > b ? a : b */
static inline v16 v16_min(v16 a, v16 b) { return _mm512_min_ps(a, b); }               /* a < b ? a : b */
static inline v16 v16_rint(v16 a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }

#elif defined(__AVX2__)
#include <immintrin.h>

typedef struct v16 {
  __m256 low, high;
} v16;

static inline v16 v16_load(const float *x) { return (v16){_mm256_loadu_ps(x), _mm256_loadu_ps(x + 8)}; }
static inline void v16_store(float *x, v16 a) {
  _mm256_storeu_ps(x, a.low);
  _mm256_storeu_ps(x + 8, a.high);
}
static inline v16 v16_set(float x) { return (v16){_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
static inline v16 v16_add(v16 a, v16 b) { return (v16){_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)}; }
static inline v16 v16_sub(v16 a, v16 b) { return (v16){_mm256_sub_ps(a.low, b.low), _mm256_sub_ps(a.high, b.high)}; }
static inline v16 v16_mul(v16 a, v16 b) { return (v16){_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)}; }
static inline v16 v16_div(v16 a, v16 b) { return (v16){_mm256_div_ps(a.low, b.low), _mm256_div_ps(a.high, b.high)}; }
static inline v16 v16_fma(v16 a, v16 b, v16 c) {
  return (v16){_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
}
static inline v16 v16_fnma(v16 a, v16 b, v16 c) {
  return (v16){_mm256_fnmadd_ps(a.low, b.low, c.low), _mm256_fnmadd_ps(a.high, b.high, c.high)};
}
static inline v16 v16_max(v16 a, v16 b) { return (v16){_mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high)}; }
static inline v16 v16_min(v16 a, v16 b) { return (v16){_mm256_min_ps(a.low, b.low), _mm256_min_ps(a.high, b.high)}; }
static inline v16 v16_rint(v16 a) {
  enum { NEAREST = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC };
  return (v16){_mm256_round_ps(a.low, NEAREST), _mm256_round_ps(a.high, NEAREST)};
}

#else

typedef struct v16 {
  float x[16];
} v16;

#define V16_LOOP(value)                            \
  v16 r;                                           \
  for (int l = 0; l < 16; l++) r.x[l] = (value);   \
  return r
static inline v16 v16_load(const float *x) { V16_LOOP(x[l]); }
static inline void v16_store(float *x, v16 a) {
  for (int l = 0; l < 16; l++) x[l] = a.x[l];
}
static inline v16 v16_set(float x) { V16_LOOP(x); }
static inline v16 v16_add(v16 a, v16 b) { V16_LOOP(a.x[l] + b.x[l]); }
static inline v16 v16_sub(v16 a, v16 b) { V16_LOOP(a.x[l] - b.x[l]); }
static inline v16 v16_mul(v16 a, v16 b) { V16_LOOP(a.x[l] * b.x[l]); }
static inline v16 v16_div(v16 a, v16 b) { V16_LOOP(a.x[l] / b.x[l]); }
static inline v16 v16_fma(v16 a, v16 b, v16 c) { V16_LOOP(fmaf(a.x[l], b.x[l], c.x[l])); }
static inline v16 v16_fnma(v16 a, v16 b, v16 c) { V16_LOOP(fmaf(-a.x[l], b.x[l], c.x[l])); }
static inline v16 v16_max(v16 a, v16 b) { V16_LOOP(a.x[l] > b.x[l] ? a.x[l] : b.x[l]); }
static inline v16 v16_min(v16 a, v16 b) { V16_LOOP(a.x[l] < b.x[l] ? a.x[l] : b.x[l]); }
static inline v16 v16_rint(v16 a) { V16_LOOP(rintf(a.x[l])); }
#undef V16_LOOP

#endif

/* clamp(rint(w / s) + z, 0, top); a NaN gives 0. */
static inline v16 v16_code(v16 w, v16 scale, v16 zero, v16 top) {
  v16 code = v16_add(v16_rint(v16_div(w, scale)), zero);
  return v16_min(v16_max(code, v16_set(0)), top);
}

#endif
