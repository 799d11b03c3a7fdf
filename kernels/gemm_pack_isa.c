/* Packing of an operand into panels (gemm_unit.h).  Where the operand runs along k, blocks of 8 x 8 words (4 x 4 doubles) are
 * transposed in registers; where it runs along its rows, rows are copied; anything else goes element by element.
 *
 * Whole vectors are written even where a panel is narrower: the surplus falls on the next step's first elements, which are
 * written later, and behind the last step on the panel's tail. */
#include "kernels/gemm_unit.h"

#include <string.h>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

enum { MAX_WIDTH = QD_MAX_TILE_COLUMNS, WORDS = 8, DOUBLES = 4 };

/* Where a row does not exist. */
static const union {
  unsigned char bytes[QD_PRODUCT_CHUNK * sizeof(double)];
  double align;
} zeros;

static int at_most(int64_t n, int most) { return n < most ? (int)n : most; }

/* ---- blocks in registers ---- */
#if defined(__AVX2__)

/* Words at..at + 7 of eight rows, as eight steps. */
static inline void transpose_words(const unsigned char *const row[WORDS], int64_t at, uint32_t *to, int64_t width) {
  __m256 r[8], t[8];
  for (int i = 0; i < 8; i++) r[i] = _mm256_loadu_ps((const float *)(const void *)(row[i] + 4 * at));
  for (int i = 0; i < 8; i += 2) {
    t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
    t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
  }
  for (int i = 0; i < 8; i += 4) {
    r[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
    r[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xee);
    r[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
    r[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xee);
  }
  for (int i = 0; i < 4; i++) _mm256_storeu_ps((float *)(void *)(to + i * width), _mm256_permute2f128_ps(r[i], r[i + 4], 0x20));
  for (int i = 0; i < 4; i++)
    _mm256_storeu_ps((float *)(void *)(to + (i + 4) * width), _mm256_permute2f128_ps(r[i], r[i + 4], 0x31));
}

static inline void transpose_doubles(const unsigned char *const row[DOUBLES], int64_t at, double *to, int64_t width) {
  __m256d r[4], t[4];
  for (int i = 0; i < 4; i++) r[i] = _mm256_loadu_pd((const double *)(const void *)(row[i] + 8 * at));
  for (int i = 0; i < 4; i += 2) {
    t[i] = _mm256_unpacklo_pd(r[i], r[i + 1]);
    t[i + 1] = _mm256_unpackhi_pd(r[i], r[i + 1]);
  }
  for (int i = 0; i < 2; i++) _mm256_storeu_pd(to + i * width, _mm256_permute2f128_pd(t[i], t[i + 2], 0x20));
  for (int i = 0; i < 2; i++) _mm256_storeu_pd(to + (i + 2) * width, _mm256_permute2f128_pd(t[i], t[i + 2], 0x31));
}

#else

static inline void transpose_words(const unsigned char *const row[WORDS], int64_t at, uint32_t *to, int64_t width) {
  for (int k = 0; k < WORDS; k++)
    for (int i = 0; i < WORDS; i++) memcpy(to + k * width + i, row[i] + 4 * (at + k), 4);
}

static inline void transpose_doubles(const unsigned char *const row[DOUBLES], int64_t at, double *to, int64_t width) {
  for (int k = 0; k < DOUBLES; k++)
    for (int i = 0; i < DOUBLES; i++) memcpy(to + k * width + i, row[i] + 8 * (at + k), 8);
}

#endif

/* n elements of a row, padded with zeros to at least `width`. */
#if defined(__AVX512F__)

static inline void copy_words(const uint32_t *from, int n, int width, uint32_t *to) {
  for (int i = 0; i < width; i += 16) {
    __mmask16 mask = (__mmask16)(n - i >= 16 ? 0xffffu : n <= i ? 0u : (1u << (n - i)) - 1u);
    _mm512_storeu_si512(to + i, _mm512_maskz_loadu_epi32(mask, from + i));
  }
}

static inline void copy_doubles(const double *from, int n, int width, double *to) {
  for (int i = 0; i < width; i += 8) {
    __mmask8 mask = (__mmask8)(n - i >= 8 ? 0xffu : n <= i ? 0u : (1u << (n - i)) - 1u);
    _mm512_storeu_pd(to + i, _mm512_maskz_loadu_pd(mask, from + i));
  }
}

#else

static inline void copy_words(const uint32_t *from, int n, int width, uint32_t *to) {
  int i = 0;
  for (; i + WORDS <= n; i += WORDS) memcpy(to + i, from + i, WORDS * sizeof *to);
  for (; i < n; i++) to[i] = from[i];
  for (; i < width; i++) to[i] = 0;
}

static inline void copy_doubles(const double *from, int n, int width, double *to) {
  int i = 0;
  for (; i + DOUBLES <= n; i += DOUBLES) memcpy(to + i, from + i, DOUBLES * sizeof *to);
  for (; i < n; i++) to[i] = from[i];
  for (; i < width; i++) to[i] = 0;
}

#endif

/* ---- one panel from rows along k ---- */

/* The rows of a panel; where the panel is wider, zeros. */
typedef struct row_list {
  const unsigned char *at[MAX_WIDTH];
  int64_t bytes; /* from one row to the next */
} row_list;

static row_list find_rows(const void *first, int64_t row_bytes, int n) {
  row_list rows = {.bytes = row_bytes};
  for (int i = 0; i < MAX_WIDTH; i++) rows.at[i] = i < n ? (const unsigned char *)first + i * row_bytes : zeros.bytes;
  return rows;
}

/* Blocks of `size` rows go in ascending order, but one that the panel's width cuts goes first, so that its surplus is written
 * over. This is the block after the one at i; that of the next panel at the end. */
static int next_block(int i, int width, int size) {
  int cut = width % size ? width / size * size : -1, whole = width / size * size;
  int next = i == cut ? 0 : i + size;
  return next < whole ? next : width + (cut > 0 ? cut : 0);
}

static int first_block(int width, int size) { return width % size ? width / size * size : 0; }

/* Each row is a stream of its own, too short for the hardware to notice: ask for the rows of the next block. */
static inline void prefetch_rows(const unsigned char *const *row, int n, int64_t offset) {
  for (int i = 0; i < n; i++) __builtin_prefetch((const void *)((uintptr_t)row[i] + (uintptr_t)offset), 0, 2);
}

static void words_along_k(const row_list *rows, int64_t steps, int width, uint32_t *to) {
  int64_t whole = steps / WORDS * WORDS;
  for (int i = first_block(width, WORDS), next; i < width; i = next) {
    next = next_block(i, width, WORDS);
    int64_t ahead = (next - i) * rows->bytes;
    for (int64_t k = 0; k < whole; k += WORDS) {
      if (k % 16 == 0) prefetch_rows(rows->at + i, WORDS, ahead + 4 * k);
      transpose_words(rows->at + i, k, to + k * width + i, width);
    }
  }
  for (int64_t k = whole; k < steps; k++)
    for (int i = 0; i < width; i++) memcpy(to + k * width + i, rows->at[i] + 4 * k, 4);
}

static void doubles_along_k(const row_list *rows, int64_t steps, int width, double *to) {
  int64_t whole = steps / DOUBLES * DOUBLES;
  for (int i = first_block(width, DOUBLES), next; i < width; i = next) {
    next = next_block(i, width, DOUBLES);
    int64_t ahead = (next - i) * rows->bytes;
    for (int64_t k = 0; k < whole; k += DOUBLES) {
      if (k % 8 == 0) prefetch_rows(rows->at + i, DOUBLES, ahead + 8 * k);
      transpose_doubles(rows->at + i, k, to + k * width + i, width);
    }
  }
  for (int64_t k = whole; k < steps; k++)
    for (int i = 0; i < width; i++) memcpy(to + k * width + i, rows->at[i] + 8 * k, 8);
}

/* ---- fp32 and fp64 ---- */

/* Where an operand runs along its rows, a step is a row of memory that goes to all panels; the one for a later step is asked
 * for. */
enum { STEPS_AHEAD = 8 };

static inline void prefetch_step(const void *row, int64_t offset, int64_t bytes) {
  for (int64_t b = 0; b < bytes; b += 64) __builtin_prefetch((const void *)((uintptr_t)row + (uintptr_t)(offset + b)));
}

static void words_along_rows(const qd_gemm_rows *from, int width, uint32_t *panels) {
  int64_t stride = qd_panel_stride(from->k, width);
  for (int64_t k = 0; k < from->k; k++) {
    const uint32_t *row = (const uint32_t *)from->data + k * from->k_stride;
    prefetch_step(row, STEPS_AHEAD * from->k_stride * 4, from->rows * 4);
    uint32_t *to = panels + k * width;
    for (int64_t i = 0; i < from->rows; i += width, to += stride)
      copy_words(row + i, at_most(from->rows - i, width), width, to);
  }
}

static void doubles_along_rows(const qd_gemm_rows *from, int width, double *panels) {
  int64_t stride = qd_panel_stride(from->k, width);
  for (int64_t k = 0; k < from->k; k++) {
    const double *row = (const double *)from->data + k * from->k_stride;
    prefetch_step(row, STEPS_AHEAD * from->k_stride * 8, from->rows * 8);
    double *to = panels + k * width;
    for (int64_t i = 0; i < from->rows; i += width, to += stride)
      copy_doubles(row + i, at_most(from->rows - i, width), width, to);
  }
}

static void pack_words_panel(const qd_gemm_rows *from, int64_t i0, int width, uint32_t *to) {
  const uint32_t *first = (const uint32_t *)from->data + i0 * from->row_stride;
  int n = at_most(from->rows - i0, width);
  if (from->k_stride == 1) {
    row_list rows = find_rows(first, from->row_stride * 4, n);
    words_along_k(&rows, from->k, width, to);
    return;
  }
  for (int64_t k = 0; k < from->k; k++)
    for (int i = 0; i < width; i++) to[k * width + i] = i < n ? first[i * from->row_stride + k * from->k_stride] : 0;
}

static void pack_doubles_panel(const qd_gemm_rows *from, int64_t i0, int width, double *to) {
  const double *first = (const double *)from->data + i0 * from->row_stride;
  int n = at_most(from->rows - i0, width);
  if (from->k_stride == 1) {
    row_list rows = find_rows(first, from->row_stride * 8, n);
    doubles_along_k(&rows, from->k, width, to);
    return;
  }
  for (int64_t k = 0; k < from->k; k++)
    for (int i = 0; i < width; i++) to[k * width + i] = i < n ? first[i * from->row_stride + k * from->k_stride] : 0;
}

void QD_ISA(qd_panel_pack_f32)(const qd_gemm_rows *from, int width, void *panels) {
  int64_t stride = qd_panel_stride(from->k, width);
  if (from->row_stride == 1)
    words_along_rows(from, width, panels);
  else
    for (int64_t i = 0; i < from->rows; i += width) pack_words_panel(from, i, width, (uint32_t *)panels + i / width * stride);
}

void QD_ISA(qd_panel_pack_f64)(const qd_gemm_rows *from, int width, void *panels) {
  int64_t stride = qd_panel_stride(from->k, width);
  if (from->row_stride == 1)
    doubles_along_rows(from, width, panels);
  else
    for (int64_t i = 0; i < from->rows; i += width) pack_doubles_panel(from, i, width, (double *)panels + i / width * stride);
}

/* ---- bf16 ---- */

/* n elements of a row (two rows) as words, padded with zeros to at least `width`: the value in the upper half, as fp32; or a
 * pair with the even step in the lower half. */
#if defined(__AVX512F__)

static inline __m512i load_halves(const uint16_t *from, int n) {
  __mmask16 mask = (__mmask16)(n >= 16 ? 0xffffu : n <= 0 ? 0u : (1u << n) - 1u);
  return _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, from));
}

