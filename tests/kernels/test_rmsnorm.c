#include "tests/kernels/forward_support.h"

static const int64_t sizes[] = {1, 2, 15, 16, 17, 64, 255, 257, 576, 4099};
enum { N_SIZES = sizeof sizes / sizeof sizes[0] };

Test(rmsnorm, gives_the_values_of_a_hand_calculation, .fini = free_blocks) {
  float x[] = {3, 4, -1, 0}, w[] = {1, 2}, y[4];
  qd_tensor xt = qd_tensor_2d(x, QD_F32, 2, 2), yt = qd_tensor_2d(y, QD_F32, 2, 2);
  qd_device device;
  for (int k = 0; open_any(&device, k); k++) {
    OK(qd_rmsnorm(&device, xt, qd_tensor_1d(w, QD_F32, 2), 0.5, yt));
    cr_assert_float_eq(y[0], 3 / sqrt(13), 1e-7); /* (9 + 16) / 2 + 0.5 */
    cr_assert_float_eq(y[1], 8 / sqrt(13), 2e-7);
    cr_assert_float_eq(y[2], -1, 1e-7); /* 1 / 2 + 0.5 */
    cr_assert_eq(y[3], 0);
    qd_device_close(&device);
  }
}

/* bf16 arithmetic rounds twice: after the scaling and after the weight. */
Test(rmsnorm, rounds_before_the_weight, .fini = free_blocks) {
  uint16_t x[] = {qd_bf16_from_f32(1), qd_bf16_from_f32(1.0078125f)}, y[2];
  float w[] = {1.01f, 3.3f};
  float r = (float)(1 / sqrt((1 + 1.0078125 * 1.0078125) / 2));
  qd_device device = open_named("ref");
  OK(qd_rmsnorm(&device, qd_tensor_2d(x, QD_BF16, 1, 2), qd_tensor_1d(w, QD_F32, 2), 0, qd_tensor_2d(y, QD_BF16, 1, 2)));
  cr_assert_eq(y[0], qd_bf16_from_f32(qd_round_bf16(r) * 1.01f));
  cr_assert_eq(y[1], qd_bf16_from_f32(qd_round_bf16(1.0078125f * r) * 3.3f));
  qd_device_close(&device);
}

/* The sum runs in 16 double lanes and a tree, here written once more.  The squares' spread makes every other order differ. */
static float lanes_rsqrt(const float *x, int64_t n) {
  double lane[16] = {0};
  for (int64_t i = 0; i < n; i++) lane[i % 16] = lane[i % 16] + (double)x[i] * (double)x[i];
  double eight[8], four[4];
  for (int l = 0; l < 8; l++) eight[l] = lane[l] + lane[l + 8];
  for (int l = 0; l < 4; l++) four[l] = eight[l] + eight[l + 4];
  return (float)(1 / sqrt(((four[0] + four[2]) + (four[1] + four[3])) / (double)n));
}

Test(rmsnorm, sums_in_double_lanes, .fini = free_blocks) {
  enum { N = 1003 };
  qd_tensor x = random_matrix(QD_F32, 1, N, 0, 1), w = qd_tensor_1d(new_block(N, sizeof(float)), QD_F32, N), y = copy(x);
  for (int i = 0; i < N; i++) ((float *)w.data)[i] = 1;
  qd_device device = open_named("ref");
  for (int repeat = 0; repeat < 50; repeat++) {
    for (int i = 0; i < N; i++) ((float *)x.data)[i] = (float)(random_number() * exp2(30 * random_number()));
    OK(qd_rmsnorm(&device, x, w, 0, y));
    float r = lanes_rsqrt(x.data, N);
    for (int i = 0; i < N; i++) cr_assert_eq(((float *)y.data)[i], ((float *)x.data)[i] * r);
  }
  qd_device_close(&device);
}

