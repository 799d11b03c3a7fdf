#include "kernels/ref_real.h"

/* The loops need no panels: they keep copies of what was given. */

static qd_status copy(qd_arena *arena, qd_tensor from, qd_tensor *to) {
  if (from.rank == 0) return QD_OK;
  QD_TRY(qd_tensor_new_2d(arena, from.dtype, from.dim[0], from.dim[1], to));
  size_t bytes = qd_dtype_bytes(from.dtype);
  for (int64_t i = 0; i < from.dim[0]; i++)
    for (int64_t j = 0; j < from.dim[1]; j++)
      memcpy((unsigned char *)to->data + (size_t)(i * to->stride[0] + j) * bytes,
             (const unsigned char *)from.data + (size_t)(i * from.stride[0] + j * from.stride[1]) * bytes, bytes);
  return QD_OK;
}

qd_status QD_REF(panels_dense)(qd_device *device, qd_arena *arena, qd_tensor w, qd_panels *out) {
  (void)device;
  return copy(arena, w, &out->w);
}

/* Parts of any rank, whole; the order is there already. */
qd_status QD_REF(panels_quantized)(qd_device *device, qd_arena *arena, const qd_qtensor *q, qd_panels *out) {
  (void)device;
  qd_part parts[QD_MAX_PARTS];
  int n = qd_qtensor_parts(q, parts);
  for (int i = 0; i < n; i++) {
    qd_tensor *to = qd_qtensor_part(&out->q, parts[i].name);
    size_t bytes = qd_tensor_bytes(parts[i].tensor);
    if (to->data != NULL) continue;
    *to = parts[i].tensor;
    QD_TRY(qd_arena_new(arena, bytes, 1, &to->data));
    if (bytes > 0) memcpy(to->data, parts[i].tensor.data, bytes);
  }
  return QD_OK;
}

qd_status QD_REF(panels_linear)(qd_device *device, qd_tensor x, const qd_panels *w, const qd_tensor *bias, qd_tensor y) {
  return w->quantized ? QD_REF(qlinear)(device, x, &w->q, bias, y) : QD_REF(linear)(device, x, w->w, bias, y);
}
