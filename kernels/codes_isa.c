#include "kernels/codes.h"

#include <string.h>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

/* Eight codes of b bits stand in 8 b bits.  They are spread to one a byte in three halvings (4, 2, 1 codes a field), each of
 * which moves the upper half of every field up: the same steps backwards pack them. */
typedef struct spread {
  uint64_t low[3]; /* the lower halves of the fields, before the move */
  int shift[3];
} spread;

static spread spread_of(int bits) {
  uint64_t ones = ~(uint64_t)0;
  uint64_t four = ones >> (64 - 4 * bits), two = ones >> (64 - 2 * bits), one = ones >> (64 - bits);
  return (spread){.low = {four, two | two << 32, one | one << 16 | one << 32 | one << 48},
                  .shift = {32 - 4 * bits, 16 - 2 * bits, 8 - bits}};
}

static inline uint64_t spread_eight(uint64_t x, const spread *s) {
  for (int i = 0; i < 3; i++) {
    uint64_t low = x & s->low[i];
    x = low | (x ^ low) << s->shift[i];
  }
  return x;
}

static inline uint64_t gather_eight(uint64_t x, const spread *s) {
  for (int i = 2; i >= 0; i--) {
    uint64_t low = x & s->low[i];
    x = low | (x ^ low) >> s->shift[i];
  }
  return x;
}

/* The integers above take byte 0 as the lowest. */
static inline uint64_t little_endian(uint64_t x) {
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
  return __builtin_bswap64(x);
#else
  return x;
#endif
}

#if defined(__AVX2__)

/* 32 codes at a time, eight in each 64 bits; returns how many were unpacked. */
static int64_t unpack_vectors(const uint8_t *packed, int64_t n, int bits, const spread *s, uint8_t *codes) {
  int64_t i = 0, n_bytes = (n * bits + 7) / 8;
  uint8_t place[16]; /* bytes of the first eight codes to the lower 64 bits, of the next eight to the upper; 0x80: zero */
  for (int j = 0; j < 16; j++) place[j] = (uint8_t)(j % 8 < bits ? j / 8 * bits + j % 8 : 0x80);
  const __m256i places = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)place));
  for (; i + 32 <= n && i / 8 * bits + 2 * bits + 16 <= n_bytes; i += 32) {
    const uint8_t *from = packed + i / 8 * bits;
    __m128i first = _mm_loadu_si128((const __m128i *)(const void *)from);
    __m128i second = _mm_loadu_si128((const __m128i *)(const void *)(from + 2 * bits));
    __m256i x = _mm256_shuffle_epi8(_mm256_set_m128i(second, first), places);
    for (int j = 0; j < 3; j++) {
      __m256i low = _mm256_and_si256(x, _mm256_set1_epi64x((int64_t)s->low[j]));
      x = _mm256_or_si256(low, _mm256_sll_epi64(_mm256_xor_si256(x, low), _mm_cvtsi32_si128(s->shift[j])));
    }
    _mm256_storeu_si256((__m256i *)(void *)(codes + i), x);
  }
  return i;
}

#else

static int64_t unpack_vectors(const uint8_t *packed, int64_t n, int bits, const spread *s, uint8_t *codes) {
  (void)packed, (void)n, (void)bits, (void)s, (void)codes;
  return 0;
}

#endif

void QD_ISA(qd_codes_unpack)(const uint8_t *packed, int64_t n, int bits, uint8_t *codes) {
  const spread s = spread_of(bits);
  int64_t n_bytes = (n * bits + 7) / 8, i = unpack_vectors(packed, n, bits, &s, codes);
  for (; i + 8 <= n && i / 8 * bits + 8 <= n_bytes; i += 8) {
    uint64_t x;
    memcpy(&x, packed + i / 8 * bits, 8);
    x = little_endian(spread_eight(little_endian(x) & (~(uint64_t)0 >> (64 - 8 * bits)), &s));
    memcpy(codes + i, &x, 8);
  }
  for (; i < n; i += 8) {
    int left = n - i < 8 ? (int)(n - i) : 8;
    uint64_t x = 0;
    memcpy(&x, packed + i / 8 * bits, (size_t)(left * bits + 7) / 8);
    x = little_endian(spread_eight(little_endian(x) & (~(uint64_t)0 >> (64 - left * bits)), &s));
    memcpy(codes + i, &x, (size_t)left);
  }
}

