#include "tests/pipeline/method_support.h"

static const qd_act_order orders[] = {QD_ORDER_NONE, QD_ORDER_STATIC, QD_ORDER_DYNAMIC, QD_ORDER_GROUP};

static qd_device device;
static layer l;

static void open_fixture(void) { must_open(&device, "cpu", NULL, 1); }
static void close_fixture(void) { qd_heap_free(l.u); qd_device_close(&device); }
TestSuite(method_gptq, .init = open_fixture, .fini = close_fixture);

Test(method_gptq, is_what_it_says_it_is) {
  cr_expect_eq(qd_method_find("gptq"), &qd_method_gptq);
  cr_expect(qd_method_gptq.needs_factor && qd_method_gptq.default_mse);
  cr_expect_eq(qd_method_gptq.default_act_order, QD_ORDER_STATIC);
}

/* ---- against rounding to nearest ---------------------------------------------------------------------------------------- */

static void expect_less_loss(uint64_t seed, qd_scheme scheme, qd_act_order act_order) {
  trial gptq = {.method = &qd_method_gptq, .scheme = scheme, .act_order = act_order};
  trial rtn = {.method = &qd_method_rtn, .scheme = scheme};
  new_layer(&l, seed);
  factor_layer(&l, &device, act_order, scheme.group_size);
  run_trial(&gptq, &l, &device);
  run_trial(&rtn, &l, &device);
  double less = loss_of(&gptq, &l), more = loss_of(&rtn, &l);
  cr_expect(less < 0.7 * more, "%d bits, group %" PRId64 ", symmetric %d, order %d: %g against %g", scheme.bits,
            scheme.group_size, scheme.symmetric, act_order, less, more);
  qd_heap_free(l.u), l.u = NULL;
  qd_arena_close(&gptq.arena);
  qd_arena_close(&rtn.arena);
}

Test(method_gptq, loses_less_than_rounding_to_nearest) {
  static const int64_t groups[] = {QD_PER_CHANNEL, 8, 12, COLUMNS};
  for (int bits = 3; bits <= 8; bits += 1 + bits % 2)
    for (int g = 0; g < 4; g++)
      for (int o = 0; o < 4; o++)
        for (int symmetric = 0; symmetric < 2; symmetric++) {
          qd_scheme scheme = {.bits = bits, .group_size = groups[g], .symmetric = symmetric, .scale_dtype = QD_F16};
          expect_less_loss((uint64_t)(100 * bits + 10 * g + o), scheme, orders[o]);
        }
}

/* Nothing is carried on: the codes are those of rounding to nearest, columns in stored order where there is one. */
static void expect_rounding(int64_t group_size, qd_act_order act_order) {
  static layer permuted;
  qd_scheme scheme = {.bits = 4, .group_size = group_size, .scale_dtype = QD_F16};
  trial gptq = {.method = &qd_method_gptq, .scheme = scheme, .act_order = act_order},
        rtn = {.method = &qd_method_rtn, .scheme = scheme};
  factor_layer(&l, &device, act_order, group_size);
  run_trial(&gptq, &l, &device);
  permuted = l;
  for (int r = 0; r < ROWS; r++)
    for (int p = 0; p < COLUMNS; p++)
      permuted.w[r][p] = l.w[r][qd_qtensor_has_order(&gptq.q) ? ((int32_t *)gptq.q.order.data)[p] : p];
  run_trial(&rtn, &permuted, &device);
  gptq.q.order = (qd_tensor){0};
  cr_expect(same_parts(&gptq.q, &rtn.q), "group %" PRId64 ", order %d", group_size, act_order);
  qd_arena_close(&gptq.arena);
  qd_arena_close(&rtn.arena);
}

Test(method_gptq, a_diagonal_hessian_gives_rounding_to_nearest) {
  static const int64_t groups[] = {QD_PER_CHANNEL, 8, 12, 64};
  new_layer(&l, 11);
  uncouple(&l);
  for (int g = 0; g < 4; g++)
    for (int o = 0; o < 4; o++) expect_rounding(groups[g], orders[o]);
}

/* ---- orders ------------------------------------------------------------------------------------------------------------- */

Test(method_gptq, stores_the_order_of_dynamic_groups_only) {
  const qd_scheme grouped = {.bits = 4, .group_size = 12, .scale_dtype = QD_F16};
  new_layer(&l, 12);
  for (int o = 0; o < 4; o++) {
    trial t = {.method = &qd_method_gptq, .scheme = grouped, .act_order = orders[o]};
    factor_layer(&l, &device, orders[o], grouped.group_size);
    run_trial(&t, &l, &device);
    cr_expect_eq(qd_qtensor_has_order(&t.q), orders[o] == QD_ORDER_DYNAMIC);
    qd_arena_close(&t.arena);
  }
}

/* The largest activation is quantized first, so no error of others is added to it. */
static void expect_first_column_rounded(qd_act_order act_order, int64_t group_size) {
  qd_scheme scheme = {.bits = 3, .group_size = group_size, .scale_dtype = QD_F16};
  trial gptq = {.method = &qd_method_gptq, .scheme = scheme, .act_order = act_order},
        rtn = {.method = &qd_method_rtn, .scheme = scheme};
  factor_layer(&l, &device, act_order, group_size);
  run_trial(&gptq, &l, &device);
  run_trial(&rtn, &l, &device);
  for (int r = 0; r < ROWS; r++) cr_expect_eq(code_of(&gptq.q, r, l.order[0]), code_of(&rtn.q, r, l.order[0]));
  qd_arena_close(&gptq.arena);
  qd_arena_close(&rtn.arena);
}

