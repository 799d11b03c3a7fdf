#include "tests/pipeline/stage_support.h"

#include "storage/pattern.h"

/* q, k and v of one block, each 10 x 10, in bf16. */
static stand s;
static qd_block block;
static qd_stats stats;
static uint16_t weights[3][HIDDEN * HIDDEN];
static qd_weight linears[3];

static void open_fixture(void) {
  static const char *const names[] = {"model.layers.1.self_attn.q_proj.weight", "model.layers.1.self_attn.k_proj.weight",
                                      "model.layers.1.self_attn.v_proj.weight"};
  uint64_t seed = 21;
  open_stand(&s, "cpu", QD_F32);
  MUST(qd_arena_open(&s.run.block_arena, "block", (size_t)4 << 20));
  fill_inputs(&s, HIDDEN, 23);
  block = (qd_block){.index = 1, .n = 3, .weight = linears};
  for (int i = 0; i < 3; i++) {
    qd_weight *w = &block.weight[i];
    *w = (qd_weight){.slot = {.role = QD_Q_PROJ + (qd_role)i, .expert = -1, .rank = 2, .dim = {HIDDEN, HIDDEN}},
                     .dtype = QD_BF16};
    snprintf(w->slot.name, sizeof w->slot.name, "%s", names[i]);
    for (int k = 0; k < HIDDEN * HIDDEN; k++) weights[i][k] = qd_bf16_from_f32((float)(0.1 * noise(&seed)));
    w->original = qd_tensor_2d(weights[i], QD_BF16, HIDDEN, HIDDEN);
  }
  MUST(qd_calibrate(&s.run, &block, QD_STAGE_QKV, &stats));
}

static void close_fixture(void) {
  for (int i = 0; i < s.job.n_rules; i++) qd_pattern_close(s.job.rule[i].pattern);
  qd_arena_close(&s.run.block_arena);
  close_stand(&s);
}
TestSuite(quantize, .init = open_fixture, .fini = close_fixture);

static void add_rule(const char *expression, int bits, int64_t group_size) {
  qd_rule *rule = &s.job.rule[s.job.n_rules++];
  *rule = (qd_rule){.expression = expression, .bits = bits, .group_size = group_size};
  MUST(qd_pattern_open(expression, "--override", &rule->pattern));
}

/* What a weight has become, columns in their own order. */
static void effective(const qd_weight *weight, double out[HIDDEN][HIDDEN]) {
  float stored[HIDDEN * HIDDEN];
  const int32_t *order = weight->q.order.data;
  MUST(qd_qtensor_check(&weight->q));
  MUST(qd_dequant(&s.device, &weight->q, qd_tensor_2d(stored, QD_F32, HIDDEN, HIDDEN)));
  for (int r = 0; r < HIDDEN; r++)
    for (int p = 0; p < HIDDEN; p++) out[r][qd_qtensor_has_order(&weight->q) ? order[p] : p] = (double)stored[r * HIDDEN + p];
}

/* Mean over tokens of |x^T of the rows of d|^2, straight from the inputs. */
static double output_error(double d[HIDDEN][HIDDEN]) {
  double sum = 0;
  for (int64_t i = 0; i < SEQUENCES; i++)
    for (int64_t t = 0; t < SEQUENCE_TOKENS; t++)
      for (int r = 0; r < HIDDEN; r++) {
        double y = 0;
        for (int c = 0; c < HIDDEN; c++) y += d[r][c] * input_at(&s, HIDDEN, i, t, c);
        sum += y * y;
      }
  return sum / (SEQUENCES * SEQUENCE_TOKENS);
}

static double squares(double d[HIDDEN][HIDDEN]) {
  double sum = 0;
  for (int r = 0; r < HIDDEN; r++)
    for (int c = 0; c < HIDDEN; c++) sum += d[r][c] * d[r][c];
  return sum;
}

static void expect_near(double got, double wanted, const char *what, int linear) {
  cr_expect(fabs(got - wanted) <= 1e-4 * fabs(wanted), "%s of linear %d: %g, by hand %g", what, linear, got, wanted);
}

static void expect_figures(int linear, bool calibrated) {
  double q[HIDDEN][HIDDEN], w[HIDDEN][HIDDEN];
  const qd_linear_result *result = &block.weight[linear].result;
  cr_assert(block.weight[linear].quantized);
  effective(&block.weight[linear], q);
  for (int r = 0; r < HIDDEN; r++)
    for (int c = 0; c < HIDDEN; c++) {
      w[r][c] = (double)qd_bf16_to_f32(weights[linear][r * HIDDEN + c]);
      q[r][c] = w[r][c] - q[r][c];
    }
  double error = calibrated ? output_error(q) : squares(q), norm = calibrated ? output_error(w) : squares(w);
  cr_expect_gt(error, 0);
  expect_near(result->loss, error, "loss", linear);
  expect_near(result->relative_error, error / norm, "relative error", linear);
  cr_expect_eq(result->tokens, calibrated ? SEQUENCES * SEQUENCE_TOKENS : 0);
  cr_expect(!result->fallback);
}

