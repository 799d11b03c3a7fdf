#include "kernels/qtensor.h"

#include "kernels/base/heap.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

/* What SpQR's grid has instead of scales and whole zero points. */
static void set_statistics(qd_qtensor *q, int64_t groups) {
  qd_scheme s = q->scheme;
  bool scales = qd_scheme_quantizes_scales(s), zeros = qd_scheme_quantizes_zeros(s);
  if (scales) q->scale_codes = qd_tensor_2d(NULL, QD_U8, q->rows, qd_packed_row_bytes(groups, s.scale_bits));
  else q->scales = qd_tensor_2d(NULL, s.scale_dtype, q->rows, groups);
  if (zeros) q->zero_codes = qd_tensor_2d(NULL, QD_U8, q->rows, qd_packed_row_bytes(groups, s.zero_bits));
  else if (!s.symmetric) q->zeros = qd_tensor_2d(NULL, s.scale_dtype, q->rows, groups);
  if (scales || zeros)
    q->second = qd_tensor_3d(NULL, QD_F16, (q->rows + s.stat_group - 1) / s.stat_group, groups, QD_SECOND);
  q->outlier_rows = qd_tensor_1d(NULL, QD_I32, q->rows + 1);
  q->outlier_columns = qd_tensor_1d(NULL, q->columns > 1 << 16 ? QD_I32 : QD_U16, 0);
  q->outlier_values = qd_tensor_1d(NULL, QD_F16, 0);
}

qd_qtensor qd_qtensor_shape(qd_scheme scheme, int64_t rows, int64_t columns, bool has_order) {
  int64_t groups = qd_scheme_groups(scheme, columns);
  qd_qtensor q = {.scheme = scheme, .rows = rows, .columns = columns};
  q.codes = qd_tensor_2d(NULL, QD_U8, rows, qd_packed_row_bytes(columns, scheme.bits));
  if (has_order) q.order = qd_tensor_1d(NULL, QD_I32, columns);
  if (scheme.spqr) {
    set_statistics(&q, groups);
    return q;
  }
  q.scales = qd_tensor_2d(NULL, scheme.scale_dtype, rows, groups);
  if (!scheme.symmetric) q.zeros = qd_tensor_2d(NULL, QD_U8, rows, groups);
  return q;
}

/* ---- parts by name ------------------------------------------------------------------------------------------------------- */

static const struct { const char *name; size_t offset; } members[] = {
    {"codes", offsetof(qd_qtensor, codes)},
    {"scales", offsetof(qd_qtensor, scales)},
    {"zeros", offsetof(qd_qtensor, zeros)},
    {"order", offsetof(qd_qtensor, order)},
    {"scale_codes", offsetof(qd_qtensor, scale_codes)},
    {"zero_codes", offsetof(qd_qtensor, zero_codes)},
    {"second", offsetof(qd_qtensor, second)},
    {"outlier_rows", offsetof(qd_qtensor, outlier_rows)},
    {"outlier_columns", offsetof(qd_qtensor, outlier_columns)},
    {"outlier_values", offsetof(qd_qtensor, outlier_values)},
};
enum { N_MEMBERS = (int)(sizeof members / sizeof members[0]) };

static qd_tensor *member(qd_qtensor *q, int i) { return (qd_tensor *)(void *)((unsigned char *)q + members[i].offset); }

qd_tensor *qd_qtensor_part(qd_qtensor *q, const char *name) {
  for (int i = 0; i < N_MEMBERS; i++)
    if (strcmp(members[i].name, name) == 0) return member(q, i);
  return NULL;
}

int qd_qtensor_parts(const qd_qtensor *q, qd_part parts[QD_MAX_PARTS]) {
  qd_qtensor copy = *q;
  int n = 0;
  for (int i = 0; i < N_MEMBERS; i++)
    if (member(&copy, i)->rank != 0) parts[n++] = (qd_part){members[i].name, *member(&copy, i)};
  return n;
}

qd_status qd_qtensor_new(qd_arena *arena, qd_scheme scheme, int64_t rows, int64_t columns, bool has_order, qd_qtensor *out) {
  QD_TRY(qd_scheme_check(scheme));
  QD_ASSERT(rows >= 0 && columns >= 0);
  *out = qd_qtensor_shape(scheme, rows, columns, has_order);
  for (int i = 0; i < N_MEMBERS; i++) {
    qd_tensor *part = member(out, i);
    if (part->rank != 0) QD_TRY(qd_arena_new(arena, qd_tensor_bytes(*part), 1, &part->data));
  }
  return QD_OK;
}

static void take_rows(qd_tensor *part, int64_t first, int64_t n) {
  if (part->rank != 0) *part = qd_tensor_rows(*part, first, n);
}

