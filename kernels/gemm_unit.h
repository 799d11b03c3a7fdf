/* The parts of the matrix kernel that are compiled for each instruction set: packing into panels, and the register tiles that
 * multiply them.  gemm_cpu.c drives them; nobody else includes this.
 *
 * A panel holds `width` rows of an operand (rows of a, columns of b) over the steps of one chunk: element (step, row) at
 * step * width + row.  Panels of b have the unit's full width, padded with zeros; the last panel of a is as narrow as it is. */
#ifndef QDIST_KERNELS_GEMM_UNIT_H
#define QDIST_KERNELS_GEMM_UNIT_H

#include "kernels/isa.h"
#include "kernels/ops.h"

typedef enum qd_panel_kind {
  QD_PANEL_F32,
  QD_PANEL_F64,
  QD_PANEL_WIDE,  /* bf16 widened to fp32, the odd k of each pair first: a fp32 panel of an even number of steps */
  QD_PANEL_PAIRS, /* bf16, a step is a pair (k, k + 1) in 32 bits: for VDPBF16PS */
  QD_PANEL_BLOCKS, /* as WIDE, padded with zeros to whole blocks of 32 k: bf16-amx without its unit (gemm_amx_isa.c) */
  QD_PANEL_TILES,  /* as PAIRS, padded likewise; panels of a are tiles, a block's rows one after the other: for TDPBF16PS */
} qd_panel_kind;

typedef enum qd_tile_update { QD_TILE_STORE, QD_TILE_ADD, QD_TILE_SUBTRACT } qd_tile_update;

/* One panel of a against consecutive panels of b: `rows` x `columns` of c. */
typedef struct qd_gemm_strip {
  int64_t steps;
  const void *a, *b;
  void *c;
  int64_t c_stride; /* in elements */
  int rows;
  int64_t columns;
  qd_tile_update update; /* c = chain, c + chain or c - chain */
  const void *ahead;     /* rows that will be packed next: tile by tile asked into the cache.  NULL: none */
  int64_t ahead_stride, ahead_bytes;
} qd_gemm_strip;

/* Rows to pack: element (row, k) at data + row * row_stride + k * k_stride (in elements). */
typedef struct qd_gemm_rows {
  const void *data;
  int64_t row_stride, k_stride;
  int64_t rows, k;
} qd_gemm_rows;

/* What an instruction set has for one kind of panel. */
typedef struct qd_gemm_unit {
  int rows, columns; /* of the register tile: widths of a panel of a (at most) and of b */
  size_t bytes;      /* of a panel's element */
  /* All of `from` into panels of `width`.  Narrow panels are padded with zeros; a panel of a is as narrow as its rows: ask for
   * it so. */
  void (*pack)(const qd_gemm_rows *from, int width, void *panels);
  void (*strip)(const qd_gemm_strip *strip);
  void (*pack_a)(const qd_gemm_rows *from, int width, void *panels); /* where panels of a look otherwise; NULL: they do not */
} qd_gemm_unit;

QD_ISA_DECLARE(void, qd_panel_pack_f32, (const qd_gemm_rows *from, int width, void *panels));
QD_ISA_DECLARE(void, qd_panel_pack_f64, (const qd_gemm_rows *from, int width, void *panels));
QD_ISA_DECLARE(void, qd_panel_pack_wide, (const qd_gemm_rows *from, int width, void *panels));
QD_ISA_DECLARE(void, qd_panel_pack_pairs, (const qd_gemm_rows *from, int width, void *panels));

/* What operands of a dtype (F32, BF16, F64) are packed as on the units of the device; and weights that stay in panels: never
 * widened where a unit takes them as they are, since few tokens wait for memory. */
qd_panel_kind qd_gemm_kind(const qd_device *device, qd_dtype dtype);
qd_panel_kind qd_gemm_kept_kind(const qd_device *device, qd_dtype dtype);

/* NULL where the build has no such kind (QD_PANEL_PAIRS and QD_PANEL_TILES but on AVX-512). */
QD_ISA_DECLARE(const qd_gemm_unit *, qd_gemm_find_unit, (qd_panel_kind kind));
QD_ISA_DECLARE(const qd_gemm_unit *, qd_gemm_find_amx_unit, (qd_panel_kind kind)); /* BLOCKS and TILES: gemm_amx_isa.c */

/* Panels are written with whole vectors, whose surplus falls on what is written later and, at the end, into a tail behind the
 * panel. */
enum { QD_PANEL_TAIL = 16, QD_MAX_TILE_ROWS = 14, QD_MAX_TILE_COLUMNS = 32 };

static inline int64_t qd_panel_steps(qd_panel_kind kind, int64_t k) {
  int64_t blocks = (k + QD_AMX_BLOCK - 1) / QD_AMX_BLOCK;
  switch (kind) {
    case QD_PANEL_WIDE: return (k + 1) / 2 * 2;
    case QD_PANEL_PAIRS: return (k + 1) / 2;
    case QD_PANEL_BLOCKS: return blocks * QD_AMX_BLOCK;
    case QD_PANEL_TILES: return blocks * QD_AMX_BLOCK / 2;
    default: return k;
  }
}

/* Kinds of bf16-amx: two chains, closed every 32 k. */
static inline bool qd_panel_in_blocks(qd_panel_kind kind) { return kind == QD_PANEL_BLOCKS || kind == QD_PANEL_TILES; }

/* Elements from one panel to the next; a multiple of 64 bytes. */
static inline int64_t qd_panel_stride(int64_t steps, int width) {
  return (steps * width + QD_PANEL_TAIL - 1) / QD_PANEL_TAIL * QD_PANEL_TAIL + QD_PANEL_TAIL;
}

#endif