Test(quantize, figures_are_those_of_the_outputs) {
  for (qd_act_order order = QD_ORDER_NONE; order <= QD_ORDER_GROUP; order++) {
    s.job.act_order = order;
    MUST(qd_quantize(&s.run, &block, QD_STAGE_QKV, &stats));
    for (int i = 0; i < 3; i++) {
      expect_figures(i, true);
      cr_expect_eq(block.weight[i].result.damping, 0.01);
      cr_expect_eq(qd_qtensor_has_order(&block.weight[i].q), order == QD_ORDER_DYNAMIC);
      cr_expect_eq(block.weight[i].compute.rank, 0);
    }
  }
}

Test(quantize, without_text_the_figures_are_those_of_the_weights) {
  s.job.method = &qd_method_rtn;
  MUST(qd_quantize(&s.run, &block, QD_STAGE_QKV, NULL));
  for (int i = 0; i < 3; i++) {
    expect_figures(i, false);
    cr_expect_eq(block.weight[i].result.damping, 0);
  }
}

Test(quantize, rules_say_what_is_kept_and_how_fine_the_rest_is) {
  double error[3];
  s.job.act_order = QD_ORDER_GROUP; /* each group size has an order of its own */
  add_rule("k_proj", 0, 0);
  add_rule("v_proj", 8, 3);
  MUST(qd_quantize(&s.run, &block, QD_STAGE_QKV, &stats));
  cr_expect(!block.weight[1].quantized);
  cr_expect_str_eq(block.weight[1].kept, "ignore");
  cr_expect_null(block.weight[0].kept);
  cr_expect_eq(block.weight[0].q.scheme.bits, 4);
  cr_expect_eq(block.weight[2].q.scheme.bits, 8);
  cr_expect_eq(block.weight[2].q.scales.dim[1], 4);
  for (int i = 0; i < 3; i += 2) {
    expect_figures(i, true);
    error[i] = block.weight[i].result.relative_error;
  }
  cr_expect(error[2] < error[0] / 50, "%g and %g", error[2], error[0]);
}

/* Of 5 and 3 only the first divides the width. */
Test(quantize, an_odd_shape_is_kept_or_takes_a_group_a_row) {
  add_rule("[qk]_proj", 4, 5);
  add_rule("v_proj", 8, 3);
  s.job.odd_shape = QD_ODD_SKIP;
  MUST(qd_quantize(&s.run, &block, QD_STAGE_QKV, &stats));
  cr_expect(block.weight[1].quantized && !block.weight[2].quantized);
  cr_expect_str_eq(block.weight[2].kept, "odd-shape");
  s.job.odd_shape = QD_ODD_PER_CHANNEL;
  MUST(qd_quantize(&s.run, &block, QD_STAGE_QKV, &stats));
  cr_expect(block.weight[2].quantized);
  cr_expect_eq(block.weight[2].q.scheme.group_size, QD_PER_CHANNEL);
  cr_expect_eq(block.weight[2].q.scales.dim[1], 1);
}

Test(quantize, nothing_is_left_when_all_is_kept) {
  add_rule(".", 0, 0);
  MUST(qd_quantize(&s.run, &block, QD_STAGE_QKV, &stats));
  for (int i = 0; i < 3; i++) cr_expect(!block.weight[i].quantized);
}

Test(quantize, without_a_factor_it_rounds_to_nearest_and_says_so) {
  double rounded[HIDDEN][HIDDEN], fallen[HIDDEN][HIDDEN];
  s.job.act_order = QD_ORDER_DYNAMIC;
  ((float *)stats.h.data)[qd_tri_index(7, 3)] = 1e9f;
  MUST(qd_quantize(&s.run, &block, QD_STAGE_QKV, &stats));
  cr_expect(block.weight[QD_K_PROJ].result.fallback);
  cr_expect_gt(block.weight[QD_K_PROJ].result.damping, 1);
  cr_expect(!qd_qtensor_has_order(&block.weight[QD_K_PROJ].q));
  effective(&block.weight[QD_K_PROJ], fallen);
  block.weight[QD_K_PROJ].quantized = false;
  s.job.method = &qd_method_rtn;
  MUST(qd_quantize(&s.run, &block, QD_STAGE_QKV, NULL));
  effective(&block.weight[QD_K_PROJ], rounded);
  cr_expect_eq(memcmp(rounded, fallen, sizeof rounded), 0);
}

