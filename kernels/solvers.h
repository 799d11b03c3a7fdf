/* What the ref and the cpu solvers share: which columns form a group and a block, and one message.  No arithmetic. */
#ifndef QDIST_KERNELS_SOLVERS_H
#define QDIST_KERNELS_SOLVERS_H

#include "kernels/ops.h"

#include <float.h>

enum { QD_RTN_CANDIDATES = 80 };

/* The part of the range that candidate i of the clip search keeps. */
static inline double qd_rtn_candidate(int i) { return 1 - i / 100.0; }

/* The least scale that scale_dtype holds as a normal fp32 number. */
static inline float qd_rtn_least_scale(qd_dtype scale_dtype) { return scale_dtype == QD_F16 ? 0x1p-24f : FLT_MIN; }

/* The group whose scale is infinite in scale_dtype: sets the error text. */
qd_status qd_rtn_beyond(int64_t row, int64_t group, qd_scheme scheme) QD_MUST_USE;

static inline int64_t qd_gptq_stored(const qd_gptq_args *args, int64_t column) {
  return ((const int32_t *)args->stored.data)[column * args->stored.stride[0]];
}

static inline int64_t qd_gptq_group(const qd_gptq_args *args, int64_t column) {
  return qd_gptq_stored(args, column) / qd_scheme_group_size(args->scheme, args->w.dim[1]);
}

static inline bool qd_gptq_begins_group(const qd_gptq_args *args, int64_t column) {
  return column == 0 || qd_gptq_group(args, column) != qd_gptq_group(args, column - 1);
}

/* Behind the last of the consecutive columns that share the column's group. */
static inline int64_t qd_gptq_group_end(const qd_gptq_args *args, int64_t column) {
  int64_t end = column + 1;
  while (end < args->w.dim[1] && !qd_gptq_begins_group(args, end)) end++;
  return end;
}

/* Behind the last column of the block that starts at `begin`. */
static inline int64_t qd_gptq_block_end(const qd_gptq_args *args, int64_t begin) {
  int64_t left = args->w.dim[1] - begin, end = begin + (left < args->block ? left : args->block);
  if (!args->fit || args->scheme.compat) return end;
  for (int64_t c = end - 1; c > begin; c--)
    if (qd_gptq_begins_group(args, c)) return qd_gptq_group_end(args, c) > end ? c : end;
  return end;
}

#endif
