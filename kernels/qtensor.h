/* A quantized linear: a scheme and named parts.  A view like qd_tensor: it owns nothing.
 *
 *   effective weight  w[r][p] = scale[r][p / g] * (code[r][p] - zero[r][p / g])   in fp32; bf16 arithmetic rounds it once.
 *
 * p is the stored position.  Without an order it is the column; with one, stored position p holds column order[p], and
 * products run their chain over stored positions. */
#ifndef QDIST_KERNELS_QTENSOR_H
#define QDIST_KERNELS_QTENSOR_H

#include "kernels/base/tensor.h"
#include "kernels/scheme.h"

typedef struct qd_qtensor {
  qd_scheme scheme;
  int64_t   rows, columns;
  qd_tensor codes;  /* U8 (R, packed row bytes): code p of a row is bits [p*b, (p+1)*b) of its little-endian bit stream */
  qd_tensor scales; /* F16 or F32 (R, G)                                                                                */
  qd_tensor zeros;  /* U8 (R, G); rank 0 when symmetric: every zero point is 2^(b-1)                                    */
  qd_tensor order;  /* I32 (C); rank 0 when positions are columns                                                       */
} qd_qtensor;

/* Bytes of one packed row. */
static inline int64_t qd_packed_row_bytes(int64_t columns, int bits) { return (columns * bits + 7) / 8; }

/* A qtensor of that shape with memory from the arena (contents not set). */
qd_status qd_qtensor_new(qd_arena *arena, qd_scheme scheme, int64_t rows, int64_t columns, bool has_order,
                         qd_qtensor *out) QD_MUST_USE;

/* The rows [first, first + n) as a view. */
qd_qtensor qd_qtensor_rows(const qd_qtensor *q, int64_t first, int64_t n);

/* The named parts, for storing and sending: "codes", "scales", "zeros", "order" (absent ones left out). */
typedef struct qd_part {
  const char *name;
  qd_tensor   tensor;
} qd_part;
enum { QD_MAX_PARTS = 16 };
int qd_qtensor_parts(const qd_qtensor *q, qd_part parts[QD_MAX_PARTS]);

/* QD_EBADINPUT names the part: all of qd_qtensor_check_shapes, codes and zeros within range, scales finite, order a
 * permutation. */
qd_status qd_qtensor_check(const qd_qtensor *q) QD_MUST_USE;

/* QD_EBADINPUT names the part: scheme valid, parts present as the scheme says, contiguous, of their shapes and dtypes. */
qd_status qd_qtensor_check_shapes(const qd_qtensor *q) QD_MUST_USE;

/* QD_EBADINPUT: the order names a column that is not there; `op` for the message.  Far cheaper than qd_qtensor_check: for who
 * reads at these columns. */
qd_status qd_qtensor_check_order_range(const char *op, const qd_qtensor *q) QD_MUST_USE;

static inline bool qd_qtensor_has_order(const qd_qtensor *q) { return q->order.rank != 0; }

#endif
