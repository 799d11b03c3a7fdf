#include "tests/kernels/solver_fixture.h"

#define GRID(b, g, is_symmetric, clips, type, is_compat) \
  {.bits = b, .group_size = g, .symmetric = is_symmetric, .mse = clips, .scale_dtype = type, .compat = is_compat}

static const qd_scheme plain4 = {.bits = 4, .group_size = QD_PER_CHANNEL, .scale_dtype = QD_F16};

/* ---- the published numbers, in double ------------------------------------------------------------------------------------ */

static const double golden_x[8] = {0.11, -0.52, 0.37, 0.98, -0.24, 0.05, -0.71, 0.63};

typedef struct golden {
  qd_scheme scheme;
  double scale;
  int zero;
  int code[8];
  double error; /* sum |difference|^2.4, or 0 where none is published */
} golden;

static double golden_error(double scale, int zero, const uint8_t *code) {
  double sum = 0;
  for (int i = 0; i < 8; i++) sum += pow(fabs(scale * (code[i] - zero) - golden_x[i]), 2.4);
  return sum;
}

static void check_golden(const golden *want) {
  qd_device device;
  must_open(&device, "ref64", NULL, 1);
  double x[8], scale;
  uint8_t zero, code[8];
  memcpy(x, golden_x, sizeof x);
  qd_tensor w = qd_tensor_2d(x, QD_F64, 1, 8), s = qd_tensor_2d(&scale, QD_F64, 1, 1), z = qd_tensor_2d(&zero, QD_U8, 1, 1);
  cr_assert_eq(qd_rtn_fit(&device, w, want->scheme, s, z), QD_OK, "%s", qd_error_text());
  cr_assert_eq(qd_rtn_quantize(&device, w, want->scheme, s, z, qd_tensor_2d(code, QD_U8, 1, 8)), QD_OK, "%s", qd_error_text());
  cr_expect_float_eq(scale, want->scale, 5.1e-10, "scale %.12f, expected %.9f", scale, want->scale);
  cr_expect_eq(zero, want->zero);
  for (int i = 0; i < 8; i++) cr_expect_eq(code[i], want->code[i], "code %d is %d, expected %d", i, code[i], want->code[i]);
  if (want->error != 0) cr_expect_float_eq(golden_error(scale, zero, code), want->error, 5.1e-10);
  qd_device_close(&device);
}

Test(rtn, golden_grids) {
  const golden goldens[] = {
      {GRID(4, -1, false, false, QD_F32, false), 0.112666667, 6, {7, 1, 9, 15, 4, 6, 0, 12}, 0},
      {GRID(4, -1, false, true, QD_F32, false), 0.110413333, 6, {7, 1, 9, 15, 4, 6, 0, 12}, 0.002468259},
      {GRID(4, -1, true, false, QD_F32, false), 0.130666667, 8, {9, 4, 11, 15, 6, 8, 3, 13}, 0.003621168},
      {GRID(4, -1, true, true, QD_F32, false), 0.130666667, 8, {9, 4, 11, 15, 6, 8, 3, 13}, 0.003621168},
      {GRID(3, -1, false, false, QD_F32, false), 0.241428571, 3, {3, 1, 5, 7, 2, 3, 0, 6}, 0},
      {GRID(3, -1, false, true, QD_F32, false), 0.229357143, 3, {3, 1, 5, 7, 2, 3, 0, 6}, 0.012469598},
      {GRID(2, -1, false, false, QD_F32, false), 0.563333333, 1, {1, 0, 2, 3, 1, 1, 0, 2}, 0},
      {GRID(2, -1, false, true, QD_F32, false), 0.529533333, 1, {1, 0, 2, 3, 1, 1, 0, 2}, 0.073243629},
  };
  for (size_t i = 0; i < sizeof goldens / sizeof *goldens; i++) check_golden(&goldens[i]);
}

/* ---- cpu equals ref ------------------------------------------------------------------------------------------------------ */

typedef struct outcome {
  float *scale;
  uint8_t *zero, *code;
  size_t grids, codes;
} outcome;