qd_qtensor qd_qtensor_rows(const qd_qtensor *q, int64_t first, int64_t n) {
  qd_qtensor part = *q;
  qd_tensor *by_row[] = {&part.codes, &part.scales, &part.zeros, &part.scale_codes, &part.zero_codes};
  part.rows = n;
  for (size_t i = 0; i < sizeof by_row / sizeof by_row[0]; i++) take_rows(by_row[i], first, n);
  if (part.second.rank != 0) {
    int64_t unit = q->scheme.stat_group;
    QD_ASSERT(first % unit == 0);
    take_rows(&part.second, first / unit, (n + unit - 1) / unit);
  }
  take_rows(&part.outlier_rows, first, n + 1);
  return part;
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
  qd_qtensor expected = qd_qtensor_shape(q->scheme, q->rows, q->columns, q->order.rank != 0), got = *q;
  expected.outlier_columns.dim[0] = expected.outlier_values.dim[0] = q->scheme.spqr ? q->outlier_values.dim[0] : 0;
  QD_CHECK(!q->scheme.symmetric || q->zeros.rank == 0, QD_EBADINPUT,
           "quantized linear: zeros given, but the scheme is symmetric");
  for (int i = 0; i < N_MEMBERS; i++)
    if (member(&expected, i)->rank != 0 || member(&got, i)->rank != 0)
      QD_TRY(check_part(members[i].name, *member(&got, i), *member(&expected, i)));
  return QD_OK;
}

/* Codes are below 2^bits by construction; what can be wrong is the padding behind a row's last code. */
static qd_status check_codes(const char *name, qd_tensor codes, int64_t n, int bits) {
  if (codes.rank == 0) return QD_OK;
  int64_t row_bytes = codes.dim[1];
  int used_bits = (int)(n * bits % 8);
  if (used_bits == 0) return QD_OK;
  const uint8_t *bytes = codes.data;
  for (int64_t r = 0; r < codes.dim[0]; r++)
    QD_CHECK(bytes[(r + 1) * row_bytes - 1] >> used_bits == 0, QD_EBADINPUT,
             "quantized linear: %s of row %" PRId64 " have bits set behind the last code", name, r);
  return QD_OK;
}

static float number_at(qd_tensor t, int64_t i) {
  return t.dtype == QD_F16 ? qd_f16_to_f32(((const uint16_t *)t.data)[i]) : ((const float *)t.data)[i];
}

/* F16 or F32, `groups` numbers a row. */
static qd_status check_finite(const char *name, qd_tensor t, int64_t groups) {
  for (int64_t i = 0; t.rank != 0 && i < qd_tensor_elements(t); i++)
    QD_CHECK(isfinite(number_at(t, i)), QD_EBADINPUT,
             "quantized linear: %s of row %" PRId64 ", group %" PRId64 " is %g, not a finite number", name, i / groups,
             i % groups, (double)number_at(t, i));
  return QD_OK;
}

static qd_status check_zeros(const qd_qtensor *q) {
  if (q->zeros.rank == 0) return QD_OK;
  int64_t groups = q->zeros.dim[1];
  if (q->scheme.spqr) return check_finite("zero point", q->zeros, groups);
  const uint8_t *zeros = q->zeros.data;
  int max_code = qd_scheme_max_code(q->scheme);
  for (int64_t i = 0; i < q->rows * groups; i++)
    QD_CHECK(zeros[i] <= max_code, QD_EBADINPUT,
             "quantized linear: zero point of row %" PRId64 ", group %" PRId64 " is %d, above %d", i / groups, i % groups,
             zeros[i], max_code);
  return QD_OK;
}

static qd_status check_outliers_of_row(const qd_qtensor *q, int64_t row, int64_t first, int64_t end) {
  for (int64_t i = first, last = -1; i < end; i++) {
    int64_t column = qd_qtensor_outlier_column(q, i);
    QD_CHECK(column > last && column < q->columns, QD_EBADINPUT,
             "quantized linear: outlier %" PRId64 " of row %" PRId64 " is at position %" PRId64 " of %" PRId64
             ", behind %" PRId64, i - first, row, column, q->columns, last);
    QD_CHECK(isfinite(number_at(q->outlier_values, i)), QD_EBADINPUT,
             "quantized linear: outlier %" PRId64 " of row %" PRId64 " is not a finite number", i - first, row);
    last = column;
  }
  return QD_OK;
}

