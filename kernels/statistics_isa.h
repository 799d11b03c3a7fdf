/* The inner loops of the statistics that are built once for each instruction set. */
#ifndef QDIST_KERNELS_STATISTICS_ISA_H
#define QDIST_KERNELS_STATISTICS_ISA_H

#include "kernels/base/tensor.h"
#include "kernels/isa.h"

/* The statistics of columns [first, first + n) of x (T, C), F32 or BF16, into those of stats.   Both with unit column stride.
 */
QD_ISA_DECLARE(void, qd_colstats_columns, (qd_tensor x, qd_tensor stats, int64_t first, int64_t n));

/* total[j] += p[j] row column[j], clamped to +-2^62 and rounded to nearest even, modulo 2^64.  row, column: powers of two. */
QD_ISA_DECLARE(void, qd_hessian_add, (int64_t *total, const float *p, double row, const double *column, int64_t n));

/* value[r] = value[r] + x_ri (2 p_ri + d_i x_ri) in double, i ascending, at most 256.   x any strides, p unit column stride. */
QD_ISA_DECLARE(void, qd_sqerror_add, (double *value, qd_tensor x, qd_tensor p, const float *d));

#endif
