#include "kernels/int8.h"

#include "tests/kernels/quantized_support.h"

#include <math.h>
#include <stdio.h>

static const int64_t token_counts[] = {1, 3, 14};
enum { N_TOKEN_COUNTS = 3 };

static devices open_int8(void) {
  devices d = open_devices();
  use_arithmetic(&d, QD_ARITHMETIC_INT8);
  return d;
}

/* ---- rounding ------------------------------------------------------------------------------------------------------------ */

Test(int8, halves_go_to_even_and_the_largest_to_127) {
  const float x[] = {-127, 63.5f, 62.5f, -0.5f, -126.6f, 0}, sevens[] = {889, 45.5f}; /* 45.5 (1 / 7) is above 6.5 in fp32 */
  const int8_t expected[] = {-127, 64, 62, 0, -127, 0};
  int8_t a[6];
  cr_assert_eq(qd_int8_round_run(x, 6, a), 1.0f);
  cr_assert_eq(memcmp(a, expected, sizeof a), 0);
  cr_assert_eq(qd_int8_round_run(sevens, 2, a), 7.0f);
  cr_assert(a[0] == 127 && a[1] == 6);
}

Test(int8, empty_runs_and_those_that_are_no_numbers) {
  volatile float smallest = 0x1p-126f; /* a constant's quotient would be the compiler's, who flushes nothing */
  const float nothing[] = {0, -0.0f, 0}, vanishing[] = {smallest, -smallest}, bad[][2] = {{1, NAN}, {-INFINITY, 1}};
  int8_t a[3] = {1, 1, 1};
  qd_flush_denormals();
  cr_assert_eq(qd_int8_round_run(nothing, 3, a), 0);
  cr_assert(a[0] == 0 && a[1] == 0 && a[2] == 0);
  a[0] = a[1] = 1;
  cr_assert_eq(qd_int8_round_run(vanishing, 2, a), 0, "the scale is a denormal");
  cr_assert(a[0] == 0 && a[1] == 0);
  for (int i = 0; i < 2; i++) {
    a[0] = a[1] = 1;
    cr_assert(isnan(qd_int8_round_run(bad[i], 2, a)));
    cr_assert(a[0] == 0 && a[1] == 0);
  }
}

/* ---- by hand ------------------------------------------------------------------------------------------------------------- */

static void set_codes(qd_qtensor *q, const uint8_t *code) {
  qd_device ref = open_device("ref", NULL, 1);
  qd_tensor codes = qd_tensor_2d((void *)(uintptr_t)code, QD_U8, q->rows, q->columns);
  OK(qd_pack(&ref, codes, q->scheme.bits, q->codes));
  qd_device_close(&ref);
}

static double product_of(qd_device *device, qd_arena *arena, const float *x, int64_t columns, const qd_qtensor *q) {
  bool is_double = strcmp(device->name, "ref64") == 0;
  qd_tensor narrow = qd_tensor_2d((void *)(uintptr_t)x, QD_F32, 1, columns), wide = as_f64(narrow);
  qd_tensor bias = new_matrix(arena, is_double ? QD_F64 : QD_F32, 1, 1), y = new_matrix(arena, bias.dtype, 1, 1);
  if (is_double) *(double *)bias.data = 0.25;
  else *(float *)bias.data = 0.25f;
  bias = qd_tensor_1d(bias.data, bias.dtype, 1);
  OK(qd_device_use_arithmetic(device, QD_ARITHMETIC_INT8));
  OK(qd_qlinear(device, is_double ? wide : narrow, q, &bias, y));
  free(wide.data);
  return is_double ? *(double *)y.data : (double)*(float *)y.data;
}

static void expect_product(qd_arena *arena, const float *x, int64_t columns, const qd_qtensor *q, double expected) {
  static const char *const names[] = {"ref", "ref64", "cpu"};
  for (int i = 0; i < 3; i++) {
    qd_device device = open_device(names[i], NULL, 1);
    double got = product_of(&device, arena, x, columns, q);
    cr_assert_eq(got, expected, "%s: %.17g, expected %.17g", names[i], got, expected);
    qd_device_close(&device);
  }
}

/* Groups of 2 in an order of 2, 0, 1: x by stored position is (127, -63.5, 10), so a = (127, -64, 10) and s_a = 1.
 * (3 127 - 5 64 - 4 63) 0.5 = -95.5;  (7 10 - 1 10) 2 = 120;  + 0.25. */
