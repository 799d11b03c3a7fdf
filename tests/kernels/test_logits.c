#include "tests/kernels/forward_support.h"

static const int64_t sizes[] = {1, 2, 15, 16, 17, 300, 4096, 4097, 9001};
enum { N_SIZES = sizeof sizes / sizeof sizes[0], ROWS = 4 };

static double log_softmax(const float *x, int64_t n, int64_t index) {
  long double sum = 0, top = x[0];
  for (int64_t v = 1; v < n; v++) top = x[v] > top ? x[v] : top;
  for (int64_t v = 0; v < n; v++) sum += expl(x[v] - top);
  return (double)(x[index] - top - logl(sum));
}

Test(logits, nll_gives_the_values_of_a_hand_calculation) {
  float logits[] = {0, 0, 0, 0, 1, 2, 3, 4, 1000, 0, 0, 0};
  int32_t target[] = {2, 0, -1};
  double nll[3];
  qd_device device;
  for (int k = 0; open_any(&device, k); k++) {
    OK(qd_nll(&device, qd_tensor_2d(logits, QD_F32, 3, 4), qd_tensor_1d(target, QD_I32, 3), qd_tensor_1d(nll, QD_F64, 3)));
    cr_assert_float_eq(nll[0], log(4), 1e-15);
    cr_assert_float_eq(nll[1], log(1 + exp(1) + exp(2) + exp(3)), 1e-7);
    cr_assert_eq(nll[2], 0);
    qd_device_close(&device);
  }
}

/* exp and the lanes round in fp32: about 2^-23 of the sum. */
Test(logits, nll_is_near_double_and_cpu_equals_ref, .fini = free_blocks) {
  qd_device ref = open_named("ref"), ref64 = open_named("ref64"), device;
  for (int s = 0; s < N_SIZES; s++) {
    qd_tensor logits = random_matrix(QD_F32, ROWS, sizes[s], 7, 10);
    int32_t target[ROWS] = {0, (int32_t)(sizes[s] - 1), -1, (int32_t)(sizes[s] / 2)};
    double wanted[ROWS], wanted64[ROWS], got[ROWS];
    qd_tensor targets = qd_tensor_1d(target, QD_I32, ROWS);
    OK(qd_nll(&ref, logits, targets, qd_tensor_1d(wanted, QD_F64, ROWS)));
    OK(qd_nll(&ref64, copy_as(logits, QD_F64), targets, qd_tensor_1d(wanted64, QD_F64, ROWS)));
    for (int t = 0; t < ROWS; t++) {
      double exact = target[t] < 0 ? 0 : -log_softmax((const float *)logits.data + t * logits.stride[0], sizes[s], target[t]);
      cr_assert_float_eq(wanted64[t], exact, 1e-13);
      cr_assert_float_eq(wanted[t], exact, 3e-7);
    }
    for (int k = 0; open_cpu(&device, k); k++) {
      OK(qd_nll(&device, logits, targets, qd_tensor_1d(got, QD_F64, ROWS)));
      cr_assert_arr_eq(got, wanted, sizeof got, "%s, %" PRId64, qd_isa_name(device.isa), sizes[s]);
      qd_device_close(&device);
    }
  }
  qd_device_close(&ref);
  qd_device_close(&ref64);
}

/* Runs added in double keep a long sum near. */
Test(logits, nll_of_a_large_vocabulary_is_near, .fini = free_blocks) {
  enum { V = 2000003 };
  qd_tensor logits = random_matrix(QD_F32, 1, V, 0, 0.1);
  int32_t target = 0;
  double nll, exact = -log_softmax(logits.data, V, target);
  qd_device device;
  for (int k = 0; open_any(&device, k); k++) {
    OK(qd_nll(&device, logits, qd_tensor_1d(&target, QD_I32, 1), qd_tensor_1d(&nll, QD_F64, 1)));
    cr_assert_float_eq(nll, exact, 3e-8, "off by %g", nll - exact);
    qd_device_close(&device);
  }
}

Test(logits, kl_gives_the_values_of_a_hand_calculation) {
  float p[] = {0, 0, 1, 2, 0, -100, 5, 5}, q[] = {logf(3), 0, 1, 2, 0, 0, 3, 4};
  double kl[4];
  int32_t same[4];
  qd_device device;
  for (int k = 0; open_any(&device, k); k++) {
    OK(qd_kl(&device, qd_tensor_2d(p, QD_F32, 4, 2), qd_tensor_2d(q, QD_F32, 4, 2), qd_tensor_1d(kl, QD_F64, 4),
             qd_tensor_1d(same, QD_I32, 4)));
    cr_assert_float_eq(kl[0], 0.5 * log(0.5 / 0.75) + 0.5 * log(0.5 / 0.25), 1e-7);
    cr_assert_eq(kl[1], 0);
    cr_assert_float_eq(kl[2], log(2), 1e-15); /* the second term has log P below -16 */
    cr_assert_arr_eq(same, ((int32_t[]){1, 1, 1, 0}), sizeof same); /* the first of equals */
    qd_device_close(&device);
  }
}

