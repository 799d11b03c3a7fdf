#include "pipeline/evaluate/evaluation_plan.h"

#include "tests/pipeline/job_support.h"

enum { TOKENS = 20, WINDOWS = 3 };

static qd_comm *comm;
static qd_device device;
static qd_subject llama, reference;

static void open_fixture(void) {
  comm = open_team();
  device = open_device((place){"cpu", NULL, 1});
  MUST(qd_subject_open(&llama, golden_path("llama"), QD_COMPUTE_FP32, comm, &device));
  MUST(qd_subject_open(&reference, golden_path("llama_bf16"), QD_COMPUTE_BF16, comm, &device));
}

static void close_fixture(void) {
  qd_subject_close(&llama);
  qd_subject_close(&reference);
  qd_device_close(&device);
  qd_team_close(comm, false, 0);
}
TestSuite(evaluation_plan, .init = open_fixture, .fini = close_fixture);

static qd_evaluation_sizes sizes_of(const qd_subject *other, int64_t windows, int ranks) {
  return (qd_evaluation_sizes){
      .subject = {&llama, other}, .device = &device, .tokens = TOKENS, .windows = windows, .ranks = ranks};
}

static qd_plan_rank plan_of(qd_evaluation_sizes sizes, bool coordinator) {
  qd_plan_rank plan;
  size_t sum = 0;
  qd_evaluation_plan(&sizes, coordinator ? 0 : 1, &plan);
  for (int p = 0; p < QD_N_PLAN_PARTS; p++) sum += plan.part[p];
  cr_expect_geq(plan.host_bytes, sum);
  return plan;
}

static size_t up(int64_t bytes) { return ((size_t)bytes + 63) / 64 * 64; }

Test(evaluation_plan, activations_hold_every_window_at_a_time_and_one_input) {
  const qd_model *m = &llama.model, *r = &reference.model;
  int64_t widest = m->ffn > m->hidden ? m->ffn : m->hidden;
  size_t one = up(WINDOWS * TOKENS * m->hidden * 4) + up(TOKENS * widest * 4);
  cr_expect_eq(plan_of(sizes_of(NULL, WINDOWS, 1), true).part[QD_PLAN_ACTIVATIONS], one);
  widest = r->ffn > r->hidden ? r->ffn : r->hidden;
  size_t two = up(WINDOWS * TOKENS * r->hidden * 2) + up(TOKENS * widest * 2);
  cr_expect_eq(plan_of(sizes_of(&reference, WINDOWS, 1), true).part[QD_PLAN_ACTIVATIONS], one + two);
}

Test(evaluation_plan, the_rank_that_reads_holds_two_images_of_each_model) {
  qd_plan_rank first = plan_of(sizes_of(NULL, WINDOWS, 4), true), other = plan_of(sizes_of(NULL, WINDOWS, 4), false);
  cr_expect_gt(other.part[QD_PLAN_STREAM], 0);
  cr_expect_eq(first.part[QD_PLAN_STREAM], 2 * other.part[QD_PLAN_STREAM]);
  qd_plan_rank both = plan_of(sizes_of(&reference, WINDOWS, 4), true);
  cr_expect_gt(both.part[QD_PLAN_STREAM], first.part[QD_PLAN_STREAM]);
  cr_expect_gt(both.part[QD_PLAN_BLOCK], first.part[QD_PLAN_BLOCK]);
  cr_expect_gt(both.part[QD_PLAN_DECODER], first.part[QD_PLAN_DECODER]);
  cr_expect_gt(first.part[QD_PLAN_LIBRARIES], plan_of(sizes_of(NULL, WINDOWS, 1), true).part[QD_PLAN_LIBRARIES]);
}

Test(evaluation_plan, logits_of_both_models_are_held) {
  qd_evaluation_sizes alone = sizes_of(NULL, 1, 1), both = sizes_of(&reference, 1, 1);
  llama.model.vocabulary = reference.model.vocabulary = 1 << 20;
  cr_expect_eq(qd_evaluation_scratch(&both) - qd_evaluation_scratch(&alone), (size_t)4 * QD_LOGIT_ROWS << 20);
}

