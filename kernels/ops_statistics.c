/* The statistics and the factor: the contract is checked here, once; the devices rely on it. */
#include "kernels/ops_table.h"

#include <float.h>
#include <string.h>

enum { MAX_EXPONENT = 400 }; /* 2^(42 + 2 * 400) is a double; fp32 data needs much less */

/* What the contract calls F32, on this device. */
static qd_dtype real_dtype(const qd_device *device) { return strcmp(device->name, "ref64") == 0 ? QD_F64 : QD_F32; }

static qd_status check_dtype(const char *op, const char *name, qd_dtype dtype, qd_dtype expected) {
  QD_CHECK(dtype == expected, QD_EDTYPE, "%s: %s must be %s, is %s", op, name, qd_dtype_name(expected), qd_dtype_name(dtype));
  return QD_OK;
}

static qd_status check_act(const qd_device *device, const char *op, qd_dtype dtype) {
  qd_dtype real = real_dtype(device);
  QD_CHECK(dtype == real || dtype == QD_BF16, QD_EDTYPE, "%s: x must be %s or BF16, is %s", op, qd_dtype_name(real),
           qd_dtype_name(dtype));
  return QD_OK;
}

static qd_status check_rank(const char *op, const char *name, qd_tensor t, int rank) {
  QD_CHECK(t.rank == rank, QD_ESHAPE, "%s: %s must have %d dimensions, has %d", op, name, rank, t.rank);
  return QD_OK;
}

static qd_status check_dim(const char *op, const char *name, int64_t dim, int64_t expected) {
  QD_CHECK(dim == expected, QD_ESHAPE, "%s: %s has size %" PRId64 ", expected %" PRId64, op, name, dim, expected);
  return QD_OK;
}

/* A vector of n elements side by side. */
static qd_status check_vector(const char *op, const char *name, qd_tensor t, qd_dtype dtype, int64_t n) {
  QD_TRY(check_dtype(op, name, t.dtype, dtype));
  QD_TRY(check_rank(op, name, t, 1));
  QD_TRY(check_dim(op, name, t.dim[0], n));
  QD_CHECK(n <= 1 || t.stride[0] == 1, QD_ESHAPE, "%s: %s must be contiguous", op, name);
  return QD_OK;
}

static qd_status check_tri(const char *op, const char *name, qd_tri t, qd_dtype dtype, int64_t n) {
  QD_TRY(check_dtype(op, name, t.dtype, dtype));
  QD_TRY(check_dim(op, name, t.n, n));
  return QD_OK;
}

/* A grid that qd_hessian_grid may give: 2^(42 - e_i - e_j) must be a number. */
static qd_status check_exponent(const char *op, qd_tensor exponent, int64_t n) {
  QD_TRY(check_vector(op, "exponent", exponent, QD_I32, n));
  const int32_t *e = exponent.data;
  for (int64_t j = 0; j < n; j++)
    QD_CHECK(e[j] >= -MAX_EXPONENT && e[j] <= MAX_EXPONENT, QD_EINVAL,
             "%s: exponent %" PRId32 " of column %" PRId64 " lies beyond +-%d", op, e[j], j, MAX_EXPONENT);
  return QD_OK;
}

qd_status qd_colstats(qd_device *device, qd_tensor x, qd_tensor stats) {
  QD_TRY(check_act(device, "colstats", x.dtype));
  QD_TRY(check_rank("colstats", "x", x, 2));
  QD_TRY(check_dtype("colstats", "stats", stats.dtype, QD_F64));
  QD_TRY(check_rank("colstats", "stats", stats, 2));
  QD_TRY(check_dim("colstats", "first dimension of stats", stats.dim[0], 3));
  QD_TRY(check_dim("colstats", "a row of stats", stats.dim[1], x.dim[1]));
  return device->ops->colstats(device, x, stats);
}

qd_status qd_hessian_grid(qd_device *device, qd_tensor diagonal, double bound, qd_tensor exponent) {
  QD_TRY(check_dtype("hessian_grid", "diagonal", diagonal.dtype, QD_F64));
  QD_TRY(check_rank("hessian_grid", "diagonal", diagonal, 2));
  QD_TRY(check_vector("hessian_grid", "exponent", exponent, QD_I32, diagonal.dim[1]));
  QD_CHECK(bound > 0 && bound <= DBL_MAX, QD_EINVAL, "hessian_grid: the bound must be positive and finite, is %g", bound);
  return device->ops->hessian_grid(device, diagonal, bound, exponent);
}

qd_status qd_hessian(qd_device *device, qd_tensor x, qd_tensor exponent, qd_tri total) {
  QD_TRY(check_act(device, "hessian", x.dtype));
  QD_TRY(check_rank("hessian", "x", x, 3));
  QD_TRY(check_tri("hessian", "total", total, QD_I64, x.dim[2]));
  QD_TRY(check_exponent("hessian", exponent, x.dim[2]));
  return device->ops->hessian(device, x, exponent, total);
}

qd_status qd_hessian_values(qd_device *device, qd_tri total, qd_tensor exponent, qd_tri h) {
  QD_TRY(check_tri("hessian_values", "total", total, QD_I64, total.n));
  QD_CHECK(h.dtype == QD_F32 || h.dtype == QD_F64, QD_EDTYPE, "hessian_values: h must be F32 or F64, is %s",
           qd_dtype_name(h.dtype));
  QD_TRY(check_tri("hessian_values", "h", h, h.dtype, total.n));
  QD_CHECK(h.data != total.data || h.dtype == QD_F64, QD_EDTYPE, "hessian_values: h over total must be F64, is F32");
  QD_TRY(check_exponent("hessian_values", exponent, total.n));
  return device->ops->hessian_values(device, total, exponent, h);
}