Test(int8, a_row_by_hand) {
  qd_arena arena = open_numbers();
  qd_qtensor q;
  OK(qd_qtensor_new(&arena, (qd_scheme){.bits = 4, .group_size = 2, .scale_dtype = QD_F32}, 1, 3, true, &q));
  set_codes(&q, (uint8_t[]){3, 5, 7});
  memcpy(q.scales.data, (float[]){0.5f, 2}, 8);
  memcpy(q.zeros.data, (uint8_t[]){4, 1}, 2);
  memcpy(q.order.data, (int32_t[]){2, 0, 1}, 12);
  expect_product(&arena, (float[]){-63.5f, 10, 127}, 3, &q, 24.75);
  expect_product(&arena, (float[]){0, 0, 0}, 3, &q, 0.25);
  qd_arena_close(&arena);
}

/* 34 columns of code 9 - 8, scale 1: the second run has a scale of its own.  x = 127 and zeros, then 254 and 1 (half its scale:
 * to even, 0): 127 + 127 * 2 = 381. */
Test(int8, runs_have_scales_of_their_own) {
  qd_arena arena = open_numbers();
  uint8_t code[34];
  float x[34] = {[0] = 127, [32] = 254, [33] = 1};
  qd_qtensor q;
  OK(qd_qtensor_new(&arena, (qd_scheme){.bits = 4, .group_size = QD_PER_CHANNEL, .symmetric = true, .scale_dtype = QD_F16}, 1,
                    34, false, &q));
  memset(code, 9, sizeof code);
  set_codes(&q, code);
  *(uint16_t *)q.scales.data = qd_f16_from_f32(1);
  expect_product(&arena, x, 34, &q, 381.25);
  x[1] = NAN;
  qd_device cpu = open_device("cpu", NULL, 1);
  cr_assert(isnan(product_of(&cpu, &arena, x, 34, &q)));
  qd_device_close(&cpu);
  qd_arena_close(&arena);
}

/* As the first, zero points 4.5 and 1: (3 127 - 5 64 - 4.5 63) 0.5 = -111.25, then 120.  The second weight is an outlier of 7
 * over a code that stands for 0.5 (5 - 4.5) = 0.25; it meets x = -63.5 itself: -428.625. */
Test(int8, an_outlier_meets_its_input_in_full) {
  qd_arena arena = open_numbers();
  qd_scheme scheme = {.bits = 4, .group_size = 2, .scale_dtype = QD_F32, .spqr = true, .stat_group = 1};
  qd_qtensor q;
  uint16_t column = 1, value = qd_f16_from_f32(7);
  OK(qd_qtensor_new(&arena, scheme, 1, 3, false, &q));
  set_codes(&q, (uint8_t[]){3, 5, 7});
  memcpy(q.scales.data, (float[]){0.5f, 2}, 8);
  memcpy(q.zeros.data, (float[]){4.5f, 1}, 8);
  memcpy(q.outlier_rows.data, (int32_t[]){0, 1}, 8);
  q.outlier_columns.data = &column, q.outlier_values.data = &value;
  q.outlier_columns.dim[0] = q.outlier_values.dim[0] = 1;
  expect_product(&arena, (float[]){127, -63.5f, 10}, 3, &q, -111.25 + 120 - 428.625 + 0.25);
  qd_arena_close(&arena);
}

/* ---- cpu is ref ---------------------------------------------------------------------------------------------------------- */

/* NaN payloads are not promised. */
static void make_nans_equal(qd_tensor y) {
  float *value = y.data;
  for (int64_t i = 0; i < qd_tensor_elements(y); i++)
    if (isnan(value[i])) value[i] = NAN;
}

static void expect_same(qd_tensor got, qd_tensor expected, const qd_device *device, const char *what) {
  make_nans_equal(got), make_nans_equal(expected);
  cr_assert_eq(memcmp(got.data, expected.data, qd_tensor_bytes(got)), 0, "%s: %" PRId64 " x %" PRId64 " on %s %s, %d threads",
               what, got.dim[0], got.dim[1], device->name, qd_isa_name(device->isa), device->threads);
}

/* Magnitudes that differ from run to run; one run of zeros, one that vanishes, one with a NaN, one with an infinity. */
static qd_tensor random_tokens(qd_arena *arena, int64_t tokens, int64_t columns) {
  static const float odd[] = {0, 0x1p-126f, NAN, INFINITY};
  qd_tensor x = random_matrix(arena, QD_F32, tokens, columns);
  for (int64_t t = 0; t < tokens; t++) {
    float *row = (float *)x.data + t * columns;
    for (int64_t i = 0; i < columns; i++) row[i] *= ldexpf(1, (int)((i / QD_INT8_RUN * 5 + t) % 9) - 4);
    for (int64_t i = 0; t % 3 == 0 && i < QD_INT8_RUN && i < columns; i++) row[i] *= odd[t / 3 % 2];
    if (t % 11 == 10) row[columns / 2] = odd[2 + t % 2];
  }
  return x;
}

