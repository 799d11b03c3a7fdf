/* The arithmetic bf16-amx (ops.h): the order of TDPBF16PS, by that instruction where the CPU has it, and by fused multiply-adds
 * where it has not.
 *
 * TDPBF16PS multiplies a tile of 16 rows by 32 k with one of 32 k by 16 columns.  Of each element it sums the 16 even and the
 * 16 odd products apart, each a chain from zero, and adds both sums, then the result to the tile (Intel's Architecture
 * Instruction Set Extensions reference; rounded to nearest, denormals zero whatever MXCSR says).  So a chunk of 256 k is eight
 * of them on tiles that begin as zeros, and the driver adds the chunk's sum to c as it does in any arithmetic.
 *
 * Bound: by two multiply-adds a pair without the unit, the rate of fp32; by one TDPBF16PS in 16 cycles with it, a third of
 * which goes into storing and adding a chunk's tiles. */
#include "kernels/gemm_sums.h"
#include "kernels/gemm_vector.h"

#include <string.h>

QD_DEFINE_PUT_SUMS(put_sums, float)

/* ---- packing: panels of another kind, padded to whole blocks ---- */

static const void *row_at(const qd_gemm_rows *from, int64_t row) {
  return (const uint16_t *)from->data + row * from->row_stride;
}

static qd_gemm_rows rows_from(const qd_gemm_rows *from, int64_t first, int width) {
  qd_gemm_rows part = *from;
  part.data = row_at(from, first);
  part.rows = from->rows - first < width ? from->rows - first : width;
  return part;
}

/* Words are zeros, or pairs of them, in either kind. */
static void pack_padded(qd_panel_kind plain, qd_panel_kind padded, const qd_gemm_rows *from, int width, uint32_t *panels) {
  void (*pack)(const qd_gemm_rows *, int, void *) =
      plain == QD_PANEL_WIDE ? QD_ISA(qd_panel_pack_wide) : QD_ISA(qd_panel_pack_pairs);
  int64_t filled = qd_panel_steps(plain, from->k), steps = qd_panel_steps(padded, from->k);
  if (filled == steps) {
    pack(from, width, panels);
    return;
  }
  for (int64_t i = 0; i < from->rows; i += width, panels += qd_panel_stride(steps, width)) {
    qd_gemm_rows one = rows_from(from, i, width);
    pack(&one, width, panels);
    memset(panels + filled * width, 0, (size_t)((steps - filled) * width) * sizeof *panels);
  }
}

static void pack_blocks(const qd_gemm_rows *from, int width, void *panels) {
  pack_padded(QD_PANEL_WIDE, QD_PANEL_BLOCKS, from, width, panels);
}

/* ---- without the unit ---- */

#if defined(__AVX512F__)
enum { ROWS = 7 };
#elif defined(__AVX2__)
enum { ROWS = 3 };
#else
enum { ROWS = 4 };
#endif
enum { VECTORS = 2, WIDTH = VECTORS * F32_LANES };

/* One block: its odd and its even products, step by step as a panel of kind BLOCKS has them. */
QD_INLINE void add_block(const float *a, const float *b, int rows, float *total) {
  f32_sum odd[ROWS * VECTORS], even[ROWS * VECTORS];
#pragma GCC unroll 14
  for (int i = 0; i < rows * VECTORS; i++) odd[i] = even[i] = f32_zero();
  for (int step = 0; step < QD_AMX_BLOCK; step += 2, a += 2 * rows, b += 2 * WIDTH) {
    f32_input y[VECTORS];
#pragma GCC unroll 2
    for (int v = 0; v < VECTORS; v++) y[v] = f32_load(b + v * F32_LANES);
#pragma GCC unroll 14
    for (int i = 0; i < rows * VECTORS; i++)
      odd[i] = f32_fma(f32_broadcast(a + i / VECTORS), y[i % VECTORS], odd[i]);
#pragma GCC unroll 2
    for (int v = 0; v < VECTORS; v++) y[v] = f32_load(b + WIDTH + v * F32_LANES);
#pragma GCC unroll 14
    for (int i = 0; i < rows * VECTORS; i++)
      even[i] = f32_fma(f32_broadcast(a + rows + i / VECTORS), y[i % VECTORS], even[i]);
  }
#pragma GCC unroll 14
  for (int i = 0; i < rows * VECTORS; i++) {
    float *at = total + i * F32_LANES;
    f32_write(at, f32_add(f32_read(at), f32_add(even[i], odd[i])));
  }
}

