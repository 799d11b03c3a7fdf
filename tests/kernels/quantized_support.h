/* Random quantized linears. */
#ifndef QDIST_TESTS_KERNELS_QUANTIZED_SUPPORT_H
#define QDIST_TESTS_KERNELS_QUANTIZED_SUPPORT_H

#include "tests/kernels/products_support.h"

static inline void fill_order(int32_t *order, int64_t n) {
  for (int64_t i = 0; i < n; i++) order[i] = (int32_t)i;
  for (int64_t i = n - 1; i > 0; i--) {
    int64_t j = (int64_t)(random_bits() % (uint32_t)(i + 1));
    int32_t kept = order[i];
    order[i] = order[j];
    order[j] = kept;
  }
}

/* Valid contents: codes of any bits (padding cleared), scales of both signs, zeros up to the largest code. */
static inline qd_qtensor random_qtensor(qd_arena *arena, qd_scheme scheme, int64_t rows, int64_t columns, bool has_order) {
  qd_qtensor q;
  OK(qd_qtensor_new(arena, scheme, rows, columns, has_order, &q));
  uint8_t *codes = q.codes.data, *zeros = q.zeros.data;
  int64_t row_bytes = q.codes.dim[1], used_bits = columns * scheme.bits % 8;
  for (int64_t i = 0; i < rows * row_bytes; i++) codes[i] = (uint8_t)random_bits();
  for (int64_t r = 0; r < rows && used_bits; r++) codes[(r + 1) * row_bytes - 1] &= (uint8_t)((1 << used_bits) - 1);
  for (int64_t i = 0; i < qd_tensor_elements(q.scales); i++)
    set_element(q.scales.data, q.scales.dtype, i, random_number() * 0.1f);
  if (q.zeros.rank)
    for (int64_t i = 0; i < qd_tensor_elements(q.zeros); i++) zeros[i] = (uint8_t)(random_bits() % (1u << scheme.bits));
  if (has_order) fill_order(q.order.data, columns);
  return q;
}

static inline qd_arena open_arena(void) {
  qd_arena arena;
  OK(qd_arena_open(&arena, "test", (size_t)1 << 26));
  return arena;
}

static inline qd_tensor new_matrix(qd_arena *arena, qd_dtype dtype, int64_t rows, int64_t columns) {
  qd_tensor t;
  OK(qd_tensor_new_2d(arena, dtype, rows, columns, &t));
  memset(t.data, 0x5a, qd_tensor_bytes(t));
  return t;
}

static inline qd_tensor random_matrix(qd_arena *arena, qd_dtype dtype, int64_t rows, int64_t columns) {
  qd_tensor t = new_matrix(arena, dtype, rows, columns);
  for (int64_t i = 0; i < rows * columns; i++) set_element(t.data, dtype, i, random_number());
  return t;
}

/* x with its columns in stored order. */
static inline qd_tensor gathered(qd_arena *arena, qd_tensor x, qd_tensor order) {
  if (order.rank == 0) return x;
  qd_tensor y = new_matrix(arena, x.dtype, x.dim[0], x.dim[1]);
  size_t bytes = qd_dtype_bytes(x.dtype);
  for (int64_t t = 0; t < x.dim[0]; t++)
    for (int64_t p = 0; p < x.dim[1]; p++)
      memcpy((char *)y.data + (size_t)(t * y.stride[0] + p) * bytes,
             (const char *)x.data + (size_t)(t * x.stride[0] + ((const int32_t *)order.data)[p]) * bytes, bytes);
  return y;
}

#endif
