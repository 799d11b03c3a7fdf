/* Rows of the forward's and the evaluation's operations, compiled for each instruction set; the _cpu files share rows among
 * threads.  The contract of each is the sentence of its operation in ops.h. */
#ifndef QDIST_KERNELS_FORWARD_ISA_H
#define QDIST_KERNELS_FORWARD_ISA_H

#include "kernels/isa.h"
#include "kernels/ops.h"

QD_ISA_DECLARE(void, qd_swiglu_row, (const void *gate, const void *up, void *y, qd_dtype dtype, int64_t n));
QD_ISA_DECLARE(void, qd_add_row, (const void *a, const void *b, void *y, qd_dtype dtype, int64_t n));
QD_ISA_DECLARE(void, qd_subtract_row, (const void *a, const void *b, float *y, qd_dtype dtype, int64_t n));
QD_ISA_DECLARE(void, qd_rmsnorm_row, (const void *x, const float *w, double eps, void *y, qd_dtype dtype, int64_t n));
QD_ISA_DECLARE(void, qd_rope_table_row,
               (const double *frequency, double position, double factor, float *cosine, float *sine, int64_t n));
QD_ISA_DECLARE(void, qd_rope_row, (void *x, const float *cosine, const float *sine, qd_dtype dtype, int64_t half));

/* The first of n elements that is NaN or infinite, or -1. */
QD_ISA_DECLARE(int64_t, qd_nonfinite_row, (const void *x, qd_dtype dtype, int64_t n));

/* Which keys the columns of a row of scores are: column j is key start + j.  start is a multiple of 256. */
typedef struct qd_seen_keys {
  int64_t start, end;         /* keys of the tile    */
  int64_t first_seen, n_seen; /* those that are seen */
} qd_seen_keys;

/* Unscaled scores to P: x[j], or p[j] rounded to bf16 if p is not NULL; unseen keys 0.  The row x has room for end - start
 * rounded up to 16. */
QD_ISA_DECLARE(void, qd_softmax_row, (float *x, uint16_t *p, float scale, qd_seen_keys keys));
QD_ISA_DECLARE(void, qd_attention_out_row, (const float *sum, void *out, qd_dtype dtype, int64_t n));

QD_ISA_DECLARE(double, qd_nll_row, (const float *logits, int64_t n, int32_t target));
QD_ISA_DECLARE(double, qd_kl_row, (const float *p, const float *q, int64_t n, int32_t *same));

#endif
