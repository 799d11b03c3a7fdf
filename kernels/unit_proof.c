#include "kernels/unit_proof.h"

#include "kernels/base/heap.h"
#include "kernels/base/log.h"
#include "kernels/int8.h"
#include "kernels/ops_table.h"
#include "kernels/scratch.h"

#include <string.h>

/* More than one tile in each direction, more than one chunk, none of them whole. */
enum { M = 18, N = 35, K = 256 + 45 };

typedef struct trial {
  uint16_t a[M * K], b[K * N];
  float expected[M * N], got[M * N];
} trial;

/* Values of any sign and mantissa with an exponent of [least, least + 16). */
static void fill(uint16_t *values, int n, uint32_t least, uint32_t seed) {
  for (int i = 0; i < n; i++) {
    seed = seed * 1664525u + 1013904223u;
    values[i] = (uint16_t)((seed >> 16 & 0x807fu) | (least + (seed >> 8 & 15u)) << 7);
  }
}

static qd_status agrees(qd_device *device, trial *t, bool *out) {
  qd_tensor a = qd_tensor_2d(t->a, QD_BF16, M, K), b = qd_tensor_2d(t->b, QD_BF16, K, N);
  QD_TRY(qd_ref_matmul(device, a, b, false, qd_tensor_2d(t->expected, QD_F32, M, N)));
  QD_TRY(device->ops->matmul(device, a, b, false, qd_tensor_2d(t->got, QD_F32, M, N)));
  *out = memcmp(t->expected, t->got, sizeof t->got) == 0;
  return QD_OK;
}

/* Of two kinds: sums that are rounded at every step, and products about the smallest normal number, many of which underflow. */
static qd_status try_unit(qd_device *device, trial *t, bool *proven) {
  fill(t->a, M * K, 120, 1);
  fill(t->b, K * N, 120, 2);
  QD_TRY(agrees(device, t, proven));
  if (!*proven) return QD_OK;
  fill(t->a, M * K, 56, 3);
  fill(t->b, K * N, 56, 4);
  return agrees(device, t, proven);
}

/* ---- int8: codes of any kind times tokens whose sums are large, so that an instruction that saturates would show ---- */

static qd_status random_weight(qd_arena *arena, int bits, qd_qtensor *out) {
  qd_scheme scheme = {.bits = bits, .group_size = 32, .scale_dtype = QD_F32};
  QD_TRY(qd_qtensor_new(arena, scheme, N, K, false, out));
  uint8_t *codes = out->codes.data, *zeros = out->zeros.data;
  uint32_t seed = 1;
  for (int64_t i = 0; i < qd_tensor_elements(out->codes); i++)
    codes[i] = (uint8_t)((seed = seed * 1664525u + 1013904223u) >> 24 | (i % 3 ? 0xe0 : 0));
  for (int64_t i = 0; i < qd_tensor_elements(out->zeros); i++) {
    zeros[i] = (uint8_t)(codes[i] >> (QD_MAX_BITS - bits));
    ((float *)out->scales.data)[i] = 1 + (float)codes[i];
  }
  return QD_OK;
}

static qd_status agrees_in_bytes(qd_device *device, trial *t, qd_arena *arena, int bits, bool *out) {
  qd_qtensor w;
  qd_tensor x;
  QD_TRY(qd_tensor_new_2d(arena, QD_F32, M, K, &x));
  for (int i = 0; i < M * K; i++) ((float *)x.data)[i] = qd_bf16_to_f32(t->a[i] & (i / K % 2 ? 0x7fff : 0xffff));
  QD_TRY(random_weight(arena, bits, &w));
  QD_TRY(qd_ref_qlinear(device, x, &w, NULL, qd_tensor_2d(t->expected, QD_F32, M, N)));
  QD_TRY(device->ops->qlinear(device, x, &w, NULL, qd_tensor_2d(t->got, QD_F32, M, N)));
  *out = memcmp(t->expected, t->got, sizeof t->got) == 0;
  return QD_OK;
}

/* With scratch of its own: the device's may have no size yet. */
static qd_status try_bytes(qd_device *device, trial *t, bool *proven) {
  qd_arena kept = device->scratch, own = {0}, scratch;
  qd_status status = QD_OK;
  size_t bytes = qd_scratch_qlinear(device, qd_tensor_2d(NULL, QD_F32, M, K), N, false) + qd_ref_int8_scratch(K);
  fill(t->a, M * K, 120, 1);
  QD_TRY(qd_arena_open(&scratch, "unit proof", bytes));
  QD_TRY_GOTO(status, done, qd_arena_open(&own, "unit proof", (size_t)1 << 20));
  device->scratch = scratch;
  *proven = true;
  for (int bits = 4; bits <= QD_MAX_BITS && *proven && status == QD_OK; bits += 4) /* signed and unsigned codes */
    status = agrees_in_bytes(device, t, &own, bits, proven);
  scratch = device->scratch;
  device->scratch = kept;
done:
  qd_arena_close(&own);
  qd_arena_close(&scratch);
  return status;
}

/* ---- all units ---- */

static qd_status prove(qd_device *device, trial *t, qd_isa otherwise) {
  bool proven = false;
  QD_TRY((device->arithmetic == QD_ARITHMETIC_INT8 ? try_bytes : try_unit)(device, t, &proven));
  if (proven) return QD_OK;
  qd_log_warning("%s of this CPU (%s) does not sum as %s says: left out, same bits, slower", qd_isa_name(otherwise + 1),
                 qd_cpu_model(), qd_arithmetic_name(device->arithmetic));
  device->isa = otherwise;
  device->unit_refused = true;
  return QD_OK;
}

qd_status qd_unit_prove(qd_device *device) {
  trial *t;
  qd_isa otherwise = device->arithmetic == QD_ARITHMETIC_INT8       ? QD_ISA_AVX512
                     : device->arithmetic == QD_ARITHMETIC_BF16_AMX ? QD_ISA_AVX512_BF16
                                                                    : QD_ISA_AVX512_VNNI;
  if (strcmp(device->name, "cpu") != 0 || device->isa <= otherwise) return QD_OK;
  QD_TRY(qd_heap_new(1, sizeof *t, &t));
  qd_status status = prove(device, t, otherwise);
  qd_heap_free(t);
  return status;
}
