#include "tests/kernels/forward_support.h"

static qd_tensor frequencies(int64_t half) {
  double *f = new_block((size_t)half, sizeof *f);
  for (int64_t i = 0; i < half; i++) f[i] = pow(10000, -(double)i / (double)half);
  return qd_tensor_1d(f, QD_F64, half);
}

Test(rope, table_holds_cosines_and_sines, .fini = free_blocks) {
  const int64_t first[] = {0, 5, 131000, 1048000};
  qd_device device = open_named("cpu");
  qd_tensor f = frequencies(37), cosine = random_matrix(QD_F32, 9, 37, 2, 1), sine = random_matrix(QD_F32, 9, 37, 4, 1);
  for (int n = 0; n < 4; n++) {
    OK(qd_rope_table(&device, f, first[n], 1.25, cosine, sine));
    for (int64_t t = 0; t < 9; t++)
      for (int64_t i = 0; i < 37; i++) {
        long double angle = (double)(first[n] + t) * ((const double *)f.data)[i];
        cr_assert_eq(((float *)cosine.data)[t * cosine.stride[0] + i], (float)(1.25L * cosl(angle)));
        cr_assert_eq(((float *)sine.data)[t * sine.stride[0] + i], (float)(1.25L * sinl(angle)));
      }
  }
  qd_device_close(&device);
}

Test(rope, table_of_cpu_equals_ref, .fini = free_blocks) {
  qd_device ref = open_named("ref"), device;
  for (int64_t half = 1; half < 70; half += 17) {
    qd_tensor f = frequencies(half), cosine = random_matrix(QD_F32, 5, half, 1, 1), sine = copy(cosine);
    qd_tensor c = copy(cosine), s = copy(cosine);
    OK(qd_rope_table(&ref, f, 1000, 1.5, cosine, sine));
    for (int k = 0; open_cpu(&device, k); k++) {
      OK(qd_rope_table(&device, f, 1000, 1.5, c, s));
      cr_assert(same_bits(c, cosine) && same_bits(s, sine));
      qd_device_close(&device);
    }
  }
  qd_device_close(&ref);
}

Test(rope, rotates_the_halves_against_each_other, .fini = free_blocks) {
  float x[] = {1, 2, 3, 4}, cosine[] = {0, 1}, sine[] = {1, 0};
  qd_device device;
  for (int k = 0; open_any(&device, k); k++) {
    memcpy(x, (float[]){1, 2, 3, 4}, sizeof x);
    OK(qd_rope(&device, qd_tensor_3d(x, QD_F32, 1, 1, 4), qd_tensor_2d(cosine, QD_F32, 1, 2),
               qd_tensor_2d(sine, QD_F32, 1, 2)));
    cr_assert_eq(x[0], -3); /* (1, 3) by a quarter turn */
    cr_assert_eq(x[2], 1);
    cr_assert_eq(x[1], 2);
    cr_assert_eq(x[3], 4);
    qd_device_close(&device);
  }
}

static void compare_cpu(qd_dtype dtype, int64_t tokens, int64_t heads, int64_t size) {
  qd_tensor x = random_heads(dtype, tokens, heads, size, 5), wanted = copy(x);
  qd_tensor cosine = random_matrix(QD_F32, tokens, size / 2, 2, 1), sine = random_matrix(QD_F32, tokens, size / 2, 3, 1);
  qd_device ref = open_named("ref"), device;
  OK(qd_rope(&ref, wanted, cosine, sine));
  for (int k = 0; open_cpu(&device, k); k++) {
    qd_tensor got = copy(x);
    OK(qd_rope(&device, got, cosine, sine));
    cr_assert(same_bits(got, wanted), "%s, %s, size %" PRId64, qd_isa_name(device.isa), qd_dtype_name(dtype), size);
    qd_device_close(&device);
  }
  qd_device_close(&ref);
  free_blocks();
}

Test(rope, cpu_equals_ref) {
  const int64_t sizes[] = {2, 6, 34, 64, 130, 1030};
  for (int s = 0; s < 6; s++) {
    compare_cpu(QD_F32, 5, 3, sizes[s]);
    compare_cpu(QD_BF16, 4, 1, sizes[s]);
  }
  compare_cpu(QD_F32, 0, 3, 8);
}

/* One rounding of a product, one of the sum. */
Test(rope, ref_is_near_double, .fini = free_blocks) {
  qd_tensor x = random_heads(QD_F32, 6, 2, 62, 0), x64 = copy_as(x, QD_F64);
  qd_tensor cosine = random_matrix(QD_F32, 6, 31, 0, 1), sine = random_matrix(QD_F32, 6, 31, 0, 1);
  qd_device ref = open_named("ref"), ref64 = open_named("ref64");
  OK(qd_rope(&ref, x, cosine, sine));
  OK(qd_rope(&ref64, x64, copy_as(cosine, QD_F64), copy_as(sine, QD_F64)));
  for (int64_t i = 0; i < extent(x); i++) cr_assert_float_eq(get(x, i), get(x64, i), 1.5 * 0x1p-23);
  qd_device_close(&ref);
  qd_device_close(&ref64);
}

Test(rope, refuses_what_does_not_fit, .fini = free_blocks) {
  qd_device device = open_named("cpu");
  qd_tensor x = random_heads(QD_F32, 3, 2, 8, 0), t = random_matrix(QD_F32, 3, 4, 0, 1);
  REFUSED(QD_ESHAPE, qd_rope(&device, x, t, qd_tensor_rows(t, 0, 2)));
  REFUSED(QD_ESHAPE, qd_rope(&device, x, qd_tensor_columns(t, 0, 3), t));
  qd_tensor narrow = qd_tensor_columns(t, 0, 3);
  REFUSED(QD_ESHAPE, qd_rope(&device, random_heads(QD_F32, 3, 2, 7, 0), narrow, narrow));
  REFUSED(QD_EDTYPE, qd_rope(&device, x, copy_as(t, QD_F64), t));
  REFUSED(QD_EDTYPE, qd_rope_table(&device, qd_tensor_1d(t.data, QD_F32, 4), 0, 1, t, t));
  REFUSED(QD_ESHAPE, qd_rope_table(&device, frequencies(3), 0, 1, t, t));
  qd_device_close(&device);
}