void QD_ISA(qd_codes_pack)(const uint8_t *codes, int64_t n, int bits, uint8_t *packed) {
  const spread s = spread_of(bits);
  for (int64_t i = 0; i < n; i += 8) {
    int left = n - i < 8 ? (int)(n - i) : 8;
    uint64_t x = 0;
    memcpy(&x, codes + i, (size_t)left);
    x = little_endian(gather_eight(little_endian(x), &s));
    memcpy(packed + i / 8 * bits, &x, (size_t)(left * bits + 7) / 8);
  }
}

static void scale_codes(const uint8_t *restrict codes, int64_t n, float scale, float zero, float *restrict out) {
  for (int64_t i = 0; i < n; i++) out[i] = scale * ((float)codes[i] - zero);
}

static void round_codes(const uint8_t *restrict codes, int64_t n, float scale, float zero, uint16_t *restrict out) {
  for (int64_t i = 0; i < n; i++) out[i] = qd_bf16_from_f32(scale * ((float)codes[i] - zero));
}

/* The row's outliers at positions [first, first + n), over what the codes say. */
static void write_outliers(const qd_qtensor *q, int64_t row, int64_t first, int64_t n, qd_dtype dtype, void *out) {
  for (int64_t i = qd_qtensor_find_outlier(q, row, first), end = qd_qtensor_outlier_end(q, row); i < end; i++) {
    int64_t at = qd_qtensor_outlier_column(q, i) - first;
    if (at >= n) break;
    float value = qd_qtensor_outlier_value(q, i);
    if (dtype == QD_BF16) ((uint16_t *)out)[at] = qd_bf16_from_f32(value);
    else ((float *)out)[at] = value;
  }
}

/* One run of at most QD_CODES_RUN positions, group by group. */
static void dequantize_run(const qd_qtensor *q, int64_t row, int64_t first, int64_t n, qd_dtype dtype, void *out) {
  uint8_t codes[QD_CODES_RUN];
  int bits = q->scheme.bits;
  const uint8_t *packed = (const uint8_t *)q->codes.data + row * q->codes.stride[0] + first / 8 * bits;
  int64_t size = qd_scheme_group_size(q->scheme, q->columns);
  QD_ISA(qd_codes_unpack)(packed, n, bits, codes);
  for (int64_t i = 0; i < n;) {
    int64_t group = (first + i) / size, end = (group + 1) * size - first, run = (end < n ? end : n) - i;
    float scale = qd_qtensor_scale(q, row, group), zero = qd_qtensor_zero(q, row, group);
    if (dtype == QD_BF16)
      round_codes(codes + i, run, scale, zero, (uint16_t *)out + i);
    else
      scale_codes(codes + i, run, scale, zero, (float *)out + i);
    i += run;
  }
  if (q->scheme.spqr) write_outliers(q, row, first, n, dtype, out);
}

void QD_ISA(qd_codes_dequantize)(const qd_qtensor *q, int64_t row, int64_t first, int64_t n, qd_dtype dtype, void *out) {
  for (int64_t i = 0; i < n; i += QD_CODES_RUN) {
    int64_t run = n - i < QD_CODES_RUN ? n - i : QD_CODES_RUN;
    dequantize_run(q, row, first + i, run, dtype, (unsigned char *)out + (size_t)i * qd_dtype_bytes(dtype));
  }
}

static void round_sums(const float *restrict sum, int64_t n, uint16_t *restrict y) {
  for (int64_t i = 0; i < n; i++) y[i] = qd_bf16_from_f32(sum[i]);
}

static void round_biased(const float *restrict sum, const float *restrict bias, int64_t n, uint16_t *restrict y) {
  for (int64_t i = 0; i < n; i++) y[i] = qd_bf16_from_f32(sum[i] + bias[i]);
}

void QD_ISA(qd_round_row)(const float *sum, const float *bias, int64_t n, qd_dtype dtype, void *y) {
  float *out = y;
  if (dtype == QD_BF16 && bias)
    round_biased(sum, bias, n, y);
  else if (dtype == QD_BF16)
    round_sums(sum, n, y);
  else if (bias)
    for (int64_t i = 0; i < n; i++) out[i] = sum[i] + bias[i];
  else if (sum != out)
    memcpy(out, sum, (size_t)n * sizeof *out);
}
