/* A tile of rows inside one block of GPTQ's loop: rows lie in lanes, one column after the other. */
#ifndef QDIST_KERNELS_GPTQ_CPU_H
#define QDIST_KERNELS_GPTQ_CPU_H

#include "kernels/gemm_cpu.h"
#include "kernels/isa.h"

enum {
  QD_GPTQ_STRIP = 8,       /* columns that are brought up to date together                       */
  QD_GPTQ_ROW_UNIT = 32,   /* a tile's rows are filled up to a multiple of this                  */
  QD_GPTQ_TILE_ROWS = 256, /* at most                                                            */
  QD_GPTQ_ROW_GAP = 16,    /* rows left free behind a column, so that columns spread over a cache */
};

/* Columns count from the block's first; column c of a matrix starts at c * pitch. */
typedef struct qd_gptq_tile {
  int64_t  rows, padded, pitch;
  float   *w, *e;        /* the block's weights, each column as it was when it got its code, and errors                 */
  uint8_t *code;
  float   *u;            /* of one strip: U[k][first + i] at k * QD_GPTQ_STRIP + i, 0 beyond the strip                  */
  float   *p;            /* the same of P; NULL: there is none                                                          */
  float   *scale, *zero; /* the grids of the groups at hand: slot i starts at i * pitch                                 */
  double  *loss;         /* one a row                                                                                   */
} qd_gptq_tile;

/* What a block does to the columns beyond it, by one thread: for each 256 consecutive columns of the block, counted from its
 * first, w_j = w_j - (mode: or +) chain over them of x_c U_cj. */
typedef struct qd_gptq_beyond {
  qd_device *device;
  int        thread;
  qd_tri     u;
  int64_t    begin, end; /* the block */
  float     *piece;      /* (256, block): where the block crosses a tile of u */
  qd_gemm_mode mode;
  qd_tensor  x;          /* (rows, block) */
} qd_gptq_beyond;
void qd_gptq_update_beyond(const qd_gptq_beyond *beyond, qd_tensor w); /* w: all columns of the rows */

/* Rows of a matrix to columns [first, first + n) of tile->w, and back.  Lanes beyond the rows become 0. */
QD_ISA_DECLARE(void, qd_gptq_take_columns,
               (const qd_gptq_tile *tile, const float *from, int64_t stride, int64_t first, int64_t n));
QD_ISA_DECLARE(void, qd_gptq_give_columns, (const qd_gptq_tile *tile, float *to, int64_t stride, int64_t first, int64_t n));

/* w_j = fma(-e_k, U_kj, w_j), with P then w_j = fma(w_k, P_kj, w_j), k ascending in [from, to), for the strip's columns j in
 * [first, first + n). */
QD_ISA_DECLARE(void, qd_gptq_apply, (const qd_gptq_tile *tile, int64_t first, int64_t n, int64_t from, int64_t to));

/* Column c on the grid of `slot`, after the errors of the strip's columns before it: code, error, loss. */
QD_ISA_DECLARE(void, qd_gptq_column, (const qd_gptq_tile *tile, int64_t first, int64_t c, int64_t slot, float top));

#endif