static void run_panels(qd_device *device, qd_arena *arena, const qd_qtensor *q, const qd_tensor x[N_TOKEN_COUNTS],
                       const qd_tensor *bias, const qd_tensor expected[N_TOKEN_COUNTS]) {
  qd_panels panels;
  size_t before = qd_arena_mark(arena), bytes;
  OK(qd_panels_quantized(device, arena, q, QD_F32, &panels));
  bytes = qd_panels_bytes(device, QD_F32, q->rows, q->columns, &q->scheme, q->order.rank != 0);
  if (q->scheme.spqr) bytes += qd_panels_outlier_bytes(device, q->columns, q->outlier_values.dim[0]);
  cr_assert_eq(qd_arena_mark(arena) - before, bytes, "announced %zu bytes, took %zu", bytes, qd_arena_mark(arena) - before);
  for (int i = 0; i < N_TOKEN_COUNTS; i++) {
    qd_tensor got = new_matrix(arena, QD_F32, token_counts[i], q->rows);
    OK(qd_panels_linear(device, x[i], &panels, i % 2 ? bias : NULL, got));
    expect_same(got, expected[i], device, "panels");
  }
}

static void compare(devices *d, qd_arena *arena, const qd_qtensor *q, const char *what) {
  qd_tensor x[N_TOKEN_COUNTS], expected[N_TOKEN_COUNTS], bias = random_matrix(arena, QD_F32, 1, q->rows);
  bias = qd_tensor_1d(bias.data, QD_F32, q->rows);
  for (int i = 0; i < N_TOKEN_COUNTS; i++) {
    x[i] = random_tokens(arena, token_counts[i], q->columns);
    expected[i] = new_matrix(arena, QD_F32, token_counts[i], q->rows);
    OK(qd_qlinear(&d->ref, x[i], q, i % 2 ? &bias : NULL, expected[i]));
  }
  for (int n = 0; n < d->n; n++) {
    qd_device *device = &d->cpu[n];
    size_t mark = qd_arena_mark(arena), used = device->scratch.used_bytes;
    for (int i = 0; i < N_TOKEN_COUNTS; i++) {
      qd_tensor got = new_matrix(arena, QD_F32, token_counts[i], q->rows);
      OK(qd_qlinear(device, x[i], q, i % 2 ? &bias : NULL, got));
      expect_same(got, expected[i], device, what);
    }
    run_panels(device, arena, q, x, &bias, expected);
    cr_assert_eq(device->scratch.used_bytes, used, "scratch is not rewound");
    qd_arena_rewind(arena, mark);
  }
}

/* Groups within runs, across them, whole runs and the whole row; columns that end within a run. */
Test(int8, cpu_equals_ref_for_every_scheme) {
  static const int64_t groups[] = {QD_PER_CHANNEL, 16, 24, 32, 128}, columns[] = {288, 299, 97};
  devices d = open_int8();
  qd_arena arena = open_numbers();
  for (int bits = QD_MIN_BITS; bits <= QD_MAX_BITS; bits++)
    for (int g = 0; g < 5; g++) {
      qd_scheme scheme = {.bits = bits, .group_size = groups[g], .symmetric = (bits + g) % 3 == 0,
                          .scale_dtype = (bits + g) % 4 ? QD_F16 : QD_F32};
      qd_qtensor q = random_qtensor(&arena, scheme, 37 + 4 * g, columns[(bits + g) % 3], (bits + g) % 2);
      char what[64];
      snprintf(what, sizeof what, "%d bits, groups of %" PRId64, bits, groups[g]);
      compare(&d, &arena, &q, what);
      qd_arena_rewind(&arena, 0);
    }
  close_devices(&d);
  qd_arena_close(&arena);
}

Test(int8, cpu_equals_ref_with_outliers) {
  devices d = open_int8();
  qd_arena arena = open_numbers();
  for (int i = 0; i < 2 * SPQR_KINDS; i++) {
    qd_qtensor q = random_spqr_kind(&arena, i / 2, 69, i % 2);
    qd_qtensor part = qd_qtensor_rows(&q, 16, 53), none = qd_qtensor_rows(&q, 16, 0);
    compare(&d, &arena, &q, "with outliers");
    compare(&d, &arena, &part, "rows of a view");
    compare(&d, &arena, &none, "no rows");
    qd_arena_rewind(&arena, 0);
  }
  close_devices(&d);
  qd_arena_close(&arena);
}

