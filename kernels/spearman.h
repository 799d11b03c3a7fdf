/* What the ref and the cpu order by ranks share. */
#ifndef QDIST_KERNELS_SPEARMAN_H
#define QDIST_KERNELS_SPEARMAN_H

#include "kernels/ref_real.h"

typedef struct qd_ranked {
  qd_real value;
  int32_t row;
} qd_ranked;

/* The ranks of column c of w over its rows, average ranks of equals, centred and of length 1, to (R); `work` has R elements. */
void QD_REF(spearman_ranks)(qd_tensor w, int64_t c, qd_ranked *work, qd_real *to);

/* The chain over n elements of a_i b_i. */
qd_real QD_REF(spearman_cosine)(const qd_real *a, const qd_real *b, int64_t n);

/* Behind the place p of the chain the likest of the others, by cosine[q] of each place q > p. */
void QD_REF(spearman_place)(const qd_real *cosine, int64_t p, int64_t columns, int32_t *order);

#endif
