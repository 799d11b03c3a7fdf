/* How a linear is quantized, independent of the method that chooses the codes.
 * Grid (asymmetric and symmetric min/max, MSE clip search): GPTQ's quantizer, arXiv:2210.17323.
 * With `spqr` the one of SpQR, arXiv:2306.03078: a range that need not hold zero, real zero points, scales and zero points that
 * are quantized once more (over runs of rows), and weights that are kept as they are. */
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
                           weight is negative; stale group statistics inside a GPTQ block; SpQR's
                           level 2 in fp32 during the search, and its constant runs on a range of +-1  */
  bool     spqr;        /* the grid of SpQR, to which what follows belongs                             */
  int      scale_bits, zero_bits; /* of a group's scale and zero point, 1..8; 0: not quantized, stored in
                           scale_dtype                                                                 */
  int64_t  stat_group;  /* consecutive rows whose scales (zero points) are quantized together, from 1  */
  bool     round_zero;  /* whole zero points; they are quantized once more only where zero_bits < bits  */
} qd_scheme;

/* Groups of a row of `columns`; the last one may be short. */
static inline int64_t qd_scheme_groups(qd_scheme scheme, int64_t columns) {
  return scheme.group_size == QD_PER_CHANNEL ? 1 : (columns + scheme.group_size - 1) / scheme.group_size;
}

static inline int64_t qd_scheme_group_size(qd_scheme scheme, int64_t columns) {
  return scheme.group_size == QD_PER_CHANNEL ? columns : scheme.group_size;
}

static inline int qd_scheme_max_code(qd_scheme scheme) { return (1 << scheme.bits) - 1; }

/* Whether an SpQR scheme has scales or zero points that are quantized once more, and so shares `second` among rows. */
static inline bool qd_scheme_quantizes_scales(qd_scheme scheme) { return scheme.spqr && scheme.scale_bits > 0; }
static inline bool qd_scheme_quantizes_zeros(qd_scheme scheme) {
  return scheme.spqr && !scheme.symmetric && scheme.zero_bits > 0 && !(scheme.round_zero && scheme.zero_bits >= scheme.bits);
}

/* Rows that must be quantized together, and at whose multiples rows may be cut. */
static inline int64_t qd_scheme_row_unit(qd_scheme scheme) {
  return qd_scheme_quantizes_scales(scheme) || qd_scheme_quantizes_zeros(scheme) ? scheme.stat_group : 1;
}

/* SpQR's own formula (its reference code), by the share of outliers: b_w + (b_s + b_z) / g + 2 (16 + 16) / (g stat_group) + 32
 * r; with round_zero b_w + (b_s + b_w) / g + (16 + 16) / (g stat_group) + 32 r.  Statistics that are not quantized count 16
 * bits; of whole rows nothing is counted. */
double qd_scheme_formula_bits(qd_scheme scheme, double outlier_share);

/* bits a weight of a (rows, columns) linear: codes, scales, zero points (`bits` each, none if symmetric), and the
 * order if there is one (32 bits a column). */
double qd_scheme_bits_per_weight(qd_scheme scheme, int64_t rows, int64_t columns, bool has_order);

qd_status qd_scheme_check(qd_scheme scheme) QD_MUST_USE; /* QD_EINVAL names the field */

#endif
