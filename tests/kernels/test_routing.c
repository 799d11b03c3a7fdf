#include "tests/kernels/forward_support.h"

typedef struct routed {
  qd_tensor index, weight;
} routed;

static routed route(qd_device *device, qd_tensor logits, int64_t k, bool renormalise, qd_dtype weights) {
  int64_t tokens = logits.dim[0];
  routed r = {qd_tensor_2d(new_block((size_t)(tokens * (k + 1)), sizeof(int32_t)), QD_I32, tokens, k),
              qd_tensor_2d(new_block((size_t)(tokens * (k + 1)), 8), logits.dtype, tokens, k)};
  r.index.stride[0] = r.weight.stride[0] = k + 1;
  qd_route_args args = {logits, r.index, r.weight, renormalise, weights};
  OK(qd_route(device, &args));
  return r;
}

static int32_t index_at(routed r, int64_t t, int64_t i) { return ((const int32_t *)r.index.data)[t * r.index.stride[0] + i]; }
static double weight_at(routed r, int64_t t, int64_t i) { return get(r.weight, t * r.weight.stride[0] + i); }

Test(routing, route_gives_the_values_of_a_hand_calculation, .fini = free_blocks) {
  float logits[] = {1, 3, 2, 0, 3, 3, 3, 3};
  qd_device device;
  for (int k = 0; open_any(&device, k); k++) {
    qd_tensor x = qd_tensor_2d(logits, QD_F32, 2, 4);
    routed r = route(&device, x, 2, false, QD_F32);
    double sum = exp(-2) + 1 + exp(-1) + exp(-3);
    cr_assert(index_at(r, 0, 0) == 1 && index_at(r, 0, 1) == 2);
    cr_assert_float_eq(weight_at(r, 0, 0), 1 / sum, 1e-7);
    cr_assert_float_eq(weight_at(r, 0, 1), exp(-1) / sum, 1e-7);
    cr_assert(index_at(r, 1, 0) == 0 && index_at(r, 1, 1) == 1, "of equals the lower index");
    r = route(&device, x, 2, true, QD_F32);
    cr_assert_float_eq(weight_at(r, 0, 0), 1 / (1 + exp(-1)), 1e-7);
    cr_assert_eq(weight_at(r, 1, 1), 0.5);
    r = route(&device, x, 3, true, QD_BF16);
    cr_assert_arr_eq(((int32_t[]){index_at(r, 0, 0), index_at(r, 0, 1), index_at(r, 0, 2)}), ((int32_t[]){0, 1, 2}), 12);
    cr_assert_eq(weight_at(r, 1, 0), (double)qd_round_bf16(1.0f / 3));
    r = route(&device, qd_tensor_2d(logits, QD_F32, 8, 1), 1, false, QD_F32);
    for (int t = 0; t < 8; t++) cr_assert(index_at(r, t, 0) == 0 && weight_at(r, t, 0) == 1);
    qd_device_close(&device);
  }
}

/* Experts, chosen: odd and even, one register and more, all of them. */
Test(routing, route_is_near_double_and_cpu_equals_ref, .fini = free_blocks) {
  static const int64_t sizes[][2] = {{1, 1}, {2, 1}, {5, 3}, {16, 2}, {17, 17}, {60, 4}, {128, 8}, {257, 9}, {4096, 5}};
  qd_device ref = open_named("ref"), ref64 = open_named("ref64"), device;
  for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++)
    for (int renormalise = 0; renormalise < 2; renormalise++) {
      qd_dtype weights = s % 2 ? QD_BF16 : QD_F32;
      qd_tensor logits = random_matrix(QD_F32, 7, sizes[s][0], 3, 5);
      if (sizes[s][0] > 2) set(logits, 1, get(logits, 0)), set(logits, 2, get(logits, 0)); /* ties */
      routed wanted = route(&ref, logits, sizes[s][1], renormalise, weights);
      routed exact = route(&ref64, copy_as(logits, QD_F64), sizes[s][1], renormalise, weights);
      cr_assert(same_bits(wanted.index, exact.index));
      for (int64_t t = 0; t < 7; t++)
        for (int64_t i = 0; i < sizes[s][1]; i++)
          cr_assert_float_eq(weight_at(wanted, t, i), weight_at(exact, t, i), weights == QD_BF16 ? 4e-3 : 1e-6);
      for (int k = 0; open_cpu(&device, k); k++) {
        routed got = route(&device, logits, sizes[s][1], renormalise, weights);
        cr_assert(same_bits(got.index, wanted.index), "%s, %" PRId64, qd_isa_name(device.isa), sizes[s][0]);
        cr_assert(same_bits(got.weight, wanted.weight), "%s, %" PRId64, qd_isa_name(device.isa), sizes[s][0]);
        qd_device_close(&device);
      }
    }
  qd_device_close(&ref);
  qd_device_close(&ref64);
}