/* A matrix whose rows lie side by side or further apart. */
static qd_status check_matrix(const char *op, const char *name, qd_tensor t, qd_dtype dtype, int64_t columns) {
  QD_TRY(check_dtype(op, name, t.dtype, dtype));
  QD_TRY(check_rank(op, name, t, 2));
  QD_TRY(check_dim(op, name, t.dim[1], columns));
  QD_CHECK(columns <= 1 || t.stride[1] == 1, QD_ESHAPE, "%s: the columns of %s must lie side by side", op, name);
  return QD_OK;
}

qd_status qd_cross(qd_device *device, const qd_cross_args *args) {
  qd_tensor x = args->x, original = args->original;
  QD_TRY(check_act(device, "cross", x.dtype));
  QD_TRY(check_dtype("cross", "original", original.dtype, x.dtype));
  QD_TRY(check_rank("cross", "x", x, 3));
  QD_TRY(check_rank("cross", "original", original, 3));
  for (int d = 0; d < 3; d++) QD_TRY(check_dim("cross", "original", original.dim[d], x.dim[d]));
  QD_CHECK(x.dim[2] <= 1 || (x.stride[2] == 1 && original.stride[2] == 1), QD_ESHAPE,
           "cross: the columns of x and original must lie side by side");
  QD_TRY(check_matrix("cross", "total", args->total, QD_I64, x.dim[2]));
  QD_TRY(check_exponent("cross", args->row_exponent, x.dim[2]));
  QD_TRY(check_exponent("cross", args->column_exponent, x.dim[2]));
  QD_CHECK(args->first >= 0 && args->first <= x.dim[2] - args->total.dim[0], QD_EINVAL,
           "cross: rows %" PRId64 " and %" PRId64 " more, of %" PRId64 " columns", args->first, args->total.dim[0], x.dim[2]);
  return device->ops->cross(device, args);
}

qd_status qd_cross_values(qd_device *device, qd_tensor total, qd_tensor row_exponent, qd_tensor column_exponent,
                          qd_tensor values) {
  QD_TRY(check_matrix("cross_values", "total", total, QD_I64, total.dim[1]));
  QD_TRY(check_matrix("cross_values", "values", values, real_dtype(device), total.dim[1]));
  QD_TRY(check_dim("cross_values", "values", values.dim[0], total.dim[0]));
  QD_TRY(check_exponent("cross_values", row_exponent, total.dim[0]));
  QD_TRY(check_exponent("cross_values", column_exponent, total.dim[1]));
  return device->ops->cross_values(device, total, row_exponent, column_exponent, values);
}

qd_status qd_sqerror(qd_device *device, qd_tensor x, qd_tri h, qd_tensor value) {
  QD_TRY(check_dtype("sqerror", "x", x.dtype, real_dtype(device)));
  QD_TRY(check_rank("sqerror", "x", x, 2));
  QD_TRY(check_tri("sqerror", "h", h, real_dtype(device), x.dim[1]));
  QD_TRY(check_dtype("sqerror", "value", value.dtype, QD_F64));
  QD_TRY(check_rank("sqerror", "value", value, 1));
  QD_TRY(check_dim("sqerror", "value", value.dim[0], x.dim[0]));
  return device->ops->sqerror(device, x, h, value);
}

/* Each column once.   seen: n zeroed bytes. */
static qd_status check_permutation(const char *op, qd_tensor order, unsigned char *seen) {
  const int32_t *column = order.data;
  for (int64_t p = 0; p < order.dim[0]; p++) {
    QD_CHECK(column[p] >= 0 && column[p] < order.dim[0], QD_EINVAL,
             "%s: order[%" PRId64 "] is %" PRId32 ", but there are %" PRId64 " columns", op, p, column[p], order.dim[0]);
    QD_CHECK(!seen[column[p]], QD_EINVAL, "%s: order names column %" PRId32 " twice", op, column[p]);
    seen[column[p]] = 1;
  }
  return QD_OK;
}

static qd_status check_order(qd_device *device, const char *op, qd_tensor order, int64_t n) {
  if (order.rank == 0) return QD_OK;
  QD_TRY(check_vector(op, "order", order, QD_I32, n));
  size_t mark = qd_arena_mark(&device->scratch);
  unsigned char *seen;
  QD_TRY(qd_arena_new(&device->scratch, (size_t)n, 1, &seen));
  memset(seen, 0, (size_t)n);
  qd_status status = check_permutation(op, order, seen);
  qd_arena_rewind(&device->scratch, mark);
  return status;
}

qd_status qd_factor(qd_device *device, const qd_factor_args *args, int64_t *pivot) {
  int64_t n = args->h.n;
  *pivot = -1;
  QD_TRY(check_tri("factor", "h", args->h, real_dtype(device), n));
  QD_TRY(check_tri("factor", "u", args->u, real_dtype(device), n));
  QD_TRY(check_tri("factor", "work", args->work, QD_F64, n));
  QD_TRY(check_vector("factor", "add", args->add, QD_F64, n));
  QD_TRY(check_order(device, "factor", args->order, n));
  return device->ops->factor(device, args, pivot);
}

qd_status qd_asymmetry(qd_device *device, const qd_asymmetry_args *args) {
  int64_t n = args->u.n;
  QD_TRY(check_matrix("asymmetry", "cross", args->cross, real_dtype(device), n));
  QD_TRY(check_dim("asymmetry", "cross", args->cross.dim[0], n));
  QD_TRY(check_tri("asymmetry", "u", args->u, real_dtype(device), n));
  QD_TRY(check_tri("asymmetry", "p", args->p, real_dtype(device), n));
  QD_TRY(check_order(device, "asymmetry", args->order, n));
  return device->ops->asymmetry(device, args);
}
