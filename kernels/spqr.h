/* What the devices share of SpQR: where blocks end, how many rows go together, and one message. */
#ifndef QDIST_KERNELS_SPQR_H
#define QDIST_KERNELS_SPQR_H

#include "kernels/ops.h"

/* The error text of rows whose grids are beyond what stores them. */
qd_status qd_spqr_beyond(const qd_spqr_args *args, int64_t first, int64_t group) QD_MUST_USE;

/* Rows that share statistics, from `first` on. */
static inline int64_t qd_spqr_run_rows(const qd_spqr_args *args, int64_t first) {
  int64_t unit = qd_scheme_row_unit(args->scheme), left = args->w.dim[0] - first;
  return left < unit ? left : unit;
}

/* Behind the block that begins at `begin`: before a group that it would cut. */
static inline int64_t qd_spqr_block_end(const qd_spqr_args *args, int64_t begin) {
  int64_t columns = args->w.dim[1], size = qd_scheme_group_size(args->scheme, columns);
  int64_t end = columns - begin < args->block ? columns : begin + args->block;
  int64_t group = (end - 1) / size * size;
  return group > begin && group + size > end && end < columns ? group : end;
}

/* Before the loop: no loss yet, no outliers. */
static inline void qd_spqr_begin_rows(const qd_spqr_args *args, int64_t first, int64_t n) {
  int64_t columns = args->w.dim[1];
  for (int64_t r = first; r < first + n; r++) {
    ((double *)args->loss.data)[r * args->loss.stride[0]] = 0;
    memset((uint8_t *)args->outlier.data + r * args->outlier.stride[0], 0, (size_t)columns);
    memset((uint16_t *)args->value.data + r * args->value.stride[0], 0, (size_t)columns * sizeof(uint16_t));
  }
}

#endif
