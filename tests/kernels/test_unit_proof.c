#include "kernels/unit_proof.h"

#include "kernels/base/log.h"
#include "tests/kernels/products_support.h"
#include "tests/support/temporary_folder.h"

#include <stdio.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

/* A unit, `broken`, whose sums have one wrong bit somewhere; other instructions are right. */
static qd_isa broken;
static int64_t wrong_element;
static int broken_bits;

static qd_status broken_matmul(qd_device *device, qd_tensor a, qd_tensor b, bool accumulate, qd_tensor c) {
  QD_TRY(qd_ref_matmul(device, a, b, accumulate, c));
  if (device->isa == broken) ((uint32_t *)c.data)[wrong_element % qd_tensor_elements(c)] ^= 1u;
  return QD_OK;
}

static qd_status broken_qlinear(qd_device *device, qd_tensor x, const qd_qtensor *w, const qd_tensor *bias, qd_tensor y) {
  QD_TRY(qd_ref_qlinear(device, x, w, bias, y));
  if (device->isa >= broken && w->scheme.bits == broken_bits) ((uint32_t *)y.data)[wrong_element % qd_tensor_elements(y)] ^= 1u;
  return QD_OK;
}

/* VNNI is left out, with all that is above it; the device's own scratch may be of one byte. */
Test(unit_proof, a_unit_of_bytes_that_sums_otherwise_is_left_out) {
  qd_log_level_set(QD_LOG_QUIET);
  broken = QD_ISA_AVX512_VNNI;
  for (broken_bits = 4; broken_bits <= 8; broken_bits += 2) /* of 4 and of 8 bits it is tried, nothing is found of 6 */
    for (wrong_element = 0; wrong_element < 600; wrong_element += 211) {
      qd_device device;
      OK(qd_device_open(&device, (qd_device_options){.name = "cpu", .threads = 1, .scratch_bytes = QD_SCRATCH_LATER}));
      qd_ops ops = *device.ops;
      ops.qlinear = broken_qlinear;
      device.ops = &ops, device.isa = QD_ISA_AVX512_VNNI;
      OK(qd_device_use_arithmetic(&device, QD_ARITHMETIC_INT8));
      cr_expect_eq(device.isa, broken_bits % 4 == 0 ? QD_ISA_AVX512 : QD_ISA_AVX512_VNNI, "%d bits", broken_bits);
      cr_expect_eq(device.unit_refused, broken_bits % 4 == 0);
      OK(qd_device_reserve(&device, 100));
      qd_device_close(&device);
    }
}

#if defined(__x86_64__)
/* A unit that knows denormals. */
static qd_status denormal_matmul(qd_device *device, qd_tensor a, qd_tensor b, bool accumulate, qd_tensor c) {
  unsigned control = _mm_getcsr();
  _mm_setcsr(control & ~0x8040u);
  qd_status status = qd_ref_matmul(device, a, b, accumulate, c);
  _mm_setcsr(control);
  return status;
}

Test(unit_proof, a_unit_that_keeps_denormals_is_left_out) {
  qd_device device = open_device("cpu", NULL, 1);
  qd_ops ops = *device.ops;
  ops.matmul = denormal_matmul;
  device.ops = &ops, device.isa = QD_ISA_AMX;
  qd_log_level_set(QD_LOG_QUIET);
  OK(qd_device_use_arithmetic(&device, QD_ARITHMETIC_BF16_AMX));
  cr_expect_eq(device.isa, QD_ISA_AVX512_BF16);
  qd_device_close(&device);
}
#endif

/* A device whose matmul is the one above, as if it had units up to `isa`. */
static qd_device open_broken(qd_isa isa, qd_ops *ops) {
  qd_device device = open_device("cpu", NULL, 1);
  *ops = *device.ops;
  ops->matmul = broken_matmul;
  device.ops = ops, device.isa = isa;
  return device;
}

