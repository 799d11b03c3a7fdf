/* The contract's checks of SpQR's operations; the device does the rest. */
#include "kernels/ops_table.h"
#include "kernels/spqr.h"

static qd_dtype real_of(const qd_device *device) { return strcmp(device->name, "ref64") == 0 ? QD_F64 : QD_F32; }

static qd_status check_matrix(const char *what, qd_tensor t, qd_dtype dtype, int64_t rows, int64_t columns) {
  QD_CHECK(t.dtype == dtype, QD_EDTYPE, "spqr: %s is %s, expected %s", what, qd_dtype_name(t.dtype), qd_dtype_name(dtype));
  QD_CHECK(t.rank == 2 && t.dim[0] == rows && t.dim[1] == columns, QD_ESHAPE,
           "spqr: %s is (%" PRId64 ", %" PRId64 "), expected (%" PRId64 ", %" PRId64 ")", what, t.dim[0], t.dim[1], rows,
           columns);
  QD_CHECK(t.stride[1] == 1 || columns <= 1, QD_ESHAPE, "spqr: %s has a column stride of %" PRId64 ", expected 1", what,
           t.stride[1]);
  return QD_OK;
}

static qd_status check_second(const qd_spqr_args *args, int64_t groups) {
  int64_t unit = args->scheme.stat_group, runs = (args->w.dim[0] + unit - 1) / unit;
  const qd_tensor *s = &args->second;
  if (qd_scheme_row_unit(args->scheme) == 1 && !qd_scheme_quantizes_scales(args->scheme) &&
      !qd_scheme_quantizes_zeros(args->scheme))
    return QD_OK;
  QD_CHECK(s->dtype == QD_F16 && s->rank == 3 && s->dim[0] == runs && s->dim[1] == groups && s->dim[2] == QD_SECOND, QD_ESHAPE,
           "spqr: the second level is no F16 (%" PRId64 ", %" PRId64 ", %d)", runs, groups, QD_SECOND);
  return QD_OK;
}

static qd_status check_factor(const qd_device *device, const qd_spqr_args *args, int64_t columns) {
  QD_CHECK(args->u.dtype == real_of(device), QD_EDTYPE, "spqr: the factor is %s, expected %s", qd_dtype_name(args->u.dtype),
           qd_dtype_name(real_of(device)));
  QD_CHECK(args->u.n == columns, QD_ESHAPE, "spqr: the factor has %" PRId64 " columns, the weights %" PRId64, args->u.n,
           columns);
  QD_CHECK(args->block >= 1, QD_EINVAL, "spqr: a block must have at least 1 column, got %" PRId64, args->block);
  QD_CHECK(args->tau >= 0, QD_EINVAL, "spqr: tau is %g, expected 0 or more", args->tau);
  return QD_OK;
}

qd_status qd_spqr(qd_device *device, const qd_spqr_args *args) {
  int64_t rows = args->w.dim[0], columns = args->w.dim[1];
  QD_TRY(qd_scheme_check(args->scheme));
  QD_CHECK(args->scheme.spqr, QD_EINVAL, "spqr: the scheme is of another grid");
  QD_CHECK(args->w.rank == 2, QD_ESHAPE, "spqr: the weights have rank %d, expected a matrix", args->w.rank);
  int64_t groups = qd_scheme_groups(args->scheme, columns);
  QD_TRY(check_matrix("the weights", args->w, real_of(device), rows, columns));
  QD_TRY(check_matrix("the codes", args->code, QD_U8, rows, columns));
  QD_TRY(check_matrix("the marks", args->outlier, QD_U8, rows, columns));
  QD_TRY(check_matrix("the kept values", args->value, QD_F16, rows, columns));
  QD_TRY(check_matrix("the scales", args->scale, real_of(device), rows, groups));
  QD_TRY(check_matrix("the zero points", args->zero, real_of(device), rows, groups));
  QD_TRY(check_matrix("the scales' codes", args->scale_code, QD_U8, rows, groups));
  QD_TRY(check_matrix("the zero points' codes", args->zero_code, QD_U8, rows, groups));
  QD_TRY(check_second(args, groups));
  QD_TRY(check_factor(device, args, columns));
  QD_CHECK(args->loss.dtype == QD_F64 && args->loss.rank == 1 && args->loss.dim[0] == rows, QD_ESHAPE,
           "spqr: the loss is no F64 (%" PRId64 ")", rows);
  return device->ops->spqr(device, args);
}

qd_status qd_spqr_beyond(const qd_spqr_args *args, int64_t first, int64_t group) {
  QD_FAIL(QD_ENUMERIC,
          "rows %" PRId64 " to %" PRId64 ", group %" PRId64 ": the weights span more than a scale or zero point in fp16 "
          "can hold",
          first, first + qd_spqr_run_rows(args, first) - 1, group);
}

qd_status qd_spearman_order(qd_device *device, qd_tensor w, qd_tensor order) {
  QD_TRY(check_matrix("the weights", w, real_of(device), w.dim[0], w.dim[1]));
  QD_CHECK(order.dtype == QD_I32 && order.rank == 1 && order.dim[0] == w.dim[1], QD_ESHAPE,
           "spqr: the order is no I32 (%" PRId64 ")", w.dim[1]);
  return device->ops->spearman_order(device, w, order);
}
