/* The contract's checks of weights in panels; the device does the rest. */
#include "kernels/ops_table.h"

#include <string.h>

static bool is_cpu(const qd_device *device) { return strcmp(device->name, "cpu") == 0; }

static size_t matrix_cost(qd_dtype dtype, int64_t rows, int64_t columns) {
  return qd_arena_cost((size_t)rows * (size_t)columns, qd_dtype_bytes(dtype));
}

size_t qd_panels_copies_bytes(int64_t rows, int64_t columns, qd_scheme scheme) {
  qd_part parts[QD_MAX_PARTS];
  qd_qtensor q = qd_qtensor_shape(scheme, rows, columns, false);
  size_t bytes = 0;
  for (int i = qd_qtensor_parts(&q, parts) - 1; i >= 0; i--) bytes += qd_arena_cost(qd_tensor_bytes(parts[i].tensor), 1);
  return bytes;
}

size_t qd_panels_bytes(const qd_device *device, qd_dtype act, int64_t rows, int64_t columns, const qd_scheme *scheme,
                       bool has_order) {
  size_t order = has_order ? qd_arena_cost((size_t)columns, sizeof(int32_t)) : 0;
  if (is_cpu(device)) return order + qd_cpu_panels_bytes(device, act, rows, columns, scheme);
  return order + (scheme != NULL ? qd_panels_copies_bytes(rows, columns, *scheme) : matrix_cost(act, rows, columns));
}

size_t qd_panels_outlier_bytes(int64_t columns, int64_t n) {
  qd_dtype position = qd_qtensor_shape((qd_scheme){.spqr = true, .stat_group = 1, .group_size = 1}, 0, columns, false)
                          .outlier_columns.dtype;
  return qd_arena_cost((size_t)n, qd_dtype_bytes(position)) + qd_arena_cost((size_t)n, sizeof(uint16_t));
}

/* What all devices keep beside the codes. */
static qd_status copy(qd_arena *arena, qd_tensor from, qd_tensor *to) {
  size_t bytes = qd_tensor_bytes(from);
  *to = from;
  if (from.rank == 0) return QD_OK;
  QD_TRY(qd_arena_new(arena, bytes, 1, &to->data));
  if (bytes > 0) memcpy(to->data, from.data, bytes);
  return QD_OK;
}

static qd_status check_act(const qd_device *device, const char *op, qd_dtype act) {
  qd_dtype real = strcmp(device->name, "ref64") == 0 ? QD_F64 : QD_F32;
  QD_CHECK(act == QD_BF16 || act == real, QD_EDTYPE, "%s: activations are %s, expected %s or BF16", op, qd_dtype_name(act),
           qd_dtype_name(real));
  return QD_OK;
}

qd_status qd_panels_dense(qd_device *device, qd_arena *arena, qd_tensor w, qd_panels *out) {
  QD_CHECK(w.rank == 2, QD_ESHAPE, "panels: w has %d dimensions, expected 2", w.rank);
  QD_TRY(check_act(device, "panels", w.dtype));
  *out = (qd_panels){.act = w.dtype, .arithmetic = device->arithmetic, .rows = w.dim[0], .columns = w.dim[1]};
  return device->ops->panels_dense(device, arena, w, out);
}

qd_status qd_panels_quantized(qd_device *device, qd_arena *arena, const qd_qtensor *q, qd_dtype act, qd_panels *out) {
  QD_TRY(qd_qtensor_check_shapes(q));
  if (qd_qtensor_has_order(q)) QD_TRY(qd_qtensor_check_order_range("panels", q));
  if (q->scheme.spqr) QD_TRY(qd_qtensor_check_outliers(q));
  QD_TRY(check_act(device, "panels", act));
  QD_TRY(qd_int8_check(device, "panels", act, QD_F32));
  *out = (qd_panels){.act = act, .arithmetic = device->arithmetic, .rows = q->rows, .columns = q->columns, .quantized = true,
                     .q = {.scheme = q->scheme, .rows = q->rows, .columns = q->columns}};
  QD_TRY(copy(arena, q->order, &out->q.order));
  QD_TRY(copy(arena, q->outlier_rows, &out->q.outlier_rows));
  QD_TRY(copy(arena, q->outlier_columns, &out->q.outlier_columns));
  QD_TRY(copy(arena, q->outlier_values, &out->q.outlier_values));
  return device->ops->panels_quantized(device, arena, q, out);
}

qd_status qd_panels_linear(qd_device *device, qd_tensor x, const qd_panels *w, const qd_tensor *bias, qd_tensor y) {
  QD_CHECK(x.rank == 2, QD_ESHAPE, "panels_linear: x has %d dimensions, expected 2", x.rank);
  QD_CHECK(x.dim[1] == w->columns, QD_ESHAPE, "panels_linear: x has %" PRId64 " columns, w has %" PRId64, x.dim[1], w->columns);
  QD_CHECK(x.dtype == w->act, QD_EDTYPE, "panels_linear: x is %s, the panels are made for %s", qd_dtype_name(x.dtype),
           qd_dtype_name(w->act));
  QD_TRY(qd_linear_check_output(device, "panels_linear", bias, y, x.dim[0], w->rows));
  if (w->quantized) QD_TRY(qd_int8_check(device, "panels_linear", x.dtype, y.dtype));
  int width = is_cpu(device) ? qd_cpu_panel_width(device) : 0;
  QD_CHECK(w->width == width, QD_EINVAL, "panels_linear: panels of %d rows were made by a device with other units (%d here)",
           w->width, width);
  QD_CHECK(w->arithmetic == device->arithmetic, QD_EINVAL,
           "panels_linear: the panels are made for %s, the device computes in %s", qd_arithmetic_name(w->arithmetic),
           qd_arithmetic_name(device->arithmetic));
  return device->ops->panels_linear(device, x, w, bias, y);
}
