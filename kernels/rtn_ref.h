/* One group of one row, as a loop: for rtn_ref.c and gptq_ref.c. */
#ifndef QDIST_KERNELS_RTN_REF_H
#define QDIST_KERNELS_RTN_REF_H

#include "kernels/ref_real.h"

typedef struct qd_ref_grid {
  qd_real scale, zero;
} qd_ref_grid;

/* The grid of n consecutive weights; its scale is infinite when scale_dtype cannot hold it. */
qd_ref_grid QD_REF(rtn_grid)(const qd_real *w, int64_t n, qd_scheme scheme);

/* clamp(rint(w / s) + z, 0, top); a NaN gives 0. */
static inline qd_real qd_ref_code(qd_real w, qd_ref_grid grid, qd_real top) {
  qd_real code = qd_real_rint(w / grid.scale) + grid.zero;
  code = code > 0 ? code : 0;
  return code < top ? code : top;
}

#endif
