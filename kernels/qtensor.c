#include "kernels/qtensor.h"

#include "kernels/base/heap.h"

#include <math.h>

qd_qtensor qd_qtensor_shape(qd_scheme scheme, int64_t rows, int64_t columns, bool has_order) {
  int64_t groups = qd_scheme_groups(scheme, columns);
  qd_qtensor q = {.scheme = scheme, .rows = rows, .columns = columns};
  q.codes = qd_tensor_2d(NULL, QD_U8, rows, qd_packed_row_bytes(columns, scheme.bits));
  q.scales = qd_tensor_2d(NULL, scheme.scale_dtype, rows, groups);
  if (!scheme.symmetric) q.zeros = qd_tensor_2d(NULL, QD_U8, rows, groups);
  if (has_order) q.order = qd_tensor_1d(NULL, QD_I32, columns);
  return q;
}

static qd_status new_part(qd_arena *arena, qd_tensor *part) {
  return qd_arena_new(arena, qd_tensor_bytes(*part), 1, &part->data);
}

qd_status qd_qtensor_new(qd_arena *arena, qd_scheme scheme, int64_t rows, int64_t columns, bool has_order, qd_qtensor *out) {
  QD_TRY(qd_scheme_check(scheme));
  QD_ASSERT(rows >= 0 && columns >= 0);
  *out = qd_qtensor_shape(scheme, rows, columns, has_order);
  QD_TRY(new_part(arena, &out->codes));
  QD_TRY(new_part(arena, &out->scales));
  if (!scheme.symmetric) QD_TRY(new_part(arena, &out->zeros));
  return has_order ? new_part(arena, &out->order) : QD_OK;
}

qd_qtensor qd_qtensor_rows(const qd_qtensor *q, int64_t first, int64_t n) {
  qd_qtensor part = *q;
  part.rows = n;
  part.codes = qd_tensor_rows(q->codes, first, n);
  part.scales = qd_tensor_rows(q->scales, first, n);
  if (q->zeros.rank) part.zeros = qd_tensor_rows(q->zeros, first, n);
  return part;
}

int qd_qtensor_parts(const qd_qtensor *q, qd_part parts[QD_MAX_PARTS]) {
  int n = 0;
  parts[n++] = (qd_part){"codes", q->codes};
  parts[n++] = (qd_part){"scales", q->scales};
  if (q->zeros.rank) parts[n++] = (qd_part){"zeros", q->zeros};
  if (q->order.rank) parts[n++] = (qd_part){"order", q->order};
  return n;
}

static qd_status check_part(const char *name, qd_tensor got, qd_tensor expected) {
  QD_CHECK(got.rank == expected.rank, QD_EBADINPUT, "quantized linear: %s has %d dimensions, expected %d", name, got.rank,
           expected.rank);
  QD_CHECK(got.dtype == expected.dtype, QD_EBADINPUT, "quantized linear: %s are %s, expected %s", name,
           qd_dtype_name(got.dtype), qd_dtype_name(expected.dtype));
  for (int i = 0; i < got.rank; i++)
    QD_CHECK(got.dim[i] == expected.dim[i], QD_EBADINPUT,
             "quantized linear: dimension %d of %s is %" PRId64 ", expected %" PRId64, i, name, got.dim[i], expected.dim[i]);
  QD_CHECK(qd_tensor_is_contiguous(got), QD_EBADINPUT, "quantized linear: %s are not contiguous", name);
  QD_CHECK(got.data != NULL || qd_tensor_elements(got) == 0, QD_EBADINPUT, "quantized linear: %s have no data", name);
  return QD_OK;
}

