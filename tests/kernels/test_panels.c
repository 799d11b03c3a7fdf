#include "tests/kernels/quantized_support.h"

#include <stdio.h>

static const int64_t token_counts[] = {1, 2, 3, 17, 40};
enum { N_TOKEN_COUNTS = 5 };

static void fill_bytes(qd_tensor t, int byte) { memset(t.data, byte, qd_tensor_bytes(t)); }

static void expect_same(qd_tensor got, qd_tensor expected, const qd_device *device, const char *what) {
  cr_assert_eq(memcmp(got.data, expected.data, qd_tensor_bytes(got)), 0, "%s: %" PRId64 " x %" PRId64 " on %s %s, %d threads",
               what, got.dim[0], got.dim[1], device->name, qd_isa_name(device->isa), device->threads);
}

/* Panels of one weight on one device, which take what was announced, times x of each number of tokens. */
typedef struct subject {
  const qd_qtensor *q; /* or */
  qd_tensor w;
  qd_dtype  act;
} subject;

static qd_panels make_panels(qd_device *device, qd_arena *arena, const subject *s) {
  qd_panels panels;
  size_t before = qd_arena_mark(arena), bytes;
  if (s->q) {
    OK(qd_panels_quantized(device, arena, s->q, s->act, &panels));
    bytes = qd_panels_bytes(device, s->act, s->q->rows, s->q->columns, &s->q->scheme, s->q->order.rank != 0);
    if (s->q->scheme.spqr) bytes += qd_panels_outlier_bytes(device, s->q->columns, s->q->outlier_values.dim[0]);
  } else {
    OK(qd_panels_dense(device, arena, s->w, &panels));
    bytes = qd_panels_bytes(device, s->act, s->w.dim[0], s->w.dim[1], NULL, false);
  }
  cr_assert_eq(qd_arena_mark(arena) - before, bytes, "announced %zu bytes, took %zu", bytes, qd_arena_mark(arena) - before);
  return panels;
}

static void expected_product(qd_device *ref, const subject *s, qd_tensor x, const qd_tensor *bias, qd_tensor y) {
  if (s->q)
    OK(qd_qlinear(ref, x, s->q, bias, y));
  else
    OK(qd_linear(ref, x, s->w, bias, y));
}

static void compare_once(devices *d, qd_arena *arena, const subject *s, const char *what) {
  int64_t rows = s->q ? s->q->rows : s->w.dim[0], columns = s->q ? s->q->columns : s->w.dim[1];
  qd_tensor x[N_TOKEN_COUNTS], expected[N_TOKEN_COUNTS], bias = random_matrix(arena, QD_F32, 1, rows);
  bias = qd_tensor_1d(bias.data, QD_F32, rows);
  for (int i = 0; i < N_TOKEN_COUNTS; i++) { /* with a bias the output has x's dtype */
    x[i] = random_matrix(arena, s->act, token_counts[i], columns);
    expected[i] = new_matrix(arena, i % 2 ? s->act : QD_F32, token_counts[i], rows);
    expected_product(&d->ref, s, x[i], i % 2 ? &bias : NULL, expected[i]);
  }
  for (int n = -1; n < d->n; n++) {
    qd_device *device = n < 0 ? &d->ref : &d->cpu[n];
    size_t mark = qd_arena_mark(arena), used = device->scratch.used_bytes;
    qd_panels panels = make_panels(device, arena, s);
    for (int i = 0; i < N_TOKEN_COUNTS; i++) {
      qd_tensor got = new_matrix(arena, expected[i].dtype, token_counts[i], rows);
      fill_bytes(got, 0xa5);
      OK(qd_panels_linear(device, x[i], &panels, i % 2 ? &bias : NULL, got));
      expect_same(got, expected[i], device, what);
    }
    cr_assert_eq(device->scratch.used_bytes, used, "scratch is not rewound");
    qd_arena_rewind(arena, mark);
  }
}

static void compare(devices *d, qd_arena *arena, const subject *s, const char *what) {
  EACH_ARITHMETIC(d, s->act) compare_once(d, arena, s, what);
}

/* As all methods give them; the smallest fp16 numbers are denormals, which count. */
static void make_positive(qd_tensor scales) {
  for (int64_t i = 0; i < qd_tensor_elements(scales); i++) {
    if (scales.dtype == QD_F32) ((float *)scales.data)[i] += 0.2f;
    else ((uint16_t *)scales.data)[i] = (uint16_t)(1 + random_bits() % (i % 3 ? 0x7bff : 0x3ff));
  }
}