static void compare_cpu(qd_dtype dtype, int64_t rows, int64_t columns) {
  qd_tensor x = random_matrix(dtype, rows, columns, 3, 4), w = random_matrix(QD_F32, 1, columns, 0, 2);
  qd_tensor weight = qd_tensor_1d(w.data, QD_F32, columns);
  qd_tensor wanted = random_matrix(dtype, rows, columns, 5, 1), start = copy(wanted);
  qd_device ref = open_named("ref"), device;
  OK(qd_rmsnorm(&ref, x, weight, 1e-5, wanted));
  for (int k = 0; open_cpu(&device, k); k++) {
    qd_tensor got = copy(start), in_place = copy(x);
    OK(qd_rmsnorm(&device, x, weight, 1e-5, got));
    cr_assert(same_bits(got, wanted), "%s, %s, %" PRId64 " columns", qd_isa_name(device.isa), qd_dtype_name(dtype), columns);
    OK(qd_rmsnorm(&device, in_place, weight, 1e-5, in_place));
    for (int64_t t = 0; t < rows; t++)
      for (int64_t c = 0; c < columns; c++)
        cr_assert_eq(get(in_place, t * in_place.stride[0] + c), get(wanted, t * wanted.stride[0] + c));
    qd_device_close(&device);
  }
  qd_device_close(&ref);
  free_blocks();
}

Test(rmsnorm, cpu_equals_ref) {
  for (int s = 0; s < N_SIZES; s++)
    for (int64_t rows = 0; rows < 5; rows += 2) {
      compare_cpu(QD_F32, rows, sizes[s]);
      compare_cpu(QD_BF16, rows + 1, sizes[s]);
    }
}

/* Three roundings in fp32: r, x r, times w. */
Test(rmsnorm, ref_is_within_three_roundings_of_double, .fini = free_blocks) {
  qd_tensor x = random_matrix(QD_F32, 7, 613, 0, 3), w = random_matrix(QD_F32, 1, 613, 0, 1), y = copy(x);
  qd_tensor x64 = copy_as(x, QD_F64), w64 = copy_as(w, QD_F64), y64 = copy(x64);
  qd_device ref = open_named("ref"), ref64 = open_named("ref64");
  OK(qd_rmsnorm(&ref, x, qd_tensor_1d(w.data, QD_F32, 613), 1e-6, y));
  OK(qd_rmsnorm(&ref64, x64, qd_tensor_1d(w64.data, QD_F64, 613), 1e-6, y64));
  for (int64_t i = 0; i < extent(y); i++) cr_assert_leq(fabs(get(y, i) - get(y64, i)), 3.01 * 0x1p-24 * fabs(get(y64, i)));
  qd_device_close(&ref);
  qd_device_close(&ref64);
}

Test(rmsnorm, refuses_what_does_not_fit, .fini = free_blocks) {
  qd_device device = open_named("cpu");
  qd_tensor x = random_matrix(QD_F32, 2, 4, 0, 1), w = qd_tensor_1d(x.data, QD_F32, 4), narrow = copy_as(x, QD_BF16);
  REFUSED(QD_ESHAPE, qd_rmsnorm(&device, x, qd_tensor_1d(x.data, QD_F32, 3), 0, x));
  REFUSED(QD_ESHAPE, qd_rmsnorm(&device, x, w, 0, qd_tensor_rows(x, 0, 1)));
  REFUSED(QD_ESHAPE, qd_rmsnorm(&device, qd_tensor_transposed(x), qd_tensor_1d(x.data, QD_F32, 2), 0, x));
  REFUSED(QD_EDTYPE, qd_rmsnorm(&device, x, w, 0, narrow));
  REFUSED(QD_EDTYPE, qd_rmsnorm(&device, x, qd_tensor_1d(x.data, QD_BF16, 4), 0, x));
  REFUSED(QD_EDTYPE, qd_rmsnorm(&device, qd_tensor_2d(x.data, QD_I32, 2, 4), w, 0, x));
  qd_device_close(&device);
}
