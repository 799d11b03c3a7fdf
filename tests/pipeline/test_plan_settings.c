#include "pipeline/plan_settings.h"

#include "pipeline/probe.h"
#include "tests/pipeline/job_support.h"

static qd_model small_model(void) {
  return (qd_model){.arch = qd_arch_find("llama"), .n_blocks = 3, .hidden = 64, .ffn = 300, .heads = 4, .kv_heads = 2,
                    .head_dim = 16, .vocabulary = 500, .max_positions = 64, .dtype = QD_BF16};
}

typedef struct stand {
  qd_job    job;
  qd_model  model;
  qd_device device;
  qd_plan   plan;
} stand;

static void open_stand(stand *s) {
  *s = (stand){.job = small_job("model", NULL), .model = small_model()};
  gptq_job(&s->job, "text", QD_ORDER_STATIC);
  MUST(qd_device_open(&s->device, (qd_device_options){.name = "cpu", .threads = 1, .scratch_bytes = QD_SCRATCH_LATER}));
}

static void make_plan(stand *s, int ranks) {
  qd_plan_request request = {.job = &s->job, .model = &s->model, .device = &s->device, .act = QD_BF16, .sequences = 8,
                             .tokens = 32, .ranks = ranks};
  qd_plan_release(&s->plan);
  MUST(qd_plan_make(&request, &s->plan));
}

static void close_stand(stand *s) {
  for (int i = 0; i < s->job.n_rules; i++) qd_pattern_close(s->job.rule[i].pattern);
  qd_plan_release(&s->plan);
  qd_device_close(&s->device);
}

static void expect_setting(const stand *s, size_t index, const char *says) {
  qd_plan_setting setting;
  char text[QD_SETTING_BYTES] = "";
  cr_assert(qd_plan_setting_at(&s->plan, index, &setting));
  qd_plan_setting_text(&s->plan, &setting, text);
  cr_expect_not_null(strstr(text, says), "%zu: \"%s\" is not in: %s", index, says, text);
}

static size_t count(const stand *s) {
  qd_plan_setting setting;
  size_t n = 0;
  while (qd_plan_setting_at(&s->plan, n, &setting)) n++;
  return n;
}

Test(plan_settings, each_linear_has_its_setting) {
  stand s;
  open_stand(&s);
  s.job.scheme.bits = 3, s.job.scheme.group_size = 32;
  make_plan(&s, 1);
  cr_expect_eq(count(&s), 9); /* seven linears, embedding, head */
  expect_setting(&s, 0, "3 blocks as block 0: q_proj [64, 64]: gptq, 3 bits, groups of 32");
  expect_setting(&s, 0, "act-order static, damping 0.01; without a factor rtn");
  expect_setting(&s, 6, "down_proj [64, 300]: gptq, 3 bits, groups of 32 (the last of a row is shorter)");
  expect_setting(&s, 7, "embedding [500, 64]: kept; --quant-embeddings quantizes it");
  expect_setting(&s, 8, "head [500, 64]: kept; --quant-lm-head quantizes it");
  cr_expect_eq(qd_plan_weights(&s.plan), 3.0 * (2 * 64 * 64 + 2 * 32 * 64 + 3 * 64 * 300));
  close_stand(&s);
}

Test(plan_settings, statistics_and_outliers_are_told) {
  stand s;
  open_stand(&s);
  s.job.method = qd_method_find("spqr"), s.job.act_order = QD_ORDER_DYNAMIC, s.job.damp_auto = true, s.job.avg_bits = 3.99;
  s.job.scheme = (qd_scheme){.bits = 3, .group_size = 16, .scale_dtype = QD_F16, .spqr = true, .scale_bits = 3,
                             .zero_bits = 2, .stat_group = 8};
  make_plan(&s, 1);
  expect_setting(&s, 0, "spqr, 3 bits, groups of 16, zero points, scales of 3 and zero points of 2 bits over 8 rows");
  expect_setting(&s, 0, ", outliers up to 3.99 bits a weight of the whole job, act-order dynamic, damping auto; without");
  s.job.avg_bits = 0, s.job.outlier_threshold = 0.25;
  make_plan(&s, 1);
  expect_setting(&s, 0, ", outliers beyond 0.25, ");
  s.job.outlier_threshold = (double)INFINITY;
  make_plan(&s, 1);
  expect_setting(&s, 0, ", no outliers, ");
  close_stand(&s);
}

Test(plan_settings, what_is_kept_says_why) {
  stand s;
  open_stand(&s);
  s.job.scheme.group_size = 32, s.job.odd_shape = QD_ODD_SKIP, s.job.n_rules = 2;
  s.job.rule[0] = (qd_rule){.expression = "k_proj"};
  s.job.rule[1] = (qd_rule){.expression = "layers\\.1\\..*q_proj", .bits = 5, .group_size = -1};
  for (int i = 0; i < 2; i++) MUST(qd_pattern_open(s.job.rule[i].expression, "rule", &s.job.rule[i].pattern));
  make_plan(&s, 1);
  cr_expect_eq(count(&s), 16); /* block 1 is of a kind of its own */
  expect_setting(&s, 0, "2 blocks as block 0: q_proj");
  expect_setting(&s, 1, "k_proj [32, 64]: kept: --ignore \"k_proj\"");
  expect_setting(&s, 6, "down_proj [64, 300]: kept: no group of 32 divides its columns (--odd-shape skip)");
  expect_setting(&s, 7, "1 block as block 1: q_proj [64, 64]: gptq, 5 bits, one group a row");
  close_stand(&s);
}

/* The parts of the time are the whole; with more ranks all but the factor shrinks, which is one rank's. */
Test(plan_settings, the_factor_does_not_shrink_with_ranks) {
  stand s;
  const qd_probe rates = {1e9, 1e9, 1e9, 1e9, 1e9, 1e9, 1e9, 1e12};
  open_stand(&s);
  make_plan(&s, 1);
  qd_probe_time one = qd_probe_seconds(&s.plan, &rates);
  make_plan(&s, 4);
  qd_probe_time four = qd_probe_seconds(&s.plan, &rates);
  cr_expect_float_eq(one.total, one.forward + one.sums + one.factor + one.codes + one.wires + one.waiting, 1e-12);
  cr_expect_eq(four.factor, one.factor);
  cr_expect_gt(one.factor, 0);
  cr_expect_float_eq(four.forward, one.forward / 4, 1e-12);
  cr_expect_float_eq(four.sums, one.sums / 4, 1e-12);
  cr_expect_float_eq(four.codes, one.codes / 4, 1e-12);
  cr_expect_eq(one.wires, 0);
  cr_expect_gt(four.wires, 0);
  s.job.readers = QD_READERS_ALL;
  make_plan(&s, 4);
  cr_expect_float_eq(qd_probe_seconds(&s.plan, &rates).reading, one.reading / 4, 1e-12);
  close_stand(&s);
}
