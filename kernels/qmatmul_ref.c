#include "kernels/int8.h"
#include "kernels/ref_real.h"

/* The columns of x in stored order. */
static void gather(qd_tensor x, qd_tensor order, qd_tensor out) {
  const int32_t *column = order.data;
  for (int64_t t = 0; t < x.dim[0]; t++)
    for (int64_t p = 0; p < x.dim[1]; p++)
      qd_ref_store(out, t * out.stride[0] + p, qd_ref_load(x, t * x.stride[0] + column[p] * x.stride[1]));
}

static qd_status expanded_linear(qd_device *device, qd_tensor x, const qd_qtensor *w, const qd_tensor *bias, qd_tensor y) {
  qd_tensor weight;
  QD_TRY(qd_tensor_new_2d(&device->scratch, x.dtype, w->rows, w->columns, &weight));
  QD_TRY(QD_REF(dequant)(device, w, weight));
  return QD_REF(linear)(device, x, weight, bias, y);
}

qd_status QD_REF(qlinear)(qd_device *device, qd_tensor x, const qd_qtensor *w, const qd_tensor *bias, qd_tensor y) {
  size_t mark = qd_arena_mark(&device->scratch);
  qd_status status = QD_OK;
  qd_tensor gathered;
  if (qd_qtensor_has_order(w)) {
    QD_TRY_GOTO(status, done, qd_tensor_new_2d(&device->scratch, x.dtype, x.dim[0], x.dim[1], &gathered));
    gather(x, w->order, gathered);
    x = gathered;
  }
  bool int8 = device->arithmetic == QD_ARITHMETIC_INT8;
  QD_TRY_GOTO(status, done, int8 ? QD_REF(int8_linear)(device, x, w, bias, y) : expanded_linear(device, x, w, bias, y));
done:
  qd_arena_rewind(&device->scratch, mark);
  return status;
}
