#include "kernels/peak.h"

/* Twelve accumulators of a register each hide the latency of two units at four cycles.  The vector type is the build's widest.
 */
#if defined(__AVX512F__)
enum { REGISTER_BYTES = 64 };
#elif defined(__AVX2__)
enum { REGISTER_BYTES = 32 };
#else
enum { REGISTER_BYTES = 16 };
#endif
enum { ACCUMULATORS = 12 };

typedef float  vector_f32 __attribute__((vector_size(REGISTER_BYTES)));
typedef double vector_f64 __attribute__((vector_size(REGISTER_BYTES)));

#if defined(__AVX512F__)
#include <immintrin.h>
static inline vector_f32 fma_f32(vector_f32 a, vector_f32 b, vector_f32 c) {
  return (vector_f32)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
}
static inline vector_f64 fma_f64(vector_f64 a, vector_f64 b, vector_f64 c) {
  return (vector_f64)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
}
#elif defined(__AVX2__)
#include <immintrin.h>
static inline vector_f32 fma_f32(vector_f32 a, vector_f32 b, vector_f32 c) {
  return (vector_f32)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
}
static inline vector_f64 fma_f64(vector_f64 a, vector_f64 b, vector_f64 c) {
  return (vector_f64)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
}
#else
static inline vector_f32 fma_f32(vector_f32 a, vector_f32 b, vector_f32 c) { return a * b + c; }
static inline vector_f64 fma_f64(vector_f64 a, vector_f64 b, vector_f64 c) { return a * b + c; }
#endif

/* Says that a value may have changed: or equal accumulators would become one, and the loop would be folded away. */
#if defined(__AVX512F__)
#define KEEP(a) __asm__ volatile("" : "+v"(a))
#elif defined(__x86_64__)
#define KEEP(a) __asm__ volatile("" : "+x"(a))
#else
#define KEEP(a) __asm__ volatile("" : "+w"(a))
#endif

#define PEAK(name, vector, fma)                                                                  \
  double QD_ISA(name)(int64_t rounds) {                                                          \
    vector sum[ACCUMULATORS] = {{0}}, a = {0}, b = {0};                                          \
    for (int i = 0; i < ACCUMULATORS; i++) KEEP(sum[i]);                                         \
    for (int64_t r = 0; r < rounds; r++) {                                                       \
      for (int i = 0; i < ACCUMULATORS; i++) sum[i] = fma(a, b, sum[i]);                         \
      KEEP(a);                                                                                   \
      KEEP(b);                                                                                   \
    }                                                                                            \
    double left = 0;                                                                             \
    for (int i = 0; i < ACCUMULATORS; i++) left += (double)sum[i][0];                            \
    return 2.0 * (double)rounds * ACCUMULATORS * (double)(sizeof(vector) / sizeof(a[0])) + left; \
  }

PEAK(qd_peak_f32, vector_f32, fma_f32)
PEAK(qd_peak_f64, vector_f64, fma_f64)

#if defined(__AVX2__)
typedef int vector_words __attribute__((vector_size(REGISTER_BYTES)));
#if defined(__AVX512F__)
#define PRODUCTS(a, b) (vector_words) _mm512_maddubs_epi16((__m512i)(a), (__m512i)(b))
#else
#define PRODUCTS(a, b) (vector_words) _mm256_maddubs_epi16((__m256i)(a), (__m256i)(b))
#endif

/* Each result is the next one's operand: chains as the sums'. */
double QD_ISA(qd_peak_bytes)(int64_t rounds) {
  vector_words sum[ACCUMULATORS] = {{0}}, b = {0};
  for (int i = 0; i < ACCUMULATORS; i++) KEEP(sum[i]);
  for (int64_t r = 0; r < rounds; r++) {
    for (int i = 0; i < ACCUMULATORS; i++) sum[i] = PRODUCTS(sum[i], b);
    KEEP(b);
  }
  double left = 0;
  for (int i = 0; i < ACCUMULATORS; i++) left += (double)sum[i][0];
  return 2.0 * (double)rounds * ACCUMULATORS * REGISTER_BYTES + left;
}
#else
double QD_ISA(qd_peak_bytes)(int64_t rounds) { return QD_ISA(qd_peak_f32)(rounds); }
#endif

void QD_ISA(qd_peak_triad_part)(float *restrict a, const float *restrict b, const float *restrict c, int64_t n) {
  for (int64_t i = 0; i < n; i++) a[i] = b[i] + 3.0f * c[i];
}
