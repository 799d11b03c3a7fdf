/* The bench's products and codes. */
#include "jobs/bench_case.h"

#include <string.h>

enum { PERIOD = 65521 }; /* a prime: no row or panel begins like its neighbour */

/* A period of it is there: fill the rest. */
static void repeat(qd_tensor t) {
  size_t n = (size_t)qd_tensor_elements(t), bytes = qd_dtype_bytes(t.dtype);
  for (size_t at = PERIOD; at < n; at += PERIOD)
    memcpy((unsigned char *)t.data + at * bytes, t.data, (n - at < PERIOD ? n - at : PERIOD) * bytes);
}

void qd_bench_fill(qd_tensor t) {
  uint32_t state = 12345; /* a multiplicative congruence */
  int64_t n = qd_tensor_elements(t);
  for (int64_t i = 0; i < n && i < PERIOD; i++) {
    state = state * 1664525u + 1013904223u;
    float value = (float)(state >> 8) / 8388608.0f - 1.0f;
    if (t.dtype == QD_F32) ((float *)t.data)[i] = value;
    else if (t.dtype == QD_F64) ((double *)t.data)[i] = (double)value;
    else ((uint16_t *)t.data)[i] = qd_bf16_from_f32(value);
  }
  repeat(t);
}

qd_status qd_bench_matrix(qd_bench_case *c, qd_dtype dtype, int64_t rows, int64_t columns, qd_tensor *out) {
  QD_TRY(qd_tensor_new_2d(c->arena, dtype, rows, columns, out));
  if (dtype == QD_F32 || dtype == QD_BF16 || dtype == QD_F64) qd_bench_fill(*out);
  else memset(out->data, 0, qd_tensor_bytes(*out));
  return QD_OK;
}

/* ---- dense --------------------------------------------------------------------------------------------------------------- */

static void count_product(qd_bench_case *c, size_t weight_bytes) {
  c->flops = 2.0 * (double)c->m * (double)c->n * (double)c->k;
  c->bytes = (double)(qd_tensor_bytes(c->x) + weight_bytes + qd_tensor_bytes(c->y));
}

qd_status qd_bench_product(qd_bench_case *c) {
  QD_TRY(qd_bench_matrix(c, c->dtype, c->m, c->k, &c->x));
  QD_TRY(qd_bench_matrix(c, c->dtype, c->n, c->k, &c->w));
  QD_TRY(qd_bench_matrix(c, c->dtype == QD_F64 ? QD_F64 : QD_F32, c->m, c->n, &c->y));
  count_product(c, qd_tensor_bytes(c->w));
  return QD_OK;
}

qd_status qd_bench_run_product(qd_bench_case *c) {
  return qd_matmul(c->device, c->x, qd_tensor_transposed(c->w), false, c->y);
}

qd_status qd_bench_dense_panels(qd_bench_case *c) {
  QD_TRY(qd_bench_product(c));
  return qd_panels_dense(c->device, c->arena, c->w, &c->panels);
}

qd_status qd_bench_run_panels(qd_bench_case *c) { return qd_panels_linear(c->device, c->x, &c->panels, NULL, c->y); }

/* ---- codes --------------------------------------------------------------------------------------------------------------- */

/* Codes of any value below 2^bits; scales near a model's. */
static qd_status quantized_weight(qd_bench_case *c) {
  QD_TRY(qd_qtensor_new(c->arena, c->scheme, c->n, c->k, false, &c->q));
  qd_part parts[QD_MAX_PARTS];
  uint32_t state = 1;
  for (int i = 0, n = qd_qtensor_parts(&c->q, parts); i < n; i++) {
    qd_tensor t = parts[i].tensor;
    for (int64_t e = 0; e < qd_tensor_elements(t) && e < PERIOD; e++) {
      state = state * 1664525u + 1013904223u;
      if (t.dtype == QD_F16) ((uint16_t *)t.data)[e] = (uint16_t)(0x1c00 + (state >> 24));
      else if (t.dtype == QD_I32) ((int32_t *)t.data)[e] = 0;
      else ((uint8_t *)t.data)[e] = (uint8_t)(state >> (i == 0 ? 24 : 32 - c->scheme.bits));
    }
    repeat(t);
  }
  return QD_OK;
}

static size_t quantized_bytes(const qd_qtensor *q) {
  qd_part parts[QD_MAX_PARTS];
  size_t bytes = 0;
  for (int i = 0, n = qd_qtensor_parts(q, parts); i < n; i++) bytes += qd_tensor_bytes(parts[i].tensor);
  return bytes;
}

