#define _POSIX_C_SOURCE 200809L
#include "kernels/device.h"
#include "kernels/ops.h"
#include "kernels/scheme.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

Test(device, the_best_units_are_taken_and_can_be_limited) {
  unsetenv("QDIST_ISA");
  for (qd_isa isa = QD_ISA_AVX2; isa <= qd_isa_best(); isa++) {
    qd_device device;
    cr_assert_eq(qd_device_open(&device, (qd_device_options){.name = "cpu", .isa = qd_isa_name(isa)}), QD_OK);
    cr_assert_eq(device.isa, isa);
    qd_device_close(&device);
  }
  qd_device device;
  cr_assert_eq(qd_device_open(&device, (qd_device_options){.name = "cpu"}), QD_OK);
  cr_assert_eq(device.isa, qd_isa_best());
  qd_device_close(&device);
}

Test(device, the_environment_limits_the_units) {
  qd_device device;
  if (qd_isa_best() == QD_ISA_PORTABLE) cr_skip_test("no choice of units here");
  setenv("QDIST_ISA", "avx2", 1);
  cr_assert_eq(qd_device_open(&device, (qd_device_options){.name = "cpu"}), QD_OK);
  cr_assert_eq(device.isa, QD_ISA_AVX2);
  qd_device_close(&device);
}

/* Who asks for the unit by name gets it. */
Test(device, bf16_is_not_widened_for_who_limits_to_its_unit) {
  qd_device device;
  if (qd_isa_best() < QD_ISA_AVX512_BF16) cr_skip_test("no AVX512_BF16 here");
  cr_assert_eq(qd_device_open(&device, (qd_device_options){.name = "cpu", .isa = "avx512_bf16"}), QD_OK);
  cr_assert_not(device.widens_pairs);
  qd_device_close(&device);
}

Test(device, unknown_names_are_a_wrong_use) {
  qd_device device;
  cr_assert_eq(qd_device_open(&device, (qd_device_options){.name = "gpu"}), QD_EUSAGE);
  cr_assert_eq(qd_device_open(&device, (qd_device_options){.name = "cpu", .isa = "sse9"}), QD_EUSAGE);
  cr_assert_not_null(strstr(qd_error_text(), "sse9"));
}

Test(device, denormals_are_flushed) {
  qd_device device;
  volatile float tiny = 0x1p-126f, half = 0.5f;
  cr_assert_eq(qd_device_open(&device, (qd_device_options){.name = "ref"}), QD_OK);
  volatile float product = tiny * half;
  cr_assert_eq(product, 0.0f);
  qd_device_close(&device);
}

Test(scheme, groups_and_bits) {
  qd_scheme scheme = {.bits = 4, .group_size = 128, .scale_dtype = QD_F16};
  cr_assert_eq(qd_scheme_groups(scheme, 352), 3, "the last group is short");
  cr_assert_float_eq(qd_scheme_bits_per_weight(scheme, 64, 256, false), 4.15625, 1e-12);
  scheme.symmetric = true;
  cr_assert_float_eq(qd_scheme_bits_per_weight(scheme, 64, 256, false), 4.125, 1e-12);
  cr_assert_float_eq(qd_scheme_bits_per_weight(scheme, 64, 256, true), 4.625, 1e-12, "an order costs 32 bits a column");
  scheme.group_size = QD_PER_CHANNEL;
  cr_assert_eq(qd_scheme_groups(scheme, 352), 1);
}

Test(scheme, what_is_out_of_range_is_named) {
  qd_scheme scheme = {.bits = 9, .group_size = 128, .scale_dtype = QD_F16};
  cr_assert_eq(qd_scheme_check(scheme), QD_EINVAL);
  cr_assert_not_null(strstr(qd_error_text(), "9"));
  scheme.bits = 4, scheme.group_size = 0;
  cr_assert_eq(qd_scheme_check(scheme), QD_EINVAL);
  scheme.group_size = 1, scheme.scale_dtype = QD_BF16;
  cr_assert_eq(qd_scheme_check(scheme), QD_EINVAL);
}