qd_status qd_qtensor_check_outliers(const qd_qtensor *q) {
  if (q->outlier_rows.rank == 0) return QD_OK;
  const int32_t *pointer = q->outlier_rows.data;
  int64_t n = q->outlier_values.dim[0];
  QD_CHECK(pointer[0] >= 0, QD_EBADINPUT, "quantized linear: outlier_rows begin with %d", pointer[0]);
  for (int64_t r = 0; r < q->rows; r++) {
    QD_CHECK(pointer[r + 1] >= pointer[r] && pointer[r + 1] <= n, QD_EBADINPUT,
             "quantized linear: outlier_rows of row %" PRId64 " lead from %d to %d of %" PRId64 " outliers", r, pointer[r],
             pointer[r + 1], n);
    QD_TRY(check_outliers_of_row(q, r, pointer[r], pointer[r + 1]));
  }
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

qd_status qd_qtensor_check_whole(const qd_qtensor *q) {
  QD_TRY(qd_qtensor_check(q));
  if (q->outlier_rows.rank == 0) return QD_OK;
  int32_t first = ((const int32_t *)q->outlier_rows.data)[0], end = ((const int32_t *)q->outlier_rows.data)[q->rows];
  QD_CHECK(first == 0 && end == q->outlier_values.dim[0], QD_EBADINPUT,
           "quantized linear: outlier_rows lead from %d to %d, there are %" PRId64 " outliers", first, end,
           q->outlier_values.dim[0]);
  return QD_OK;
}

qd_status qd_qtensor_check(const qd_qtensor *q) {
  QD_TRY(qd_qtensor_check_shapes(q));
  int64_t groups = qd_scheme_groups(q->scheme, q->columns);
  QD_TRY(check_codes("codes", q->codes, q->columns, q->scheme.bits));
  QD_TRY(check_codes("scale_codes", q->scale_codes, groups, q->scheme.scale_bits));
  QD_TRY(check_codes("zero_codes", q->zero_codes, groups, q->scheme.zero_bits));
  QD_TRY(check_finite("scale", q->scales, groups));
  QD_TRY(check_zeros(q));
  QD_TRY(check_finite("second", q->second, groups * QD_SECOND));
  QD_TRY(qd_qtensor_check_outliers(q));
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

/* ---- statistics ---------------------------------------------------------------------------------------------------------- */

static int code_at(qd_tensor codes, int64_t row, int64_t i, int bits) {
  const uint8_t *from = (const uint8_t *)codes.data + row * codes.stride[0] + i * bits / 8;
  int shift = (int)(i * bits % 8), value = from[0] >> shift;
  if (shift + bits > 8) value |= from[1] << (8 - shift);
  return value & ((1 << bits) - 1);
}

int qd_qtensor_code(const qd_qtensor *q, int64_t row, int64_t position) {
  return code_at(q->codes, row, position, q->scheme.bits);
}

int qd_qtensor_scale_code(const qd_qtensor *q, int64_t row, int64_t group) {
  return code_at(q->scale_codes, row, group, q->scheme.scale_bits);
}

int qd_qtensor_zero_code(const qd_qtensor *q, int64_t row, int64_t group) {
  return code_at(q->zero_codes, row, group, q->scheme.zero_bits);
}

/* Its code on its run's second level. */
static float statistic(const qd_qtensor *q, qd_tensor codes, int bits, int at, int64_t row, int64_t group) {
  const uint16_t *second =
      (const uint16_t *)q->second.data + row / q->scheme.stat_group * q->second.stride[0] + group * q->second.stride[1] + at;
  return qd_f16_to_f32(second[0]) * ((float)code_at(codes, row, group, bits) - qd_f16_to_f32(second[1]));
}

float qd_qtensor_scale(const qd_qtensor *q, int64_t row, int64_t group) {
  if (q->scale_codes.rank != 0) return statistic(q, q->scale_codes, q->scheme.scale_bits, 0, row, group);
  return number_at(q->scales, row * q->scales.stride[0] + group);
}

float qd_qtensor_zero(const qd_qtensor *q, int64_t row, int64_t group) {
  if (q->zero_codes.rank != 0) return statistic(q, q->zero_codes, q->scheme.zero_bits, 2, row, group);
  if (q->zeros.rank == 0) return (float)(1 << (q->scheme.bits - 1));
  int64_t index = row * q->zeros.stride[0] + group;
  return q->scheme.spqr ? number_at(q->zeros, index) : (float)((const uint8_t *)q->zeros.data)[index];
}

int64_t qd_qtensor_find_outlier(const qd_qtensor *q, int64_t row, int64_t position) {
  int64_t low = ((const int32_t *)q->outlier_rows.data)[row], high = qd_qtensor_outlier_end(q, row);
  while (low < high) {
    int64_t middle = low + (high - low) / 2;
    if (qd_qtensor_outlier_column(q, middle) < position) low = middle + 1;
    else high = middle;
  }
  return low;
}