/* Groups within runs of 32, across them, whole runs, and the whole row; columns that end within a run and within a pair. */
Test(panels, codes_of_every_scheme_equal_the_packed_rows) {
  static const int64_t groups[] = {QD_PER_CHANNEL, 1, 24, 32, 128, 1000}, columns[] = {288, 299, 608};
  devices d = open_devices();
  qd_arena arena = open_numbers();
  for (int bits = QD_MIN_BITS; bits <= QD_MAX_BITS; bits++)
    for (int g = 0; g < 6; g++)
      for (int kind = 0; kind < 2; kind++) {
        qd_scheme scheme = {.bits = bits, .group_size = groups[g], .symmetric = (bits + g) % 3 == 0,
                            .scale_dtype = (bits + g) % 4 ? QD_F16 : QD_F32};
        qd_qtensor q = random_qtensor(&arena, scheme, 37 + 4 * g, columns[(bits + g + kind) % 3], (bits + g) % 4 == 0);
        if ((bits + kind) % 3) make_positive(q.scales);
        char what[64];
        snprintf(what, sizeof what, "%d bits, groups of %" PRId64 ", %s", bits, groups[g], kind ? "BF16" : "F32");
        compare(&d, &arena, &(subject){.q = &q, .act = kind ? QD_BF16 : QD_F32}, what);
        qd_arena_rewind(&arena, 0);
      }
  close_devices(&d);
  qd_arena_close(&arena);
}

/* Scales near fp32's limits: products that overflow, are rounded, or vanish. */
Test(panels, extreme_scales_equal_the_packed_rows) {
  devices d = open_devices();
  qd_arena arena = open_numbers();
  for (int kind = 0; kind < 2; kind++) {
    qd_scheme scheme = {.bits = 8, .group_size = 32, .scale_dtype = QD_F32};
    qd_qtensor q = random_qtensor(&arena, scheme, 33, 288, false);
    for (int64_t i = 0; i < qd_tensor_elements(q.scales); i++) ((float *)q.scales.data)[i] = random_extreme(0, 246);
    compare(&d, &arena, &(subject){.q = &q, .act = kind ? QD_BF16 : QD_F32}, "extreme scales");
    qd_arena_rewind(&arena, 0);
  }
  close_devices(&d);
  qd_arena_close(&arena);
}

/* Real zero points, statistics in codes and not, outliers at odd and even positions, rows of a view. */
Test(panels, outliers_stand_over_codes) {
  devices d = open_devices();
  qd_arena arena = open_numbers();
  for (int i = 0; i < 2 * SPQR_KINDS; i++) {
    qd_qtensor q = random_spqr_kind(&arena, i / 2, 69, i % 2);
    qd_qtensor part = qd_qtensor_rows(&q, 16, 53), none = qd_qtensor_rows(&q, 16, 0);
    char what[40];
    snprintf(what, sizeof what, "scheme %d, %s", i / 2, i % 2 ? "BF16" : "F32");
    compare(&d, &arena, &(subject){.q = &q, .act = i % 2 ? QD_BF16 : QD_F32}, what);
    compare(&d, &arena, &(subject){.q = &part, .act = i % 2 ? QD_F32 : QD_BF16}, what);
    compare(&d, &arena, &(subject){.q = &none, .act = QD_F32}, what);
    qd_arena_rewind(&arena, 0);
  }
  close_devices(&d);
  qd_arena_close(&arena);
}

Test(panels, outliers_out_of_bounds_are_refused) {
  qd_device cpu = open_device("cpu", NULL, 1);
  qd_arena arena = open_numbers();
  qd_scheme scheme = {.bits = 3, .group_size = 8, .scale_dtype = QD_F16, .spqr = true, .stat_group = 1};
  qd_qtensor q = random_spqr(&arena, scheme, 5, 40, false);
  qd_panels panels;
  ((uint16_t *)q.outlier_columns.data)[0] = 40;
  FAILS(QD_EBADINPUT, qd_panels_quantized(&cpu, &arena, &q, QD_F32, &panels));
  qd_arena_close(&arena);
  qd_device_close(&cpu);
}

Test(panels, dense_panels_equal_linear) {
  static const int64_t sizes[][2] = {{1, 1}, {32, 256}, {33, 257}, {70, 515}, {3, 0}, {0, 5}, {129, 40}};
  devices d = open_devices();
  qd_arena arena = open_numbers();
  for (int i = 0; i < 7; i++)
    for (int kind = 0; kind < 4; kind++) {
      qd_dtype act = kind % 2 ? QD_BF16 : QD_F32;
      int64_t rows = sizes[i][0], columns = sizes[i][1];
      qd_tensor w = kind < 2 ? random_matrix(&arena, act, rows, columns)
                             : qd_tensor_transposed(random_matrix(&arena, act, columns, rows));
      compare(&d, &arena, &(subject){.w = w, .act = act}, "dense");
      qd_arena_rewind(&arena, 0);
    }
  close_devices(&d);
  qd_arena_close(&arena);
}

