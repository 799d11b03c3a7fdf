/* The contract's checks of the products and of packed codes; the device does the rest. */
#include "kernels/ops_table.h"

#include <string.h>

/* What the contract calls F32 is F64 on the device that computes everything in double. */
static qd_dtype real_dtype(const qd_device *device) { return strcmp(device->name, "ref64") == 0 ? QD_F64 : QD_F32; }

static bool is_act(const qd_device *device, qd_dtype dtype) { return dtype == QD_BF16 || dtype == real_dtype(device); }

static bool has_unit_columns(qd_tensor t) { return t.stride[1] == 1 || t.dim[1] <= 1; }

static qd_status check_matrix(const char *op, const char *name, qd_tensor t, int64_t rows, int64_t columns) {
  QD_CHECK(t.rank == 2, QD_ESHAPE, "%s: %s has %d dimensions, expected 2", op, name, t.rank);
  QD_CHECK(t.dim[0] == rows && t.dim[1] == columns, QD_ESHAPE,
           "%s: %s is %" PRId64 " x %" PRId64 ", expected %" PRId64 " x %" PRId64, op, name, t.dim[0], t.dim[1], rows, columns);
  return QD_OK;
}

qd_status qd_matmul(qd_device *device, qd_tensor a, qd_tensor b, bool accumulate, qd_tensor c) {
  QD_CHECK(a.rank == 2 && b.rank == 2, QD_ESHAPE, "matmul: a has %d dimensions and b has %d, expected 2", a.rank, b.rank);
  QD_CHECK(a.dim[1] == b.dim[0], QD_ESHAPE,
           "matmul: a is %" PRId64 " x %" PRId64 ", b is %" PRId64 " x %" PRId64 ": the inner sizes differ", a.dim[0], a.dim[1],
           b.dim[0], b.dim[1]);
  QD_TRY(check_matrix("matmul", "c", c, a.dim[0], b.dim[1]));
  QD_CHECK(a.dtype == b.dtype && (is_act(device, a.dtype) || a.dtype == QD_F64), QD_EDTYPE,
           "matmul: a is %s and b is %s, expected both F32, both BF16 or both F64", qd_dtype_name(a.dtype),
           qd_dtype_name(b.dtype));
  qd_dtype expected = a.dtype == QD_F64 ? QD_F64 : real_dtype(device);
  QD_CHECK(c.dtype == expected, QD_EDTYPE, "matmul: c is %s, expected %s", qd_dtype_name(c.dtype), qd_dtype_name(expected));
  QD_CHECK(has_unit_columns(c), QD_ESHAPE, "matmul: c has column stride %" PRId64 ", expected 1", c.stride[1]);
  return device->ops->matmul(device, a, b, accumulate, c);
}

static qd_status check_bias_and_output(const qd_device *device, const char *op, const qd_tensor *bias, qd_tensor y) {
  QD_CHECK(is_act(device, y.dtype), QD_EDTYPE, "%s: y is %s, expected %s or BF16", op, qd_dtype_name(y.dtype),
           qd_dtype_name(real_dtype(device)));
  QD_CHECK(has_unit_columns(y), QD_ESHAPE, "%s: y has column stride %" PRId64 ", expected 1", op, y.stride[1]);
  if (bias == NULL) return QD_OK;
  QD_CHECK(bias->rank == 1 && bias->dim[0] == y.dim[1], QD_ESHAPE,
           "%s: the bias has %d dimensions and %" PRId64 " elements, expected 1 and %" PRId64, op, bias->rank,
           bias->rank ? bias->dim[0] : 0, y.dim[1]);
  QD_CHECK(bias->stride[0] == 1 || bias->dim[0] <= 1, QD_ESHAPE, "%s: the bias has stride %" PRId64 ", expected 1", op,
           bias->stride[0]);
  QD_CHECK(bias->dtype == real_dtype(device), QD_EDTYPE, "%s: the bias is %s, expected %s", op, qd_dtype_name(bias->dtype),
           qd_dtype_name(real_dtype(device)));
  return QD_OK;
}

qd_status qd_linear_check_output(const qd_device *device, const char *op, const qd_tensor *bias, qd_tensor y, int64_t tokens,
                                 int64_t rows) {
  QD_TRY(check_matrix(op, "y", y, tokens, rows));
  return check_bias_and_output(device, op, bias, y);
}

qd_status qd_int8_check(const qd_device *device, const char *op, qd_dtype x, qd_dtype y) {
  QD_CHECK(device->arithmetic != QD_ARITHMETIC_INT8 || (x != QD_BF16 && y != QD_BF16), QD_EDTYPE,
           "%s: x is %s and y is %s, expected both %s in the arithmetic int8", op, qd_dtype_name(x), qd_dtype_name(y),
           qd_dtype_name(real_dtype(device)));
  return QD_OK;
}

