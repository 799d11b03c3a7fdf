/* A tensor is a view: it owns nothing and dies with the arena its data lies in. */
#ifndef QDIST_KERNELS_BASE_TENSOR_H
#define QDIST_KERNELS_BASE_TENSOR_H

#include "kernels/base/arena.h"
#include "kernels/base/dtype.h"

enum { QD_MAX_RANK = 4 };

typedef struct qd_tensor {
  void    *data;
  qd_dtype dtype;
  int      rank;
  int64_t  dim[QD_MAX_RANK];
  int64_t  stride[QD_MAX_RANK]; /* in elements */
} qd_tensor;

/* A contiguous row-major view of `data`. */
qd_tensor qd_tensor_1d(void *data, qd_dtype dtype, int64_t n);
qd_tensor qd_tensor_2d(void *data, qd_dtype dtype, int64_t rows, int64_t columns);
qd_tensor qd_tensor_3d(void *data, qd_dtype dtype, int64_t n0, int64_t n1, int64_t n2);

/* The same, with memory from the arena. */
qd_status qd_tensor_new_2d(qd_arena *arena, qd_dtype dtype, int64_t rows, int64_t columns, qd_tensor *out) QD_MUST_USE;

/* Views of a view; nothing is copied. */
qd_tensor qd_tensor_rows(qd_tensor t, int64_t first, int64_t n);    /* first dimension: [first, first + n) */
qd_tensor qd_tensor_columns(qd_tensor t, int64_t first, int64_t n); /* second dimension of a matrix        */
qd_tensor qd_tensor_transposed(qd_tensor t);                        /* of a matrix                         */
qd_tensor qd_tensor_at(qd_tensor t, int64_t index);                 /* drops the first dimension           */
qd_tensor qd_tensor_reshape_2d(qd_tensor t, int64_t rows, int64_t columns); /* contiguous only             */

int64_t qd_tensor_elements(qd_tensor t);
size_t  qd_tensor_bytes(qd_tensor t); /* of the elements, without gaps */
bool    qd_tensor_is_contiguous(qd_tensor t);

#endif