static qd_isa proven(qd_isa isa, qd_isa broken_unit, qd_arithmetic arithmetic) {
  qd_ops ops;
  qd_device device = open_broken(isa, &ops);
  broken = broken_unit;
  OK(qd_device_use_arithmetic(&device, arithmetic));
  qd_isa left = device.isa;
  cr_expect_eq(device.unit_refused, left != isa);
  qd_device_close(&device);
  return left;
}

Test(unit_proof, a_unit_that_sums_otherwise_is_left_out) {
  qd_log_level_set(QD_LOG_QUIET);
  for (wrong_element = 0; wrong_element < 2000; wrong_element += 211) {
    cr_expect_eq(proven(QD_ISA_AMX, QD_ISA_AMX, QD_ARITHMETIC_BF16_AMX), QD_ISA_AVX512_BF16);
    cr_expect_eq(proven(QD_ISA_AVX512_BF16, QD_ISA_AVX512_BF16, QD_ARITHMETIC_BF16_PAIRS), QD_ISA_AVX512_VNNI);
    cr_expect_eq(proven(QD_ISA_AMX, QD_ISA_AMX, QD_ARITHMETIC_BF16_PAIRS), QD_ISA_AVX512_VNNI);
  }
}

Test(unit_proof, the_log_says_what_is_left_out) {
  qd_temporary_folder folder;
  char text[1024] = {0};
  qd_temporary_folder_open(&folder);
  const char *path = qd_temporary_path(&folder, "log");
  qd_log_level_set(QD_LOG_QUIET);
  OK(qd_log_open(path));
  cr_expect_eq(proven(QD_ISA_AMX, QD_ISA_AMX, QD_ARITHMETIC_BF16_AMX), QD_ISA_AVX512_BF16);
  qd_log_close();
  FILE *file = fopen(path, "r");
  cr_assert(file != NULL && fread(text, 1, sizeof text - 1, file) > 0 && fclose(file) == 0);
  cr_expect(strstr(text, "warning: ") && strstr(text, "amx") && strstr(text, "bf16-amx"), "%s", text);
  qd_temporary_folder_close(&folder);
}

Test(unit_proof, a_unit_that_is_right_or_not_asked_stays) {
  cr_expect_eq(proven(QD_ISA_AMX, QD_ISA_PORTABLE, QD_ARITHMETIC_BF16_AMX), QD_ISA_AMX);
  cr_expect_eq(proven(QD_ISA_AVX512_BF16, QD_ISA_PORTABLE, QD_ARITHMETIC_BF16_PAIRS), QD_ISA_AVX512_BF16);
  cr_expect_eq(proven(QD_ISA_AMX, QD_ISA_AMX, QD_ARITHMETIC_F32), QD_ISA_AMX, "fp32 does not ask for it");
  cr_expect_eq(proven(QD_ISA_AVX512_BF16, QD_ISA_AVX512_BF16, QD_ARITHMETIC_BF16_AMX), QD_ISA_AVX512_BF16,
               "emulation does not take its product of pairs");
  cr_expect_eq(proven(QD_ISA_AVX2, QD_ISA_AVX2, QD_ARITHMETIC_BF16_PAIRS), QD_ISA_AVX2, "it has no instruction of its own");
}

/* Not a failure of ours: the emulation takes its place, with the same bits (test_gemm_cpu.c compares whatever is used). */
Test(unit_proof, the_tile_unit_of_this_machine) {
  if (qd_isa_best() < QD_ISA_AMX) cr_skip_test("SKIPPED: this machine has no AMX, its kernel ran on a model only");
  qd_device device = open_device("cpu", "amx", 1);
  OK(qd_device_use_arithmetic(&device, QD_ARITHMETIC_BF16_AMX));
  bool is_taken = device.isa == QD_ISA_AMX;
  qd_device_close(&device);
  if (!is_taken) cr_skip_test("SKIPPED: this machine's AMX does not sum as its manual says; it is left out");
}