/* Fit and quantize; matrices with gaps between rows. */
static outcome solve(qd_device *device, const float *weights, int64_t rows, int64_t columns, qd_scheme scheme) {
  int64_t groups = qd_scheme_groups(scheme, columns), gap = 3;
  outcome out = {.grids = (size_t)(rows * (groups + gap)), .codes = (size_t)(rows * (columns + gap))};
  out.scale = must_alloc(out.grids, sizeof(float));
  out.zero = must_alloc(out.grids, 1);
  out.code = must_alloc(out.codes, 1);
  float *copy = must_alloc(out.codes, sizeof(float));
  for (int64_t r = 0; r < rows; r++) memcpy(copy + r * (columns + gap), weights + r * columns, (size_t)columns * sizeof(float));
  qd_tensor w = qd_tensor_2d(copy, QD_F32, rows, columns), scale = qd_tensor_2d(out.scale, QD_F32, rows, groups);
  qd_tensor zero = qd_tensor_2d(out.zero, QD_U8, rows, groups), code = qd_tensor_2d(out.code, QD_U8, rows, columns);
  w.stride[0] = code.stride[0] = columns + gap;
  scale.stride[0] = zero.stride[0] = groups + gap;
  cr_assert_eq(qd_rtn_fit(device, w, scheme, scale, zero), QD_OK, "%s", qd_error_text());
  cr_assert_eq(qd_rtn_quantize(device, w, scheme, scale, zero, code), QD_OK, "%s", qd_error_text());
  qd_heap_free(copy);
  return out;
}

static bool same(outcome a, outcome b) {
  return memcmp(a.scale, b.scale, a.grids * sizeof(float)) == 0 && memcmp(a.zero, b.zero, a.grids) == 0 &&
         memcmp(a.code, b.code, a.codes) == 0;
}

static void release(outcome out) {
  qd_heap_free(out.scale);
  qd_heap_free(out.zero);
  qd_heap_free(out.code);
}

static void check_cpu(const float *w, int64_t rows, int64_t columns, qd_scheme scheme) {
  qd_device ref, cpu;
  variant all[MOST_VARIANTS];
  must_open(&ref, "ref", NULL, 1);
  outcome want = solve(&ref, w, rows, columns, scheme);
  for (int v = 0, n = variants(all); v < n; v++) {
    must_open(&cpu, "cpu", qd_isa_name(all[v].isa), all[v].threads);
    outcome got = solve(&cpu, w, rows, columns, scheme);
    cr_expect(same(want, got),
              "%" PRId64 " x %" PRId64 ", %d bits, groups of %" PRId64
              ", symmetric %d, mse %d, compat %d: %s with %d threads differs",
              rows, columns, scheme.bits, scheme.group_size, scheme.symmetric, scheme.mse, scheme.compat,
              qd_isa_name(all[v].isa), all[v].threads);
    release(got);
    qd_device_close(&cpu);
  }
  release(want);
  qd_device_close(&ref);
}

Test(rtn, cpu_equals_ref) {
  const int64_t shapes[][3] = {{1, 1, -1},   {7, 64, 32},   {5, 200, 30}, {3, 17, -1},
                               {4, 352, 96}, {2, 700, 128}, {9, 15, 128}, {0, 8, 4}};
  const int bits[] = {2, 3, 4, 8};
  for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
    int64_t rows = shapes[i][0], columns = shapes[i][1];
    float *w = must_alloc((size_t)(rows * columns), sizeof *w);
    fill_weights(qd_tensor_2d(w, QD_F32, rows, columns), 7 + i);
    for (int flags = 0; flags < 16; flags++)
      check_cpu(w, rows, columns,
                (qd_scheme)GRID(bits[(i + (size_t)flags) % 4], shapes[i][2], flags & 1, flags & 2,
                                flags & 4 ? QD_F32 : QD_F16, flags & 8));
    qd_heap_free(w);
  }
}

/* Rows longer than one run of a sum, and far more terms than a partial error is looked at. */
Test(rtn, cpu_equals_ref_on_long_rows) {
  enum { ROWS = 3, COLUMNS = 2 * QD_SUM_RUN + 77 };
  float *w = must_alloc((size_t)ROWS * COLUMNS, sizeof *w);
  fill_weights(qd_tensor_2d(w, QD_F32, ROWS, COLUMNS), 3);
  check_cpu(w, ROWS, COLUMNS, (qd_scheme)GRID(3, QD_PER_CHANNEL, false, true, QD_F16, false));
  check_cpu(w, ROWS, COLUMNS, (qd_scheme)GRID(4, QD_PER_CHANNEL, true, true, QD_F32, false));
  qd_heap_free(w);
}

