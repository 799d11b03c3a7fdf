#include "tests/kernels/forward_support.h"

static const qd_dtype acts[] = {QD_F32, QD_BF16};

Test(elementwise, embed_copies_rows, .fini = free_blocks) {
  int32_t ids[] = {6, 0, 3, 3, 6};
  for (int a = 0; a < 2; a++) {
    qd_tensor table = random_matrix(acts[a], 7, 19, 2, 1), start = random_matrix(acts[a], 5, 19, 1, 1), wanted = copy(start);
    qd_device ref = open_named("ref"), device;
    OK(qd_embed(&ref, table, qd_tensor_1d(ids, QD_I32, 5), wanted));
    for (int64_t t = 0; t < 5; t++)
      for (int64_t c = 0; c < 19; c++)
        cr_assert_eq(get(wanted, t * wanted.stride[0] + c), get(table, ids[t] * table.stride[0] + c));
    for (int k = 0; open_cpu(&device, k); k++) {
      qd_tensor got = copy(start);
      OK(qd_embed(&device, table, qd_tensor_1d(ids, QD_I32, 5), got));
      cr_assert(same_bits(got, wanted));
      qd_device_close(&device);
    }
    qd_device_close(&ref);
  }
}

Test(elementwise, embed_refuses_unknown_ids, .fini = free_blocks) {
  qd_device device = open_named("cpu");
  qd_tensor table = random_matrix(QD_F32, 7, 3, 0, 1), y = random_matrix(QD_F32, 2, 3, 0, 1);
  REFUSED(QD_EBADINPUT, qd_embed(&device, table, qd_tensor_1d((int32_t[]){0, 7}, QD_I32, 2), y));
  cr_assert_str_eq(qd_error_text(), "embed: the id at 1 is 7, expected 0 to 6");
  REFUSED(QD_EBADINPUT, qd_embed(&device, table, qd_tensor_1d((int32_t[]){-1, 1}, QD_I32, 2), y));
  REFUSED(QD_ESHAPE, qd_embed(&device, table, qd_tensor_1d((int32_t[]){1}, QD_I32, 1), y));
  REFUSED(QD_EDTYPE, qd_embed(&device, table, qd_tensor_1d((int32_t[]){0, 0, 0, 0}, QD_I64, 2), y));
  REFUSED(QD_EDTYPE, qd_embed(&device, table, qd_tensor_1d((int32_t[]){0, 1}, QD_I32, 2), copy_as(y, QD_BF16)));
  qd_device_close(&device);
}

Test(elementwise, swiglu_and_add_give_the_values_of_a_hand_calculation) {
  float gate[] = {0, 1, -1, 50, -200}, up[] = {3, 2, 2, 2, 2}, y[5];
  qd_tensor g = qd_tensor_2d(gate, QD_F32, 1, 5), u = qd_tensor_2d(up, QD_F32, 1, 5), out = qd_tensor_2d(y, QD_F32, 1, 5);
  qd_device device;
  for (int k = 0; open_any(&device, k); k++) {
    OK(qd_swiglu(&device, g, u, out));
    cr_assert_eq(y[0], 0);
    cr_assert_float_eq(y[1], 2 / (1 + exp(-1)), 3e-7);
    cr_assert_float_eq(y[2], -2 / (1 + exp(1)), 3e-7);
    cr_assert_eq(y[3], 100);
    cr_assert_eq(y[4], 0); /* exp(200) is infinite in fp32 */
    OK(qd_add(&device, g, u, out));
    cr_assert_arr_eq(y, ((float[]){3, 3, 1, 52, -198}), sizeof y);
    qd_device_close(&device);
  }
}

/* Where y lies: apart, over the first operand, over the second. */
typedef qd_status (*binary)(qd_device *, qd_tensor, qd_tensor, qd_tensor);