Test(method_gptq, the_largest_activation_comes_first) {
  new_layer(&l, 13);
  expect_first_column_rounded(QD_ORDER_STATIC, QD_PER_CHANNEL);
  cr_assert_neq(l.order[0], 0);
  expect_first_column_rounded(QD_ORDER_STATIC, 12);
  expect_first_column_rounded(QD_ORDER_GROUP, 12);
  expect_first_column_rounded(QD_ORDER_NONE, 12);
  cr_assert_eq(l.order[0], 0);
}

/* ---- dead columns ------------------------------------------------------------------------------------------------------- */

static void expect_dead_columns_zero(int64_t group_size, qd_act_order act_order) {
  qd_scheme scheme = {.bits = 4, .group_size = group_size, .scale_dtype = QD_F16};
  trial t = {.method = &qd_method_gptq, .scheme = scheme, .act_order = act_order};
  factor_layer(&l, &device, act_order, group_size);
  run_trial(&t, &l, &device);
  for (int r = 0; r < ROWS; r++)
    for (int c = 0; c < COLUMNS; c++)
      if (l.dead[c]) cr_expect_eq(weight_of(&t.q, r, c), 0, "row %d column %d, order %d", r, c, act_order);
  qd_arena_close(&t.arena);
}

Test(method_gptq, dead_columns_become_zero) {
  static const int64_t groups[] = {QD_PER_CHANNEL, 8, 12};
  new_layer(&l, 14);
  kill_column(&l, 0);
  kill_column(&l, 17);
  kill_column(&l, COLUMNS - 1);
  for (int g = 0; g < 3; g++)
    for (int o = 0; o < 4; o++) expect_dead_columns_zero(groups[g], orders[o]);
}

/* The grid of a whole row is fitted before dead columns are zeroed, the grids of groups after it. */
Test(method_gptq, a_dead_weight_counts_in_the_grid_of_a_whole_row) {
  const double range = 8;
  new_layer(&l, 15);
  kill_column(&l, 9);
  for (int r = 0; r < ROWS; r++) l.w[r][9] = (float)range;
  for (int o = 0; o < 4; o++)
    for (int grouped = 0; grouped < 2; grouped++) {
      qd_scheme scheme = {.bits = 4, .group_size = grouped ? 8 : QD_PER_CHANNEL, .scale_dtype = QD_F16};
      trial t = {.method = &qd_method_gptq, .scheme = scheme, .act_order = orders[o]};
      factor_layer(&l, &device, orders[o], scheme.group_size);
      run_trial(&t, &l, &device);
      for (int r = 0; r < ROWS; r++) {
        double scale = (double)scale_of(&t.q, r, position_of(&t.q, 9));
        cr_expect_eq(scale >= range / 15, !grouped, "row %d, order %d, grouped %d: scale %g", r, orders[o], grouped, scale);
      }
      qd_arena_close(&t.arena);
    }
}

/* ---- bits --------------------------------------------------------------------------------------------------------------- */

static void expect_same_bytes(qd_scheme scheme, qd_act_order act_order, qd_device *ref) {
  trial whole = {.method = &qd_method_gptq, .scheme = scheme, .act_order = act_order, .block = 16}, cut = whole, slow = whole;
  factor_layer(&l, &device, act_order, scheme.group_size);
  run_trial(&whole, &l, &device);
  run_trial(&slow, &l, ref);
  open_trial(&cut, &l);
  MUST(quantize_rows(&cut, &l, &device, 4, 3));
  MUST(quantize_rows(&cut, &l, &device, 0, 4));
  cr_expect(same_parts(&whole.q, &cut.q), "rows cut: order %d, group %" PRId64, act_order, scheme.group_size);
  cr_expect(same_parts(&whole.q, &slow.q), "ref: order %d, group %" PRId64, act_order, scheme.group_size);
  qd_arena_close(&whole.arena);
  qd_arena_close(&cut.arena);
  qd_arena_close(&slow.arena);
}

Test(method_gptq, any_cut_of_the_rows_and_any_device_gives_the_same_bytes) {
  qd_device ref;
  must_open(&ref, "ref", NULL, 1);
  new_layer(&l, 16);
  for (int o = 0; o < 4; o++) {
    expect_same_bytes((qd_scheme){.bits = 4, .group_size = 12, .mse = true, .scale_dtype = QD_F16}, orders[o], &ref);
    expect_same_bytes((qd_scheme){.bits = 3, .group_size = QD_PER_CHANNEL, .symmetric = true, .scale_dtype = QD_F32}, orders[o],
                      &ref);
    expect_same_bytes((qd_scheme){.bits = 2, .group_size = 6, .compat = true, .scale_dtype = QD_F32}, orders[o], &ref);
  }
  qd_device_close(&ref);
}

Test(method_gptq, says_where_a_scale_does_not_fit) {
  trial t = {
      .method = &qd_method_gptq, .scheme = {.bits = 4, .group_size = 8, .scale_dtype = QD_F16}, .act_order = QD_ORDER_STATIC};
  new_layer(&l, 17);
  l.w[5][33] = -2e7f;
  factor_layer(&l, &device, t.act_order, 8);
  open_trial(&t, &l);
  cr_expect_eq(quantize_rows(&t, &l, &device, 0, ROWS), QD_ENUMERIC);
  cr_expect(strstr(qd_error_text(), "row 5") != NULL && strstr(qd_error_text(), "group 4") != NULL, "%s", qd_error_text());
  qd_arena_close(&t.arena);
}
