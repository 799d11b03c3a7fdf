/* How a linear is quantized, independent of the method that chooses the codes.
 * Grid (asymmetric and symmetric min/max, MSE clip search): GPTQ's quantizer, arXiv:2210.17323. */
#ifndef QDIST_KERNELS_SCHEME_H
#define QDIST_KERNELS_SCHEME_H

#include "kernels/base/dtype.h"

enum { QD_MIN_BITS = 2, QD_MAX_BITS = 8, QD_PER_CHANNEL = -1 };

typedef struct qd_scheme {
  int      bits;        /* 2..8                                                                        */
  int64_t  group_size;  /* columns that share a scale; QD_PER_CHANNEL: the whole row                   */
  bool     symmetric;   /* zero point fixed at 2^(bits-1)                                              */
  bool     mse;         /* shrink the range to the least sum |error|^2.4 (80 candidates)               */
  qd_dtype scale_dtype; /* QD_F16; QD_F32 with compat                                                  */
  bool     compat;      /* the reference's quirks: a symmetric range that is not mirrored when no
                           weight is negative; stale group statistics inside a GPTQ block              */
} qd_scheme;

/* Groups of a row of `columns`; the last one may be short. */
static inline int64_t qd_scheme_groups(qd_scheme scheme, int64_t columns) {
  return scheme.group_size == QD_PER_CHANNEL ? 1 : (columns + scheme.group_size - 1) / scheme.group_size;
}

static inline int64_t qd_scheme_group_size(qd_scheme scheme, int64_t columns) {
  return scheme.group_size == QD_PER_CHANNEL ? columns : scheme.group_size;
}

static inline int qd_scheme_max_code(qd_scheme scheme) { return (1 << scheme.bits) - 1; }

/* bits a weight of a (rows, columns) linear: codes, scales, zero points (`bits` each, none if symmetric), and the
 * order if there is one (32 bits a column). */
double qd_scheme_bits_per_weight(qd_scheme scheme, int64_t rows, int64_t columns, bool has_order);

qd_status qd_scheme_check(qd_scheme scheme) QD_MUST_USE; /* QD_EINVAL names the field */

#endif
