/* Devices and numbers for the tests of products and codes. */
#ifndef QDIST_TESTS_KERNELS_PRODUCTS_SUPPORT_H
#define QDIST_TESTS_KERNELS_PRODUCTS_SUPPORT_H

#include "kernels/ops_table.h"

#include <criterion/criterion.h>
#include <stdlib.h>

#define OK(call) cr_assert_eq((call), QD_OK, "%s", qd_error_text())
#define FAILS(status, call) cr_assert_eq((call), (status), "%s", qd_error_text())

typedef struct devices {
  qd_device ref, cpu[2 * (QD_ISA_AMX - QD_ISA_AVX2 + 1) + 1];
  int n;
} devices;

static inline qd_device open_device(const char *name, const char *isa, int threads) {
  qd_device device;
  OK(qd_device_open(&device,
                    (qd_device_options){.name = name, .isa = isa, .threads = threads, .scratch_bytes = (size_t)1 << 28}));
  return device;
}

/* ref, and cpu with every instruction set that is here, with one and with two threads (VNNI alone only where nothing above it
 * has it too); once more with the last of them, but widening bf16 where it otherwise would not, or the reverse. */
static inline devices open_devices(void) {
  devices d = {.ref = open_device("ref", NULL, 1)};
  qd_isa best = qd_isa_best(), least = best == QD_ISA_PORTABLE ? QD_ISA_PORTABLE : QD_ISA_AVX2;
  for (qd_isa isa = least; isa <= best; isa += isa == QD_ISA_AVX512 && best > QD_ISA_AVX512_VNNI ? 2 : 1)
    for (int threads = 1; threads <= 2; threads++) d.cpu[d.n++] = open_device("cpu", qd_isa_name(isa), threads);
  d.cpu[d.n] = open_device("cpu", NULL, 1);
  d.cpu[d.n++].widens_pairs ^= true;
  return d;
}

static inline void use_arithmetic(devices *d, qd_arithmetic arithmetic) {
  OK(qd_device_use_arithmetic(&d->ref, arithmetic));
  for (int i = 0; i < d->n; i++) OK(qd_device_use_arithmetic(&d->cpu[i], arithmetic));
}

/* For each order in which products of this dtype are summed: devices `d` are set to it. */
#define EACH_ARITHMETIC(d, dtype)                                                                           \
  for (qd_arithmetic arithmetic_ = QD_ARITHMETIC_BF16_PAIRS;                                                \
       arithmetic_ <= ((dtype) == QD_BF16 ? QD_ARITHMETIC_BF16_AMX : QD_ARITHMETIC_BF16_PAIRS) &&           \
       (use_arithmetic((d), arithmetic_), true);                                                            \
       arithmetic_++)

static inline void close_devices(devices *d) {
  for (int i = 0; i < d->n; i++) qd_device_close(&d->cpu[i]);
  qd_device_close(&d->ref);
}

static uint64_t random_state = 0x9e3779b97f4a7c15u;

static inline uint32_t random_bits(void) {
  random_state = random_state * 6364136223846793005u + 1442695040888963407u;
  return (uint32_t)(random_state >> 32);
}

static inline float random_number(void) { return (float)random_bits() * 0x1p-31f - 1.0f; }

/* Any sign and mantissa, an exponent from `least` to `most` (0 is a denormal). */
static inline float random_extreme(unsigned least, unsigned most) {
  uint32_t bits = (random_bits() & 0x807fffffu) | (least + random_bits() % (most - least + 1)) << 23;
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

static inline void set_element(void *data, qd_dtype dtype, int64_t i, float value) {
  if (dtype == QD_F32)
    ((float *)data)[i] = value;
  else if (dtype == QD_F64)
    ((double *)data)[i] = (double)value * 1.000000001;
  else if (dtype == QD_BF16)
    ((uint16_t *)data)[i] = qd_bf16_from_f32(value);
  else
    ((uint16_t *)data)[i] = qd_f16_from_f32(value);
}

/* n numbers of dtype; freed by the caller. */
static inline void *random_numbers(qd_dtype dtype, int64_t n) {
  void *data = malloc((size_t)n * qd_dtype_bytes(dtype) + 1);
  cr_assert_not_null(data);
  for (int64_t i = 0; i < n; i++) set_element(data, dtype, i, random_number());
  return data;
}

/* F32 numbers as F64, contiguous; freed by the caller. */
static inline qd_tensor as_f64(qd_tensor t) {
  int64_t rows = t.dim[0], columns = t.rank == 2 ? t.dim[1] : 1, step = t.rank == 2 ? t.stride[1] : 0;
  double *wide = malloc((size_t)(rows * columns) * sizeof *wide + 1);
  cr_assert_not_null(wide);
  for (int64_t i = 0; i < rows; i++)
    for (int64_t j = 0; j < columns; j++) wide[i * columns + j] = (double)((const float *)t.data)[i * t.stride[0] + j * step];
  return t.rank == 2 ? qd_tensor_2d(wide, QD_F64, rows, columns) : qd_tensor_1d(wide, QD_F64, rows);
}

#endif