Test(panels, empty_codes_and_a_slice_of_rows) {
  devices d = open_devices();
  qd_arena arena = open_numbers();
  qd_scheme scheme = {.bits = 3, .group_size = 64, .scale_dtype = QD_F16};
  qd_qtensor no_columns = random_qtensor(&arena, scheme, 3, 0, false), no_rows = random_qtensor(&arena, scheme, 0, 64, true);
  qd_qtensor whole = random_qtensor(&arena, scheme, 90, 320, true), part = qd_qtensor_rows(&whole, 11, 70);
  compare(&d, &arena, &(subject){.q = &no_columns, .act = QD_F32}, "no columns");
  compare(&d, &arena, &(subject){.q = &no_rows, .act = QD_BF16}, "no rows");
  compare(&d, &arena, &(subject){.q = &part, .act = QD_BF16}, "a slice");
  close_devices(&d);
  qd_arena_close(&arena);
}

Test(panels, they_outlive_what_they_were_made_of) {
  devices d = open_devices();
  qd_arena arena = open_numbers();
  qd_qtensor q = random_qtensor(&arena, (qd_scheme){.bits = 5, .group_size = 32, .scale_dtype = QD_F16}, 40, 96, true);
  qd_tensor x = random_matrix(&arena, QD_F32, 2, 96), expected = new_matrix(&arena, QD_F32, 2, 40),
            got = new_matrix(&arena, QD_F32, 2, 40);
  qd_panels panels[9];
  OK(qd_qlinear(&d.ref, x, &q, NULL, expected));
  for (int n = -1; n < d.n; n++) OK(qd_panels_quantized(n < 0 ? &d.ref : &d.cpu[n], &arena, &q, QD_F32, &panels[n + 1]));
  qd_part parts[QD_MAX_PARTS];
  for (int i = 0, n = qd_qtensor_parts(&q, parts); i < n; i++) fill_bytes(parts[i].tensor, 0);
  for (int n = -1; n < d.n; n++) {
    OK(qd_panels_linear(n < 0 ? &d.ref : &d.cpu[n], x, &panels[n + 1], NULL, got));
    expect_same(got, expected, n < 0 ? &d.ref : &d.cpu[n], "after the source is gone");
  }
  close_devices(&d);
  qd_arena_close(&arena);
}

Test(panels, wrong_inputs_are_refused) {
  qd_device cpu = open_device("cpu", NULL, 1), ref = open_device("ref", NULL, 1);
  qd_arena arena = open_numbers(), small;
  qd_qtensor q = random_qtensor(&arena, (qd_scheme){.bits = 4, .group_size = 8, .scale_dtype = QD_F16}, 4, 16, true);
  qd_tensor x = random_matrix(&arena, QD_F32, 2, 16), y = new_matrix(&arena, QD_F32, 2, 4);
  qd_panels panels;
  OK(qd_panels_quantized(&cpu, &arena, &q, QD_F32, &panels));
  OK(qd_panels_linear(&cpu, x, &panels, NULL, y));
  FAILS(QD_ESHAPE, qd_panels_linear(&cpu, qd_tensor_columns(x, 0, 15), &panels, NULL, y));
  FAILS(QD_ESHAPE, qd_panels_linear(&cpu, x, &panels, NULL, x));
  FAILS(QD_EDTYPE, qd_panels_linear(&cpu, random_matrix(&arena, QD_BF16, 2, 16), &panels, NULL, y));
  FAILS(QD_EINVAL, qd_panels_linear(&ref, x, &panels, NULL, y));
  OK(qd_device_use_arithmetic(&cpu, QD_ARITHMETIC_BF16_AMX));
  FAILS(QD_EINVAL, qd_panels_linear(&cpu, x, &panels, NULL, y));
  OK(qd_device_use_arithmetic(&cpu, QD_ARITHMETIC_BF16_PAIRS));
  FAILS(QD_EDTYPE, qd_panels_quantized(&cpu, &arena, &q, QD_F16, &panels));
  FAILS(QD_EDTYPE, qd_panels_dense(&cpu, &arena, random_matrix(&arena, QD_F64, 2, 16), &panels));
  FAILS(QD_ESHAPE, qd_panels_dense(&cpu, &arena, qd_tensor_1d(x.data, QD_F32, 16), &panels));
  OK(qd_arena_open(&small, "small", 64));
  FAILS(QD_ENOMEM, qd_panels_quantized(&cpu, &small, &q, QD_F32, &panels));
  FAILS(QD_ENOMEM, qd_panels_dense(&cpu, &small, x, &panels));
  ((int32_t *)q.order.data)[5] = 16;
  FAILS(QD_EBADINPUT, qd_panels_quantized(&cpu, &arena, &q, QD_F32, &panels));
  qd_arena_close(&small);
  qd_arena_close(&arena);
  qd_device_close(&cpu);
  qd_device_close(&ref);
}