/* Zeros, signed zeros, denormals, one sign only, an outlier, tiny and large values, ties. */
static void fill_odd_rows(float w[12][40]) {
  uint64_t seed = 5;
  for (int c = 0; c < 40; c++) {
    float x = (float)normal(&seed);
    w[0][c] = 0;
    w[1][c] = c % 2 ? -0.0f : 0.0f;
    w[2][c] = x * 1e-42f;
    w[3][c] = fabsf(x);
    w[4][c] = -fabsf(x);
    w[5][c] = c == 17 ? 900.0f : x * 0.01f;
    w[6][c] = x * 1e-9f;
    w[7][c] = x * 1e4f;
    w[8][c] = (float)(c % 9) - 4;
    w[9][c] = c == 0 ? -2 : 0;
    w[10][c] = c == 39 ? 3e-39f : 0;
    w[11][c] = c % 3 == 0 ? NAN : x;
  }
}

Test(rtn, cpu_equals_ref_on_odd_values) {
  static float w[12][40];
  fill_odd_rows(w);
  for (int flags = 0; flags < 16; flags++)
    check_cpu(&w[0][0], 12, 40,
              (qd_scheme)GRID(4, flags & 1 ? 16 : 1, flags & 2, flags & 4, flags & 8 ? QD_F32 : QD_F16, false));
  check_cpu(&w[0][0], 12, 40, (qd_scheme)GRID(4, 40, true, false, QD_F32, true));
}

Test(rtn, rows_do_not_know_each_other) {
  enum { ROWS = 11, COLUMNS = 90 };
  static float w[ROWS][COLUMNS];
  qd_scheme scheme = GRID(3, 32, false, true, QD_F16, false);
  qd_device cpu;
  fill_weights(qd_tensor_2d(w, QD_F32, ROWS, COLUMNS), 21);
  must_open(&cpu, "cpu", NULL, 2);
  outcome all = solve(&cpu, &w[0][0], ROWS, COLUMNS, scheme);
  for (int64_t first = 0, n = 1; first < ROWS; first += n, n++) {
    if (n > ROWS - first) n = ROWS - first;
    outcome part = solve(&cpu, w[first], n, COLUMNS, scheme);
    cr_expect_arr_eq(part.code, all.code + first * (COLUMNS + 3), part.codes);
    cr_expect_arr_eq(part.scale, all.scale + first * (3 + 3), part.grids * sizeof(float));
    release(part);
  }
  release(all);
  qd_device_close(&cpu);
}

/* ---- what a grid must do ------------------------------------------------------------------------------------------------- */

typedef struct fitted {
  float scale;
  uint8_t zero, code[40];
} fitted;

static fitted fit_row(qd_device *device, const float *row, int64_t n, qd_scheme scheme) {
  float copy[40];
  fitted out;
  memcpy(copy, row, (size_t)n * sizeof *copy);
  qd_tensor w = qd_tensor_2d(copy, QD_F32, 1, n), s = qd_tensor_2d(&out.scale, QD_F32, 1, 1),
            z = qd_tensor_2d(&out.zero, QD_U8, 1, 1);
  cr_assert_eq(qd_rtn_fit(device, w, scheme, s, z), QD_OK, "%s", qd_error_text());
  cr_assert_eq(qd_rtn_quantize(device, w, scheme, s, z, qd_tensor_2d(out.code, QD_U8, 1, n)), QD_OK, "%s", qd_error_text());
  return out;
}

static float value_of(const fitted *f, int64_t i) { return f->scale * (float)(f->code[i] - f->zero); }

/* Quantizing the quantized changes nothing, zero stays zero, errors inside the range are at most half a step. */
Test(rtn, codes_are_the_nearest) {
  static float w[12][40];
  qd_device cpu;
  fill_odd_rows(w);
  must_open(&cpu, "cpu", NULL, 1);
  for (int r = 0; r < 11; r++)
    for (int flags = 0; flags < 4; flags++) {
      qd_scheme scheme = GRID(3, QD_PER_CHANNEL, flags & 1, flags & 2, QD_F16, false);
      fitted f = fit_row(&cpu, w[r], 40, scheme);
      float again[40], lowest = f.scale * (float)-f.zero, highest = f.scale * (float)(7 - f.zero);
      uint8_t code[40];
      for (int i = 0; i < 40; i++) {
        again[i] = value_of(&f, i);
        if (w[r][i] == 0) cr_expect_eq(again[i], 0);
        if (w[r][i] >= lowest && w[r][i] <= highest)
          cr_expect_leq(fabsf(again[i] - w[r][i]), f.scale * 0.50001f, "row %d, element %d: %g became %g, scale %g", r, i,
                        (double)w[r][i], (double)again[i], (double)f.scale);
      }
      qd_tensor s = qd_tensor_2d(&f.scale, QD_F32, 1, 1), z = qd_tensor_2d(&f.zero, QD_U8, 1, 1);
      cr_assert_eq(qd_rtn_quantize(&cpu, qd_tensor_2d(again, QD_F32, 1, 40), scheme, s, z, qd_tensor_2d(code, QD_U8, 1, 40)),
                   QD_OK);
      cr_expect_arr_eq(code, f.code, sizeof code);
    }
  qd_device_close(&cpu);
}

