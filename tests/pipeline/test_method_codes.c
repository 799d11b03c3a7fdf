#include "pipeline/method_codes.h"

#include "tests/pipeline/method_support.h"

/* Fill a grid with numbers that show where they went, store it, and read it back bit by bit. */
static void check_store(qd_scheme scheme, qd_device *device) {
  static float w[ROWS][COLUMNS];
  qd_arena arena;
  qd_qtensor q;
  qd_method_grid grid;
  qd_method_input input = {.device = device, .scheme = scheme, .w = qd_tensor_2d(w, QD_F32, ROWS, COLUMNS)};
  int64_t groups = qd_scheme_groups(scheme, COLUMNS);
  int codes = qd_scheme_max_code(scheme) + 1;
  size_t mark = qd_arena_mark(&device->scratch);
  MUST(qd_arena_open(&arena, "q", 1 << 20));
  MUST(qd_qtensor_new(&arena, scheme, ROWS, COLUMNS, false, &q));
  MUST(qd_method_grid_new(&input, &grid));
  cr_assert_eq(grid.scale.dim[1], groups);
  for (int i = 0; i < ROWS * COLUMNS; i++) ((uint8_t *)grid.code.data)[i] = (uint8_t)(i * 7 % codes);
  for (int64_t i = 0; i < ROWS * groups; i++) {
    ((float *)grid.scale.data)[i] = (float)(i + 1) / 64;
    ((uint8_t *)grid.zero.data)[i] = (uint8_t)(scheme.symmetric ? codes / 2 : i * 3 % codes);
  }
  MUST(qd_method_grid_store(&input, &grid, &q));
  cr_expect_eq(qd_qtensor_check(&q), QD_OK, "%s", qd_error_text());
  for (int64_t r = 0; r < ROWS; r++)
    for (int64_t p = 0; p < COLUMNS; p++) {
      int64_t g = r * groups + p / qd_scheme_group_size(scheme, COLUMNS);
      cr_assert_eq(code_of(&q, r, p), (r * COLUMNS + p) * 7 % codes);
      cr_assert_eq(scale_of(&q, r, p), (float)(g + 1) / 64);
      cr_assert_eq(zero_of(&q, r, p), scheme.symmetric ? codes / 2 : g * 3 % codes);
    }
  qd_arena_rewind(&device->scratch, mark);
  qd_arena_close(&arena);
}

Test(method_codes, stores_codes_scales_and_zero_points) {
  qd_device device;
  must_open(&device, "cpu", NULL, 1);
  for (int bits = QD_MIN_BITS; bits <= QD_MAX_BITS; bits++)
    for (int symmetric = 0; symmetric < 2; symmetric++) {
      check_store((qd_scheme){.bits = bits, .group_size = 7, .symmetric = symmetric, .scale_dtype = QD_F16}, &device);
      check_store((qd_scheme){.bits = bits, .group_size = QD_PER_CHANNEL, .symmetric = symmetric, .scale_dtype = QD_F32},
                  &device);
    }
  qd_device_close(&device);
}
