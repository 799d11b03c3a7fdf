/* The factor to the bit.  Indices are those of the reversed matrix M: a, b = 0 .. n - 1; position p of u is a = n - 1 - p.
 * Tiles are 256 x 256; A, B, K are those of a, b, k.  Everything is fp64; chain is that of ops.h.
 *
 *   M   m(a, b) = h(column of a, column of b), from h's lower triangle; on the diagonal + add of that column.
 *   L   M = L L^T.  x = m(a, b), b <= a; for each tile K < B, in order: x = x - chain over K's 256 k of l(a, k) l(b, k);
 *       then for k from the first of tile B to b - 1: x = fma(-l(a, k), l(b, k), x).  l(b, b) = sqrt(x); below, x / l(b, b).
 *       The pivot of b is the x before the square root.
 *   X   X = L^-1, with zeros above the diagonal.
 *       Diagonal tiles: x = 1 where a = b, else 0; for k = b .. a - 1: x = fma(-l(a, k), x(k, b), x); x(a, b) = x / l(a, a).
 *       Below: w(a, b) = chain over the k of tile B of l(a, k) x(k, b); then x = 0, and for each tile K = B + 1 .. A, in order:
 *       x = x - chain over K's k of x(a, k) w(k, b).
 *       A tile has halves of 128: when b lies in the second, w's chain leaves out the first half of its k; when a lies in the
 *       first, the chain of K = A leaves out the second half.  All of those are products with zeros; the others stay.
 *   u   u(j, c) = U[c][j] = x(n - 1 - c, n - 1 - j), rounded to u's dtype. */
#ifndef QDIST_KERNELS_FACTOR_H
#define QDIST_KERNELS_FACTOR_H

#include "kernels/isa.h"
#include "kernels/tri.h"

enum { QD_FACTOR_HALF = QD_TRI_TILE / 2 };

/* Kernels on one tile for the cpu device.  `lt` is a diagonal tile of L transposed: lt[k * 256 + a] = l(a, k).  The tile's
 * size n is made a multiple of 8 by rows and columns of the identity. */
enum { QD_FACTOR_PAD = 8, QD_FACTOR_MAX_PANEL = 24 };

/* lt holds m(a, k), a >= k, and receives l(a, k).  Returns the first a whose pivot is not positive and finite, or -1. */
QD_ISA_DECLARE(int64_t, qd_factor_diagonal, (double *lt, int64_t n));

/* A tile below the diagonal, rows x 256, in place: row = row L^-T.   buffer: 256 x QD_FACTOR_MAX_PANEL. */
QD_ISA_DECLARE(void, qd_factor_below, (const double *lt, double *tile, int64_t rows, double *buffer));

/* x = L^-1 for a diagonal tile: n rows of stride 256, zeros above the diagonal. */
QD_ISA_DECLARE(void, qd_factor_inverse, (const double *lt, double *x, int64_t n));

#endif
