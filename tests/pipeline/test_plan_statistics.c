#include "pipeline/plan_statistics.h"

#include "tests/pipeline/job_support.h"

enum { HIDDEN = 64, FFN = 300, VOCABULARY = 500, TOKENS = 10, SEQUENCES = 5 };

static qd_model model = {.n_blocks = 2, .hidden = HIDDEN, .ffn = FFN, .heads = 4, .kv_heads = 2, .head_dim = 16,
                               .vocabulary = VOCABULARY, .max_positions = 64, .dtype = QD_BF16};
static qd_job job;
static qd_device device;

static void open_fixture(void) {
  model.arch = qd_arch_find("llama");
  job = small_job("model", NULL);
  gptq_job(&job, "text", QD_ORDER_STATIC);
  device = open_device((place){"cpu", NULL, 1});
}
static void close_fixture(void) { qd_device_close(&device); }
TestSuite(plan_statistics, .init = open_fixture, .fini = close_fixture);

static qd_plan_request request(int ranks) {
  return (qd_plan_request){.job = &job,
                           .model = &model,
                           .device = &device,
                           .act = QD_F32,
                           .sequences = SEQUENCES,
                           .tokens = TOKENS,
                           .ranks = ranks,
                           .launched = true};
}

static size_t bytes(int ranks, int rank) {
  qd_plan_request r = request(ranks);
  return qd_plan_statistics(&r, rank);
}

static size_t up(size_t n) { return (n + 63) / 64 * 64; }
static size_t triangle(size_t n) { return (n + 255) / 256 * ((n + 255) / 256 + 1) / 2 * 65536; }

/* The diagonal and the Hessian; dead columns, order, U, and the work with what is added. */
static size_t kept(size_t n) { return up(n * 8) + triangle(n) * 4; }
static size_t factor(size_t n) { return up(n) + up(n * 4) + triangle(n) * (4 + 8) + up(n * 8); }

Test(plan_statistics, hold_the_worst_stage_or_all) {
  cr_expect_eq(bytes(1, 0), kept(FFN) + factor(FFN));
  job.true_sequential = false;
  cr_expect_eq(bytes(1, 0), 3 * kept(HIDDEN) + kept(FFN) + factor(FFN));
  job.method = &qd_method_rtn; /* no factor: now the exact sum is the worst */
  job.true_sequential = true;
  cr_expect_eq(bytes(1, 0), kept(FFN) + up(FFN * 4) + triangle(FFN) * 8);
}

Test(plan_statistics, only_owners_of_a_factor_hold_its_work) {
  cr_expect_eq(bytes(4, 3), kept(FFN) + factor(FFN)); /* rank 3 factors the widest stage of each block */
  cr_expect_lt(bytes(4, 0), bytes(4, 3));
  cr_expect_eq(bytes(4, 0), kept(FFN) + up(FFN * 4) + triangle(FFN) * 8);
}

/* The owner keeps the cross sum in fp32 beside the factor and its work; P takes the work's place.  The others see a panel of
 * it, no larger than the triangle, and P. */
Test(plan_statistics, gptaq_adds_the_cross_sum_to_the_owner) {
  size_t plain = bytes(4, 3);
  job.gptaq = true, job.gptaq_alpha = 0.25;
  cr_expect_eq(bytes(4, 3), plain + up(FFN * FFN * 4));
  cr_expect_eq(bytes(4, 0), kept(FFN) + up(FFN) + up(FFN * 4) + triangle(FFN) * (4 + 4));
  job.true_sequential = false;
  cr_expect_eq(bytes(1, 0), 3 * (kept(HIDDEN) + up(HIDDEN * HIDDEN * 4)) + kept(FFN) + up(FFN * FFN * 4) + factor(FFN));
  job.gptaq_alpha = 0; /* plain GPTQ */
  job.true_sequential = true;
  cr_expect_eq(bytes(4, 3), plain);
}

Test(plan_statistics, of_no_sequences_there_are_none) {
  qd_plan_request r = request(1);
  r.sequences = 0;
  cr_expect_eq(qd_plan_statistics(&r, 0), 0);
  cr_expect_eq(qd_plan_statistics_scratch(&r), 0);
}

Test(plan_statistics, scratch_is_that_of_the_largest_operation) {
  qd_plan_request r = request(1);
  size_t plain = qd_plan_statistics_scratch(&r);
  job.gptaq = true, job.gptaq_alpha = 0.25;
  cr_expect_geq(qd_plan_statistics_scratch(&r), 2 * up(FFN * 256 * 8));
  cr_expect_gt(qd_plan_statistics_scratch(&r), plain);
}
