/* Codes in panels: unpacked, scaled and multiplied in registers, or unpacked into a panel of the matrix kernel.
 *
 * A weight of b bits costs a shift, a mask with the bits of 1.0, which makes 1 + q / 2^b of it, and one fused multiply-add:
 *   (1 + q / 2^b) (s 2^b) - s (2^b + z)  =  s (q - z)
 * With a scale from fp16 (11 bits) every one of these numbers is exact in fp32, so this is the number of qd_dequant, for s > 0
 * with the sign of its zeros too.  Other scales go the general way: q - z first, then times s.  bf16 rounds and joins pairs. */
#include "kernels/gemm_sums.h"
#include "kernels/panels_isa.h"
#include "kernels/panels_vector.h"

#include <string.h>

enum { F32_VECTORS = 2, PANEL_WIDTH = F32_LANES * F32_VECTORS, PAIR_WIDTH = QD_CODE_PAIR * PANEL_WIDTH };

/* Constants of a kernel. */
typedef struct code_shape {
  int  bits, panels, rows; /* panels at once, rows of a */
  bool kept;               /* for the peak: words are always the same ones, in registers */
} code_shape;

/* A panel at one run: its words, and the run's group. */
typedef struct code_panel {
  const uint32_t *memory;
  words   kept[F32_VECTORS];
  f32_sum scale[F32_VECTORS], offset[F32_VECTORS]; /* s 2^b, -s (2^b + z) */
} code_panel;

typedef struct code_kernels {
  void (*strip[QD_CODE_ROWS])(const qd_code_panels *b, const qd_gemm_strip *s);
  void (*unpack)(const qd_code_panels *b, uint32_t *to);
  double (*peak)(int64_t rounds);
} code_kernels;

typedef struct kind_kernels {
  code_kernels bits[QD_MAX_BITS - QD_MIN_BITS + 1];
  void (*unpack_any)(const qd_code_panels *b, uint32_t *to);
} kind_kernels;

QD_INLINE words word_at(const code_panel *from, bool kept, int i, int v) {
  if (!kept) return words_load(from->memory + i * PAIR_WIDTH + v * F32_LANES);
  words w = from->kept[v];
  KEEP_VECTOR(w);
  return w;
}

/* The codes that stand in what the others leave of the words; at the end they reach up to bit 31. */
QD_INLINE void join_rest(const code_panel *from, code_shape shape, words *rest) {
  int bits = shape.bits, top = 32 / bits * bits;
#pragma GCC unroll 2
  for (int v = 0; v < F32_VECTORS; v++) {
    rest[v] = words_none();
    if (top == 32) continue;
#pragma GCC unroll 8
    for (int i = 0; i < bits; i++) rest[v] = words_top(rest[v], word_at(from, shape.kept, i, v), top);
  }
}

/* The weight of code t, t a constant. */
QD_INLINE f32_sum weight_at(const code_panel *from, code_shape shape, int t, int v, words rest) {
  int bits = shape.bits, a_word = 32 / bits, whole = a_word * bits;
  f32_sum value = t < whole ? words_value(word_at(from, shape.kept, t / a_word, v), t % a_word * bits, bits)
                            : words_value(rest, 32 - (QD_CODE_RUN - t) * bits, bits);
  return f32_fma(value, from->scale[v], from->offset[v]);
}

QD_INLINE void load_group(const qd_code_panels *b, int64_t index, int64_t row, code_panel *to) {
  int64_t at = index * b->group_stride + row;
  float unit = (float)(1 << b->bits);
  for (int v = 0; v < F32_VECTORS; v++, at += F32_LANES) {
    f32_sum scale = scales_f16((const uint16_t *)b->scales + at);
    to->scale[v] = f32_multiply(scale, f32_broadcast(&unit));
    to->offset[v] = f32_subtract(f32_zero(), f32_multiply(scale, zeros_value(b->zeros + at, b->bits)));
  }
}

/* The first run's words of a panel, counted from the first one. */
QD_INLINE const uint32_t *panel_words(const qd_code_panels *b, int64_t panel) {
  int64_t runs = (b->k + QD_CODE_RUN - 1) / QD_CODE_RUN, index = b->half + panel;
  return b->words + index / QD_CODE_PAIR * runs * b->bits * PAIR_WIDTH + index % QD_CODE_PAIR * PANEL_WIDTH;
}