static void compare_cpu(binary op, qd_dtype dtype, int64_t rows, int64_t columns) {
  qd_tensor a = random_matrix(dtype, rows, columns, 3, 20), b = random_matrix(dtype, rows, columns, 3, 2), wanted = copy(a);
  qd_device ref = open_named("ref"), device;
  OK(op(&ref, a, b, wanted));
  for (int k = 0; open_cpu(&device, k); k++) {
    qd_tensor got = copy(a), over_a = copy(a), over_b = copy(b);
    OK(op(&device, a, b, got));
    OK(op(&device, over_a, b, over_a));
    OK(op(&device, a, over_b, over_b));
    cr_assert(same_bits(got, wanted), "%s, %s, %" PRId64, qd_isa_name(device.isa), qd_dtype_name(dtype), columns);
    cr_assert(same_bits(over_a, wanted));
    for (int64_t t = 0; t < rows; t++)
      for (int64_t c = 0; c < columns; c++)
        cr_assert_eq(get(over_b, t * over_b.stride[0] + c), get(wanted, t * wanted.stride[0] + c));
    qd_device_close(&device);
  }
  qd_device_close(&ref);
  free_blocks();
}

Test(elementwise, cpu_equals_ref) {
  const int64_t sizes[] = {0, 1, 15, 33, 256, 700};
  for (int s = 0; s < 6; s++)
    for (int a = 0; a < 2; a++)
      for (int64_t rows = 0; rows < 4; rows++) {
        compare_cpu(qd_swiglu, acts[a], rows, sizes[s]);
        compare_cpu(qd_add, acts[a], rows, sizes[s]);
      }
}

/* exp, the sum, the division and the product round. */
Test(elementwise, ref_is_near_double, .fini = free_blocks) {
  qd_tensor a = random_matrix(QD_F32, 9, 300, 0, 30), b = random_matrix(QD_F32, 9, 300, 0, 2), y = copy(a);
  qd_tensor y64 = copy_as(y, QD_F64);
  qd_device ref = open_named("ref"), ref64 = open_named("ref64");
  OK(qd_swiglu(&ref, a, b, y));
  OK(qd_swiglu(&ref64, copy_as(a, QD_F64), copy_as(b, QD_F64), y64));
  for (int64_t i = 0; i < extent(y); i++) cr_assert_leq(fabs(get(y, i) - get(y64, i)), 5 * 0x1p-24 * fabs(get(y64, i)));
  qd_device_close(&ref);
  qd_device_close(&ref64);
}

Test(elementwise, bf16_rounds_to_nearest_even) {
  uint16_t a[] = {0x3f80, 0x3f81}, b[] = {0x3b80, 0x3b80}, y[2]; /* half a step beside an even and an odd number */
  qd_device device;
  for (int k = 0; open_any(&device, k); k++) {
    OK(qd_add(&device, qd_tensor_2d(a, QD_BF16, 1, 2), qd_tensor_2d(b, QD_BF16, 1, 2), qd_tensor_2d(y, QD_BF16, 1, 2)));
    cr_assert_eq(y[0], 0x3f80);
    cr_assert_eq(y[1], 0x3f82);
    qd_device_close(&device);
  }
}

Test(elementwise, gather_columns_follows_the_order, .fini = free_blocks) {
  enum { N = 41 };
  int32_t order[N];
  for (int p = 0; p < N; p++) order[p] = (p * 17 + 5) % N;
  for (int a = 0; a < 2; a++) {
    qd_tensor x = random_matrix(acts[a], 6, N, 2, 1), start = random_matrix(acts[a], 6, N, 1, 1), wanted = copy(start);
    qd_device ref = open_named("ref"), device;
    OK(qd_gather_columns(&ref, x, qd_tensor_1d(order, QD_I32, N), wanted));
    cr_assert_eq(get(wanted, 5 * wanted.stride[0] + 7), get(x, 5 * x.stride[0] + order[7]));
    for (int k = 0; open_cpu(&device, k); k++) {
      qd_tensor got = copy(start);
      OK(qd_gather_columns(&device, x, qd_tensor_1d(order, QD_I32, N), got));
      cr_assert(same_bits(got, wanted));
      qd_device_close(&device);
    }
    order[0] = N;
    REFUSED(QD_EBADINPUT, qd_gather_columns(&ref, x, qd_tensor_1d(order, QD_I32, N), wanted));
    order[0] = 5;
    qd_device_close(&ref);
  }
}

