/* Codes in panels, for each instruction set.  32 consecutive codes of a row ("a run") stand in `bits` words of 32 bits, rows in
 * lanes.  Two neighbouring panels lie together, run by run, so that both can be worked on in one pass from front to back: word
 * i of row r of a pair is word i * 2 * width + r of the run.
 *
 * With F = 32 / bits (rounded down), code t < F * bits of a run is bits [(t % F) * bits, + bits) of word t / F.  What is left
 * of each word, S = 32 - F * bits upper bits, holds the last S codes: the pieces of all words, joined in ascending order, are
 * these codes in ascending order.  So no code is cut by a word that it would have to be joined from one by one, and no bit is
 * lost. */
#ifndef QDIST_KERNELS_PANELS_ISA_H
#define QDIST_KERNELS_PANELS_ISA_H

#include "kernels/gemm_unit.h"

enum {
  QD_CODE_RUN = 32,
  QD_CODE_PAIR = 2, /* panels that lie together; rows are filled up to whole pairs */
  QD_CODE_ROWS = 2, /* tokens that codes are multiplied by without being expanded into memory */
};

/* One chunk of consecutive panels: stored positions [first, first + k). */
typedef struct qd_code_panels {
  const uint32_t *words;        /* of the pair that the first panel belongs to */
  int             half;         /* which of the pair's panels is the first one */
  const void     *scales;       /* of the first panel's first row, group 0; F16 or F32, group by group */
  const uint8_t  *zeros;
  const float    *real_zeros;   /* of SpQR's grid, instead of zeros; else NULL */
  const qd_qtensor *outliers;   /* of SpQR's grid: whose outliers stand over what the codes say; else NULL */
  int64_t         row;          /* of the weight: the first panel's first */
  qd_dtype        scale_dtype;
  int64_t         group_stride; /* elements of scales and zeros from group to group */
  int64_t         group_size, first, k;
  bool            positive;     /* scales are F16, positive and finite */
  int             bits;
} qd_code_panels;

/* The effective weights of the first panel as a panel of b: F32; other kinds: rounded to bf16.  Written by pairs of k: an odd k
 * takes one step more than the panel has. */
QD_ISA_DECLARE(void, qd_code_panel_unpack, (const qd_code_panels *from, qd_panel_kind kind, void *to));

/* Are the codes of these positions multiplied as they are?  Whole runs, each within one group, and scales that allow it. */
static inline bool qd_code_panels_direct(const qd_code_panels *p) {
  return p->positive && p->k % QD_CODE_RUN == 0 && (p->group_size % QD_CODE_RUN == 0 || p->first + p->k <= p->group_size);
}

/* As qd_gemm_unit's strip, with the panels of b (strip->b is not read) taken from codes; at most QD_CODE_ROWS rows; not of a
 * kind in blocks, which has two chains. */
QD_ISA_DECLARE(void, qd_code_panel_strip, (const qd_code_panels *b, qd_panel_kind kind, const qd_gemm_strip *strip));

/* The most that a core's units can do of this: the same instructions on words that stay in registers, for one row of a.
 * Returns how many weights were multiplied. */
QD_ISA_DECLARE(double, qd_code_panel_peak, (qd_panel_kind kind, int bits, int64_t rounds));

#endif