static inline void widen_row(const uint16_t *from, int n, int width, uint32_t *to) {
  for (int i = 0; i < width; i += 16) _mm512_storeu_si512(to + i, _mm512_slli_epi32(load_halves(from + i, n - i), 16));
}

static inline void pair_row(const uint16_t *even, const uint16_t *odd, int n, int width, uint32_t *to) {
  for (int i = 0; i < width; i += 16) {
    __m512i high = _mm512_slli_epi32(load_halves(odd + i, n - i), 16);
    _mm512_storeu_si512(to + i, _mm512_or_si512(load_halves(even + i, n - i), high));
  }
}

#else

static inline void widen_row(const uint16_t *restrict from, int n, int width, uint32_t *restrict to) {
  for (int i = 0; i < n; i++) to[i] = (uint32_t)from[i] << 16;
  for (int i = n; i < width; i++) to[i] = 0;
}

static inline void pair_row(const uint16_t *restrict even, const uint16_t *restrict odd, int n, int width,
                            uint32_t *restrict to) {
  for (int i = 0; i < n; i++) to[i] = even[i] | (uint32_t)odd[i] << 16;
  for (int i = n; i < width; i++) to[i] = 0;
}

#endif

static const uint16_t *half_row(const qd_gemm_rows *from, int64_t k) {
  return (const uint16_t *)from->data + k * from->k_stride;
}

