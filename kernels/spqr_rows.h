/* A run of rows through SpQR's loop, as a plain loop over qd_real: the whole of the ref device, and on the cpu what each thread
 * does with the runs that are its own. */
#ifndef QDIST_KERNELS_SPQR_ROWS_H
#define QDIST_KERNELS_SPQR_ROWS_H

#include "kernels/ref_real.h"

/* Rows [first, first + n) that share statistics; `work` has qd_spqr_work_elements numbers.  -1, or the first group whose grids
 * are beyond what stores them: the outputs are then unspecified. */
int64_t QD_REF(spqr_run)(const qd_spqr_args *args, int64_t first, int64_t n, qd_real *work);

/* The error text of it. */
qd_status qd_spqr_beyond(int64_t first, int64_t n, int64_t group) QD_MUST_USE;

/* Of a run: errors, scales and zero points, and one group of one row. */
static inline int64_t qd_spqr_work_elements(qd_scheme scheme, int64_t rows, int64_t columns) {
  int64_t unit = qd_scheme_row_unit(scheme);
  int64_t n = unit < rows ? unit : rows;
  return n * columns + 2 * n + qd_scheme_group_size(scheme, columns) + 1;
}

#endif
