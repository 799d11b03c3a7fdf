/* Sums of a register tile that were written to memory, on their way to c: what every kind of tile does where c cuts it,
 * and some do everywhere. */
#ifndef QDIST_KERNELS_GEMM_SUMS_H
#define QDIST_KERNELS_GEMM_SUMS_H

#include "kernels/gemm_unit.h"

/* static void NAME(s, column, rows, width, sum): rows of `width` sums go to c from `column` on, as far as c reaches. */
#define QD_DEFINE_PUT_SUMS(name, type)                                                                           \
  static void name(const qd_gemm_strip *s, int64_t column, int rows, int width, const type *sum) {               \
    int64_t left = s->columns - column;                                                                          \
    int columns = left < width ? (int)left : width;                                                              \
    for (int i = 0; i < rows; i++, sum += width) {                                                               \
      type *restrict c = (type *)s->c + i * s->c_stride + column;                                                \
      switch (s->update) {                                                                                       \
        case QD_TILE_STORE:                                                                                      \
          for (int j = 0; j < columns; j++) c[j] = sum[j];                                                       \
          break;                                                                                                 \
        case QD_TILE_ADD:                                                                                        \
          for (int j = 0; j < columns; j++) c[j] = c[j] + sum[j];                                                \
          break;                                                                                                 \
        case QD_TILE_SUBTRACT:                                                                                   \
          for (int j = 0; j < columns; j++) c[j] = c[j] - sum[j];                                                \
          break;                                                                                                 \
      }                                                                                                          \
    }                                                                                                            \
  }

#endif
