/* The inner loops of the statistics that are built once for each instruction set. */
#ifndef QDIST_KERNELS_STATISTICS_ISA_H
#define QDIST_KERNELS_STATISTICS_ISA_H

#include "kernels/base/tensor.h"
#include "kernels/isa.h"

/* Columns [first, first + n) of x (T, C), unit column stride, F32 or BF16: their statistics into row 0, 1, 2 of stats at the same columns. */
QD_ISA_DECLARE(void, qd_colstats_columns, (qd_tensor x, qd_tensor stats, int64_t first, int64_t n));

/* total[j] += p[j] * row * column[j], clamped to +-2^62 and rounded to nearest even, modulo 2^64.  row and column are powers of two. */
QD_ISA_DECLARE(void, qd_hessian_add, (int64_t *total, const float *p, double row, const double *column, int64_t n));

/* value[r] = value[r] + x_ri (2 p_ri + d_i x_ri) in double, i ascending over n <= 256.   x any strides, p and d unit column stride. */
QD_ISA_DECLARE(void, qd_sqerror_add, (double *value, qd_tensor x, qd_tensor p, const float *d));

#endif
