#include "kernels/ref_real.h"

/* The loops keep rows as they come, and give them to the attention. */

static qd_tensor rows_of(const qd_kv *kv, void *data) {
  return qd_tensor_3d(data, kv->act, kv->positions, kv->heads, kv->size);
}

qd_status QD_REF(kv_new)(qd_device *device, qd_arena *arena, qd_kv *kv) {
  size_t n = (size_t)(kv->positions * kv->heads * kv->size), element = qd_dtype_bytes(kv->act);
  (void)device;
  QD_TRY(qd_arena_new(arena, n, element, &kv->keys));
  return qd_arena_new(arena, n, element, &kv->values);
}

static void append(qd_tensor from, qd_tensor to) {
  size_t bytes = (size_t)to.dim[2] * qd_dtype_bytes(to.dtype);
  for (int64_t t = 0; t < from.dim[0]; t++)
    for (int64_t h = 0; h < from.dim[1]; h++)
      memcpy(qd_tensor_at(qd_tensor_at(to, t), h).data, qd_tensor_at(qd_tensor_at(from, t), h).data, bytes);
}

qd_status QD_REF(kv_append)(qd_device *device, qd_kv *kv, int64_t first, qd_tensor k, qd_tensor v) {
  (void)device;
  append(k, qd_tensor_rows(rows_of(kv, kv->keys), first, k.dim[0]));
  append(v, qd_tensor_rows(rows_of(kv, kv->values), first, k.dim[0]));
  return QD_OK;
}

qd_status QD_REF(kv_attend)(qd_device *device, const qd_kv_attend_args *args) {
  const qd_kv *kv = args->kv;
  qd_attention_args plain = {.q = args->q, .out = args->out, .scale = args->scale, .window = args->window};
  plain.k = qd_tensor_rows(rows_of(kv, kv->keys), 0, kv->n);
  plain.v = qd_tensor_rows(rows_of(kv, kv->values), 0, kv->n);
  return QD_REF(attention)(device, &plain);
}
