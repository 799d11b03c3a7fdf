/* One group of several rows, vectorized: for rtn_cpu.c and gptq_cpu.c. */
#ifndef QDIST_KERNELS_RTN_CPU_H
#define QDIST_KERNELS_RTN_CPU_H

#include "kernels/isa.h"
#include "kernels/ops.h"

typedef struct qd_rtn_rows {
  const float *w; /* (rows, n), unit last stride */
  int64_t   w_stride, rows, n;
  qd_scheme scheme;
  float    *scale; /* one a row */
  int64_t   scale_stride;
  uint8_t  *zero; /* one a row */
  int64_t   zero_stride;
} qd_rtn_rows;

/* The grids of the rows: the first row whose scale is infinite, or -1. */
QD_ISA_DECLARE(int64_t, qd_rtn_fit_rows, (const qd_rtn_rows *job));

/* The codes of one group of one row. */
QD_ISA_DECLARE(void, qd_rtn_quantize_group, (const float *w, int64_t n, float scale, float zero, float top, uint8_t *code));

#endif