qd_status qd_linear(qd_device *device, qd_tensor x, qd_tensor w, const qd_tensor *bias, qd_tensor y) {
  QD_CHECK(x.rank == 2 && w.rank == 2, QD_ESHAPE, "linear: x has %d dimensions and w has %d, expected 2", x.rank, w.rank);
  QD_CHECK(x.dim[1] == w.dim[1], QD_ESHAPE, "linear: x has %" PRId64 " columns, w has %" PRId64, x.dim[1], w.dim[1]);
  QD_CHECK(is_act(device, x.dtype) && w.dtype == x.dtype, QD_EDTYPE,
           "linear: x is %s and w is %s, expected both %s or both BF16", qd_dtype_name(x.dtype), qd_dtype_name(w.dtype),
           qd_dtype_name(real_dtype(device)));
  QD_TRY(qd_linear_check_output(device, "linear", bias, y, x.dim[0], w.dim[0]));
  return device->ops->linear(device, x, w, bias, y);
}

qd_status qd_qlinear(qd_device *device, qd_tensor x, const qd_qtensor *w, const qd_tensor *bias, qd_tensor y) {
  QD_TRY(qd_qtensor_check_shapes(w));
  if (qd_qtensor_has_order(w)) QD_TRY(qd_qtensor_check_order_range("qlinear", w));
  QD_CHECK(x.rank == 2, QD_ESHAPE, "qlinear: x has %d dimensions, expected 2", x.rank);
  QD_CHECK(x.dim[1] == w->columns, QD_ESHAPE, "qlinear: x has %" PRId64 " columns, w has %" PRId64, x.dim[1], w->columns);
  QD_CHECK(is_act(device, x.dtype), QD_EDTYPE, "qlinear: x is %s, expected %s or BF16", qd_dtype_name(x.dtype),
           qd_dtype_name(real_dtype(device)));
  QD_TRY(qd_linear_check_output(device, "qlinear", bias, y, x.dim[0], w->rows));
  QD_TRY(qd_int8_check(device, "qlinear", x.dtype, y.dtype));
  if (device->arithmetic == QD_ARITHMETIC_INT8 && w->scheme.spqr) QD_TRY(qd_qtensor_check_outliers(w));
  return device->ops->qlinear(device, x, w, bias, y);
}

qd_status qd_dequant(qd_device *device, const qd_qtensor *q, qd_tensor w) {
  QD_TRY(qd_qtensor_check_shapes(q));
  QD_TRY(check_matrix("dequant", "w", w, q->rows, q->columns));
  QD_CHECK(is_act(device, w.dtype), QD_EDTYPE, "dequant: w is %s, expected %s or BF16", qd_dtype_name(w.dtype),
           qd_dtype_name(real_dtype(device)));
  return device->ops->dequant(device, q, w);
}

/* Codes (R, C) and the bytes that hold them. */
static qd_status check_packing(const char *op, qd_tensor code, int bits, qd_tensor packed) {
  QD_CHECK(bits >= QD_MIN_BITS && bits <= QD_MAX_BITS, QD_EINVAL, "%s: bits must be %d to %d, got %d", op, QD_MIN_BITS,
           QD_MAX_BITS, bits);
  QD_CHECK(code.rank == 2, QD_ESHAPE, "%s: codes have %d dimensions, expected 2", op, code.rank);
  QD_TRY(check_matrix(op, "packed", packed, code.dim[0], qd_packed_row_bytes(code.dim[1], bits)));
  QD_CHECK(code.dtype == QD_U8 && packed.dtype == QD_U8, QD_EDTYPE, "%s: codes are %s and packed is %s, expected U8", op,
           qd_dtype_name(code.dtype), qd_dtype_name(packed.dtype));
  QD_CHECK(has_unit_columns(code) && has_unit_columns(packed), QD_ESHAPE,
           "%s: column strides are %" PRId64 " (codes) and %" PRId64 " (packed), expected 1", op, code.stride[1],
           packed.stride[1]);
  return QD_OK;
}

static qd_status check_code_range(qd_tensor code, int bits) {
  for (int64_t r = 0; r < code.dim[0]; r++) {
    const uint8_t *row = (const uint8_t *)code.data + r * code.stride[0];
    unsigned bits_seen = 0;
    for (int64_t c = 0; c < code.dim[1]; c++) bits_seen |= row[c];
    QD_CHECK(bits_seen >> bits == 0, QD_EINVAL, "pack: row %" PRId64 " has a code that does not fit into %d bits", r, bits);
  }
  return QD_OK;
}

qd_status qd_pack(qd_device *device, qd_tensor code, int bits, qd_tensor packed) {
  QD_TRY(check_packing("pack", code, bits, packed));
  QD_TRY(check_code_range(code, bits));
  return device->ops->pack(device, code, bits, packed);
}

qd_status qd_unpack(qd_device *device, qd_tensor packed, int bits, qd_tensor code) {
  QD_TRY(check_packing("unpack", code, bits, packed));
  return device->ops->unpack(device, packed, bits, code);
}
