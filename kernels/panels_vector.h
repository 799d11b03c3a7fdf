/* Vectors of code words, and weights made of them, for the instruction set of the including file (gemm_vector.h has the sums).
 *   words_load, words_top     words; their upper bits from `bit` on, put behind those that `rest` holds already (at its top)
 *   words_value               1 + q / 2^bits, q the code at `bit`: it becomes the upper bits of a float's mantissa
 *   scales_f16, scales_f32, zeros_value   a group's scales, and 2^bits + z of its zero points
 *   f32_multiply, f32_keep_bf16           the latter rounds to bf16, as fp32
 *   pairs_join                two vectors of weights, rounded to bf16, the first in the lower halves */
#ifndef QDIST_KERNELS_PANELS_VECTOR_H
#define QDIST_KERNELS_PANELS_VECTOR_H

#include "kernels/base/dtype.h"
#include "kernels/gemm_vector.h"

/* A run's codes stand in constants of their own where there are vectors of hardware; lane by lane that would be far too long.
 */
#if defined(__AVX2__)
#define UNROLL_RUN _Pragma("GCC unroll 16")
#else
#define UNROLL_RUN _Pragma("GCC unroll 1")
#endif

enum { BITS_OF_ONE = 0x3f800000, MANTISSA = 23 };

#if defined(__AVX512F__)

typedef __m512i words;
#define KEEP_VECTOR(w) __asm__ volatile("" : "+v"(w))

QD_INLINE words words_load(const uint32_t *p) { return _mm512_load_si512(p); }
QD_INLINE words words_none(void) { return _mm512_setzero_si512(); }
QD_INLINE words words_top(words rest, words w, int bit) {
  words top = _mm512_set1_epi32((int)(~0u << bit));
  return _mm512_ternarylogic_epi32(_mm512_srli_epi32(rest, (unsigned)(32 - bit)), w, top, 0xf8); /* a | (b & c) */
}
QD_INLINE f32_sum words_value(words w, int bit, int bits) {
  int at = MANTISSA - bits;
  words moved = bit > at ? _mm512_srli_epi32(w, (unsigned)(bit - at)) : _mm512_slli_epi32(w, (unsigned)(at - bit));
  words mask = _mm512_set1_epi32(((1 << bits) - 1) << at), one = _mm512_set1_epi32(BITS_OF_ONE);
  return _mm512_castsi512_ps(_mm512_ternarylogic_epi32(moved, mask, one, 0xea)); /* (a & b) | c */
}
QD_INLINE f32_sum scales_f16(const uint16_t *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const void *)p)); }
QD_INLINE f32_sum zeros_value(const uint8_t *p, int bits) {
  words z = _mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)p));
  return _mm512_cvtepi32_ps(_mm512_add_epi32(z, _mm512_set1_epi32(1 << bits)));
}
QD_INLINE f32_sum f32_multiply(f32_sum a, f32_sum b) { return _mm512_mul_ps(a, b); }
QD_INLINE f32_sum f32_keep_bf16(f32_sum x) {
  words u = _mm512_castps_si512(x), odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
  u = _mm512_add_epi32(_mm512_add_epi32(u, _mm512_set1_epi32(0x7fff)), odd);
  return _mm512_castsi512_ps(_mm512_and_si512(u, _mm512_set1_epi32(-65536)));
}
QD_INLINE QD_PAIRS_TARGET pairs_input pairs_join(f32_sum even, f32_sum odd) {
  const __m512i lanes = _mm512_set_epi32(0x1f000f, 0x1e000e, 0x1d000d, 0x1c000c, 0x1b000b, 0x1a000a, 0x190009, 0x180008,
                                         0x170007, 0x160006, 0x150005, 0x140004, 0x130003, 0x120002, 0x110001, 0x100000);
  return _mm512_permutexvar_epi16(lanes, (__m512i)_mm512_cvtne2ps_pbh(odd, even));
}

#elif defined(__AVX2__)

typedef __m256i words;
#define KEEP_VECTOR(w) __asm__ volatile("" : "+x"(w))

