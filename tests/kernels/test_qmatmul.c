#include "tests/kernels/quantized_support.h"

#include <math.h>

/* The contract: qlinear is linear on the expanded weight, to the bit. */
static void compare_once(devices *d, qd_arena *arena, qd_tensor x, const qd_qtensor *w, bool has_bias) {
  qd_dtype output = has_bias ? x.dtype : QD_F32;
  qd_tensor expanded = new_matrix(arena, x.dtype, w->rows, w->columns), bias = random_matrix(arena, QD_F32, 1, w->rows);
  qd_tensor expected = new_matrix(arena, output, x.dim[0], w->rows), got = new_matrix(arena, output, x.dim[0], w->rows);
  bias = qd_tensor_1d(bias.data, QD_F32, w->rows);
  OK(qd_dequant(&d->ref, w, expanded));
  OK(qd_linear(&d->ref, gathered(arena, x, w->order), expanded, has_bias ? &bias : NULL, expected));
  for (int i = -1; i < d->n; i++) {
    qd_device *device = i < 0 ? &d->ref : &d->cpu[i];
    memset(got.data, 0xa5, qd_tensor_bytes(got));
    size_t used = device->scratch.used_bytes;
    OK(qd_qlinear(device, x, w, has_bias ? &bias : NULL, got));
    cr_assert_eq(device->scratch.used_bytes, used, "scratch is not rewound");
    cr_assert_eq(memcmp(got.data, expected.data, qd_tensor_bytes(got)), 0,
                 "%d bits, groups of %" PRId64 ", %" PRId64 " x %" PRId64 " on %s %s, %s, %d threads", w->scheme.bits,
                 w->scheme.group_size, x.dim[0], w->rows, device->name, qd_isa_name(device->isa),
                 qd_arithmetic_name(device->arithmetic), device->threads);
  }
}

static void compare(devices *d, qd_arena *arena, qd_tensor x, const qd_qtensor *w, bool has_bias) {
  EACH_ARITHMETIC(d, x.dtype) compare_once(d, arena, x, w, has_bias);
}

Test(qmatmul, equals_linear_on_the_expanded_weight_for_every_scheme) {
  static const int64_t groups[] = {QD_PER_CHANNEL, 1, 7, 32, 128, 1000};
  devices d = open_devices();
  qd_arena arena = open_arena();
  for (int bits = QD_MIN_BITS; bits <= QD_MAX_BITS; bits++)
    for (size_t g = 0; g < sizeof groups / sizeof *groups; g++) {
      bool even = (bits + (int)g) % 2;
      qd_scheme scheme = {
          .bits = bits, .group_size = groups[g], .symmetric = g % 3 == 0, .scale_dtype = even ? QD_F16 : QD_F32};
      qd_qtensor w = random_qtensor(&arena, scheme, 37, 299, g % 2);
      compare(&d, &arena, random_matrix(&arena, even ? QD_BF16 : QD_F32, 3, 299), &w, bits % 2);
      qd_arena_rewind(&arena, 0);
    }
  close_devices(&d);
  qd_arena_close(&arena);
}

Test(qmatmul, equals_linear_on_the_expanded_weight_for_every_shape) {
  static const int64_t sizes[][3] = {{1, 100, 513},  {14, 32, 256}, {29, 33, 258}, {130, 47, 300},
                                     {40, 1300, 10}, {2, 3, 0},     {0, 3, 8},     {2, 0, 8}};
  devices d = open_devices();
  qd_arena arena = open_arena();
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
    for (int choice = 0; choice < 4; choice++) {
      qd_scheme scheme = {.bits = 4, .group_size = 64, .scale_dtype = QD_F16};
      qd_qtensor w = random_qtensor(&arena, scheme, sizes[i][1], sizes[i][2], choice & 1);
      compare(&d, &arena, random_matrix(&arena, choice & 2 ? QD_BF16 : QD_F32, sizes[i][0], sizes[i][2]), &w, choice & 1);
      qd_arena_rewind(&arena, 0);
    }
  close_devices(&d);
  qd_arena_close(&arena);
}

