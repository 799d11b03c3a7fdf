#include "tests/kernels/quantized_support.h"

#include <math.h>

static qd_arena arena;

static void open_arena(void) { OK(qd_arena_open(&arena, "test", (size_t)1 << 20)); }
static void close_arena(void) { qd_arena_close(&arena); }

/* 3 bits, 21 columns: 63 bits in 8 bytes, one bit of padding. */
static qd_qtensor valid(void) {
  return random_qtensor(&arena, (qd_scheme){.bits = 3, .group_size = 8, .scale_dtype = QD_F16}, 4, 21, true);
}

static void assert_bad(const qd_qtensor *q, const char *part) {
  FAILS(QD_EBADINPUT, qd_qtensor_check(q));
  cr_assert_not_null(strstr(qd_error_text(), part), "\"%s\" does not name %s", qd_error_text(), part);
}

TestSuite(qtensor, .init = open_arena, .fini = close_arena);

Test(qtensor, new_ones_have_the_shapes_of_their_scheme) {
  qd_qtensor q = valid();
  cr_assert(q.codes.dim[0] == 4 && q.codes.dim[1] == 8 && q.scales.dim[1] == 3 && q.zeros.dim[1] == 3 && q.order.dim[0] == 21);
  OK(qd_qtensor_check(&q));
  q = random_qtensor(&arena, (qd_scheme){.bits = 8, .group_size = QD_PER_CHANNEL, .symmetric = true, .scale_dtype = QD_F32}, 2,
                     5, false);
  cr_assert(q.scales.dim[1] == 1 && q.zeros.rank == 0 && !qd_qtensor_has_order(&q));
  OK(qd_qtensor_check(&q));
  q = random_qtensor(&arena, (qd_scheme){.bits = 4, .group_size = 16, .scale_dtype = QD_F32}, 0, 0, true);
  OK(qd_qtensor_check(&q));
}

Test(qtensor, new_refuses_a_wrong_scheme_and_a_full_arena) {
  qd_qtensor q;
  FAILS(QD_EINVAL, qd_qtensor_new(&arena, (qd_scheme){.bits = 9, .group_size = 8, .scale_dtype = QD_F16}, 1, 1, false, &q));
  FAILS(QD_ENOMEM,
        qd_qtensor_new(&arena, (qd_scheme){.bits = 8, .group_size = 8, .scale_dtype = QD_F16}, 1 << 12, 1 << 12, false, &q));
}

Test(qtensor, rows_are_a_view) {
  qd_qtensor q = valid(), part = qd_qtensor_rows(&q, 1, 2);
  OK(qd_qtensor_check(&part));
  cr_assert(part.rows == 2 && part.columns == 21 && part.codes.data == (uint8_t *)q.codes.data + 8);
  cr_assert(part.scales.data == (uint16_t *)q.scales.data + 3 && part.zeros.data == (uint8_t *)q.zeros.data + 3);
  cr_assert(part.order.data == q.order.data);
}

Test(qtensor, parts_are_those_that_are_there) {
  qd_qtensor q = valid();
  qd_part parts[QD_MAX_PARTS];
  cr_assert_eq(qd_qtensor_parts(&q, parts), 4);
  cr_assert(strcmp(parts[0].name, "codes") == 0 && strcmp(parts[1].name, "scales") == 0 &&
            strcmp(parts[2].name, "zeros") == 0 && strcmp(parts[3].name, "order") == 0 && parts[3].tensor.data == q.order.data);
  q.zeros.rank = q.order.rank = 0;
  cr_assert_eq(qd_qtensor_parts(&q, parts), 2);
}

Test(qtensor, wrong_shapes_and_dtypes_are_found) {
  qd_qtensor q = valid(), bad = q;
  bad.scheme.bits = 9;
  assert_bad(&bad, "scheme");
  bad = q, bad.scheme.bits = 4;
  assert_bad(&bad, "codes");
  bad = q, bad.scheme.group_size = 7;
  cr_assert_eq(qd_scheme_groups(bad.scheme, 21), 3);
  OK(qd_qtensor_check(&bad));
  bad.scheme.group_size = 6;
  assert_bad(&bad, "scales");
  bad = q, bad.rows = 3;
  assert_bad(&bad, "codes");
  bad = q, bad.rows = -1;
  assert_bad(&bad, "shape");
  bad = q, bad.codes.dim[1] = 7;
  assert_bad(&bad, "codes");
  bad = q, bad.codes.data = NULL;
  assert_bad(&bad, "codes");
  bad = q, bad.codes.stride[0] = 9;
  assert_bad(&bad, "contiguous");
  bad = q, bad.scales.dtype = QD_F32;
  assert_bad(&bad, "scales");
  bad = q, bad.zeros.rank = 0;
  assert_bad(&bad, "zeros");
  bad = q, bad.scheme.symmetric = true;
  assert_bad(&bad, "zeros");
  bad = q, bad.zeros.dtype = QD_I32;
  assert_bad(&bad, "zeros");
  bad = q, bad.order.dim[0] = 20;
  assert_bad(&bad, "order");
  bad = q, bad.order.dtype = QD_I64;
  assert_bad(&bad, "order");
}

