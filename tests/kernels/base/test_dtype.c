#include "kernels/base/dtype.h"

#include <criterion/criterion.h>
#include <math.h>

static float from_bits(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

Test(dtype, every_half_goes_to_fp32_and_back) {
  for (uint32_t bits = 0; bits < 65536; bits++) {
    float wide = qd_f16_to_f32((uint16_t)bits);
    if (isnan(wide)) continue;
    cr_assert_eq(qd_f16_from_f32(wide), bits, "fp16 %04x became %g", bits, (double)wide);
  }
}

Test(dtype, known_halves) {
  cr_assert_eq(qd_f16_to_f32(0x3c00), 1.0f);
  cr_assert_eq(qd_f16_to_f32(0x7bff), 65504.0f);
  cr_assert_eq(qd_f16_to_f32(0x0001), 0x1p-24f);
  cr_assert_eq(qd_f16_from_f32(65519.0f), 0x7bff);
  cr_assert_eq(qd_f16_from_f32(65520.0f), 0x7c00, "half of the last step and up is Inf");
  cr_assert_eq(qd_f16_from_f32(0x1p-25f), 0x0000, "a tie goes to the even zero");
  cr_assert_eq(qd_f16_from_f32(0x1.8p-25f), 0x0001);
  cr_assert_eq(qd_f16_from_f32(1.0f + 0x1p-11f), 0x3c00, "a tie goes to even");
  cr_assert_eq(qd_f16_from_f32(1.0f + 0x3p-11f), 0x3c02, "a tie goes to even");
  cr_assert(isnan(qd_f16_to_f32(qd_f16_from_f32(NAN))));
}

/* The nearest of the two neighbours, by exact comparison in double. */
Test(dtype, fp16_rounds_to_the_nearest) {
  for (uint32_t i = 0; i < 200000; i++) {
    float value = from_bits(0x33000000u + i * 3989u);
    if (value > 65504.0f) break;
    uint16_t half = qd_f16_from_f32(value);
    double error = fabs((double)qd_f16_to_f32(half) - (double)value);
    for (int step = -1; step <= 1; step += 2) {
      if (half == 0 && step < 0) continue;
      double other = fabs((double)qd_f16_to_f32((uint16_t)(half + step)) - (double)value);
      cr_assert_leq(error, other);
    }
  }
}

Test(dtype, bf16_rounds_to_nearest_even) {
  cr_assert_eq(qd_bf16_from_f32(from_bits(0x3f808000u)), 0x3f80, "a tie goes to even");
  cr_assert_eq(qd_bf16_from_f32(from_bits(0x3f818000u)), 0x3f82, "a tie goes to even");
  cr_assert_eq(qd_bf16_from_f32(from_bits(0x3f808001u)), 0x3f81);
  cr_assert_eq(qd_bf16_from_f32(from_bits(0x7f7fffffu)), 0x7f80, "beyond the largest is Inf");
  cr_assert(isnan(qd_bf16_to_f32(qd_bf16_from_f32(from_bits(0x7f800001u)))), "a NaN stays one");
}

Test(dtype, names_and_sizes) {
  qd_dtype found;
  cr_assert(qd_dtype_find("BF16", &found));
  cr_assert_eq(found, QD_BF16);
  cr_assert_not(qd_dtype_find("F8_E4M3", &found));
  cr_assert_eq(qd_dtype_bytes(QD_I64), 8);
  cr_assert_str_eq(qd_dtype_name(QD_F16), "F16");
}

Test(dtype, runs_are_widened_and_narrowed) {
  uint16_t half[3] = {0x3c00, 0xc000, 0x0001}, narrow[3];
  float wide[3];
  qd_widen(half, QD_F16, wide, 3);
  cr_assert_eq(wide[1], -2.0f);
  qd_narrow_bf16(half, QD_F16, narrow, 3);
  cr_assert_eq(qd_bf16_to_f32(narrow[2]), 0x1p-24f);
  qd_narrow_bf16(wide, QD_F32, narrow, 3);
  qd_widen(narrow, QD_BF16, wide, 3);
  cr_assert_eq(wide[0], 1.0f);
}