/* The stream is read from front to back, the hardware alone stops at each page: ask for the same run of the next pair. */
QD_INLINE void prefetch_run(const qd_code_panels *b, const uint32_t *from, int bits) {
  uintptr_t ahead = (uintptr_t)(b->k / QD_CODE_RUN * bits * PAIR_WIDTH) * sizeof *from;
  for (int i = 0; i < bits * PAIR_WIDTH; i += 16) __builtin_prefetch((const void *)((uintptr_t)(from + i) + ahead), 0, 2);
}

QD_DEFINE_PUT_SUMS(put_sums, float)

QD_INLINE void finish_sums(const qd_gemm_strip *s, int64_t column, int rows, const f32_sum *sum) {
  float part[QD_CODE_ROWS * PANEL_WIDTH];
  for (int i = 0; i < rows; i++)
    for (int v = 0; v < F32_VECTORS; v++) f32_write(part + i * PANEL_WIDTH + v * F32_LANES, sum[v * rows + i]);
  put_sums(s, column, rows, PANEL_WIDTH, part);
}

/* ---- what a kind does with two weights; `at` is the panel of a's element of the even one ---- */

enum { f32_steps_of = 1, wide_steps_of = 1, pairs_steps_of = 2 }; /* codes a step of the panel of a */

QD_INLINE void f32_use(const void *a, int at, int rows, f32_sum even, f32_sum odd, f32_sum *sum) {
  const float *x = a;
  *sum = f32_fma(f32_broadcast(x + at), even, *sum);
  *sum = f32_fma(f32_broadcast(x + at + rows), odd, *sum);
}

QD_INLINE void f32_put(uint32_t *to, int64_t k, int v, f32_sum even, f32_sum odd) {
  float *out = (float *)(void *)to + k * PANEL_WIDTH + v * F32_LANES;
  f32_write(out, even);
  f32_write(out + PANEL_WIDTH, odd);
}

/* The odd k first, as a stands. */
QD_INLINE void wide_use(const void *a, int at, int rows, f32_sum even, f32_sum odd, f32_sum *sum) {
  f32_use(a, at, rows, f32_keep_bf16(odd), f32_keep_bf16(even), sum);
}

QD_INLINE void wide_put(uint32_t *to, int64_t k, int v, f32_sum even, f32_sum odd) {
  f32_put(to, k, v, f32_keep_bf16(odd), f32_keep_bf16(even));
}

#ifdef QD_HAVE_PAIRS
/* Steps count pairs: element at + ... of the kinds above is at / 2 here, but for the row. */
QD_INLINE QD_PAIRS_TARGET void pairs_use(const void *a, int at, int rows, f32_sum even, f32_sum odd, f32_sum *sum) {
  int step = at / rows / 2, row = at % rows;
  *sum = pairs_fma(pairs_broadcast((const uint32_t *)a + step * rows + row), pairs_join(even, odd), *sum);
}

QD_INLINE QD_PAIRS_TARGET void pairs_put(uint32_t *to, int64_t k, int v, f32_sum even, f32_sum odd) {
  _mm512_storeu_si512(to + k / 2 * PANEL_WIDTH + v * F32_LANES, pairs_join(even, odd));
}
#endif

/* ---- scales and groups of any kind, and a last run that is not whole: code by code ---- */

QD_INLINE void codes_of(const uint32_t *run, int bits, int t, uint32_t *code) {
  int a_word = 32 / bits, whole = a_word * bits, piece = 32 - whole;
  uint32_t mask = (1u << bits) - 1;
  const uint32_t *word = run + t / a_word * PAIR_WIDTH;
  int shift = t < whole ? t % a_word * bits : (t - whole) * bits;
  for (int lane = 0; lane < PANEL_WIDTH && t < whole; lane++) code[lane] = word[lane] >> shift & mask;
  if (t < whole) return;
  for (int lane = 0; lane < PANEL_WIDTH; lane++) code[lane] = 0;
  for (int i = 0; i < bits; i++)
    for (int lane = 0; lane < PANEL_WIDTH; lane++) code[lane] |= run[i * PAIR_WIDTH + lane] >> whole << (i * piece);
  for (int lane = 0; lane < PANEL_WIDTH; lane++) code[lane] = code[lane] >> shift & mask;
}

/* q - z of 2^QD_MAX_BITS + q. */
QD_INLINE f32_sum less_zeros(const qd_code_panels *b, f32_sum value, int64_t at, const float *unit) {
  if (b->real_zeros == NULL) return f32_subtract(value, zeros_value(b->zeros + at, QD_MAX_BITS));
  return f32_subtract(f32_subtract(value, f32_broadcast(unit)), scales_f32(b->real_zeros + at));
}

