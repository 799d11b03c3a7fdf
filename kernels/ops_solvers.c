#include "kernels/ops_table.h"
#include "kernels/solvers.h"

qd_status qd_rtn_beyond(int64_t row, int64_t group, qd_scheme scheme) {
  bool half = scheme.scale_dtype == QD_F16;
  QD_FAIL(QD_ENUMERIC, "row %" PRId64 ", group %" PRId64 ": the weights span more than a scale in %s can hold%s", row, group,
          half ? "fp16 (at most 65504)" : "fp32", half ? "; --scale-dtype f32 stores wider ones" : "");
}

/* ref64 has F64 where a contract says F32. */
static qd_dtype real_dtype(const qd_device *device) { return strcmp(device->name, "ref64") == 0 ? QD_F64 : QD_F32; }

static qd_status check_matrix(const char *what, qd_tensor t, qd_dtype dtype, int64_t rows, int64_t columns) {
  QD_CHECK(t.dtype == dtype, QD_EDTYPE, "%s is %s, expected %s", what, qd_dtype_name(t.dtype), qd_dtype_name(dtype));
  QD_CHECK(t.rank == 2, QD_ESHAPE, "%s has rank %d, expected a matrix", what, t.rank);
  QD_CHECK(t.dim[0] == rows && t.dim[1] == columns, QD_ESHAPE,
           "%s is (%" PRId64 ", %" PRId64 "), expected (%" PRId64 ", %" PRId64 ")", what, t.dim[0], t.dim[1], rows, columns);
  QD_CHECK(t.stride[1] == 1 || columns <= 1, QD_ESHAPE, "%s has a column stride of %" PRId64 ", expected 1", what, t.stride[1]);
  return QD_OK;
}

static qd_status check_vector(const char *what, qd_tensor t, qd_dtype dtype, int64_t n) {
  QD_CHECK(t.dtype == dtype, QD_EDTYPE, "%s is %s, expected %s", what, qd_dtype_name(t.dtype), qd_dtype_name(dtype));
  QD_CHECK(t.rank == 1, QD_ESHAPE, "%s has rank %d, expected a vector", what, t.rank);
  QD_CHECK(t.dim[0] == n, QD_ESHAPE, "%s has length %" PRId64 ", expected %" PRId64, what, t.dim[0], n);
  return QD_OK;
}

/* The weights and their grid. */
static qd_status check_grid(const qd_device *device, qd_tensor w, qd_scheme scheme, qd_tensor scale, qd_tensor zero) {
  QD_TRY(qd_scheme_check(scheme));
  QD_CHECK(w.rank == 2, QD_ESHAPE, "the weights have rank %d, expected a matrix", w.rank);
  int64_t rows = w.dim[0], columns = w.dim[1], groups = qd_scheme_groups(scheme, columns);
  QD_TRY(check_matrix("the weights", w, real_dtype(device), rows, columns));
  QD_TRY(check_matrix("the scales", scale, real_dtype(device), rows, groups));
  QD_TRY(check_matrix("the zero points", zero, QD_U8, rows, groups));
  return QD_OK;
}

qd_status qd_rtn_fit(qd_device *device, qd_tensor w, qd_scheme scheme, qd_tensor scale, qd_tensor zero) {
  QD_TRY(check_grid(device, w, scheme, scale, zero));
  QD_TRY(device->ops->rtn_fit(device, w, scheme, scale, zero));
  return QD_OK;
}

qd_status qd_rtn_quantize(qd_device *device, qd_tensor w, qd_scheme scheme, qd_tensor scale, qd_tensor zero, qd_tensor code) {
  QD_TRY(check_grid(device, w, scheme, scale, zero));
  QD_TRY(check_matrix("the codes", code, QD_U8, w.dim[0], w.dim[1]));
  QD_TRY(device->ops->rtn_quantize(device, w, scheme, scale, zero, code));
  return QD_OK;
}

static qd_status check_permutation(const qd_gptq_args *args, uint8_t *seen) {
  int64_t columns = args->w.dim[1];
  memset(seen, 0, (size_t)columns);
  for (int64_t c = 0; c < columns; c++) {
    int64_t p = qd_gptq_stored(args, c);
    QD_CHECK(p >= 0 && p < columns, QD_EINVAL, "position %" PRId64 " is stored at %" PRId64 ", beyond %" PRId64, c, p, columns);
    QD_CHECK(!seen[p], QD_EINVAL, "two processing positions are stored at %" PRId64, p);
    seen[p] = 1;
  }
  return QD_OK;
}

/* Every group has as many runs of consecutive columns as it has starts: one. */
static qd_status check_groups_consecutive(const qd_gptq_args *args) {
  int64_t columns = args->w.dim[1], starts = 0, groups = columns > 0 ? qd_scheme_groups(args->scheme, columns) : 0;
  for (int64_t c = 0; c < columns; c++) starts += qd_gptq_begins_group(args, c);
  QD_CHECK(starts == groups, QD_EINVAL,
           "groups that are fitted in the loop must be consecutive in processing order: %" PRId64 " groups of %" PRId64
           " columns lie in %" PRId64 " runs",
           groups, qd_scheme_group_size(args->scheme, columns), starts);
  return QD_OK;
}

static qd_status check_factor(const char *what, const qd_device *device, qd_tri t, int64_t columns) {
  QD_CHECK(t.dtype == real_dtype(device), QD_EDTYPE, "%s is %s, expected %s", what, qd_dtype_name(t.dtype),
           qd_dtype_name(real_dtype(device)));
  QD_CHECK(t.n == columns, QD_ESHAPE, "%s has %" PRId64 " columns, the weights %" PRId64, what, t.n, columns);
  return QD_OK;
}

static qd_status check_gptq(qd_device *device, const qd_gptq_args *args) {
  QD_TRY(check_grid(device, args->w, args->scheme, args->scale, args->zero));
  int64_t rows = args->w.dim[0], columns = args->w.dim[1];
  QD_TRY(check_matrix("the codes", args->code, QD_U8, rows, columns));
  QD_TRY(check_vector("the loss", args->loss, QD_F64, rows));
  QD_TRY(check_vector("the stored positions", args->stored, QD_I32, columns));
  QD_TRY(check_factor("the factor", device, args->u, columns));
  if (args->p.n > 0) QD_TRY(check_factor("the asymmetry", device, args->p, columns));
  QD_CHECK(args->block >= 1, QD_EINVAL, "a block must have at least 1 column, got %" PRId64, args->block);
  uint8_t *seen;
  size_t mark = qd_arena_mark(&device->scratch);
  QD_TRY(qd_arena_new(&device->scratch, (size_t)columns, 1, &seen));
  qd_status status = check_permutation(args, seen);
  qd_arena_rewind(&device->scratch, mark);
  if (status != QD_OK) return qd_forward(status, __FILE__, __LINE__);
  if (args->fit) QD_TRY(check_groups_consecutive(args));
  return QD_OK;
}

qd_status qd_gptq(qd_device *device, const qd_gptq_args *args) {
  QD_TRY(check_gptq(device, args));
  QD_TRY(device->ops->gptq(device, args));
  return QD_OK;
}
