#include "tests/kernels/quantized_support.h"

#include <math.h>

static qd_arena open_arena(void) {
  qd_arena arena;
  OK(qd_arena_open(&arena, "test", (size_t)1 << 26));
  return arena;
}

Test(dequant, values_by_hand) {
  devices d = open_devices();
  uint8_t codes[2] = {0x1f, 0x02}, zeros[2] = {3, 1}; /* 15, 1 | 2 */
  float scales[2] = {0.5f, -2.0f}, w[3];
  qd_qtensor q = {.scheme = {.bits = 4, .group_size = 2, .scale_dtype = QD_F32},
                  .rows = 1,
                  .columns = 3,
                  .codes = qd_tensor_2d(codes, QD_U8, 1, 2),
                  .scales = qd_tensor_2d(scales, QD_F32, 1, 2),
                  .zeros = qd_tensor_2d(zeros, QD_U8, 1, 2)};
  for (int i = -1; i < d.n; i++) {
    OK(qd_dequant(i < 0 ? &d.ref : &d.cpu[i], &q, qd_tensor_2d(w, QD_F32, 1, 3)));
    cr_assert(w[0] == 6.0f && w[1] == -1.0f && w[2] == -2.0f);
  }
  close_devices(&d);
}

static void compare(devices *d, const qd_qtensor *q, qd_dtype dtype, bool strided) {
  int64_t n = q->rows * (2 * q->columns + 1);
  qd_tensor expected = qd_tensor_2d(calloc((size_t)n + 1, 4), dtype, q->rows, q->columns), got = expected;
  if (strided) expected.stride[0] = 2 * q->columns + 1, expected.stride[1] = 2;
  cr_assert_not_null(expected.data);
  OK(qd_dequant(&d->ref, q, expected));
  for (int i = 0; i < d->n; i++) {
    got = expected;
    got.data = calloc((size_t)n + 1, 4);
    cr_assert_not_null(got.data);
    OK(qd_dequant(&d->cpu[i], q, got));
    cr_assert_eq(memcmp(got.data, expected.data, (size_t)n * 4), 0, "%d bits, groups of %" PRId64 ", %s with %s",
                 q->scheme.bits, q->scheme.group_size, qd_dtype_name(dtype), qd_isa_name(d->cpu[i].isa));
    free(got.data);
  }
  free(expected.data);
}

Test(dequant, cpu_equals_ref_for_every_scheme) {
  static const int64_t groups[] = {QD_PER_CHANNEL, 1, 3, 32, 100, 128, 1000}, columns[] = {0, 1, 31, 300, 515};
  devices d = open_devices();
  qd_arena arena = open_arena();
  for (int bits = QD_MIN_BITS; bits <= QD_MAX_BITS; bits++)
    for (size_t g = 0; g < sizeof groups / sizeof *groups; g++)
      for (size_t c = 0; c < sizeof columns / sizeof *columns; c++) {
        qd_scheme scheme = {.bits = bits, .group_size = groups[g], .symmetric = g % 2, .scale_dtype = c % 2 ? QD_F16 : QD_F32};
        qd_qtensor q = random_qtensor(&arena, scheme, 7, columns[c], false);
        for (int choice = 0; choice < 4; choice++) compare(&d, &q, choice & 1 ? QD_BF16 : QD_F32, choice & 2);
        qd_arena_rewind(&arena, 0);
      }
  qd_arena_close(&arena);
  close_devices(&d);
}

/* One product of a scale and a small integer: half an ulp. */
Test(dequant, ref_is_near_ref64) {
  qd_device ref = open_device("ref", NULL, 1), ref64 = open_device("ref64", NULL, 1);
  qd_arena arena = open_arena();
  qd_qtensor q = random_qtensor(&arena, (qd_scheme){.bits = 5, .group_size = 16, .scale_dtype = QD_F32}, 3, 50, false);
  float w[150];
  double exact[150];
  OK(qd_dequant(&ref, &q, qd_tensor_2d(w, QD_F32, 3, 50)));
  OK(qd_dequant(&ref64, &q, qd_tensor_2d(exact, QD_F64, 3, 50)));
  for (int i = 0; i < 150; i++) cr_assert(fabs((double)w[i] - exact[i]) <= 0x1p-24 * fabs(exact[i]));
  qd_arena_close(&arena);
  qd_device_close(&ref);
  qd_device_close(&ref64);
}

Test(dequant, wrong_shapes_and_dtypes_are_refused) {
  qd_device cpu = open_device("cpu", NULL, 1);
  qd_arena arena = open_arena();
  qd_qtensor q = random_qtensor(&arena, (qd_scheme){.bits = 4, .group_size = 8, .scale_dtype = QD_F16}, 2, 16, false);
  float w[64];
  FAILS(QD_ESHAPE, qd_dequant(&cpu, &q, qd_tensor_2d(w, QD_F32, 2, 15)));
  FAILS(QD_ESHAPE, qd_dequant(&cpu, &q, qd_tensor_1d(w, QD_F32, 32)));
  FAILS(QD_EDTYPE, qd_dequant(&cpu, &q, qd_tensor_2d(w, QD_F16, 2, 16)));
  q.zeros.rank = 0;
  FAILS(QD_EBADINPUT, qd_dequant(&cpu, &q, qd_tensor_2d(w, QD_F32, 2, 16)));
  qd_arena_close(&arena);
  qd_device_close(&cpu);
}