Test(rtn, special_groups) {
  qd_device cpu;
  must_open(&cpu, "cpu", NULL, 1);
  const float zeros[5] = {0}, positive[4] = {1, 2, 3, 15}, negative[4] = {-1, -2, -3, -15}, single[1] = {-0.75f};
  const float outlier[8] = {0.1f, -0.1f, 0.05f, 1500, 0.02f, -0.07f, 0, 0.09f};
  fitted f = fit_row(&cpu, zeros, 5, plain4);
  cr_expect_eq(f.scale, qd_f16_to_f32(qd_f16_from_f32(2.0f / 15)));
  for (int i = 0; i < 5; i++) cr_expect_eq(f.code[i], f.zero);
  f = fit_row(&cpu, positive, 4, plain4);
  cr_expect(f.scale == 1 && f.zero == 0 && f.code[0] == 1 && f.code[3] == 15);
  f = fit_row(&cpu, negative, 4, plain4);
  cr_expect(f.scale == 1 && f.zero == 15 && f.code[0] == 14 && f.code[3] == 0);
  f = fit_row(&cpu, single, 1, plain4);
  cr_expect(f.scale == qd_f16_to_f32(qd_f16_from_f32(0.05f)) && f.zero == 15 && f.code[0] == 0);
  f = fit_row(&cpu, outlier, 8, plain4);
  cr_expect(f.scale == 100 && f.zero == 0 && f.code[3] == 15 && f.code[0] == 0);
  qd_device_close(&cpu);
}

Test(rtn, symmetric_range_is_mirrored_unless_compat) {
  qd_device cpu;
  must_open(&cpu, "cpu", NULL, 1);
  const float positive[3] = {0, 7.5f, 1};
  qd_scheme scheme = GRID(4, QD_PER_CHANNEL, true, false, QD_F16, false);
  fitted f = fit_row(&cpu, positive, 3, scheme);
  cr_expect(f.scale == 1 && f.zero == 8 && f.code[1] == 15, "7.5 is a tie that rounds to 8 and is clamped to 15");
  scheme.compat = true;
  f = fit_row(&cpu, positive, 3, scheme);
  cr_expect(f.scale == 0.5f && f.zero == 8 && f.code[1] == 15);
  qd_device_close(&cpu);
}

/* Scales are what the store can hold, before any code is chosen; and never zero. */
Test(rtn, scales_are_rounded_before_codes) {
  qd_device cpu;
  must_open(&cpu, "cpu", NULL, 1);
  qd_scheme scheme = GRID(8, QD_PER_CHANNEL, false, false, QD_F16, false);
  const float wide[2] = {-100, 1}, tiny[2] = {-1e-9f, 1e-9f};
  fitted f = fit_row(&cpu, wide, 2, scheme);
  cr_expect_eq(f.scale, qd_f16_to_f32(qd_f16_from_f32(101.0f / 255)));
  cr_expect_eq(f.zero, (uint8_t)rintf(100 / f.scale));
  f = fit_row(&cpu, tiny, 2, scheme);
  cr_expect_eq(f.scale, 0x1p-24f);
  cr_expect(f.code[0] == f.zero && f.code[1] == f.zero);
  scheme.scale_dtype = QD_F32;
  f = fit_row(&cpu, tiny, 2, scheme);
  cr_expect_eq(f.scale, 2e-9f / 255);
  const float least[2] = {-2e-38f, 0};
  f = fit_row(&cpu, least, 2, scheme);
  cr_expect_eq(f.scale, 0x1p-126f);
  qd_device_close(&cpu);
}

static double power_error(const fitted *f, const float *w, int n) {
  double sum = 0;
  for (int i = 0; i < n; i++) sum += pow(fabs((double)value_of(f, i) - (double)w[i]), 2.4);
  return sum;
}

