#include "pipeline/method.h"

#include <criterion/criterion.h>

#include <string.h>

#define MUST(call) cr_assert_eq((call), QD_OK, "%s", qd_error_text())

enum { MOST = 16 };

static void expect_order(qd_act_order act_order, int64_t group_size, int n, const float *diagonal, const int32_t *expected) {
  int32_t order[MOST];
  MUST(qd_method_order(act_order, group_size, diagonal, n, order));
  for (int i = 0; i < n; i++)
    cr_expect_eq(order[i], expected[i], "order %d, place %d: column %d instead of %d", act_order, i, order[i], expected[i]);
}

#define LIST(...) ((const int32_t[]){__VA_ARGS__})

Test(method, without_an_order_columns_stay) {
  const float diagonal[] = {1, 5, 3, 0, 5};
  expect_order(QD_ORDER_NONE, 2, 5, diagonal, LIST(0, 1, 2, 3, 4));
  expect_order(QD_ORDER_NONE, QD_PER_CHANNEL, 5, diagonal, LIST(0, 1, 2, 3, 4));
}

Test(method, static_and_dynamic_sort_by_diagonal) {
  const float diagonal[] = {1, 5, 3, 0, 7};
  for (qd_act_order o = QD_ORDER_STATIC; o <= QD_ORDER_DYNAMIC; o++) {
    expect_order(o, 2, 5, diagonal, LIST(4, 1, 2, 0, 3));
    expect_order(o, QD_PER_CHANNEL, 5, diagonal, LIST(4, 1, 2, 0, 3));
  }
}

Test(method, equal_keys_keep_the_lower_column_first) {
  const float diagonal[] = {2, 0, 2, 9, 0, 2, 9, 0}, all[] = {3, 3, 3, 3, 3, 3, 3};
  for (qd_act_order o = QD_ORDER_STATIC; o <= QD_ORDER_DYNAMIC; o++) {
    expect_order(o, 3, 8, diagonal, LIST(3, 6, 0, 2, 5, 1, 4, 7));
    expect_order(o, 3, 7, all, LIST(0, 1, 2, 3, 4, 5, 6));
  }
  expect_order(QD_ORDER_GROUP, 3, 7, all, LIST(0, 1, 2, 3, 4, 5, 6));
  expect_order(QD_ORDER_GROUP, 2, 8, diagonal, LIST(3, 2, 6, 7, 0, 1, 5, 4)); /* two groups with 9, two with 2 */
}

Test(method, group_aware_keeps_groups_together) {
  const float diagonal[] = {1, 2, 9, 4, 5, 3, 7, 8};
  expect_order(QD_ORDER_GROUP, 2, 8, diagonal, LIST(2, 3, 7, 6, 4, 5, 1, 0));
  expect_order(QD_ORDER_GROUP, 1, 8, diagonal, LIST(2, 7, 6, 4, 3, 5, 1, 0));
  expect_order(QD_ORDER_GROUP, 8, 8, diagonal, LIST(2, 7, 6, 4, 3, 5, 1, 0));
  expect_order(QD_ORDER_GROUP, 100, 8, diagonal, LIST(2, 7, 6, 4, 3, 5, 1, 0));
  expect_order(QD_ORDER_GROUP, QD_PER_CHANNEL, 8, diagonal, LIST(2, 7, 6, 4, 3, 5, 1, 0));
}

Test(method, group_aware_has_a_short_last_group) {
  const float last_first[] = {1, 2, 3, 4, 5, 6, 0, 9}, last_last[] = {7, 2, 3, 4, 5, 6, 0, 1};
  expect_order(QD_ORDER_GROUP, 3, 8, last_first, LIST(7, 6, 5, 4, 3, 2, 1, 0));
  expect_order(QD_ORDER_GROUP, 3, 8, last_last, LIST(0, 2, 1, 5, 4, 3, 7, 6));
}

Test(method, orders_few_columns_and_none) {
  const float one[] = {3};
  for (qd_act_order o = QD_ORDER_NONE; o <= QD_ORDER_GROUP; o++) {
    expect_order(o, 4, 1, one, LIST(0));
    expect_order(o, 4, 0, one, LIST(0));
  }
}

Test(method, knows_its_methods_by_name) {
  cr_expect_str_eq(qd_method_names(), "gptq, rtn, spqr");
  cr_expect_null(qd_method_find("awq"));
  cr_expect_null(qd_method_find(""));
  int n = 0;
  for (; qd_method_at(n) != NULL; n++) {
    cr_expect_eq(qd_method_find(qd_method_at(n)->name), qd_method_at(n));
    cr_expect_gt(strlen(qd_method_at(n)->summary), 0);
  }
  cr_expect_eq(n, 3);
}

Test(method, stores_an_order_for_dynamic_groups_only) {
  const qd_scheme grouped = {.bits = 4, .group_size = 8}, whole = {.bits = 4, .group_size = QD_PER_CHANNEL};
  cr_expect(qd_method_stores_order(QD_ORDER_DYNAMIC, grouped, 9));
  cr_expect(!qd_method_stores_order(QD_ORDER_DYNAMIC, grouped, 8)); /* one group */
  cr_expect(!qd_method_stores_order(QD_ORDER_DYNAMIC, whole, 9));
  cr_expect(!qd_method_stores_order(QD_ORDER_NONE, grouped, 9));
  cr_expect(!qd_method_stores_order(QD_ORDER_STATIC, grouped, 9));
  cr_expect(!qd_method_stores_order(QD_ORDER_GROUP, grouped, 9));
}