QD_INLINE words words_load(const uint32_t *p) { return _mm256_load_si256((const void *)p); }
QD_INLINE words words_none(void) { return _mm256_setzero_si256(); }
QD_INLINE words words_top(words rest, words w, int bit) {
  return _mm256_or_si256(_mm256_srli_epi32(rest, 32 - bit), _mm256_and_si256(w, _mm256_set1_epi32((int)(~0u << bit))));
}
QD_INLINE f32_sum words_value(words w, int bit, int bits) {
  int at = MANTISSA - bits;
  words moved = bit > at ? _mm256_srli_epi32(w, bit - at) : _mm256_slli_epi32(w, at - bit);
  words code = _mm256_and_si256(moved, _mm256_set1_epi32(((1 << bits) - 1) << at));
  return _mm256_castsi256_ps(_mm256_or_si256(code, _mm256_set1_epi32(BITS_OF_ONE)));
}
QD_INLINE f32_sum scales_f16(const uint16_t *p) { return _mm256_cvtph_ps(_mm_loadu_si128((const void *)p)); }
QD_INLINE f32_sum zeros_value(const uint8_t *p, int bits) {
  words z = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)p));
  return _mm256_cvtepi32_ps(_mm256_add_epi32(z, _mm256_set1_epi32(1 << bits)));
}
QD_INLINE f32_sum f32_multiply(f32_sum a, f32_sum b) { return _mm256_mul_ps(a, b); }
QD_INLINE f32_sum f32_keep_bf16(f32_sum x) {
  words u = _mm256_castps_si256(x), odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
  u = _mm256_add_epi32(_mm256_add_epi32(u, _mm256_set1_epi32(0x7fff)), odd);
  return _mm256_castsi256_ps(_mm256_and_si256(u, _mm256_set1_epi32(-65536)));
}

#else

/* Lane by lane: a compiler may make vectors of it. */
typedef struct words {
  uint32_t lane[F32_LANES];
} words;
#define KEEP_VECTOR(w) __asm__ volatile("" : "+m"(w))

QD_INLINE words words_load(const uint32_t *p) {
  words w;
  memcpy(&w, p, sizeof w);
  return w;
}
QD_INLINE words words_none(void) { return (words){{0}}; }
QD_INLINE words words_top(words rest, words w, int bit) {
  for (int l = 0; l < F32_LANES; l++) rest.lane[l] = rest.lane[l] >> (32 - bit) | (w.lane[l] & ~0u << bit);
  return rest;
}
QD_INLINE f32_sum words_read(words w) {
  float lane[F32_LANES];
  memcpy(lane, &w, sizeof lane);
  return f32_read(lane);
}
QD_INLINE f32_sum words_value(words w, int bit, int bits) {
  for (int l = 0; l < F32_LANES; l++)
    w.lane[l] = (w.lane[l] >> bit & ((1u << bits) - 1)) << (MANTISSA - bits) | BITS_OF_ONE;
  return words_read(w);
}
QD_INLINE f32_sum scales_f16(const uint16_t *p) {
  float lane[F32_LANES];
  for (int l = 0; l < F32_LANES; l++) lane[l] = qd_f16_to_f32(p[l]);
  return f32_read(lane);
}
QD_INLINE f32_sum zeros_value(const uint8_t *p, int bits) {
  float lane[F32_LANES];
  for (int l = 0; l < F32_LANES; l++) lane[l] = (float)(p[l] + (1 << bits));
  return f32_read(lane);
}
QD_INLINE f32_sum f32_multiply(f32_sum a, f32_sum b) {
  float x[F32_LANES], y[F32_LANES];
  f32_write(x, a), f32_write(y, b);
  for (int l = 0; l < F32_LANES; l++) x[l] *= y[l];
  return f32_read(x);
}
QD_INLINE f32_sum f32_keep_bf16(f32_sum a) {
  float x[F32_LANES];
  f32_write(x, a);
  for (int l = 0; l < F32_LANES; l++) x[l] = qd_round_bf16(x[l]);
  return f32_read(x);
}

#endif

QD_INLINE f32_sum scales_f32(const float *p) { return f32_read(p); }

#endif
