#include "kernels/base/tensor.h"

#include <criterion/criterion.h>

static float at(qd_tensor t, int64_t i, int64_t j) { return ((const float *)t.data)[i * t.stride[0] + j * t.stride[1]]; }

static float numbers[24];

static qd_tensor four_by_six(void) {
  for (int i = 0; i < 24; i++) numbers[i] = (float)i;
  return qd_tensor_2d(numbers, QD_F32, 4, 6);
}

Test(tensor, views_share_the_data) {
  qd_tensor t = four_by_six();
  qd_tensor rows = qd_tensor_rows(t, 1, 2), columns = qd_tensor_columns(t, 2, 3), turned = qd_tensor_transposed(t);
  cr_assert_eq(at(rows, 0, 0), 6.0f);
  cr_assert_eq(at(columns, 3, 2), 22.0f);
  cr_assert_eq(at(turned, 5, 1), 11.0f);
  cr_assert_eq(turned.dim[0], 6);
  cr_assert(qd_tensor_is_contiguous(rows));
  cr_assert_not(qd_tensor_is_contiguous(columns));
  cr_assert_not(qd_tensor_is_contiguous(turned));
}

Test(tensor, an_index_drops_the_first_dimension) {
  four_by_six();
  qd_tensor t = qd_tensor_3d(numbers, QD_F32, 2, 3, 4), second = qd_tensor_at(t, 1);
  cr_assert_eq(second.rank, 2);
  cr_assert_eq(at(second, 2, 3), 23.0f);
  cr_assert_eq(qd_tensor_elements(second), 12);
  cr_assert_eq(qd_tensor_bytes(second), 48);
}

Test(tensor, reshaping_keeps_the_order) {
  qd_tensor t = qd_tensor_reshape_2d(four_by_six(), 8, 3);
  cr_assert_eq(at(t, 7, 2), 23.0f);
  cr_assert_eq(at(t, 2, 0), 6.0f);
}

Test(tensor, an_arena_tensor_fits_or_is_refused) {
  qd_arena arena;
  qd_tensor t;
  cr_assert_eq(qd_arena_open(&arena, "test", 4096), QD_OK);
  cr_assert_eq(qd_tensor_new_2d(&arena, QD_BF16, 5, 7, &t), QD_OK);
  cr_assert_eq(t.stride[0], 7);
  cr_assert_eq(qd_tensor_new_2d(&arena, QD_F64, 1000, 1000, &t), QD_ENOMEM);
  qd_arena_close(&arena);
}