Test(quantize, a_scale_that_does_not_fit_is_told_with_its_tensor) {
  weights[2][3 * HIDDEN + 9] = qd_bf16_from_f32(1e7f);
  cr_expect_eq(qd_quantize(&s.run, &block, QD_STAGE_QKV, &stats), QD_ENUMERIC);
  cr_expect(
      strstr(qd_error_text(), "model.layers.1.self_attn.v_proj.weight") != NULL && strstr(qd_error_text(), "row 3") != NULL &&
          strstr(qd_error_text(), "--scale-dtype f32") != NULL,
      "%s", qd_error_text());
}

/* ---- a share in pieces ------------------------------------------------------------------------------------------------- */

enum { WIDE = 65536, TALL = 600 };

/* One linear that takes three pieces, the last of them smaller; its rows are all different. */
static void make_wide(void) {
  uint16_t *values;
  qd_weight *w = &block.weight[0];
  MUST(qd_arena_new(&s.run.acts_arena, (size_t)WIDE * TALL, sizeof *values, &values));
  for (int64_t i = 0; i < (int64_t)WIDE * TALL; i++)
    values[i] = qd_bf16_from_f32((float)((i * 7919 + i / WIDE) % 1021 - 510) / 1024);
  w->slot.dim[0] = TALL, w->slot.dim[1] = WIDE;
  w->original = qd_tensor_2d(values, QD_BF16, TALL, WIDE);
}

static void reopen_arenas_for_wide(void) {
  qd_arena_close(&s.run.acts_arena);
  qd_arena_close(&s.run.block_arena);
  MUST(qd_arena_open(&s.run.acts_arena, "activations", (size_t)WIDE * TALL * 2));
  MUST(qd_arena_open(&s.run.block_arena, "block", (size_t)64 << 20));
  s.job.method = &qd_method_rtn;
  s.job.scheme = (qd_scheme){.bits = 4, .group_size = 128, .scale_dtype = QD_F16};
  add_rule("k_proj|v_proj", 0, 0);
}

/* What the plan gives a share of any height. */
static size_t scratch_of_a_piece(void) {
  int64_t rows = qd_plan_piece_rows(&s.device, s.job.scheme, WIDE);
  cr_assert_eq(rows, 256);
  qd_method_input input = {.device = &s.device, .scheme = s.job.scheme, .w = qd_tensor_2d(NULL, QD_F32, rows, WIDE)};
  return (size_t)(2 * rows * WIDE + WIDE) * sizeof(float) + qd_method_rtn.scratch_bytes(&input);
}

/* Row r by itself, as the method rounds it. */
static void expect_row(const qd_qtensor *q, int64_t r) {
  qd_qtensor alone;
  qd_tensor w;
  qd_arena *arena = &s.run.stats_arena;
  size_t mark = qd_arena_mark(arena), scratch = qd_arena_mark(&s.device.scratch);
  MUST(qd_qtensor_new(arena, q->scheme, 1, WIDE, false, &alone));
  MUST(qd_tensor_new_2d(arena, QD_F32, 1, WIDE, &w));
  qd_widen((const uint16_t *)block.weight[0].original.data + r * WIDE, QD_BF16, w.data, WIDE);
  MUST(qd_method_rtn.quantize(&(qd_method_input){.device = &s.device, .scheme = q->scheme, .w = w}, &alone));
  qd_qtensor row = qd_qtensor_rows(q, r, 1);
  cr_expect_eq(memcmp(row.codes.data, alone.codes.data, qd_tensor_bytes(alone.codes)), 0, "codes of row %" PRId64, r);
  cr_expect_eq(memcmp(row.scales.data, alone.scales.data, qd_tensor_bytes(alone.scales)), 0, "scales of row %" PRId64, r);
  qd_arena_rewind(arena, mark);
  qd_arena_rewind(&s.device.scratch, scratch);
}

Test(quantize, a_share_is_quantized_in_pieces_within_their_scratch) {
  static const int64_t rows[] = {0, 255, 256, 511, 512, TALL - 1};
  reopen_arenas_for_wide();
  make_wide();
  MUST(qd_device_reserve(&s.device, scratch_of_a_piece() + 4096));
  MUST(qd_quantize(&s.run, &block, QD_STAGE_QKV, NULL));
  for (int i = 0; i < 6; i++) expect_row(&block.weight[0].q, rows[i]);
  ((uint16_t *)block.weight[0].original.data)[(int64_t)300 * WIDE] = qd_bf16_from_f32(1e7f);
  qd_arena_rewind(&s.run.block_arena, 0);
  cr_expect_eq(qd_quantize(&s.run, &block, QD_STAGE_QKV, NULL), QD_ENUMERIC);
  cr_expect_not_null(strstr(qd_error_text(), "its rows from 256 on: "), "%s", qd_error_text());
  cr_expect_not_null(strstr(qd_error_text(), "row 44"), "%s", qd_error_text());
}
