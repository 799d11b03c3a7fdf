/* What the tests of the statistics and of the factor share: devices, random numbers, triangles, a golden example. */
#ifndef QDIST_TESTS_KERNELS_STATISTICS_SUPPORT_H
#define QDIST_TESTS_KERNELS_STATISTICS_SUPPORT_H

#include "kernels/base/heap.h"
#include "kernels/ops_table.h"
#include "tests/kernels/golden_example.h"

#include <criterion/criterion.h>
#include <math.h>

enum { SEED = 12345 };

/* Of every device that is opened here; a test, which is a process of its own, sets it for itself. */
static qd_arithmetic arithmetic = QD_ARITHMETIC_BF16_PAIRS;

static inline void open_device(qd_device *device, const char *name, qd_isa isa, int threads) {
  qd_device_options options = {.name = name, .isa = isa == QD_ISA_PORTABLE ? "" : qd_isa_name(isa), .threads = threads};
  cr_assert_eq(qd_device_open(device, options), QD_OK, "%s", qd_error_text());
  cr_assert_eq(qd_device_use_arithmetic(device, arithmetic), QD_OK, "%s", qd_error_text());
}

/* Each kind of cpu device that this machine has, one after the other: isa x 1 or 2 threads.  false when there is none left. */
static inline bool next_cpu(qd_device *device, int *step) {
  qd_isa best = qd_isa_best(), first = best == QD_ISA_PORTABLE ? QD_ISA_PORTABLE : QD_ISA_AVX2;
  qd_isa isa = (qd_isa)((int)first + *step / 2);
  if (isa > best) return false;
  open_device(device, "cpu", isa, 1 + *step % 2);
  ++*step;
  return true;
}

/* Memory of a test: given back with drop, or with everything else when the test ends (.fini = drop_all). */
static void *kept[1024];
static size_t n_kept;

static inline void *new_bytes(size_t n, size_t size) {
  void *memory;
  cr_assert_eq(qd_heap_new(n, size, &memory), QD_OK);
  cr_assert_lt(n_kept, sizeof kept / sizeof *kept);
  return kept[n_kept++] = memory;
}

static inline void drop(void *memory) {
  for (size_t i = n_kept; i-- > 0;)
    if (kept[i] == memory) {
      kept[i] = kept[--n_kept];
      qd_heap_free(memory);
      return;
    }
}

static inline void drop_all(void) {
  while (n_kept > 0) qd_heap_free(kept[--n_kept]);
}

/* In [-1, 1). */
static inline double random_number(uint64_t *state) {
  *state = *state * 6364136223846793005u + 1442695040888963407u;
  return (double)(*state >> 11) * 0x1p-52 - 1;
}

static inline void put(qd_tensor t, int64_t index, double value) {
  if (t.dtype == QD_BF16) ((uint16_t *)t.data)[index] = qd_bf16_from_f32((float)value);
  else if (t.dtype == QD_F64) ((double *)t.data)[index] = value;
  else ((float *)t.data)[index] = (float)value;
}

static inline double get(qd_tensor t, int64_t index) {
  if (t.dtype == QD_BF16) return (double)qd_bf16_to_f32(((const uint16_t *)t.data)[index]);
  if (t.dtype == QD_F64) return ((const double *)t.data)[index];
  return (double)((const float *)t.data)[index];
}

/* `elements` random numbers as a vector. */
static inline qd_tensor random_vector(qd_dtype dtype, int64_t elements, uint64_t *state) {
  qd_tensor t = qd_tensor_1d(new_bytes((size_t)elements, qd_dtype_bytes(dtype)), dtype, elements);
  for (int64_t i = 0; i < elements; i++) put(t, i, random_number(state));
  return t;
}

static inline qd_tri new_tri(int64_t n, qd_dtype dtype) {
  return (qd_tri){.data = new_bytes(qd_tri_elements(n), qd_dtype_bytes(dtype)), .dtype = dtype, .n = n};
}

static inline bool same_tri(qd_tri a, qd_tri b) { return memcmp(a.data, b.data, qd_tri_bytes(a.n, a.dtype)) == 0; }

/* A contiguous copy in double. */
static inline qd_tensor as_f64(qd_tensor t) {
  int64_t n = qd_tensor_elements(t);
  qd_tensor wide = qd_tensor_3d(NULL, QD_F64, t.dim[0], t.rank > 1 ? t.dim[1] : 1, t.rank > 2 ? t.dim[2] : 1);
  wide.rank = t.rank;
  wide.data = new_bytes((size_t)n, sizeof(double));
  for (int64_t i = 0; i < n; i++) {
    int64_t index = i / wide.stride[0] * t.stride[0];
    if (t.rank > 1) index += i / wide.stride[1] % wide.dim[1] * t.stride[1];
    if (t.rank > 2) index += i % wide.dim[2] * t.stride[2];
    put(wide, i, get(t, index));
  }
  return wide;
}

/* A lower triangle of X^T X, X random (2 n + 8, n): well conditioned. */
static inline qd_tri random_hessian(int64_t n, uint64_t seed) {
  qd_tri h = new_tri(n, QD_F32);
  int64_t tokens = 2 * n + 8;
  qd_tensor x = random_vector(QD_F64, tokens * n, &seed);
  double *sum = new_bytes((size_t)n, sizeof *sum);
  for (int64_t i = 0; i < n; i++) {
    memset(sum, 0, (size_t)n * sizeof *sum);
    for (int64_t t = 0; t < tokens; t++)
      for (int64_t j = 0; j <= i; j++) sum[j] += ((double *)x.data)[t * n + i] * ((double *)x.data)[t * n + j];
    for (int64_t j = 0; j <= i; j++) ((float *)h.data)[qd_tri_index(i, j)] = (float)sum[j];
  }
  drop(sum);
  drop(x.data);
  return h;
}

/* The diagonal of H = 2/24 X^T X of the example, to six digits. */
static const double golden_diagonal[8] = {.662352, .424408, .260983, .206297, .202546, 2.983857, .221463, .199736};

static inline qd_tensor golden_input(void) {
  qd_tensor x = qd_tensor_3d(new_bytes(24 * 8, sizeof(float)), QD_F32, 1, 24, 8);
  for (int64_t i = 0; i < 24 * 8; i++) put(x, i, golden_x[i / 8][i % 8]);
  return x;
}

#endif