Test(int8, panels_of_ref_are_its_weights) {
  qd_device ref = open_device("ref", NULL, 1);
  qd_arena arena = open_numbers();
  qd_qtensor q = random_qtensor(&arena, (qd_scheme){.bits = 4, .group_size = 32, .scale_dtype = QD_F16}, 7, 70, true);
  qd_tensor x[N_TOKEN_COUNTS], expected[N_TOKEN_COUNTS], bias = random_matrix(&arena, QD_F32, 1, 7);
  bias = qd_tensor_1d(bias.data, QD_F32, 7);
  OK(qd_device_use_arithmetic(&ref, QD_ARITHMETIC_INT8));
  for (int i = 0; i < N_TOKEN_COUNTS; i++) {
    x[i] = random_tokens(&arena, token_counts[i], 70);
    expected[i] = new_matrix(&arena, QD_F32, token_counts[i], 7);
    OK(qd_qlinear(&ref, x[i], &q, i % 2 ? &bias : NULL, expected[i]));
  }
  run_panels(&ref, &arena, &q, x, &bias, expected);
  qd_arena_close(&arena);
  qd_device_close(&ref);
}

Test(int8, odd_shapes_and_strides) {
  static const int64_t sizes[][2] = {{1, 1}, {33, 31}, {17, 65}, {3, 0}, {0, 5}, {70, 515}};
  qd_scheme scheme = {.bits = 4, .group_size = 32, .scale_dtype = QD_F16};
  devices d = open_int8();
  qd_arena arena = open_numbers();
  for (int i = 0; i < 6; i++) {
    qd_qtensor q = random_qtensor(&arena, scheme, sizes[i][0], sizes[i][1], i % 2);
    compare(&d, &arena, &q, "odd shape");
    qd_arena_rewind(&arena, 0);
  }
  qd_qtensor q = random_qtensor(&arena, scheme, 40, 70, false);
  qd_tensor x = random_matrix(&arena, QD_F32, 9, 160), y = new_matrix(&arena, QD_F32, 9, 80);
  qd_tensor views[] = {qd_tensor_columns(x, 4, 70), qd_tensor_transposed(random_matrix(&arena, QD_F32, 70, 9))};
  qd_tensor expected = new_matrix(&arena, QD_F32, 9, 80);
  for (int i = 0; i < 2; i++)
    for (int n = 0; n < d.n; n++) {
      OK(qd_qlinear(&d.ref, views[i], &q, NULL, qd_tensor_columns(expected, 3, 40)));
      OK(qd_qlinear(&d.cpu[n], views[i], &q, NULL, qd_tensor_columns(y, 3, 40)));
      expect_same(y, expected, &d.cpu[n], "strided"); /* what stands beside is left alone */
    }
  close_devices(&d);
  qd_arena_close(&arena);
}

/* ---- how far off --------------------------------------------------------------------------------------------------------- */

/* ref64 rounds as ref does, so that only sums differ (per piece: d, the scale, the sum: 2^-24 of the sum of magnitudes each);
 * and rounding a run moves each x by half its scale at the most. */