static void put_bits(qd_tensor x, int64_t i, uint32_t bits) {
  if (x.dtype == QD_F32) memcpy((float *)x.data + i, &bits, sizeof bits);
  else ((uint16_t *)x.data)[i] = (uint16_t)(bits >> 16);
}

static int64_t found(qd_device *device, qd_tensor x) {
  int64_t index = -2;
  OK(qd_find_nonfinite(device, x, &index));
  return index;
}

Test(elementwise, find_nonfinite_tells_the_first, .fini = free_blocks) {
  const qd_dtype dtypes[] = {QD_F32, QD_BF16, QD_F16};
  enum { N = 200003 };
  qd_device ref = open_named("ref"), device;
  for (int d = 0; d < 3; d++) {
    qd_tensor x = qd_tensor_1d(new_block(N, qd_dtype_bytes(dtypes[d])), dtypes[d], N);
    const uint32_t wrong[] = {dtypes[d] == QD_F16 ? 0xfc000000u : 0xff800000u, dtypes[d] == QD_F16 ? 0x7e000000u : 0x7fc00000u};
    put_bits(x, 17, dtypes[d] == QD_F16 ? 0x7bff0000u : 0x7f7fffffu); /* the largest number */
    cr_assert_eq(found(&ref, x), -1);
    for (int k = 0; open_cpu(&device, k); k++) {
      cr_assert_eq(found(&device, x), -1);
      qd_device_close(&device);
    }
    const int64_t places[] = {N - 1, 131072, 65535, 300, 255, 0};
    for (int p = 0; p < 6; p++) {
      put_bits(x, places[p], wrong[p % 2]);
      cr_assert_eq(found(&ref, x), places[p]);
      for (int k = 0; open_cpu(&device, k); k++) {
        cr_assert_eq(found(&device, x), places[p], "%s, %s", qd_isa_name(device.isa), qd_dtype_name(dtypes[d]));
        qd_device_close(&device);
      }
    }
    x.dim[0] = 0;
    cr_assert_eq(found(&ref, x), -1);
  }
  int64_t index;
  REFUSED(QD_EDTYPE, qd_find_nonfinite(&ref, qd_tensor_1d(&index, QD_I64, 1), &index));
  REFUSED(QD_ESHAPE, qd_find_nonfinite(&ref, random_matrix(QD_F32, 2, 3, 1, 1), &index));
  qd_device_close(&ref);
}

Test(elementwise, refuses_what_does_not_fit, .fini = free_blocks) {
  qd_device device = open_named("cpu");
  qd_tensor x = random_matrix(QD_F32, 2, 4, 0, 1), other = random_matrix(QD_F32, 2, 5, 0, 1), narrow = copy_as(x, QD_BF16);
  REFUSED(QD_ESHAPE, qd_add(&device, x, other, x));
  REFUSED(QD_ESHAPE, qd_swiglu(&device, x, x, other));
  REFUSED(QD_EDTYPE, qd_add(&device, x, x, narrow));
  REFUSED(QD_EDTYPE, qd_swiglu(&device, narrow, x, x));
  REFUSED(QD_ESHAPE, qd_add(&device, qd_tensor_1d(x.data, QD_F32, 8), x, x));
  REFUSED(QD_ESHAPE, qd_gather_columns(&device, x, qd_tensor_1d((int32_t[]){0}, QD_I32, 1), x));
  qd_device_close(&device);
}
