/* Keys and values of one sequence, kept for the tokens to come: packed once, when a token joins, as the units of the device
 * multiply them.  Made, appended to and attended by operations (qd_kv_new, qd_kv_append, qd_kv_attend in ops.h); it belongs to
 * the units of the device that made it and owns nothing: its memory is the arena's. */
#ifndef QDIST_KERNELS_KV_H
#define QDIST_KERNELS_KV_H

#include "kernels/base/tensor.h"
#include "kernels/device.h"

typedef struct qd_kv {
  qd_dtype      act;        /* F32 or BF16: of q, k, v and out                                                            */
  qd_arithmetic arithmetic; /* of the device when it was made                                                             */
  qd_isa        isa;
  int64_t       positions;  /* that there is room for                                                                     */
  int64_t       heads, size; /* K, D                                                                                      */
  int64_t       n;          /* positions that are there, from 0 on                                                        */
  bool          packed;     /* in panels (kv_cpu.h); else act (positions, K, D)                                           */
  void         *keys, *values;
} qd_kv;

/* One without memory: for the plan. */
qd_kv qd_kv_shape(const qd_device *device, qd_dtype act, int64_t positions, int64_t heads, int64_t size);

/* Bytes of the arena that it takes. */
size_t qd_kv_bytes(const qd_device *device, const qd_kv *shape);

/* What the cpu device takes for keys and for values, beside the code that does. */
size_t qd_cpu_kv_side_bytes(const qd_device *device, const qd_kv *shape, bool values);

#endif