static double exact_kl(const float *p, const float *q, int64_t n) {
  double sum = 0;
  for (int64_t v = 0; v < n; v++) {
    double log_p = log_softmax(p, n, v);
    if (log_p > -16) sum += exp(log_p) * (log_p - log_softmax(q, n, v));
  }
  return sum;
}

Test(logits, kl_is_near_double_and_cpu_equals_ref, .fini = free_blocks) {
  qd_device ref = open_named("ref"), ref64 = open_named("ref64"), device;
  for (int s = 0; s < N_SIZES; s++) {
    qd_tensor p = random_matrix(QD_F32, ROWS, sizes[s], 7, 12), q = random_matrix(QD_F32, ROWS, sizes[s], 1, 12);
    double wanted[ROWS], wanted64[ROWS], got[ROWS];
    int32_t same[ROWS], got_same[ROWS];
    OK(qd_kl(&ref, p, q, qd_tensor_1d(wanted, QD_F64, ROWS), qd_tensor_1d(same, QD_I32, ROWS)));
    OK(qd_kl(&ref64, copy_as(p, QD_F64), copy_as(q, QD_F64), qd_tensor_1d(wanted64, QD_F64, ROWS),
             qd_tensor_1d(got_same, QD_I32, ROWS)));
    cr_assert_arr_eq(got_same, same, sizeof same);
    for (int t = 0; t < ROWS; t++) cr_assert_float_eq(wanted[t], wanted64[t], 1e-13);
    if (sizes[s] <= 300)
      cr_assert_float_eq(wanted[1], exact_kl((float *)p.data + p.stride[0], (float *)q.data + q.stride[0], sizes[s]), 1e-13);
    for (int k = 0; open_cpu(&device, k); k++) {
      OK(qd_kl(&device, p, q, qd_tensor_1d(got, QD_F64, ROWS), qd_tensor_1d(got_same, QD_I32, ROWS)));
      cr_assert_arr_eq(got, wanted, sizeof got, "%s, %" PRId64, qd_isa_name(device.isa), sizes[s]);
      cr_assert_arr_eq(got_same, same, sizeof same);
      qd_device_close(&device);
    }
  }
  qd_device_close(&ref);
  qd_device_close(&ref64);
}

Test(logits, empty_and_unfit_input, .fini = free_blocks) {
  double values[2] = {5, 5};
  int32_t none[2] = {-1, -1}, same[2];
  qd_device device = open_named("cpu");
  qd_tensor x = random_matrix(QD_F32, 2, 4, 0, 1), empty = qd_tensor_2d(NULL, QD_F32, 2, 0);
  qd_tensor out = qd_tensor_1d(values, QD_F64, 2);
  OK(qd_kl(&device, empty, empty, out, qd_tensor_1d(same, QD_I32, 2)));
  cr_assert(values[0] == 0 && values[1] == 0 && same[0] == 1 && same[1] == 1);
  OK(qd_nll(&device, empty, qd_tensor_1d(none, QD_I32, 2), out));
  REFUSED(QD_EBADINPUT, qd_nll(&device, x, qd_tensor_1d((int32_t[]){0, 4}, QD_I32, 2), out));
  REFUSED(QD_EBADINPUT, qd_nll(&device, x, qd_tensor_1d((int32_t[]){-2, 0}, QD_I32, 2), out));
  REFUSED(QD_ESHAPE, qd_nll(&device, x, qd_tensor_1d(none, QD_I32, 1), out));
  REFUSED(QD_EDTYPE, qd_nll(&device, copy_as(x, QD_BF16), qd_tensor_1d(none, QD_I32, 2), out));
  REFUSED(QD_EDTYPE, qd_nll(&device, x, qd_tensor_1d(none, QD_I32, 2), qd_tensor_1d(values, QD_F32, 2)));
  REFUSED(QD_ESHAPE, qd_kl(&device, x, empty, out, qd_tensor_1d(same, QD_I32, 2)));
  REFUSED(QD_EDTYPE, qd_kl(&device, x, x, out, qd_tensor_1d(values, QD_F64, 2)));
  qd_device_close(&device);
}