static qd_status prepare_qmatmul(qd_bench_case *c) {
  QD_TRY(quantized_weight(c));
  QD_TRY(qd_bench_matrix(c, c->dtype, c->m, c->k, &c->x));
  QD_TRY(qd_bench_matrix(c, QD_F32, c->m, c->n, &c->y));
  count_product(c, quantized_bytes(&c->q));
  return qd_panels_quantized(c->device, c->arena, &c->q, c->dtype, &c->panels);
}

qd_status qd_bench_code_panels(qd_bench_case *c) {
  c->dtype = QD_F32;
  return prepare_qmatmul(c);
}

static qd_status run_in_int8(qd_bench_case *c) {
  qd_arithmetic kept = c->device->arithmetic;
  c->device->arithmetic = QD_ARITHMETIC_INT8;
  qd_status status = qd_panels_linear(c->device, c->x, &c->panels, NULL, c->y);
  c->device->arithmetic = kept;
  return status;
}

static qd_status prepare_int8(qd_bench_case *c) {
  qd_arithmetic kept = c->device->arithmetic;
  QD_TRY(qd_device_use_arithmetic(c->device, QD_ARITHMETIC_INT8)); /* its unit is tried */
  qd_status status = qd_bench_code_panels(c);
  c->device->arithmetic = kept;
  return status;
}

/* Statistics of 3 bits, no outliers. */
static qd_status prepare_spqr_int8(qd_bench_case *c) {
  c->scheme.group_size = c->scheme.stat_group = 16;
  c->scheme.spqr = true, c->scheme.scale_bits = c->scheme.zero_bits = 3;
  return prepare_int8(c);
}

static qd_status prepare_dequant(qd_bench_case *c) {
  QD_TRY(quantized_weight(c));
  QD_TRY(qd_bench_matrix(c, c->dtype, c->n, c->k, &c->w));
  c->flops = 2.0 * (double)c->n * (double)c->k;
  c->bytes = (double)(quantized_bytes(&c->q) + qd_tensor_bytes(c->w));
  return QD_OK;
}

static qd_status run_dequant(qd_bench_case *c) { return qd_dequant(c->device, &c->q, c->w); }

#define FEW(name, dtype, bits, tokens, beside, prepare) \
  {name, dtype, bits, tokens, 4096, 4096, 0, 11008, 4096, beside, prepare, qd_bench_run_panels, NULL}
#define CODES(tokens, bits) FEW("qmatmul", QD_F32, bits, tokens, QD_BESIDE_DENSE, prepare_qmatmul)
#define BYTES(name, tokens, bits, prepare) \
  {name, QD_U8, bits, tokens, 4096, 4096, 0, 11008, 4096, QD_BESIDE_F32, prepare, run_in_int8, NULL}
#define INT8(tokens, bits) BYTES("int8", tokens, bits, prepare_int8)

static const qd_bench_op ops[] = {
    {"gemm", QD_F32, 0, 2048, 2048, 2048, 0, 4096, 4096, QD_BESIDE_LIKE, qd_bench_product, qd_bench_run_product, NULL},
    {"gemm", QD_BF16, 0, 2048, 2048, 2048, 0, 4096, 4096, QD_BESIDE_LIKE, qd_bench_product, qd_bench_run_product, NULL},
    {"gemm", QD_F64, 0, 1024, 1024, 1024, 0, 0, 0, QD_BESIDE_NOTHING, qd_bench_product, qd_bench_run_product, NULL},
    FEW("token", QD_F32, 0, 1, QD_BESIDE_LIKE, qd_bench_dense_panels),
    FEW("token", QD_BF16, 0, 1, QD_BESIDE_LIKE, qd_bench_dense_panels),
    CODES(1, 2), CODES(1, 3), CODES(1, 4), CODES(1, 8), CODES(16, 2), CODES(16, 3), CODES(16, 4), CODES(16, 8),
    FEW("qmatmul", QD_BF16, 4, 1, QD_BESIDE_DENSE, prepare_qmatmul),
    FEW("qmatmul", QD_BF16, 4, 16, QD_BESIDE_DENSE, prepare_qmatmul),
    INT8(1, 2), INT8(1, 3), INT8(1, 4), INT8(1, 8), INT8(16, 4), INT8(512, 4),
    BYTES("int8_spqr", 1, 3, prepare_spqr_int8), BYTES("int8_spqr", 512, 3, prepare_spqr_int8),
    {"dequant", QD_F32, 4, 0, 4096, 4096, 0, 0, 0, QD_BESIDE_NOTHING, prepare_dequant, run_dequant, NULL},
};
const qd_bench_group qd_bench_products = QD_BENCH_GROUP(ops);
