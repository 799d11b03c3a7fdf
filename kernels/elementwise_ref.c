#include "kernels/ref_real.h"
#include "kernels/vecmath.h"

#ifdef QD_REAL64
#define real_exp exp
#else
#define real_exp qd_vm_expf
#endif

qd_status QD_REF(embed)(qd_device *device, qd_tensor table, qd_tensor ids, qd_tensor y) {
  (void)device;
  const int32_t *id = ids.data;
  for (int64_t t = 0; t < y.dim[0]; t++)
    for (int64_t c = 0; c < y.dim[1]; c++)
      qd_ref_store(y, t * y.stride[0] + c, qd_ref_load(table, id[t] * table.stride[0] + c));
  return QD_OK;
}

qd_status QD_REF(swiglu)(qd_device *device, qd_tensor gate, qd_tensor up, qd_tensor y) {
  (void)device;
  for (int64_t t = 0; t < y.dim[0]; t++)
    for (int64_t f = 0; f < y.dim[1]; f++) {
      qd_real z = qd_ref_load(gate, t * gate.stride[0] + f);
      qd_real silu = z / (1 + real_exp(-z));
      qd_ref_store(y, t * y.stride[0] + f, silu * qd_ref_load(up, t * up.stride[0] + f));
    }
  return QD_OK;
}

qd_status QD_REF(add)(qd_device *device, qd_tensor a, qd_tensor b, qd_tensor y) {
  (void)device;
  for (int64_t t = 0; t < y.dim[0]; t++)
    for (int64_t c = 0; c < y.dim[1]; c++)
      qd_ref_store(y, t * y.stride[0] + c, qd_ref_load(a, t * a.stride[0] + c) + qd_ref_load(b, t * b.stride[0] + c));
  return QD_OK;
}

qd_status QD_REF(subtract)(qd_device *device, qd_tensor a, qd_tensor b, qd_tensor y) {
  (void)device;
  for (int64_t t = 0; t < y.dim[0]; t++)
    for (int64_t c = 0; c < y.dim[1]; c++)
      qd_ref_store(y, t * y.stride[0] + c, qd_ref_load(a, t * a.stride[0] + c) - qd_ref_load(b, t * b.stride[0] + c));
  return QD_OK;
}

qd_status QD_REF(gather_columns)(qd_device *device, qd_tensor x, qd_tensor order, qd_tensor y) {
  (void)device;
  const int32_t *column = order.data;
  for (int64_t t = 0; t < y.dim[0]; t++)
    for (int64_t p = 0; p < y.dim[1]; p++) qd_ref_store(y, t * y.stride[0] + p, qd_ref_load(x, t * x.stride[0] + column[p]));
  return QD_OK;
}

qd_status QD_REF(find_nonfinite)(qd_device *device, qd_tensor x, int64_t *index) {
  (void)device;
  int64_t n = qd_tensor_elements(x);
  *index = -1;
  for (int64_t i = 0; i < n && *index < 0; i++) {
    qd_real value = x.dtype == QD_F16 ? (qd_real)qd_f16_to_f32(((const uint16_t *)x.data)[i]) : qd_ref_load(x, i);
    if (!isfinite(value)) *index = i;
  }
  return QD_OK;
}
