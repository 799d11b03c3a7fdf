#include "kernels/base/tensor.h"

static qd_tensor contiguous(void *data, qd_dtype dtype, int rank, const int64_t *dim) {
  qd_tensor t = {.data = data, .dtype = dtype, .rank = rank};
  int64_t stride = 1;
  for (int i = rank - 1; i >= 0; i--) {
    t.dim[i] = dim[i];
    t.stride[i] = stride;
    stride *= dim[i];
  }
  return t;
}

qd_tensor qd_tensor_1d(void *data, qd_dtype dtype, int64_t n) { return contiguous(data, dtype, 1, (int64_t[]){n}); }

qd_tensor qd_tensor_2d(void *data, qd_dtype dtype, int64_t rows, int64_t columns) {
  return contiguous(data, dtype, 2, (int64_t[]){rows, columns});
}

qd_tensor qd_tensor_3d(void *data, qd_dtype dtype, int64_t n0, int64_t n1, int64_t n2) {
  return contiguous(data, dtype, 3, (int64_t[]){n0, n1, n2});
}

qd_status qd_tensor_new_2d(qd_arena *arena, qd_dtype dtype, int64_t rows, int64_t columns, qd_tensor *out) {
  QD_ASSERT(rows >= 0 && columns >= 0);
  *out = qd_tensor_2d(NULL, dtype, rows, columns);
  size_t row_bytes = (size_t)columns * qd_dtype_bytes(dtype);
  QD_TRY(qd_arena_new(arena, (size_t)rows, row_bytes, &out->data));
  return QD_OK;
}

static void *element(qd_tensor t, int64_t offset) {
  return (unsigned char *)t.data + offset * (int64_t)qd_dtype_bytes(t.dtype);
}

qd_tensor qd_tensor_rows(qd_tensor t, int64_t first, int64_t n) {
  QD_ASSERT(t.rank >= 1 && first >= 0 && n >= 0 && first + n <= t.dim[0]);
  t.data = element(t, first * t.stride[0]);
  t.dim[0] = n;
  return t;
}

qd_tensor qd_tensor_columns(qd_tensor t, int64_t first, int64_t n) {
  QD_ASSERT(t.rank == 2 && first >= 0 && n >= 0 && first + n <= t.dim[1]);
  t.data = element(t, first * t.stride[1]);
  t.dim[1] = n;
  return t;
}

qd_tensor qd_tensor_transposed(qd_tensor t) {
  QD_ASSERT(t.rank == 2);
  qd_tensor r = t;
  r.dim[0] = t.dim[1], r.dim[1] = t.dim[0];
  r.stride[0] = t.stride[1], r.stride[1] = t.stride[0];
  return r;
}

qd_tensor qd_tensor_at(qd_tensor t, int64_t index) {
  QD_ASSERT(t.rank >= 1 && index >= 0 && index < t.dim[0]);
  qd_tensor r = {.data = element(t, index * t.stride[0]), .dtype = t.dtype, .rank = t.rank - 1};
  for (int i = 0; i < r.rank; i++) r.dim[i] = t.dim[i + 1], r.stride[i] = t.stride[i + 1];
  return r;
}

qd_tensor qd_tensor_reshape_2d(qd_tensor t, int64_t rows, int64_t columns) {
  QD_ASSERT(qd_tensor_is_contiguous(t) && qd_tensor_elements(t) == rows * columns);
  return qd_tensor_2d(t.data, t.dtype, rows, columns);
}

int64_t qd_tensor_elements(qd_tensor t) {
  int64_t n = 1;
  for (int i = 0; i < t.rank; i++) n *= t.dim[i];
  return n;
}

size_t qd_tensor_bytes(qd_tensor t) { return (size_t)qd_tensor_elements(t) * qd_dtype_bytes(t.dtype); }

bool qd_tensor_is_contiguous(qd_tensor t) {
  int64_t stride = 1;
  for (int i = t.rank - 1; i >= 0; i--) {
    if (t.dim[i] != 1 && t.stride[i] != stride) return false;
    stride *= t.dim[i];
  }
  return true;
}
