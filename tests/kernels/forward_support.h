/* What the tests of the forward's operations share: tensors with gaps, every unit of the cpu device, copies in double. */
#ifndef QDIST_TESTS_KERNELS_FORWARD_SUPPORT_H
#define QDIST_TESTS_KERNELS_FORWARD_SUPPORT_H

#include "kernels/base/heap.h"
#include "kernels/ops_table.h"

#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#define OK(call) cr_assert_eq((call), QD_OK, "%s: %s", #call, qd_error_text())
#define REFUSED(status, call) cr_assert_eq((call), (status), "%s", #call)

enum { MAX_BLOCKS = 4096 };
static void *blocks[MAX_BLOCKS];
static int   n_blocks;
static uint64_t random_state = 0x9e3779b97f4a7c15u;

static inline void *new_block(size_t n, size_t size) {
  void *memory;
  cr_assert_lt(n_blocks, MAX_BLOCKS);
  OK(qd_heap_new(n, size, &memory));
  return blocks[n_blocks++] = memory;
}

static inline void free_blocks(void) {
  while (n_blocks > 0) qd_heap_free(blocks[--n_blocks]);
}

static inline uint64_t random_bits(void) {
  random_state ^= random_state << 13;
  random_state ^= random_state >> 7;
  return random_state ^= random_state << 17;
}

/* Uniform in [-1, 1). */
static inline double random_number(void) { return (double)(int64_t)random_bits() * 0x1p-63; }

static inline double get(qd_tensor t, int64_t index) {
  if (t.dtype == QD_F64) return ((const double *)t.data)[index];
  if (t.dtype == QD_F32) return (double)((const float *)t.data)[index];
  return (double)qd_bf16_to_f32(((const uint16_t *)t.data)[index]);
}

static inline void set(qd_tensor t, int64_t index, double value) {
  if (t.dtype == QD_F64) ((double *)t.data)[index] = value;
  else if (t.dtype == QD_F32) ((float *)t.data)[index] = (float)value;
  else ((uint16_t *)t.data)[index] = qd_bf16_from_f32((float)value);
}

/* Elements from the first to the last one, gaps included. */
static inline int64_t extent(qd_tensor t) {
  int64_t last = 0;
  for (int i = 0; i < t.rank; i++) {
    if (t.dim[i] == 0) return 0;
    last += (t.dim[i] - 1) * t.stride[i];
  }
  return last + 1;
}

static inline qd_tensor with_memory(qd_tensor t, double scale) {
  t.data = new_block((size_t)extent(t), qd_dtype_bytes(t.dtype));
  for (int64_t i = 0; i < extent(t); i++) set(t, i, random_number() * scale);
  return t;
}

/* Random numbers, rows `gap` elements apart. */
static inline qd_tensor random_matrix(qd_dtype dtype, int64_t rows, int64_t columns, int64_t gap, double scale) {
  qd_tensor t = qd_tensor_2d(NULL, dtype, rows, columns);
  t.stride[0] += gap;
  return with_memory(t, scale);
}

static inline qd_tensor random_heads(qd_dtype dtype, int64_t tokens, int64_t heads, int64_t size, int64_t gap) {
  qd_tensor t = qd_tensor_3d(NULL, dtype, tokens, heads, size);
  t.stride[1] += gap;
  t.stride[0] = heads * t.stride[1] + gap;
  return with_memory(t, 1);
}

/* The same numbers and gaps in memory of their own; as F64 for the device ref64. */
static inline qd_tensor copy_as(qd_tensor t, qd_dtype dtype) {
  qd_tensor r = t;
  r.dtype = dtype;
  r.data = new_block((size_t)extent(t), qd_dtype_bytes(dtype));
  for (int64_t i = 0; i < extent(t); i++) set(r, i, get(t, i));
  return r;
}

static inline qd_tensor copy(qd_tensor t) { return copy_as(t, t.dtype); }

/* Same bits, gaps included. */
static inline bool same_bits(qd_tensor a, qd_tensor b) {
  size_t bytes = (size_t)extent(a) * qd_dtype_bytes(a.dtype);
  return bytes == 0 || memcmp(a.data, b.data, bytes) == 0;
}

/* Of every device that is opened here; a test, which is a process of its own, sets it for itself. */
static qd_arithmetic arithmetic = QD_ARITHMETIC_BF16_PAIRS;

static inline qd_device open_named(const char *name) {
  qd_device device;
  OK(qd_device_open(&device, (qd_device_options){.name = name, .threads = 1, .scratch_bytes = (size_t)256 << 20}));
  OK(qd_device_use_arithmetic(&device, arithmetic));
  return device;
}

/* The k-th cpu device: every unit of this machine with one thread and with two.  False when there are no more. */
static inline bool open_cpu(qd_device *device, int k) {
  qd_isa best = qd_isa_best(), isa = best == QD_ISA_PORTABLE ? QD_ISA_PORTABLE : (qd_isa)(QD_ISA_AVX2 + k / 2);
  if (isa > best || (best == QD_ISA_PORTABLE && k > 1)) return false;
  qd_device_options options = {.name = "cpu", .isa = qd_isa_name(isa), .threads = 1 + k % 2};
  options.scratch_bytes = (size_t)256 << 20;
  OK(qd_device_open(device, options));
  OK(qd_device_use_arithmetic(device, arithmetic));
  return true;
}

/* The reference first, then every cpu device. */
static inline bool open_any(qd_device *device, int k) {
  if (k > 0) return open_cpu(device, k - 1);
  *device = open_named("ref");
  return true;
}

#endif
