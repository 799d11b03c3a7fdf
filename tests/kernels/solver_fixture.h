/* Devices and numbers for the tests of the solvers. */
#ifndef QDIST_TESTS_KERNELS_SOLVER_FIXTURE_H
#define QDIST_TESTS_KERNELS_SOLVER_FIXTURE_H

#include <criterion/criterion.h>

#include <math.h>
#include <string.h>

#include "kernels/base/heap.h"
#include "kernels/ops.h"

/* Every instruction set of this machine, alone and with two threads. */
typedef struct variant {
  qd_isa isa;
  int threads;
} variant;

enum { MOST_VARIANTS = 2 * (QD_ISA_AMX - QD_ISA_AVX2 + 1) };

static inline int variants(variant out[MOST_VARIANTS]) {
  int n = 0;
  qd_isa best = qd_isa_best(), first = best == QD_ISA_PORTABLE ? QD_ISA_PORTABLE : QD_ISA_AVX2;
  for (qd_isa isa = first; isa <= best; isa++)
    for (int threads = 1; threads <= 2; threads++) out[n++] = (variant){isa, threads};
  return n;
}

static inline void must_open(qd_device *device, const char *name, const char *isa, int threads) {
  qd_device_options options = {.name = name, .isa = isa, .threads = threads, .scratch_bytes = (size_t)1 << 30};
  cr_assert_eq(qd_device_open(device, options), QD_OK, "%s", qd_error_text());
}

/* Numbers that look normal: sums of uniform ones, from a linear congruential generator. */
static inline double uniform(uint64_t *state) {
  *state = *state * 6364136223846793005u + 1442695040888963407u;
  return (double)(*state >> 11) * 0x1p-53;
}

static inline double normal(uint64_t *state) {
  double sum = -6;
  for (int i = 0; i < 12; i++) sum += uniform(state);
  return sum;
}

static inline void *must_alloc(size_t n, size_t size) {
  void *memory;
  cr_assert_eq(qd_heap_new(n, size, &memory), QD_OK, "%s", qd_error_text());
  return memory;
}

/* Weights as they are: rows of different spread, some large ones, as F32 or F64. */
static inline void fill_weights(qd_tensor w, uint64_t seed) {
  for (int64_t r = 0; r < w.dim[0]; r++) {
    double spread = ldexp(0.02, (int)(r % 5) - 2);
    for (int64_t c = 0; c < w.dim[1]; c++) {
      float value = (float)(spread * normal(&seed) * (uniform(&seed) < 0.01 ? 6 : 1));
      int64_t at = r * w.stride[0] + c;
      if (w.dtype == QD_F64)
        ((double *)w.data)[at] = (double)value;
      else
        ((float *)w.data)[at] = value;
    }
  }
}

#endif