Test(rtn, clip_search_is_never_worse) {
  qd_device cpu;
  must_open(&cpu, "cpu", NULL, 1);
  uint64_t seed = 99;
  int better = 0;
  for (int trial = 0; trial < 200; trial++) {
    float w[40];
    for (int i = 0; i < 40; i++) w[i] = (float)(normal(&seed) * (i == 3 ? 3 : 1));
    qd_scheme scheme = GRID(2 + trial % 3, QD_PER_CHANNEL, trial & 1, false, QD_F16, false);
    fitted whole = fit_row(&cpu, w, 40, scheme);
    scheme.mse = true;
    fitted searched = fit_row(&cpu, w, 40, scheme);
    double before = power_error(&whole, w, 40), after = power_error(&searched, w, 40);
    cr_expect_leq(after, before * 1.00001);
    better += after < before * 0.9;
  }
  cr_expect_gt(better, 50);
  qd_device_close(&cpu);
}

/* ---- refusals ------------------------------------------------------------------------------------------------------------ */

Test(rtn, scale_beyond_fp16_names_row_and_group) {
  static float w[9][64];
  float scale[9][4];
  uint8_t zero[9][4];
  fill_weights(qd_tensor_2d(w, QD_F32, 9, 64), 1);
  w[8][0] = 2e6f;
  w[5][50] = -1e6f;
  w[5][40] = -1e6f;
  const struct {
    const char *name;
    int threads;
  } devices[] = {{"ref", 1}, {"cpu", 1}, {"cpu", 2}};
  for (int d = 0; d < 3; d++)
    for (int mse = 0; mse < 2; mse++) {
      qd_device device;
      must_open(&device, devices[d].name, NULL, devices[d].threads);
      qd_scheme scheme = GRID(4, 16, false, mse, QD_F16, false);
      qd_tensor all = qd_tensor_2d(w, QD_F32, 9, 64), s = qd_tensor_2d(scale, QD_F32, 9, 4),
                z = qd_tensor_2d(zero, QD_U8, 9, 4);
      cr_expect_eq(qd_rtn_fit(&device, all, scheme, s, z), QD_ENUMERIC);
      cr_expect_not_null(strstr(qd_error_text(), "row 5, group 2"), "%s", qd_error_text());
      scheme.scale_dtype = QD_F32;
      cr_expect_eq(qd_rtn_fit(&device, all, scheme, s, z), QD_OK);
      qd_device_close(&device);
    }
}

Test(rtn, wrong_shapes_and_types_are_refused) {
  qd_device device;
  must_open(&device, "cpu", NULL, 1);
  float w[32] = {0}, scale[4] = {0};
  uint8_t zero[4] = {0}, code[32] = {0};
  qd_scheme scheme = GRID(4, 8, false, false, QD_F16, false);
  qd_tensor tw = qd_tensor_2d(w, QD_F32, 2, 16), ts = qd_tensor_2d(scale, QD_F32, 2, 2), tz = qd_tensor_2d(zero, QD_U8, 2, 2);
  qd_tensor tc = qd_tensor_2d(code, QD_U8, 2, 16), bad;
  cr_expect_eq(qd_rtn_fit(&device, tw, scheme, ts, tz), QD_OK);
  cr_expect_eq(qd_rtn_fit(&device, tw, scheme, qd_tensor_2d(scale, QD_F32, 2, 1), tz), QD_ESHAPE);
  cr_expect_eq(qd_rtn_fit(&device, tw, scheme, qd_tensor_2d(scale, QD_F16, 2, 2), tz), QD_EDTYPE);
  cr_expect_eq(qd_rtn_fit(&device, tw, scheme, ts, qd_tensor_2d(zero, QD_U8, 1, 4)), QD_ESHAPE);
  cr_expect_eq(qd_rtn_fit(&device, qd_tensor_1d(w, QD_F32, 32), scheme, ts, tz), QD_ESHAPE);
  cr_expect_eq(qd_rtn_fit(&device, qd_tensor_transposed(qd_tensor_2d(w, QD_F32, 16, 2)), scheme, ts, tz), QD_ESHAPE);
  cr_expect_eq(qd_rtn_quantize(&device, tw, scheme, ts, tz, qd_tensor_2d(code, QD_U8, 2, 15)), QD_ESHAPE);
  bad = tc, bad.dtype = QD_I32;
  cr_expect_eq(qd_rtn_quantize(&device, tw, scheme, ts, tz, bad), QD_EDTYPE);
  scheme.bits = 9;
  cr_expect_eq(qd_rtn_fit(&device, tw, scheme, ts, tz), QD_EINVAL);
  qd_device_close(&device);
}