/* A k behind the last one is a weight of zero: half of a pair. */
QD_INLINE void weights_of(const qd_code_panels *b, int64_t k, f32_sum *out) {
  for (int v = 0; v < F32_VECTORS; v++) out[v] = f32_zero();
  if (k >= b->k) return;
  uint32_t code[PANEL_WIDTH] __attribute__((aligned(64)));
  codes_of(panel_words(b, 0) + k / QD_CODE_RUN * b->bits * PAIR_WIDTH, b->bits, (int)(k % QD_CODE_RUN), code);
  int64_t at = (b->first + k) / b->group_size * b->group_stride;
  const float unit = 1 << QD_MAX_BITS;
  for (int v = 0; v < F32_VECTORS; v++, at += F32_LANES) {
    f32_sum value = f32_multiply(words_value(words_load(code + v * F32_LANES), 0, QD_MAX_BITS), f32_broadcast(&unit));
    f32_sum scale = b->scale_dtype == QD_F16 ? scales_f16((const uint16_t *)b->scales + at)
                                             : scales_f32((const float *)b->scales + at);
    out[v] = f32_multiply(less_zeros(b, value, at, &unit), scale);
  }
}

/* ---- each kind ---- */

#define KIND f32
#define TARGET
#include "kernels/panels_tile.h"

#define KIND wide
#define TARGET
#include "kernels/panels_tile.h"

#ifdef QD_HAVE_PAIRS
#define KIND pairs
#define TARGET QD_PAIRS_TARGET
#include "kernels/panels_tile.h"
#endif

/* What a kind's panels are but for the zeros that fill blocks of 32 k. */
static qd_panel_kind plain_kind(qd_panel_kind kind) {
  return kind == QD_PANEL_BLOCKS ? QD_PANEL_WIDE : kind == QD_PANEL_TILES ? QD_PANEL_PAIRS : kind;
}

static const kind_kernels *kernels_of(qd_panel_kind kind) {
#ifdef QD_HAVE_PAIRS
  if (plain_kind(kind) == QD_PANEL_PAIRS) return &pairs_kernels;
#endif
  return plain_kind(kind) == QD_PANEL_WIDE ? &wide_kernels : &f32_kernels;
}

/* As the plain kinds' `put` lays a weight. */
static void put_outlier(qd_panel_kind kind, void *to, int64_t k, int lane, float value) {
  uint16_t half = qd_bf16_from_f32(value);
  if (kind == QD_PANEL_F32) ((float *)to)[k * PANEL_WIDTH + lane] = value;
  else if (kind == QD_PANEL_WIDE) ((float *)to)[(k ^ 1) * PANEL_WIDTH + lane] = qd_bf16_to_f32(half);
  else ((uint16_t *)to)[2 * (k / 2 * PANEL_WIDTH + lane) + (k & 1)] = half;
}

static void put_outliers(const qd_code_panels *b, qd_panel_kind kind, void *to) {
  const qd_qtensor *q = b->outliers;
  for (int lane = 0; lane < PANEL_WIDTH && b->row + lane < q->rows; lane++) {
    int64_t i = qd_qtensor_find_outlier(q, b->row + lane, b->first), end = qd_qtensor_outlier_end(q, b->row + lane);
    for (int64_t k; i < end && (k = qd_qtensor_outlier_column(q, i) - b->first) < b->k; i++)
      put_outlier(kind, to, k, lane, qd_qtensor_outlier_value(q, i));
  }
}

void QD_ISA(qd_code_panel_unpack)(const qd_code_panels *from, qd_panel_kind kind, void *to) {
  const kind_kernels *kernels = kernels_of(kind);
  (qd_code_panels_direct(from) ? kernels->bits[from->bits - QD_MIN_BITS].unpack : kernels->unpack_any)(from, to);
  if (from->outliers != NULL) put_outliers(from, plain_kind(kind), to);
  if (!qd_panel_in_blocks(kind)) return;
  int64_t filled = qd_panel_steps(plain_kind(kind), from->k) * PANEL_WIDTH;
  memset((uint32_t *)to + filled, 0, (size_t)(qd_panel_steps(kind, from->k) * PANEL_WIDTH - filled) * sizeof(uint32_t));
}

void QD_ISA(qd_code_panel_strip)(const qd_code_panels *b, qd_panel_kind kind, const qd_gemm_strip *strip) {
  kernels_of(kind)->bits[b->bits - QD_MIN_BITS].strip[strip->rows - 1](b, strip);
}

double QD_ISA(qd_code_panel_peak)(qd_panel_kind kind, int bits, int64_t rounds) {
  return kernels_of(kind)->bits[bits - QD_MIN_BITS].peak(rounds);
}
