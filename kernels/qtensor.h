/* A quantized linear: a scheme and named parts.  A view like qd_tensor: it owns nothing.
 *
 *   effective weight  w[r][p] = scale[r][p / g] * (code[r][p] - zero[r][p / g])   in fp32; bf16 arithmetic rounds it once.
 *
 * With the grid of SpQR (scheme.spqr) scale and zero point are real numbers: where they are quantized themselves,
 *
 *   scale[r][g] = second[r / stat_group][g][0] * (scale_code[r][g] - second[r / stat_group][g][1]),
 *   zero[r][g]  = second[r / stat_group][g][2] * (zero_code[r][g] - second[r / stat_group][g][3]),
 *
 * all in fp32, the difference first, each step rounded; and at the positions of outliers w is the outlier's value instead.
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

  /* Of SpQR's grid alone.  scales and zeros are then there only as far as they are not quantized; zeros are real numbers in
     scale_dtype. */
  qd_tensor scale_codes, zero_codes; /* U8 (R, packed row bytes of G codes), where they are quantized                    */
  qd_tensor second;                  /* F16 (ceil(R / stat_group), G, 4), where one of them is                            */
  qd_tensor outlier_rows;            /* I32 (R + 1): outliers of row r are [outlier_rows[r], outlier_rows[r + 1])           */
  qd_tensor outlier_columns;         /* U16, or I32 for more than 65536 columns (n): positions, ascending in a row           */
  qd_tensor outlier_values;          /* F16 (n)                                                                              */
} qd_qtensor;

/* Bytes of one packed row. */
static inline int64_t qd_packed_row_bytes(int64_t columns, int bits) { return (columns * bits + 7) / 8; }

/* A qtensor of that shape with memory from the arena (contents not set).  It has no outliers and no room for any: who adds them
 * sets data and dim[0] of outlier_columns and outlier_values. */
qd_status qd_qtensor_new(qd_arena *arena, qd_scheme scheme, int64_t rows, int64_t columns, bool has_order,
                         qd_qtensor *out) QD_MUST_USE;

/* The same without memory: shapes alone. */
qd_qtensor qd_qtensor_shape(qd_scheme scheme, int64_t rows, int64_t columns, bool has_order);

/* The rows [first, first + n) as a view, first a multiple of qd_scheme_row_unit; outliers stay where they are, row pointers of
 * the view need not begin with 0. */
qd_qtensor qd_qtensor_rows(const qd_qtensor *q, int64_t first, int64_t n);

/* The named parts, for storing and sending: "codes", "scales", "zeros", "order", "scale_codes", "zero_codes", "second",
 * "outlier_rows", "outlier_columns", "outlier_values" (absent ones left out; no outliers are parts of 0 elements). */
typedef struct qd_part {
  const char *name;
  qd_tensor   tensor;
} qd_part;
enum { QD_MAX_PARTS = 16, QD_SECOND = 4 };
int qd_qtensor_parts(const qd_qtensor *q, qd_part parts[QD_MAX_PARTS]);

/* The member that has this name; NULL: none has. */
qd_tensor *qd_qtensor_part(qd_qtensor *q, const char *name);

/* QD_EBADINPUT names the part: all of qd_qtensor_check_shapes, codes and zeros within range, scales and all other
 * numbers finite, order a permutation, row pointers ascending, outliers of a row at ascending positions. */
qd_status qd_qtensor_check(const qd_qtensor *q) QD_MUST_USE;

/* The same of a linear that is all there, not some rows of one: its rows have all outliers. */
qd_status qd_qtensor_check_whole(const qd_qtensor *q) QD_MUST_USE;

/* QD_EBADINPUT names the part: scheme valid, parts present as the scheme says, contiguous, of their shapes and dtypes. */
qd_status qd_qtensor_check_shapes(const qd_qtensor *q) QD_MUST_USE;

/* QD_EBADINPUT: row pointers and positions that lead out of bounds, or values that are not finite.  For who follows them. */
qd_status qd_qtensor_check_outliers(const qd_qtensor *q) QD_MUST_USE;

/* QD_EBADINPUT: the order names a column that is not there; `op` for the message.  Far cheaper than qd_qtensor_check: for who
 * reads at these columns. */
qd_status qd_qtensor_check_order_range(const char *op, const qd_qtensor *q) QD_MUST_USE;

/* The code at a stored position; scale and zero point of a row's group, as the effective weight has them. */
int   qd_qtensor_code(const qd_qtensor *q, int64_t row, int64_t position);
int   qd_qtensor_scale_code(const qd_qtensor *q, int64_t row, int64_t group); /* where they are quantized */
int   qd_qtensor_zero_code(const qd_qtensor *q, int64_t row, int64_t group);
float qd_qtensor_scale(const qd_qtensor *q, int64_t row, int64_t group);
float qd_qtensor_zero(const qd_qtensor *q, int64_t row, int64_t group);

/* The position of outlier i. */
static inline int64_t qd_qtensor_outlier_column(const qd_qtensor *q, int64_t i) {
  const void *data = q->outlier_columns.data;
  return q->outlier_columns.dtype == QD_U16 ? ((const uint16_t *)data)[i] : ((const int32_t *)data)[i];
}

static inline float qd_qtensor_outlier_value(const qd_qtensor *q, int64_t i) {
  return qd_f16_to_f32(((const uint16_t *)q->outlier_values.data)[i]);
}

/* Behind the row's last outlier. */
static inline int64_t qd_qtensor_outlier_end(const qd_qtensor *q, int64_t row) {
  return ((const int32_t *)q->outlier_rows.data)[row + 1];
}

/* The row's first outlier that is not before a position; its end, if there is none. */
int64_t qd_qtensor_find_outlier(const qd_qtensor *q, int64_t row, int64_t position);

static inline bool qd_qtensor_has_order(const qd_qtensor *q) { return q->order.rank != 0; }

#endif