qd_status qd_qtensor_check_shapes(const qd_qtensor *q) {
  QD_CHECK(qd_scheme_check(q->scheme) == QD_OK, QD_EBADINPUT,
           "quantized linear: the scheme is not valid (%d bits, groups of %" PRId64 ", scales %s)", q->scheme.bits,
           q->scheme.group_size, qd_dtype_name(q->scheme.scale_dtype));
  QD_CHECK(q->rows >= 0 && q->rows <= INT32_MAX && q->columns >= 0 && q->columns <= INT32_MAX, QD_EBADINPUT,
           "quantized linear: %" PRId64 " x %" PRId64 " is not a shape (0 to 2^31 - 1 rows and columns)", q->rows, q->columns);
  int64_t groups = qd_scheme_groups(q->scheme, q->columns);
  QD_TRY(check_part("codes", q->codes, qd_tensor_2d(NULL, QD_U8, q->rows, qd_packed_row_bytes(q->columns, q->scheme.bits))));
  QD_TRY(check_part("scales", q->scales, qd_tensor_2d(NULL, q->scheme.scale_dtype, q->rows, groups)));
  QD_CHECK(!q->scheme.symmetric || q->zeros.rank == 0, QD_EBADINPUT,
           "quantized linear: zeros given, but the scheme is symmetric");
  if (!q->scheme.symmetric) QD_TRY(check_part("zeros", q->zeros, qd_tensor_2d(NULL, QD_U8, q->rows, groups)));
  if (q->order.rank != 0) QD_TRY(check_part("order", q->order, qd_tensor_1d(NULL, QD_I32, q->columns)));
  return QD_OK;
}

/* Codes are below 2^bits by construction; what can be wrong is the padding behind a row's last code. */
static qd_status check_codes(const qd_qtensor *q) {
  int64_t row_bytes = q->codes.dim[1];
  int used_bits = (int)(q->columns * q->scheme.bits % 8);
  if (used_bits == 0) return QD_OK;
  const uint8_t *bytes = q->codes.data;
  for (int64_t r = 0; r < q->rows; r++)
    QD_CHECK(bytes[(r + 1) * row_bytes - 1] >> used_bits == 0, QD_EBADINPUT,
             "quantized linear: codes of row %" PRId64 " have bits set behind the last code", r);
  return QD_OK;
}

static qd_status check_scales(const qd_qtensor *q) {
  int64_t groups = q->scales.dim[1];
  for (int64_t i = 0; i < q->rows * groups; i++) {
    float scale =
        q->scales.dtype == QD_F16 ? qd_f16_to_f32(((const uint16_t *)q->scales.data)[i]) : ((const float *)q->scales.data)[i];
    QD_CHECK(isfinite(scale), QD_EBADINPUT,
             "quantized linear: scale of row %" PRId64 ", group %" PRId64 " is %g, not a finite number", i / groups, i % groups,
             (double)scale);
  }
  return QD_OK;
}

static qd_status check_zeros(const qd_qtensor *q) {
  if (q->zeros.rank == 0) return QD_OK;
  int64_t groups = q->zeros.dim[1];
  const uint8_t *zeros = q->zeros.data;
  int max_code = qd_scheme_max_code(q->scheme);
  for (int64_t i = 0; i < q->rows * groups; i++)
    QD_CHECK(zeros[i] <= max_code, QD_EBADINPUT,
             "quantized linear: zero point of row %" PRId64 ", group %" PRId64 " is %d, above %d", i / groups, i % groups,
             zeros[i], max_code);
  return QD_OK;
}

static qd_status find_repeated(const int32_t *order, int64_t n, bool *seen) {
  for (int64_t p = 0; p < n; p++) {
    QD_CHECK(order[p] >= 0 && order[p] < n, QD_EBADINPUT,
             "quantized linear: order of position %" PRId64 " is column %d of %" PRId64, p, order[p], n);
    QD_CHECK(!seen[order[p]], QD_EBADINPUT, "quantized linear: order names column %d twice (again at position %" PRId64 ")",
             order[p], p);
    seen[order[p]] = true;
  }
  return QD_OK;
}

static qd_status check_order(const qd_qtensor *q) {
  if (q->order.rank == 0) return QD_OK;
  bool *seen = NULL;
  QD_TRY(qd_heap_new((size_t)q->columns, sizeof *seen, &seen));
  qd_status status = find_repeated(q->order.data, q->columns, seen);
  qd_heap_free(seen);
  return status;
}

qd_status qd_qtensor_check(const qd_qtensor *q) {
  QD_TRY(qd_qtensor_check_shapes(q));
  QD_TRY(check_codes(q));
  QD_TRY(check_scales(q));
  QD_TRY(check_zeros(q));
  QD_TRY(check_order(q));
  return QD_OK;
}

qd_status qd_qtensor_check_order_range(const char *op, const qd_qtensor *q) {
  const int32_t *column = q->order.data;
  for (int64_t p = 0; p < q->columns; p++)
    QD_CHECK(column[p] >= 0 && column[p] < q->columns, QD_EBADINPUT,
             "%s: order of position %" PRId64 " is column %d of %" PRId64, op, p, column[p], q->columns);
  return QD_OK;
}
