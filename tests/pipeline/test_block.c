#include "pipeline/block.h"

#include "tests/pipeline/method_support.h"

enum { N = 12 };

static qd_arena arena;
static void open_arena(void) { MUST(qd_arena_open(&arena, "test", 1 << 20)); }
static void close_arena(void) { qd_arena_close(&arena); }
TestSuite(block, .init = open_arena, .fini = close_arena);

static const float numbers[N] = {1, -2.5f,   0.3333333f,  1e-3f,       65504, -7,
                                 0, 100.25f, 3.14159265f, -0.0078125f, 2,     1.0009765625f};

/* The numbers in a dtype, widened again: what was there. */
static qd_weight plain(qd_role role, qd_dtype dtype, float *there) {
  qd_weight w = {.slot = {.role = role, .expert = -1, .rank = 2, .dim = {3, 4}}, .dtype = dtype};
  MUST(qd_tensor_new_2d(&arena, dtype, 3, 4, &w.original));
  for (int i = 0; i < N; i++) {
    if (dtype == QD_F32) ((float *)w.original.data)[i] = there[i] = numbers[i];
    else if (dtype == QD_F16) there[i] = qd_f16_to_f32(((uint16_t *)w.original.data)[i] = qd_f16_from_f32(numbers[i]));
    else there[i] = qd_bf16_to_f32(((uint16_t *)w.original.data)[i] = qd_bf16_from_f32(numbers[i]));
  }
  return w;
}

static void expect_prepared(qd_role role, qd_dtype dtype, qd_dtype act, qd_dtype wanted) {
  float there[N];
  qd_weight weight = plain(role, dtype, there);
  qd_block block = {.n = 1, .weight = &weight};
  MUST(qd_block_prepare(&block, act, &arena));
  qd_tensor got = block.weight[0].compute;
  cr_assert_eq(got.dtype, wanted, "%s %s in %s", qd_role_name(role), qd_dtype_name(dtype), qd_dtype_name(act));
  cr_expect_eq(got.data == block.weight[0].original.data, dtype == wanted); /* nothing is copied that is as it should be */
  for (int i = 0; i < N; i++)
    if (wanted == QD_F32) cr_expect_eq(((float *)got.data)[i], there[i]);
    else cr_expect_eq(((uint16_t *)got.data)[i], qd_bf16_from_f32(there[i]));
}

Test(block, matrices_take_the_dtype_of_activations_vectors_stay_exact) {
  const qd_role matrices[] = {QD_Q_PROJ, QD_DOWN_PROJ, QD_EMBEDDING, QD_HEAD};
  const qd_role vectors[] = {QD_INPUT_NORM, QD_FINAL_NORM, QD_Q_NORM, QD_K_BIAS, QD_DOWN_BIAS};
  const qd_dtype all[] = {QD_F32, QD_F16, QD_BF16};
  for (int d = 0; d < 3; d++)
    for (int bf16 = 0; bf16 < 2; bf16++) {
      qd_dtype act = bf16 ? QD_BF16 : QD_F32;
      for (size_t i = 0; i < sizeof matrices / sizeof *matrices; i++) expect_prepared(matrices[i], all[d], act, act);
      for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++) expect_prepared(vectors[i], all[d], act, QD_F32);
    }
}

static void make_quantized(qd_weight *w, bool has_order) {
  qd_scheme scheme = {.bits = 3, .group_size = 4, .scale_dtype = QD_F16};
  *w = (qd_weight){.slot = {.role = QD_UP_PROJ, .expert = -1, .rank = 2, .dim = {2, 6}}, .dtype = QD_F32, .quantized = true};
  MUST(qd_qtensor_new(&arena, scheme, 2, 6, has_order, &w->q));
  memset(w->q.codes.data, 0, qd_tensor_bytes(w->q.codes));
  for (int i = 0; i < 4; i++)
    ((uint16_t *)w->q.scales.data)[i] = qd_f16_from_f32((float)(i + 1)), ((uint8_t *)w->q.zeros.data)[i] = (uint8_t)i;
  for (int32_t c = 0; has_order && c < 6; c++) ((int32_t *)w->q.order.data)[c] = 5 - c;
}

Test(block, quantized_weights_are_left_alone_until_they_are_expanded) {
  qd_device device;
  must_open(&device, "cpu", NULL, 1);
  for (int has_order = 0; has_order < 2; has_order++)
    for (int bf16 = 0; bf16 < 2; bf16++) {
      qd_dtype act = bf16 ? QD_BF16 : QD_F32;
      qd_weight weight;
      qd_block block = {.n = 1, .weight = &weight};
      make_quantized(&block.weight[0], has_order);
      MUST(qd_block_prepare(&block, act, &arena));
      cr_expect_eq(block.weight[0].compute.rank, 0);
      MUST(qd_weight_expand(&device, &block.weight[0], act, &arena));
      qd_tensor got = block.weight[0].compute;
      cr_assert_eq(got.dtype, act);
      for (int64_t i = 0; i < 12; i++) { /* codes 0 in stored order: scale * (0 - zero) */
        float wanted = -scale_of(&block.weight[0].q, i / 6, i % 6) * (float)zero_of(&block.weight[0].q, i / 6, i % 6);
        cr_expect_eq(bf16 ? qd_bf16_to_f32(((uint16_t *)got.data)[i]) : ((float *)got.data)[i], wanted);
      }
    }
  qd_device_close(&device);
}

Test(block, weights_are_found_by_role) {
  qd_weight weights[] = {{.slot = {.role = QD_V_PROJ}}, {.slot = {.role = QD_O_BIAS}}, {.slot = {.role = QD_K_NORM}}};
  qd_block block = {.n = 2, .weight = weights};
  cr_expect_eq(qd_block_find(&block, QD_V_PROJ), &block.weight[0]);
  cr_expect_eq(qd_block_find(&block, QD_O_BIAS), &block.weight[1]);
  cr_expect_null(qd_block_find(&block, QD_K_NORM)); /* beyond n */
  cr_expect_null(qd_block_find(&block, QD_Q_PROJ));
}

/* A router, and two linears of each of five experts. */
Test(block, experts_are_found_by_number_and_computed_with_by_their_owner) {
  enum { EXPERTS = 5, WEIGHTS = 1 + 2 * EXPERTS };
  qd_weight weights[WEIGHTS] = {{.slot = {.role = QD_ROUTER, .expert = -1}}};
  for (int i = 1; i < WEIGHTS; i++)
    weights[i].slot = (qd_slot){.role = i % 2 ? QD_EXPERT_GATE_PROJ : QD_EXPERT_DOWN_PROJ, .expert = (i - 1) / 2};
  qd_block block = {.n = WEIGHTS, .weight = weights, .rank = 1, .ranks = 3};
  for (int e = 0; e < EXPERTS; e++) {
    cr_expect_eq(qd_block_find_expert(&block, QD_EXPERT_GATE_PROJ, e), &weights[1 + 2 * e]);
    cr_expect_eq(qd_block_find_expert(&block, QD_EXPERT_DOWN_PROJ, e), &weights[2 + 2 * e]);
    cr_expect_null(qd_block_find_expert(&block, QD_EXPERT_UP_PROJ, e));
    cr_expect_eq(qd_block_computes(&block, &weights[1 + 2 * e]), e == 1 || e == 4);
  }
  cr_expect_null(qd_block_find_expert(&block, QD_EXPERT_GATE_PROJ, EXPERTS));
  cr_expect(qd_block_computes(&block, &weights[0]));
}