Test(qtensor, wrong_contents_are_found) {
  qd_qtensor q = valid();
  uint8_t *codes = q.codes.data, *zeros = q.zeros.data;
  uint16_t *scales = q.scales.data;
  int32_t *order = q.order.data, kept = order[20];
  codes[3 * 8 + 7] |= 0x80;
  assert_bad(&q, "row 3");
  codes[3 * 8 + 7] &= 0x7f;
  zeros[3 * 2 + 1] = 8;
  assert_bad(&q, "zero point of row 2, group 1");
  zeros[3 * 2 + 1] = 7;
  scales[4] = 0x7c00;
  assert_bad(&q, "scale of row 1, group 1");
  scales[4] = 0xfe00;
  assert_bad(&q, "scale of row 1, group 1");
  scales[4] = 0;
  order[20] = 21;
  assert_bad(&q, "order");
  order[20] = -1;
  assert_bad(&q, "order");
  order[20] = order[0];
  assert_bad(&q, "twice");
  order[20] = kept;
  OK(qd_qtensor_check(&q));
}

/* ---- SpQR's parts -------------------------------------------------------------------------------------------------------- */

enum { N_OUTLIERS = 5 };

/* 7 rows in runs of 4, 21 columns in groups of 8; outliers (0: 3, 20), (2: 0), (6: 1, 2). */
static qd_qtensor valid_spqr(void) {
  static const int32_t pointer[8] = {0, 2, 2, 3, 3, 3, 3, 5};
  static const uint16_t columns[N_OUTLIERS] = {3, 20, 0, 1, 2};
  qd_scheme scheme = {.bits = 3, .group_size = 8, .scale_dtype = QD_F16, .spqr = true, .scale_bits = 3, .zero_bits = 2,
                      .stat_group = 4};
  qd_qtensor q;
  OK(qd_qtensor_new(&arena, scheme, 7, 21, false, &q));
  q.outlier_columns.dim[0] = q.outlier_values.dim[0] = N_OUTLIERS;
  OK(qd_arena_new(&arena, N_OUTLIERS, sizeof(uint16_t), &q.outlier_columns.data));
  OK(qd_arena_new(&arena, N_OUTLIERS, sizeof(uint16_t), &q.outlier_values.data));
  qd_part parts[QD_MAX_PARTS];
  for (int i = qd_qtensor_parts(&q, parts) - 1; i >= 0; i--) memset(parts[i].tensor.data, 0, qd_tensor_bytes(parts[i].tensor));
  memcpy(q.outlier_rows.data, pointer, sizeof pointer);
  memcpy(q.outlier_columns.data, columns, sizeof columns);
  return q;
}

Test(qtensor, spqr_has_its_parts_and_views_of_runs) {
  qd_qtensor q = valid_spqr();
  OK(qd_qtensor_check(&q));
  cr_expect(q.second.dim[0] == 2 && q.second.dim[1] == 3 && q.second.dim[2] == QD_SECOND && q.scales.rank == 0);
  cr_expect(q.outlier_columns.dtype == QD_U16 && qd_qtensor_shape(q.scheme, 1, 1 << 17, false).outlier_columns.dtype == QD_I32);
  cr_expect_eq(qd_qtensor_part(&q, "second"), &q.second);
  cr_expect_null(qd_qtensor_part(&q, "codebook"));
  qd_qtensor lower = qd_qtensor_rows(&q, 4, 3);
  OK(qd_qtensor_check(&lower));
  cr_expect(lower.second.dim[0] == 1 && lower.outlier_rows.dim[0] == 4 && ((int32_t *)lower.outlier_rows.data)[3] == 5);
}

/* Pointers that are right for some rows of a linear, and leave outliers out in a whole one. */
Test(qtensor, a_whole_linear_has_all_its_outliers) {
  qd_qtensor q = valid_spqr(), lower = qd_qtensor_rows(&q, 4, 3);
  OK(qd_qtensor_check_whole(&q));
  FAILS(QD_EBADINPUT, qd_qtensor_check_whole(&lower));
  int32_t *pointer = q.outlier_rows.data;
  pointer[7] = 4;
  OK(qd_qtensor_check(&q));
  FAILS(QD_EBADINPUT, qd_qtensor_check_whole(&q));
  cr_expect_not_null(strstr(qd_error_text(), "outlier_rows lead from 0 to 4, there are 5"), "%s", qd_error_text());
  pointer[7] = 5, pointer[0] = 1;
  FAILS(QD_EBADINPUT, qd_qtensor_check_whole(&q));
}

Test(qtensor, outliers_that_lead_out_of_bounds_are_found) {
  qd_qtensor q = valid_spqr();
  int32_t *pointer = q.outlier_rows.data;
  uint16_t *column = q.outlier_columns.data, *value = q.outlier_values.data;
  pointer[7] = 6;
  assert_bad(&q, "outlier");
  pointer[7] = 5, pointer[3] = 1;
  assert_bad(&q, "outlier");
  pointer[3] = 3, pointer[0] = -1;
  assert_bad(&q, "outlier");
  pointer[0] = 0, column[1] = 21;
  assert_bad(&q, "outlier");
  column[1] = 3;
  assert_bad(&q, "outlier");
  column[1] = 20, value[4] = 0x7c00; /* infinite */
  assert_bad(&q, "outlier");
  value[4] = 0;
  ((uint16_t *)q.second.data)[5] = 0x7e00; /* a NaN */
  assert_bad(&q, "second");
  ((uint16_t *)q.second.data)[5] = 0;
  q.outlier_columns.dim[0] = 4;
  assert_bad(&q, "outlier_columns");
  q.outlier_columns.dim[0] = N_OUTLIERS;
  ((uint8_t *)q.zero_codes.data)[0] = 0xc0; /* behind the third code of two bits */
  assert_bad(&q, "zero_codes");
}
