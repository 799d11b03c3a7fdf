/* Exact sums: fp32 partials rounded once to a fixed-point grid and added as int64, so that the order of units cannot show. */
#include "kernels/statistics_isa.h"

#include <math.h>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

static const double limit = 0x1p62;

static inline void add_one(int64_t *total, float p, double scale) {
  double value = (double)p * scale;
  value = value < limit ? value : limit;
  value = value > -limit ? value : -limit;
  *total = (int64_t)((uint64_t)*total + (uint64_t)(int64_t)rint(value));
}

#if defined(__AVX512DQ__)

enum { LANES = 8 };

static inline void add_lanes(int64_t *total, const float *p, double row, const double *column) {
  __m512d scale = _mm512_mul_pd(_mm512_set1_pd(row), _mm512_loadu_pd(column));
  __m512d value = _mm512_mul_pd(_mm512_cvtps_pd(_mm256_loadu_ps(p)), scale);
  value = _mm512_max_pd(_mm512_min_pd(value, _mm512_set1_pd(limit)), _mm512_set1_pd(-limit)); /* a NaN becomes the limit */
  _mm512_storeu_si512(total, _mm512_add_epi64(_mm512_loadu_si512(total), _mm512_cvtpd_epi64(value)));
}

#elif defined(__AVX2__)

enum { LANES = 4 };

/* Adding 1.5 * 2^52 puts a whole number of up to 51 bits into the low bits of the sum. */
static inline __m256i small_integer(__m256d value) {
  const __m256d magic = _mm256_set1_pd(0x1.8p52);
  return _mm256_sub_epi64(_mm256_castpd_si256(_mm256_add_pd(value, magic)), _mm256_castpd_si256(magic));
}

/* AVX2 has no conversion to int64: value = high 2^32 + low, both exact. */
static inline void add_lanes(int64_t *total, const float *p, double row, const double *column) {
  enum { NEAREST = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC };
  __m256d scale = _mm256_mul_pd(_mm256_set1_pd(row), _mm256_loadu_pd(column));
  __m256d value = _mm256_mul_pd(_mm256_cvtps_pd(_mm_loadu_ps(p)), scale);
  value = _mm256_max_pd(_mm256_min_pd(value, _mm256_set1_pd(limit)), _mm256_set1_pd(-limit)); /* a NaN becomes the limit */
  value = _mm256_round_pd(value, NEAREST);
  __m256d high = _mm256_round_pd(_mm256_mul_pd(value, _mm256_set1_pd(0x1p-32)), NEAREST);
  __m256d low = _mm256_fnmadd_pd(high, _mm256_set1_pd(0x1p32), value);
  __m256i whole = _mm256_add_epi64(_mm256_slli_epi64(small_integer(high), 32), small_integer(low));
  __m256i *out = (__m256i *)(void *)total;
  _mm256_storeu_si256(out, _mm256_add_epi64(_mm256_loadu_si256(out), whole));
}

#else

enum { LANES = 1 };
static inline void add_lanes(int64_t *total, const float *p, double row, const double *column) {
  add_one(total, *p, row * *column);
}

#endif

void QD_ISA(qd_hessian_add)(int64_t *total, const float *p, double row, const double *column, int64_t n) {
  int64_t j = 0;
  for (; j + LANES <= n; j += LANES) add_lanes(total + j, p + j, row, column + j);
  for (; j < n; j++) add_one(total + j, p[j], row * column[j]);
}
