/* The vectors of the register tiles, for the instruction set that the including *_isa.c file is built for.
 * For each kind (f32, f64, pairs): load (aligned), broadcast, fma; and for its sums zero, add, subtract, read and write
 * (unaligned). */
#ifndef QDIST_KERNELS_GEMM_VECTOR_H
#define QDIST_KERNELS_GEMM_VECTOR_H

#include <stdint.h>

#define QD_INLINE static inline __attribute__((always_inline))

#if defined(__AVX512F__)
#include <immintrin.h>

#define QD_HAVE_PAIRS 1
#define QD_PAIRS_TARGET __attribute__((target("avx512bf16")))
enum { F32_LANES = 16, F64_LANES = 8, PAIRS_LANES = 16 };
typedef __m512 f32_sum, f32_input, pairs_sum;
typedef __m512d f64_sum, f64_input;
typedef __m512i pairs_input;

QD_INLINE f32_sum f32_zero(void) { return _mm512_setzero_ps(); }
QD_INLINE f32_input f32_load(const float *p) { return _mm512_load_ps(p); }
QD_INLINE f32_input f32_broadcast(const float *p) { return _mm512_set1_ps(*p); }
QD_INLINE f32_sum f32_fma(f32_input a, f32_input b, f32_sum c) { return _mm512_fmadd_ps(a, b, c); }
QD_INLINE f32_sum f32_add(f32_sum a, f32_sum b) { return _mm512_add_ps(a, b); }
QD_INLINE f32_sum f32_subtract(f32_sum a, f32_sum b) { return _mm512_sub_ps(a, b); }
QD_INLINE f32_sum f32_read(const float *p) { return _mm512_loadu_ps(p); }
QD_INLINE void f32_write(float *p, f32_sum x) { _mm512_storeu_ps(p, x); }

QD_INLINE f64_sum f64_zero(void) { return _mm512_setzero_pd(); }
QD_INLINE f64_input f64_load(const double *p) { return _mm512_load_pd(p); }
QD_INLINE f64_input f64_broadcast(const double *p) { return _mm512_set1_pd(*p); }
QD_INLINE f64_sum f64_fma(f64_input a, f64_input b, f64_sum c) { return _mm512_fmadd_pd(a, b, c); }
QD_INLINE f64_sum f64_add(f64_sum a, f64_sum b) { return _mm512_add_pd(a, b); }
QD_INLINE f64_sum f64_subtract(f64_sum a, f64_sum b) { return _mm512_sub_pd(a, b); }
QD_INLINE f64_sum f64_read(const double *p) { return _mm512_loadu_pd(p); }
QD_INLINE void f64_write(double *p, f64_sum x) { _mm512_storeu_pd(p, x); }

#define pairs_zero f32_zero
#define pairs_add f32_add
#define pairs_subtract f32_subtract
#define pairs_read f32_read
#define pairs_write f32_write
QD_INLINE pairs_input pairs_load(const uint32_t *p) { return _mm512_load_si512(p); }
QD_INLINE pairs_input pairs_broadcast(const uint32_t *p) { return _mm512_set1_epi32((int)*p); }
QD_INLINE QD_PAIRS_TARGET pairs_sum pairs_fma(pairs_input a, pairs_input b, pairs_sum c) {
  return _mm512_dpbf16_ps(c, (__m512bh)a, (__m512bh)b);
}

#elif defined(__AVX2__)
#include <immintrin.h>

enum { F32_LANES = 8, F64_LANES = 4 };
typedef __m256 f32_sum, f32_input;
typedef __m256d f64_sum, f64_input;

QD_INLINE f32_sum f32_zero(void) { return _mm256_setzero_ps(); }
QD_INLINE f32_input f32_load(const float *p) { return _mm256_load_ps(p); }
QD_INLINE f32_input f32_broadcast(const float *p) { return _mm256_broadcast_ss(p); }
QD_INLINE f32_sum f32_fma(f32_input a, f32_input b, f32_sum c) { return _mm256_fmadd_ps(a, b, c); }
QD_INLINE f32_sum f32_add(f32_sum a, f32_sum b) { return _mm256_add_ps(a, b); }
QD_INLINE f32_sum f32_subtract(f32_sum a, f32_sum b) { return _mm256_sub_ps(a, b); }
QD_INLINE f32_sum f32_read(const float *p) { return _mm256_loadu_ps(p); }
QD_INLINE void f32_write(float *p, f32_sum x) { _mm256_storeu_ps(p, x); }