static const uint16_t *no_halves(void) { return (const uint16_t *)(const void *)zeros.bytes; }

/* A last k without a partner is paired with zero, here and below. */
static void pairs_along_rows(const qd_gemm_rows *from, int width, uint32_t *panels) {
  int64_t steps = qd_panel_steps(QD_PANEL_PAIRS, from->k), stride = qd_panel_stride(steps, width);
  for (int64_t p = 0; p < steps; p++) {
    const uint16_t *even = half_row(from, 2 * p), *odd = 2 * p + 1 < from->k ? half_row(from, 2 * p + 1) : NULL;
    prefetch_step(even, STEPS_AHEAD * from->k_stride * 2, from->rows * 2);
    prefetch_step(even, (STEPS_AHEAD + 1) * from->k_stride * 2, from->rows * 2);
    uint32_t *to = panels + p * width;
    for (int64_t i = 0; i < from->rows; i += width, to += stride)
      pair_row(even + i, odd ? odd + i : no_halves(), at_most(from->rows - i, width), width, to);
  }
}

static void wide_along_rows(const qd_gemm_rows *from, int width, uint32_t *panels) {
  int64_t steps = qd_panel_steps(QD_PANEL_WIDE, from->k), stride = qd_panel_stride(steps, width);
  for (int64_t step = 0; step < steps; step++) {
    const uint16_t *row = (step ^ 1) < from->k ? half_row(from, step ^ 1) : NULL;
    if (row) prefetch_step(row, STEPS_AHEAD * from->k_stride * 2, from->rows * 2);
    uint32_t *to = panels + step * width;
    for (int64_t i = 0; i < from->rows; i += width, to += stride)
      widen_row(row ? row + i : no_halves(), at_most(from->rows - i, width), width, to);
  }
}

