/* What bytes cost on their way to the store: compressed as chunks of codes are, and digested; and the blocks of a GGUF model on
 * theirs from it: decoded. */
#include "jobs/bench_case.h"
#include "storage/digest.h"
#include "storage/h5_zstd.h"
#include "storage/sources/gguf_blocks.h"

#include <string.h>

/* Weights near a normal distribution (a sum of four), quantized to packed codes: what a store's chunks hold. */
static qd_status prepare_bytes(qd_bench_case *c) {
  int64_t bits = c->scheme.bits, n = c->n * c->k;
  qd_tensor code, packed;
  QD_TRY(qd_tensor_new_2d(c->arena, QD_U8, 1, n, &code));
  QD_TRY(qd_tensor_new_2d(c->arena, QD_U8, 1, qd_packed_row_bytes(n, (int)bits), &packed));
  uint32_t state = 7;
  for (int64_t i = 0; i < n; i++) {
    uint32_t sum = 0;
    for (int r = 0; r < 4; r++) state = state * 1664525u + 1013904223u, sum += state >> 24;
    ((uint8_t *)code.data)[i] = (uint8_t)(sum >> (10 - bits));
  }
  QD_TRY(qd_pack(c->device, code, (int)bits, packed));
  c->x = packed;
  c->bytes = (double)qd_tensor_bytes(packed);
  return qd_bench_matrix(c, QD_U8, 1, (int64_t)qd_zstd_bound(qd_tensor_bytes(packed)), &c->y);
}

static qd_status run_compress(qd_bench_case *c) {
  size_t frame_bytes;
  return qd_zstd_compress(c->x.data, qd_tensor_bytes(c->x), c->y.data, qd_tensor_bytes(c->y), &frame_bytes);
}

static qd_status run_digest(qd_bench_case *c) {
  qd_digest digest;
  qd_digest_of(c->x.data, qd_tensor_bytes(c->x), &digest);
  return QD_OK;
}

enum { TYPE_Q4_K = 12 };

/* Any bytes are blocks; the bytes that count are the numbers that come out. */
static qd_status prepare_blocks(qd_bench_case *c) {
  const qd_gguf_block *block = qd_gguf_block_of(TYPE_Q4_K);
  c->m = (c->n * c->k + block->elements - 1) / block->elements;
  QD_TRY(qd_bench_matrix(c, QD_U8, c->m, block->bytes, &c->x));
  memset(c->x.data, 0x2c, qd_tensor_bytes(c->x));
  c->bytes = (double)(c->m * block->elements) * sizeof(float);
  return qd_bench_matrix(c, QD_F32, c->m, block->elements, &c->y);
}

static qd_status run_decode(qd_bench_case *c) {
  qd_gguf_block_of(TYPE_Q4_K)->decode(c->x.data, (size_t)c->m, c->y.data);
  return QD_OK;
}

static const qd_bench_op ops[] = {
    {"compress", QD_U8, 4, 0, 1024, 4096, 0, 0, 0, QD_BESIDE_NOTHING, prepare_bytes, run_compress, NULL},
    {"digest", QD_U8, 4, 0, 4096, 4096, 0, 0, 0, QD_BESIDE_NOTHING, prepare_bytes, run_digest, NULL},
    {"gguf", QD_F32, 4, 0, 1024, 4096, 0, 0, 0, QD_BESIDE_NOTHING, prepare_blocks, run_decode, NULL},
};
const qd_bench_group qd_bench_storage = QD_BENCH_GROUP(ops);