QD_INLINE void blocks_strip_of(const qd_gemm_strip *s, int rows) {
  for (int64_t column = 0; column < s->columns; column += WIDTH) {
    const float *a = s->a, *b = (const float *)s->b + column / WIDTH * qd_panel_stride(s->steps, WIDTH);
    float total[ROWS * WIDTH] = {0};
    for (int64_t step = 0; step < s->steps; step += QD_AMX_BLOCK)
      add_block(a + step * rows, b + step * WIDTH, rows, total);
    put_sums(s, column, rows, WIDTH, total);
  }
}

static void blocks_strip(const qd_gemm_strip *s) {
  switch (s->rows) {
    case 1: blocks_strip_of(s, 1); break;
    case 2: blocks_strip_of(s, 2); break;
    case 3: blocks_strip_of(s, 3); break;
#if !defined(__AVX2__) || defined(__AVX512F__)
    case 4: blocks_strip_of(s, 4); break;
#endif
#if defined(__AVX512F__)
    case 5: blocks_strip_of(s, 5); break;
    case 6: blocks_strip_of(s, 6); break;
    case 7: blocks_strip_of(s, 7); break;
#endif
  }
}

/* ---- with it ---- */
#if defined(__AVX512F__) && !defined(TILE_MULTIPLY) /* a test brings a model */
#include "kernels/amx.h"
#define TILES_TARGET QD_AMX_TARGET
#define TILES_BEGIN(rows) qd_amx_begin(rows)
#define TILES_END() qd_amx_end()
#define TILE_ZERO(t) _tile_zero(t)
#define TILE_LOAD(t, from, bytes) _tile_loadd(t, from, bytes)
#define TILE_STORE(t, to, bytes) _tile_stored(t, to, bytes)
#define TILE_MULTIPLY(c, a, b) _tile_dpbf16ps(c, a, b)
#endif

#if defined(TILE_MULTIPLY)
#include "kernels/gemm_amx_tile.h"

static void pack_tiles_b(const qd_gemm_rows *from, int width, void *panels) {
  pack_padded(QD_PANEL_PAIRS, QD_PANEL_TILES, from, width, panels);
}

/* Rows that run along k are copied a block at a time. */
static void tiles_along_k(const qd_gemm_rows *from, uint16_t *to) {
  for (int64_t k = 0; k < from->k; k += QD_AMX_BLOCK) {
    int64_t n = from->k - k < QD_AMX_BLOCK ? from->k - k : QD_AMX_BLOCK;
    for (int64_t r = 0; r < from->rows; r++, to += QD_AMX_BLOCK) {
      memcpy(to, (const uint16_t *)row_at(from, r) + k, (size_t)n * sizeof *to);
      memset(to + n, 0, (size_t)(QD_AMX_BLOCK - n) * sizeof *to);
    }
  }
}

/* Others are packed as pairs, pair by pair; each block of 16 pairs of all rows is then turned, as fp32 words are. */
static void tiles_across_k(const qd_gemm_rows *from, uint32_t *to) {
  uint32_t pairs[QD_PRODUCT_CHUNK / 2 * TILES_ROWS + 2 * QD_PANEL_TAIL];
  int width = (int)from->rows;
  pack_padded(QD_PANEL_PAIRS, QD_PANEL_TILES, from, width, pairs);
  for (int64_t step = 0; step < qd_panel_steps(QD_PANEL_TILES, from->k); step += TILE_WORDS)
    QD_ISA(qd_panel_pack_f32)
    (&(qd_gemm_rows){pairs + step * width, width, 1, TILE_WORDS, width}, TILE_WORDS, to + step * width);
}

static void pack_tiles_a(const qd_gemm_rows *from, int width, void *panels) {
  int64_t stride = qd_panel_stride(qd_panel_steps(QD_PANEL_TILES, from->k), width);
  for (int64_t i = 0; i < from->rows; i += width) {
    qd_gemm_rows one = rows_from(from, i, width);
    uint32_t *to = (uint32_t *)panels + i / width * stride;
    if (from->k_stride == 1)
      tiles_along_k(&one, (uint16_t *)to);
    else
      tiles_across_k(&one, to);
  }
}

#endif

const qd_gemm_unit *QD_ISA(qd_gemm_find_amx_unit)(qd_panel_kind kind) {
  static const qd_gemm_unit blocks = {ROWS, WIDTH, sizeof(float), pack_blocks, blocks_strip, NULL};
#if defined(TILE_MULTIPLY)
  static const qd_gemm_unit tiles = {TILES_ROWS, TILES_COLUMNS, sizeof(uint32_t), pack_tiles_b, tiles_strip, pack_tiles_a};
  if (kind == QD_PANEL_TILES) return &tiles;
#endif
  return kind == QD_PANEL_BLOCKS ? &blocks : NULL;
}