QD_INLINE f64_sum f64_zero(void) { return _mm256_setzero_pd(); }
QD_INLINE f64_input f64_load(const double *p) { return _mm256_load_pd(p); }
QD_INLINE f64_input f64_broadcast(const double *p) { return _mm256_broadcast_sd(p); }
QD_INLINE f64_sum f64_fma(f64_input a, f64_input b, f64_sum c) { return _mm256_fmadd_pd(a, b, c); }
QD_INLINE f64_sum f64_add(f64_sum a, f64_sum b) { return _mm256_add_pd(a, b); }
QD_INLINE f64_sum f64_subtract(f64_sum a, f64_sum b) { return _mm256_sub_pd(a, b); }
QD_INLINE f64_sum f64_read(const double *p) { return _mm256_loadu_pd(p); }
QD_INLINE void f64_write(double *p, f64_sum x) { _mm256_storeu_pd(p, x); }

#elif defined(__aarch64__)
#include <arm_neon.h>

enum { F32_LANES = 4, F64_LANES = 2 };
typedef float32x4_t f32_sum, f32_input;
typedef float64x2_t f64_sum, f64_input;

QD_INLINE f32_sum f32_zero(void) { return vdupq_n_f32(0); }
QD_INLINE f32_input f32_load(const float *p) { return vld1q_f32(p); }
QD_INLINE f32_input f32_broadcast(const float *p) { return vdupq_n_f32(*p); }
QD_INLINE f32_sum f32_fma(f32_input a, f32_input b, f32_sum c) { return vfmaq_f32(c, a, b); }
QD_INLINE f32_sum f32_add(f32_sum a, f32_sum b) { return vaddq_f32(a, b); }
QD_INLINE f32_sum f32_subtract(f32_sum a, f32_sum b) { return vsubq_f32(a, b); }
QD_INLINE f32_sum f32_read(const float *p) { return vld1q_f32(p); }
QD_INLINE void f32_write(float *p, f32_sum x) { vst1q_f32(p, x); }

QD_INLINE f64_sum f64_zero(void) { return vdupq_n_f64(0); }
QD_INLINE f64_input f64_load(const double *p) { return vld1q_f64(p); }
QD_INLINE f64_input f64_broadcast(const double *p) { return vdupq_n_f64(*p); }
QD_INLINE f64_sum f64_fma(f64_input a, f64_input b, f64_sum c) { return vfmaq_f64(c, a, b); }
QD_INLINE f64_sum f64_add(f64_sum a, f64_sum b) { return vaddq_f64(a, b); }
QD_INLINE f64_sum f64_subtract(f64_sum a, f64_sum b) { return vsubq_f64(a, b); }
QD_INLINE f64_sum f64_read(const double *p) { return vld1q_f64(p); }
QD_INLINE void f64_write(double *p, f64_sum x) { vst1q_f64(p, x); }

#else
#include <math.h>

/* Four and two lanes in plain C: what a compiler turns into 128-bit vectors. */
enum { F32_LANES = 4, F64_LANES = 2 };
typedef struct f32_sum {
  float lane[F32_LANES];
} f32_sum, f32_input;
typedef struct f64_sum {
  double lane[F64_LANES];
} f64_sum, f64_input;

#define QD_PORTABLE_VECTOR(kind, type, lanes, fused)                                    \
  QD_INLINE kind##_sum kind##_zero(void) { return (kind##_sum){{0}}; }                  \
  QD_INLINE kind##_input kind##_load(const type *p) {                                   \
    kind##_input x;                                                                     \
    for (int l = 0; l < lanes; l++) x.lane[l] = p[l];                                   \
    return x;                                                                           \
  }                                                                                     \
  QD_INLINE kind##_input kind##_broadcast(const type *p) {                              \
    kind##_input x;                                                                     \
    for (int l = 0; l < lanes; l++) x.lane[l] = *p;                                     \
    return x;                                                                           \
  }                                                                                     \
  QD_INLINE kind##_sum kind##_fma(kind##_input a, kind##_input b, kind##_sum c) {       \
    for (int l = 0; l < lanes; l++) c.lane[l] = fused(a.lane[l], b.lane[l], c.lane[l]); \
    return c;                                                                           \
  }                                                                                     \
  QD_INLINE kind##_sum kind##_add(kind##_sum a, kind##_sum b) {                         \
    for (int l = 0; l < lanes; l++) a.lane[l] += b.lane[l];                             \
    return a;                                                                           \
  }                                                                                     \
  QD_INLINE kind##_sum kind##_subtract(kind##_sum a, kind##_sum b) {                    \
    for (int l = 0; l < lanes; l++) a.lane[l] -= b.lane[l];                             \
    return a;                                                                           \
  }                                                                                     \
  QD_INLINE kind##_sum kind##_read(const type *p) { return kind##_load(p); }            \
  QD_INLINE void kind##_write(type *p, kind##_sum x) {                                  \
    for (int l = 0; l < lanes; l++) p[l] = x.lane[l];                                   \
  }
QD_PORTABLE_VECTOR(f32, float, F32_LANES, fmaf)
QD_PORTABLE_VECTOR(f64, double, F64_LANES, fma)
#undef QD_PORTABLE_VECTOR
#endif

#endif
