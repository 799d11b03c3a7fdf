/* One chunk's chain of a product (ops.h), for the plain loops: the order that the operands' dtype and the arithmetic give. */
#ifndef QDIST_KERNELS_CHAIN_REF_H
#define QDIST_KERNELS_CHAIN_REF_H

#include "kernels/ref_real.h"

typedef enum qd_ref_order { QD_REF_STRAIGHT, QD_REF_PAIRS, QD_REF_BLOCKS } qd_ref_order;

/* `dtype` is that of the operation's operands. */
static inline qd_ref_order qd_ref_order_of(const qd_device *device, qd_dtype dtype) {
  if (dtype != QD_BF16) return QD_REF_STRAIGHT;
  return device->arithmetic == QD_ARITHMETIC_BF16_AMX ? QD_REF_BLOCKS : QD_REF_PAIRS;
}

/* Element k lies at element `at` + k * stride of t; n of them, then zeros. */
typedef struct qd_ref_operand {
  qd_tensor t;
  int64_t at, stride, n;
} qd_ref_operand;

static inline qd_real qd_ref_step(qd_ref_operand a, qd_ref_operand b, int64_t k, qd_real s) {
  return qd_real_fma(qd_ref_load(a.t, a.at + k * a.stride), qd_ref_load(b.t, b.at + k * b.stride), s);
}

static inline qd_real qd_ref_step_or_zero(qd_ref_operand a, qd_ref_operand b, int64_t k, qd_real s) {
  return k < a.n ? qd_ref_step(a, b, k, s) : qd_real_fma(0, 0, s);
}

static inline qd_real qd_ref_chain_of_pairs(qd_ref_operand a, qd_ref_operand b) {
  qd_real s = 0;
  for (int64_t k = 0; k < a.n; k += 2) {
    s = qd_ref_step_or_zero(a, b, k + 1, s);
    s = qd_ref_step(a, b, k, s);
  }
  return s;
}

static inline qd_real qd_ref_chain_of_blocks(qd_ref_operand a, qd_ref_operand b) {
  qd_real s = 0;
  for (int64_t block = 0; block < a.n; block += QD_AMX_BLOCK) {
    qd_real even = 0, odd = 0;
    int64_t end =
        block + QD_AMX_BLOCK < a.n + 2 ? block + QD_AMX_BLOCK : a.n + 2; /* a second product of zeros changes nothing */
    for (int64_t k = block; k < end; k += 2) {
      even = qd_ref_step_or_zero(a, b, k, even);
      odd = qd_ref_step_or_zero(a, b, k + 1, odd);
    }
    s = s + (even + odd);
  }
  return s;
}

/* a.n == b.n, at most a chunk. */
static inline qd_real qd_ref_chain(qd_ref_order order, qd_ref_operand a, qd_ref_operand b) {
  if (order == QD_REF_PAIRS) return qd_ref_chain_of_pairs(a, b);
  if (order == QD_REF_BLOCKS) return qd_ref_chain_of_blocks(a, b);
  qd_real s = 0;
  for (int64_t k = 0; k < a.n; k++) s = qd_ref_step(a, b, k, s);
  return s;
}

#endif