/* Whatever the device they share was set to last.  A wide linear takes more than attention and logits. */
Test(evaluation_plan, each_model_counts_in_its_own_arithmetic) {
  qd_evaluation_sizes sizes = sizes_of(&reference, 1, 1);
  sizes.tokens = 256, llama.model.ffn = 1 << 14;
  size_t f32 = qd_evaluation_scratch(&sizes), int8[2];
  llama.arithmetic = QD_ARITHMETIC_INT8;
  for (int i = 0; i < 2; i++) {
    device.arithmetic = i == 0 ? reference.arithmetic : QD_ARITHMETIC_INT8;
    int8[i] = qd_evaluation_scratch(&sizes);
  }
  cr_expect_gt(int8[0], f32, "activations in int8 stand beside those that are gathered");
  cr_expect_eq(int8[0], int8[1]);
}

Test(evaluation_plan, as_many_windows_as_there_are_or_fit) {
  qd_evaluation_sizes sizes = sizes_of(NULL, 0, 1);
  MUST(qd_evaluation_choose_windows(&sizes, 7, 0, comm));
  cr_expect_eq(sizes.windows, 7);
  sizes.tokens = 1 << 16; /* hidden states of 2 GiB at the most */
  size_t window = qd_subject_window_bytes(&llama, sizes.tokens);
  MUST(qd_evaluation_choose_windows(&sizes, 1 << 20, 0, comm));
  cr_expect_leq((size_t)sizes.windows * window, (size_t)2 << 30);
  cr_expect_eq(qd_evaluation_choose_windows(&sizes, 7, 1 << 16, comm), QD_ENOMEM);
  cr_expect_eq(sizes.windows, 1);
}

Test(evaluation_plan, the_number_of_blocks_does_not_matter) {
  size_t few = plan_of(sizes_of(NULL, WINDOWS, 1), true).part[QD_PLAN_BLOCK];
  int64_t blocks = llama.model.n_blocks;
  llama.model.n_blocks = 1;
  qd_plan_rank one = plan_of(sizes_of(NULL, WINDOWS, 1), true);
  llama.model.n_blocks = blocks;
  cr_expect_gt(blocks, 1);
  cr_expect_eq(one.part[QD_PLAN_BLOCK], few);
  cr_expect_eq(one.part[QD_PLAN_STREAM], plan_of(sizes_of(NULL, WINDOWS, 1), true).part[QD_PLAN_STREAM]);
}

static void expect_refusal(const qd_evaluation_sizes *sizes, int64_t bytes, qd_plan_place where, const char *words) {
  cr_assert_eq(qd_evaluation_check(sizes, bytes, where), QD_ENOMEM);
  cr_expect_not_null(strstr(qd_error_text(), words), "%s", qd_error_text());
  cr_expect_not_null(strstr(qd_error_text(), "too little"), "%s", qd_error_text());
}

Test(evaluation_plan, a_limit_is_shared_by_the_ranks_of_a_node) {
  qd_evaluation_sizes sizes = sizes_of(&reference, (int64_t)1 << 14, 3);
  int64_t first = (int64_t)plan_of(sizes, true).host_bytes, other = (int64_t)plan_of(sizes, false).host_bytes, slack = 4 << 20;
  qd_plan_place two = {.ranks_on_node = 2, .running = 2}, three = {.ranks_on_node = 3, .running = 3};
  MUST(qd_evaluation_check(&sizes, first + other + slack, two));
  expect_refusal(&sizes, first + other - slack, two, "--max-host-mem");
  expect_refusal(&sizes, first + other + slack, three, "the 3 ranks of a node");
  sizes.windows = (int64_t)1 << 40;
  expect_refusal(&sizes, 0, two, "leaves");
}
