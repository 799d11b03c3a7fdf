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

/* n codes of some bits a row, padding cleared. */
static inline void fill_codes(qd_tensor codes, int64_t n, int bits) {
  uint8_t *bytes = codes.data;
  int64_t row_bytes = codes.dim[1], used_bits = n * bits % 8;
  for (int64_t i = 0; i < codes.dim[0] * row_bytes; i++) bytes[i] = (uint8_t)random_bits();
  for (int64_t r = 0; r < codes.dim[0] && used_bits; r++) bytes[(r + 1) * row_bytes - 1] &= (uint8_t)((1 << used_bits) - 1);
}

/* Valid contents: codes of any bits (padding cleared), scales of both signs, zeros up to the largest code. */
static inline qd_qtensor random_qtensor(qd_arena *arena, qd_scheme scheme, int64_t rows, int64_t columns, bool has_order) {
  qd_qtensor q;
  OK(qd_qtensor_new(arena, scheme, rows, columns, has_order, &q));
  uint8_t *zeros = q.zeros.data;
  fill_codes(q.codes, columns, scheme.bits);
  for (int64_t i = 0; i < qd_tensor_elements(q.scales); i++)
    set_element(q.scales.data, q.scales.dtype, i, random_number() * 0.1f);
  if (q.zeros.rank)
    for (int64_t i = 0; i < qd_tensor_elements(q.zeros); i++) zeros[i] = (uint8_t)(random_bits() % (1u << scheme.bits));
  if (has_order) fill_order(q.order.data, columns);
  return q;
}

/* The same of SpQR's grid: one weight of eight is an outlier, no weight of every third row. */
static inline qd_qtensor random_spqr(qd_arena *arena, qd_scheme scheme, int64_t rows, int64_t columns, bool has_order) {
  qd_qtensor q;
  int32_t n = 0;
  OK(qd_qtensor_new(arena, scheme, rows, columns, has_order, &q));
  OK(qd_arena_new(arena, (size_t)(rows * columns), qd_dtype_bytes(q.outlier_columns.dtype), &q.outlier_columns.data));
  OK(qd_arena_new(arena, (size_t)(rows * columns), sizeof(uint16_t), &q.outlier_values.data));
  fill_codes(q.codes, columns, scheme.bits);
  if (q.scale_codes.rank) fill_codes(q.scale_codes, qd_scheme_groups(scheme, columns), scheme.scale_bits);
  if (q.zero_codes.rank) fill_codes(q.zero_codes, qd_scheme_groups(scheme, columns), scheme.zero_bits);
  qd_tensor *reals[] = {&q.scales, &q.zeros, &q.second};
  for (int i = 0; i < 3; i++)
    for (int64_t at = 0; reals[i]->rank && at < qd_tensor_elements(*reals[i]); at++)
      set_element(reals[i]->data, reals[i]->dtype, at, random_number());
  ((int32_t *)q.outlier_rows.data)[0] = 0;
  for (int64_t r = 0; r < rows; r++) {
    for (int64_t c = 0; c < columns; c++)
      if (r % 3 != 2 && random_bits() % 8 == 0) {
        ((uint16_t *)q.outlier_columns.data)[n] = (uint16_t)c;
        set_element(q.outlier_values.data, QD_F16, n, n % 5 ? random_number() : 0);
        n++;
      }
    ((int32_t *)q.outlier_rows.data)[r + 1] = n;
  }
  q.outlier_columns.dim[0] = q.outlier_values.dim[0] = n;
  if (has_order) fill_order(q.order.data, columns);
  return q;
}

/* Statistics in codes of both, of one and of none; columns that groups and runs divide, and not. */
enum { SPQR_KINDS = 4 };
static inline qd_qtensor random_spqr_kind(qd_arena *arena, int kind, int64_t rows, bool has_order) {
  static const qd_scheme schemes[SPQR_KINDS] = {
      {.bits = 3, .group_size = 16, .scale_dtype = QD_F16, .spqr = true, .scale_bits = 3, .zero_bits = 3, .stat_group = 16},
      {.bits = 2, .group_size = 32, .scale_dtype = QD_F16, .spqr = true, .scale_bits = 4, .stat_group = 8},
      {.bits = 4, .group_size = 5, .scale_dtype = QD_F32, .spqr = true, .zero_bits = 2, .stat_group = 4},
      {.bits = 5, .group_size = QD_PER_CHANNEL, .symmetric = true, .scale_dtype = QD_F16, .spqr = true, .stat_group = 1}};
  static const int64_t columns[SPQR_KINDS] = {288, 299, 33, 257};
  return random_spqr(arena, schemes[kind], rows, columns[kind], has_order);
}

static inline qd_arena open_numbers(void) {
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
