/* Words of bytes for the instruction set of the including file, beside panels_vector.h's.
 *   words_right               logical shift (n < 0: to the left)
 *   words_pick                (w & mask) | others
 *   words_float               signed numbers as fp32
 *   words_broadcast           four bytes in every lane
 *   bytes_products            pairs of products u8 x s8, added in 16 bits (no sum may pass 32767)
 *   halves_add, halves_sums   in 16 bits; pairs of 16 bits times a constant, added in 32
 *   vnni_dot                  sum + four products u8 x s8 */
#ifndef QDIST_KERNELS_INT8_VECTOR_H
#define QDIST_KERNELS_INT8_VECTOR_H

#include "kernels/panels_vector.h"

#include <string.h>

#if defined(__AVX512F__)

#define QD_HAVE_VNNI 1
#define QD_VNNI_TARGET __attribute__((target("avx512vnni")))

QD_INLINE words words_right(words w, int n) {
  return n < 0 ? _mm512_slli_epi32(w, (unsigned)-n) : _mm512_srli_epi32(w, (unsigned)n);
}
QD_INLINE words words_pick(words w, uint32_t mask, words others) {
  return _mm512_ternarylogic_epi32(w, _mm512_set1_epi32((int)mask), others, 0xea);
}
QD_INLINE words words_and(words w, uint32_t mask) { return _mm512_and_si512(w, _mm512_set1_epi32((int)mask)); }
QD_INLINE words words_add(words a, words b) { return _mm512_add_epi32(a, b); }
QD_INLINE f32_sum words_float(words w) { return _mm512_cvtepi32_ps(w); }
QD_INLINE words words_broadcast(const unsigned char *p) {
  int value;
  memcpy(&value, p, sizeof value);
  return _mm512_set1_epi32(value);
}
QD_INLINE words words_bytes(const uint8_t *p) { return _mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)p)); }
QD_INLINE words bytes_products(words q, words a) { return _mm512_maddubs_epi16(q, a); }
QD_INLINE words halves_add(words a, words b) { return _mm512_add_epi16(a, b); }
QD_INLINE words halves_sums(words w, int times) { return _mm512_madd_epi16(w, _mm512_set1_epi16((short)times)); }
QD_INLINE f32_sum f32_less(f32_sum a, f32_sum b, f32_sum c) { return _mm512_fnmadd_ps(a, b, c); }
QD_INLINE QD_VNNI_TARGET words vnni_dot(words sum, words q, words a) { return _mm512_dpbusd_epi32(sum, q, a); }

#elif defined(__AVX2__)

QD_INLINE words words_right(words w, int n) { return n < 0 ? _mm256_slli_epi32(w, -n) : _mm256_srli_epi32(w, n); }
QD_INLINE words words_pick(words w, uint32_t mask, words others) {
  return _mm256_or_si256(_mm256_and_si256(w, _mm256_set1_epi32((int)mask)), others);
}
QD_INLINE words words_and(words w, uint32_t mask) { return _mm256_and_si256(w, _mm256_set1_epi32((int)mask)); }
QD_INLINE words words_add(words a, words b) { return _mm256_add_epi32(a, b); }
QD_INLINE f32_sum words_float(words w) { return _mm256_cvtepi32_ps(w); }
QD_INLINE words words_broadcast(const unsigned char *p) {
  int value;
  memcpy(&value, p, sizeof value);
  return _mm256_set1_epi32(value);
}
QD_INLINE words words_bytes(const uint8_t *p) { return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)p)); }
QD_INLINE words bytes_products(words q, words a) { return _mm256_maddubs_epi16(q, a); }
QD_INLINE words halves_add(words a, words b) { return _mm256_add_epi16(a, b); }
QD_INLINE words halves_sums(words w, int times) { return _mm256_madd_epi16(w, _mm256_set1_epi16((short)times)); }
QD_INLINE f32_sum f32_less(f32_sum a, f32_sum b, f32_sum c) { return _mm256_fnmadd_ps(a, b, c); }

#else

#define WORDS_LOOP(value)                                  \
  words r;                                                 \
  for (int l = 0; l < F32_LANES; l++) r.lane[l] = (value); \
  return r
QD_INLINE words words_right(words w, int n) { WORDS_LOOP(n < 0 ? w.lane[l] << -n : w.lane[l] >> n); }
QD_INLINE words words_pick(words w, uint32_t mask, words others) { WORDS_LOOP((w.lane[l] & mask) | others.lane[l]); }
QD_INLINE words words_and(words w, uint32_t mask) { WORDS_LOOP(w.lane[l] & mask); }
QD_INLINE words words_add(words a, words b) { WORDS_LOOP(a.lane[l] + b.lane[l]); }
QD_INLINE f32_sum words_float(words w) {
  float lane[F32_LANES];
  for (int l = 0; l < F32_LANES; l++) lane[l] = (float)(int32_t)w.lane[l];
  return f32_read(lane);
}
QD_INLINE words words_broadcast(const unsigned char *p) {
  uint32_t value;
  memcpy(&value, p, sizeof value);
  WORDS_LOOP(value);
}
QD_INLINE words words_bytes(const uint8_t *p) { WORDS_LOOP(p[l]); }
QD_INLINE uint32_t pair(uint32_t a, uint32_t b) { return (a & 0xffff) | b << 16; }
QD_INLINE int byte_product(uint32_t q, uint32_t a, int at) { return (int)(q >> at & 255) * (int8_t)(a >> at & 255); }
QD_INLINE words bytes_products(words q, words a) {
  WORDS_LOOP(pair((uint32_t)(byte_product(q.lane[l], a.lane[l], 0) + byte_product(q.lane[l], a.lane[l], 8)),
                  (uint32_t)(byte_product(q.lane[l], a.lane[l], 16) + byte_product(q.lane[l], a.lane[l], 24))));
}
QD_INLINE words halves_add(words a, words b) { WORDS_LOOP(pair(a.lane[l] + b.lane[l], (a.lane[l] >> 16) + (b.lane[l] >> 16))); }
QD_INLINE words halves_sums(words w, int times) {
  WORDS_LOOP((uint32_t)(((int16_t)(w.lane[l] & 0xffff) + (int16_t)(w.lane[l] >> 16)) * times));
}
#undef WORDS_LOOP
QD_INLINE f32_sum f32_less(f32_sum a, f32_sum b, f32_sum c) { return f32_fma(f32_subtract(f32_zero(), a), b, c); }

#endif

#endif