/* A NaN names some experts all the same: nothing outside is ever chosen. */
Test(routing, route_survives_what_is_no_number, .fini = free_blocks) {
  qd_tensor logits = random_matrix(QD_F32, 3, 9, 0, 1);
  qd_device ref = open_named("ref"), device;
  set(logits, 4, NAN), set(logits, 9 + 2, INFINITY), set(logits, 18, -INFINITY);
  routed wanted = route(&ref, logits, 4, true, QD_F32);
  for (int64_t i = 0; i < 12; i++)
    cr_assert(index_at(wanted, i / 4, i % 4) >= 0 && index_at(wanted, i / 4, i % 4) < 9 &&
              (i % 4 == 0 || index_at(wanted, i / 4, i % 4 - 1) < index_at(wanted, i / 4, i % 4)));
  for (int k = 0; open_cpu(&device, k); k++) {
    cr_assert(same_bits(route(&device, logits, 4, true, QD_F32).index, wanted.index));
    qd_device_close(&device);
  }
  qd_device_close(&ref);
}

Test(routing, scatter_add_adds_to_the_named_rows_only, .fini = free_blocks) {
  int32_t rows[] = {0, 2, 5};
  static const qd_dtype acts[] = {QD_F32, QD_BF16};
  for (int a = 0; a < 2; a++)
    for (int named = 0; named < 2; named++) {
      qd_tensor x = random_matrix(acts[a], named ? 6 : 3, 301, 2, 4), y = random_matrix(acts[a], 3, 301, 1, 4);
      qd_tensor index = named ? qd_tensor_1d(rows, QD_I32, 3) : (qd_tensor){0};
      qd_tensor weight = qd_tensor_1d(new_block(3, 4), named ? QD_F32 : acts[a], 3), wanted = copy(x);
      qd_device ref = open_named("ref"), device;
      for (int64_t n = 0; n < 3; n++) set(weight, n, 0.3 + (double)n);
      OK(qd_scatter_add(&ref, y, weight, index, wanted));
      for (int64_t r = 0; r < x.dim[0]; r++)
        for (int64_t c = 0; c < 301; c++) {
          int64_t at = r * x.stride[0] + c, n = !named ? r : r == 0 ? 0 : r == 2 ? 1 : r == 5 ? 2 : -1;
          float added = n < 0 ? 0 : fmaf((float)get(weight, n), (float)get(y, n * y.stride[0] + c), (float)get(x, at));
          double value = n < 0 ? get(x, at) : acts[a] == QD_BF16 ? (double)qd_round_bf16(added) : (double)added;
          cr_assert_eq(get(wanted, at), value);
        }
      for (int k = 0; open_cpu(&device, k); k++) {
        qd_tensor got = copy(x);
        OK(qd_scatter_add(&device, y, weight, index, got));
        cr_assert(same_bits(got, wanted), "%s", qd_isa_name(device.isa));
        qd_device_close(&device);
      }
      qd_device_close(&ref);
    }
}