static void pack_pairs_panel(const qd_gemm_rows *from, int64_t i0, int width, uint32_t *to) {
  const uint16_t *first = (const uint16_t *)from->data + i0 * from->row_stride;
  int64_t k_stride = from->k_stride, pairs = from->k / 2;
  int n = at_most(from->rows - i0, width);
  if (k_stride == 1) {
    row_list rows = find_rows(first, from->row_stride * 2, n);
    words_along_k(&rows, pairs, width, to);
  } else {
    for (int64_t k = 0; k < pairs; k++)
      for (int i = 0; i < width; i++) {
        const uint16_t *even = first + i * from->row_stride + 2 * k * k_stride;
        to[k * width + i] = i < n ? even[0] | (uint32_t)even[k_stride] << 16 : 0;
      }
  }
  if (from->k % 2)
    for (int i = 0; i < width; i++) to[pairs * width + i] = i < n ? first[i * from->row_stride + 2 * pairs * k_stride] : 0;
}

static void pack_wide_panel(const qd_gemm_rows *from, int64_t i0, int width, uint32_t *restrict to) {
  uint32_t pairs[QD_PRODUCT_CHUNK / 2 * MAX_WIDTH + 2 * QD_PANEL_TAIL];
  int64_t steps = qd_panel_steps(QD_PANEL_PAIRS, from->k);
  pack_pairs_panel(from, i0, width, pairs);
  for (int64_t k = 0; k < steps; k++) {
    for (int i = 0; i < width; i++) to[2 * k * width + i] = pairs[k * width + i] & 0xffff0000u;
    for (int i = 0; i < width; i++) to[(2 * k + 1) * width + i] = pairs[k * width + i] << 16;
  }
}

void QD_ISA(qd_panel_pack_pairs)(const qd_gemm_rows *from, int width, void *panels) {
  int64_t stride = qd_panel_stride(qd_panel_steps(QD_PANEL_PAIRS, from->k), width);
  if (from->row_stride == 1)
    pairs_along_rows(from, width, panels);
  else
    for (int64_t i = 0; i < from->rows; i += width) pack_pairs_panel(from, i, width, (uint32_t *)panels + i / width * stride);
}

void QD_ISA(qd_panel_pack_wide)(const qd_gemm_rows *from, int width, void *panels) {
  int64_t stride = qd_panel_stride(qd_panel_steps(QD_PANEL_WIDE, from->k), width);
  if (from->row_stride == 1)
    wide_along_rows(from, width, panels);
  else
    for (int64_t i = 0; i < from->rows; i += width) pack_wide_panel(from, i, width, (uint32_t *)panels + i / width * stride);
}