Test(qmatmul, a_strided_input_and_a_slice_of_rows) {
  devices d = open_devices();
  qd_arena arena = open_arena();
  qd_qtensor whole = random_qtensor(&arena, (qd_scheme){.bits = 3, .group_size = 16, .scale_dtype = QD_F16}, 50, 70, true);
  qd_qtensor part = qd_qtensor_rows(&whole, 11, 33);
  qd_tensor x = random_matrix(&arena, QD_BF16, 9, 80);
  compare(&d, &arena, qd_tensor_columns(x, 4, 70), &part, true);
  close_devices(&d);
  qd_arena_close(&arena);
}

/* Roundings: the weight (1), the chain and chunks (C + C / 256 + 1) and the bias (1), each 2^-24 of the sum of magnitudes. */
Test(qmatmul, ref_is_near_ref64) {
  enum { T = 4, R = 6, C = 300 };
  qd_device ref = open_device("ref", NULL, 1), ref64 = open_device("ref64", NULL, 1);
  qd_arena arena = open_arena();
  qd_qtensor w = random_qtensor(&arena, (qd_scheme){.bits = 4, .group_size = 32, .scale_dtype = QD_F16}, R, C, true);
  qd_tensor x = random_matrix(&arena, QD_F32, T, C), y = new_matrix(&arena, QD_F32, T, R),
            exact = new_matrix(&arena, QD_F64, T, R);
  qd_tensor wide = as_f64(x), expanded = new_matrix(&arena, QD_F64, R, C);
  OK(qd_qlinear(&ref, x, &w, NULL, y));
  OK(qd_qlinear(&ref64, wide, &w, NULL, exact));
  OK(qd_dequant(&ref64, &w, expanded));
  for (int t = 0; t < T; t++)
    for (int r = 0; r < R; r++) {
      double magnitude = 0, sum = 0;
      for (int p = 0; p < C; p++) {
        double product = ((double *)wide.data)[t * C + ((int32_t *)w.order.data)[p]] * ((double *)expanded.data)[r * C + p];
        sum += product, magnitude += fabs(product);
      }
      double got = ((float *)y.data)[t * R + r], want = ((double *)exact.data)[t * R + r];
      cr_assert(fabs(want - sum) <= 1e-12 * magnitude && fabs(got - want) <= (C + 4) * 0x1p-24 * magnitude, "%g, expected %g",
                got, want);
    }
  free(wide.data);
  qd_arena_close(&arena);
  qd_device_close(&ref);
  qd_device_close(&ref64);
}

Test(qmatmul, wrong_inputs_are_refused) {
  qd_device cpu = open_device("cpu", NULL, 1);
  qd_arena arena = open_arena();
  qd_qtensor w = random_qtensor(&arena, (qd_scheme){.bits = 4, .group_size = 8, .scale_dtype = QD_F16}, 4, 16, true);
  qd_tensor x = random_matrix(&arena, QD_F32, 2, 16), y = new_matrix(&arena, QD_F32, 2, 4);
  OK(qd_qlinear(&cpu, x, &w, NULL, y));
  FAILS(QD_ESHAPE, qd_qlinear(&cpu, qd_tensor_columns(x, 0, 15), &w, NULL, y));
  FAILS(QD_ESHAPE, qd_qlinear(&cpu, x, &w, NULL, x));
  FAILS(QD_EDTYPE, qd_qlinear(&cpu, random_matrix(&arena, QD_F16, 2, 16), &w, NULL, y));
  FAILS(QD_ESHAPE,
        qd_qlinear(&cpu, x, &w, &(qd_tensor){.data = y.data, .dtype = QD_F32, .rank = 1, .dim = {3}, .stride = {1}}, y));
  ((int32_t *)w.order.data)[5] = 16;
  FAILS(QD_EBADINPUT, qd_qlinear(&cpu, x, &w, NULL, y));
  ((int32_t *)w.order.data)[5] = -1;
  FAILS(QD_EBADINPUT, qd_qlinear(&cpu, x, &w, NULL, y));
  qd_arena_close(&arena);
  qd_device_close(&cpu);
}
