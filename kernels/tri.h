/* A lower triangle, stored as square tiles of 256 (the width of the factor, arithmetic.md section 5): tile (I, J), J <= I,
 * is row-major with row stride 256 and lies at index I (I + 1) / 2 + J.  Elements outside the matrix, and above the
 * diagonal inside diagonal tiles, are kept zero in I64 and F32 triangles and are unspecified in F64 ones.
 * About n^2 / 2 elements: 4 n^2 bytes in I64 and F64, 2 n^2 in F32. */
#ifndef QDIST_KERNELS_TRI_H
#define QDIST_KERNELS_TRI_H

#include "kernels/base/tensor.h"

enum { QD_TRI_TILE = 256 };

typedef struct qd_tri {
  void    *data;
  qd_dtype dtype; /* I64, F32 or F64 */
  int64_t  n;
} qd_tri;

static inline int64_t qd_tri_tiles(int64_t n) {
  int64_t side = (n + QD_TRI_TILE - 1) / QD_TRI_TILE;
  return side * (side + 1) / 2;
}

static inline size_t qd_tri_elements(int64_t n) { return (size_t)qd_tri_tiles(n) * QD_TRI_TILE * QD_TRI_TILE; }
static inline size_t qd_tri_bytes(int64_t n, qd_dtype dtype) { return qd_tri_elements(n) * qd_dtype_bytes(dtype); }

/* Index of element (i, j), j <= i. */
static inline size_t qd_tri_index(int64_t i, int64_t j) {
  int64_t ti = i / QD_TRI_TILE, tj = j / QD_TRI_TILE;
  return (size_t)((ti * (ti + 1) / 2 + tj) * QD_TRI_TILE * QD_TRI_TILE + i % QD_TRI_TILE * QD_TRI_TILE + j % QD_TRI_TILE);
}

/* Tile (ti, tj), tj <= ti, as a view of the elements inside the matrix (row stride 256). */
static inline qd_tensor qd_tri_tile(qd_tri t, int64_t ti, int64_t tj) {
  unsigned char *base = t.data;
  int64_t rows = t.n - ti * QD_TRI_TILE, columns = t.n - tj * QD_TRI_TILE;
  return (qd_tensor){.data = base + (size_t)(ti * (ti + 1) / 2 + tj) * QD_TRI_TILE * QD_TRI_TILE * qd_dtype_bytes(t.dtype),
                     .dtype = t.dtype, .rank = 2,
                     .dim = {rows < QD_TRI_TILE ? rows : QD_TRI_TILE, columns < QD_TRI_TILE ? columns : QD_TRI_TILE},
                     .stride = {QD_TRI_TILE, 1}};
}

#endif