Test(routing, sigmoid_is_near_double_and_cpu_equals_ref, .fini = free_blocks) {
  enum { N = 601 };
  qd_tensor x = qd_tensor_1d(random_matrix(QD_F32, 1, N, 0, 20).data, QD_F32, N);
  qd_device ref = open_named("ref"), device;
  set(x, 0, 0), set(x, 1, -300), set(x, 2, 300);
  for (int a = 0; a < 2; a++) {
    qd_tensor wanted = qd_tensor_1d(new_block(N, 4), a ? QD_BF16 : QD_F32, N), got = wanted;
    OK(qd_sigmoid(&ref, x, wanted));
    cr_assert(get(wanted, 0) == 0.5 && get(wanted, 1) == 0 && get(wanted, 2) == 1);
    for (int64_t i = 0; i < N; i++) cr_assert_float_eq(get(wanted, i), 1 / (1 + exp(-get(x, i))), a ? 2e-3 : 2e-7);
    got.data = new_block(N, 4);
    for (int k = 0; open_cpu(&device, k); k++) {
      OK(qd_sigmoid(&device, x, got));
      cr_assert(same_bits(got, wanted), "%s", qd_isa_name(device.isa));
      qd_device_close(&device);
    }
  }
  qd_device_close(&ref);
}

Test(routing, unfit_and_empty_input, .fini = free_blocks) {
  qd_device device = open_named("cpu");
  qd_tensor logits = random_matrix(QD_F32, 2, 3, 0, 1), weight = random_matrix(QD_F32, 2, 2, 0, 1);
  qd_tensor index = qd_tensor_2d(new_block(8, 4), QD_I32, 2, 2), x = random_matrix(QD_BF16, 4, 5, 0, 1);
  qd_tensor y = qd_tensor_rows(x, 0, 2), weights = qd_tensor_1d(weight.data, QD_F32, 2);
  qd_route_args fine = {logits, index, weight, true, QD_F32}, wrong = fine;
  OK(qd_route(&device, &fine));
  wrong.index = qd_tensor_2d(index.data, QD_I32, 2, 4);
  REFUSED(QD_ESHAPE, qd_route(&device, &wrong));
  wrong = fine, wrong.weight = random_matrix(QD_F32, 2, 1, 0, 1);
  REFUSED(QD_ESHAPE, qd_route(&device, &wrong));
  wrong = fine, wrong.logits = copy_as(logits, QD_BF16);
  REFUSED(QD_EDTYPE, qd_route(&device, &wrong));
  wrong = fine, wrong.weights = QD_F16;
  REFUSED(QD_EDTYPE, qd_route(&device, &wrong));
  fine.logits.dim[0] = fine.index.dim[0] = fine.weight.dim[0] = 0;
  OK(qd_route(&device, &fine));
  REFUSED(QD_EBADINPUT, qd_scatter_add(&device, y, weights, qd_tensor_1d((int32_t[]){2, 2}, QD_I32, 2), x));
  REFUSED(QD_EBADINPUT, qd_scatter_add(&device, y, weights, qd_tensor_1d((int32_t[]){2, 1}, QD_I32, 2), x));
  REFUSED(QD_EBADINPUT, qd_scatter_add(&device, y, weights, qd_tensor_1d((int32_t[]){2, 4}, QD_I32, 2), x));
  REFUSED(QD_ESHAPE, qd_scatter_add(&device, y, weights, (qd_tensor){0}, x));
  REFUSED(QD_EDTYPE, qd_scatter_add(&device, copy_as(y, QD_F32), weights, qd_tensor_1d((int32_t[]){0, 1}, QD_I32, 2), x));
  REFUSED(QD_EDTYPE, qd_sigmoid(&device, qd_tensor_1d(x.data, QD_BF16, 2), weights));
  REFUSED(QD_ESHAPE, qd_sigmoid(&device, weights, qd_tensor_1d(x.data, QD_BF16, 3)));
  qd_device_close(&device);
}
