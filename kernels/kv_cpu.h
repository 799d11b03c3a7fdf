/* The cpu device's cache of keys and values: for each kv head panels of b of the matrix kernel (gemm_unit.h), which its strips
 * read from front to back.  Keys have positions in lanes and D along k; values have D in lanes and positions along k.  Chunk by
 * chunk of 256 k, panel by panel.  A position joins by writing its lane of the keys and its step of the values; what a panel is
 * filled up with is set to zero when its first position comes. */
#ifndef QDIST_KERNELS_KV_CPU_H
#define QDIST_KERNELS_KV_CPU_H

#include "kernels/gemm_unit.h"

/* Bytes that panels of so many rows of q take, over a chunk. */
size_t qd_kv_panel_bytes(const qd_device *device, qd_dtype act, int64_t rows);

/* One head's keys or values in [start, end), start a multiple of 256, and working memory for the other operand. */
typedef struct qd_kv_keys {
  const qd_device *device;
  const qd_kv     *kv;
  int64_t          head, start, end;
  void            *panels; /* of the rows given: qd_kv_panel_bytes */
} qd_kv_keys;

/* score = q k^T, sum = p v: products as of qd_gemm_serial.   q act (n, D), p act (n, end - start); rows of score and sum are
 * `stride` apart. */
void qd_kv_scores(const qd_kv_keys *keys, qd_tensor q, float *score, int64_t stride);
void qd_kv_sums(const qd_kv_keys *keys, qd_tensor p, float *sum, int64_t stride);

#endif