Test(int8, ref_is_near_ref64_and_both_near_what_is_not_rounded) {
  enum { T = 4, R = 6, C = 300, PIECES = 20 };
  qd_device ref = open_device("ref", NULL, 1), ref64 = open_device("ref64", NULL, 1);
  qd_arena arena = open_numbers();
  qd_scheme scheme = {.bits = 3, .group_size = 16, .scale_dtype = QD_F16, .spqr = true, .scale_bits = 3, .zero_bits = 3,
                      .stat_group = 16};
  qd_qtensor w = random_spqr(&arena, scheme, R, C, false);
  qd_tensor x = random_matrix(&arena, QD_F32, T, C), y = new_matrix(&arena, QD_F32, T, R),
            rounded = new_matrix(&arena, QD_F64, T, R), exact = new_matrix(&arena, QD_F64, T, R);
  qd_tensor wide = as_f64(x), expanded = new_matrix(&arena, QD_F64, R, C);
  OK(qd_qlinear(&ref64, wide, &w, NULL, exact));
  OK(qd_device_use_arithmetic(&ref, QD_ARITHMETIC_INT8));
  OK(qd_device_use_arithmetic(&ref64, QD_ARITHMETIC_INT8));
  OK(qd_qlinear(&ref, x, &w, NULL, y));
  OK(qd_qlinear(&ref64, wide, &w, NULL, rounded));
  w.outlier_rows = qd_tensor_1d((int32_t[R + 1]){0}, QD_I32, R + 1);
  OK(qd_dequant(&ref64, &w, expanded)); /* what the codes stand for */
  for (int t = 0; t < T; t++)
    for (int r = 0; r < R; r++) {
      double magnitude = 0, weights = 0;
      for (int p = 0; p < C; p++) {
        double weight = fabs(((double *)expanded.data)[r * C + p]) + 2; /* an outlier is below 1, and so is x */
        magnitude += weight, weights += weight;
      }
      double got = ((float *)y.data)[t * R + r], near = ((double *)rounded.data)[t * R + r];
      double want = ((double *)exact.data)[t * R + r];
      cr_assert(fabs(got - near) <= (3 * PIECES + C + 8) * 0x1p-24 * magnitude, "%g, expected %g", got, near);
      cr_assert(fabs(near - want) <= 0.5 / 127 * 1.001 * weights, "%g, expected about %g", near, want);
      cr_assert_neq(near, want, "activations are not rounded");
    }
  free(wide.data);
  qd_arena_close(&arena);
  qd_device_close(&ref);
  qd_device_close(&ref64);
}

/* ---- what is refused, and what stays ------------------------------------------------------------------------------------- */

Test(int8, wrong_inputs_are_refused) {
  qd_device cpu = open_device("cpu", NULL, 1);
  qd_arena arena = open_numbers();
  qd_scheme scheme = {.bits = 3, .group_size = 8, .scale_dtype = QD_F16, .spqr = true, .stat_group = 1};
  qd_qtensor q = random_spqr(&arena, scheme, 4, 40, false);
  qd_tensor x = random_matrix(&arena, QD_F32, 2, 40), half = random_matrix(&arena, QD_BF16, 2, 40);
  qd_tensor y = new_matrix(&arena, QD_F32, 2, 4), rounded = new_matrix(&arena, QD_BF16, 2, 4);
  qd_panels panels;
  OK(qd_device_use_arithmetic(&cpu, QD_ARITHMETIC_INT8));
  OK(qd_qlinear(&cpu, x, &q, NULL, y));
  FAILS(QD_EDTYPE, qd_qlinear(&cpu, half, &q, NULL, y));
  FAILS(QD_EDTYPE, qd_qlinear(&cpu, x, &q, NULL, rounded));
  FAILS(QD_EDTYPE, qd_panels_quantized(&cpu, &arena, &q, QD_BF16, &panels));
  OK(qd_panels_quantized(&cpu, &arena, &q, QD_F32, &panels));
  OK(qd_panels_linear(&cpu, x, &panels, NULL, y));
  FAILS(QD_EDTYPE, qd_panels_linear(&cpu, x, &panels, NULL, rounded));
  OK(qd_device_use_arithmetic(&cpu, QD_ARITHMETIC_F32));
  FAILS(QD_EINVAL, qd_panels_linear(&cpu, x, &panels, NULL, y));
  OK(qd_device_use_arithmetic(&cpu, QD_ARITHMETIC_INT8));
  ((uint16_t *)q.outlier_columns.data)[0] = 40;
  FAILS(QD_EBADINPUT, qd_qlinear(&cpu, x, &q, NULL, y));
  qd_arena_close(&arena);
  qd_device_close(&cpu);
}

Test(int8, weights_that_are_not_quantized_are_multiplied_as_ever) {
  devices d = open_devices();
  qd_arena arena = open_numbers();
  qd_tensor w = random_matrix(&arena, QD_F32, 33, 300), x = random_matrix(&arena, QD_F32, 5, 300);
  qd_tensor expected = new_matrix(&arena, QD_F32, 5, 33), got = new_matrix(&arena, QD_F32, 5, 33);
  OK(qd_linear(&d.ref, x, w, NULL, expected));
  use_arithmetic(&d, QD_ARITHMETIC_INT8);
  for (int n = -1; n < d.n; n++) {
    qd_device *device = n < 0 ? &d.ref : &d.cpu[n];
    qd_panels panels;
    OK(qd_linear(device, x, w, NULL, got));
    expect_same(got, expected, device, "linear");
    OK(qd_panels_dense(device, &arena, w, &panels));
    OK(qd_panels_linear(device, x, &panels, NULL, got));
    expect_same(got, expected, device, "dense panels");
  }
  close_devices(&d);
  qd_arena_close(&arena);
}
