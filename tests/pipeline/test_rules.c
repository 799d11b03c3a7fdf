#include "pipeline/rules.h"

#include <criterion/criterion.h>

#include <string.h>

#define MUST(call) cr_assert_eq((call), QD_OK, "%s", qd_error_text())

static qd_model model;
static qd_job job;

static void setup(void) {
  model = (qd_model){.arch = qd_arch_find("llama"), .n_blocks = 3, .hidden = 64, .ffn = 96, .heads = 4, .kv_heads = 2,
                     .head_dim = 16, .vocabulary = 50};
  job = (qd_job){.model = "MODEL", .scheme = {.bits = 4, .group_size = 16, .scale_dtype = QD_F16}};
}

static void teardown(void) {
  for (int i = 0; i < job.n_rules; i++) qd_pattern_close(job.rule[i].pattern);
}

TestSuite(rules, .init = setup, .fini = teardown);

static void add(const char *expression, int bits) {
  qd_rule *rule = &job.rule[job.n_rules++];
  *rule = (qd_rule){.expression = expression, .bits = bits, .group_size = 16};
  MUST(qd_pattern_open(expression, "a rule", &rule->pattern));
}

static void expect_refused(const char *what) {
  cr_expect_eq(qd_rules_check(&job, &model), QD_EINVAL);
  cr_expect_not_null(strstr(qd_error_text(), what), "\"%s\" is not in: %s", what, qd_error_text());
  cr_expect_not_null(strstr(qd_error_text(), "MODEL"), "%s", qd_error_text());
}

Test(rules, patterns_that_find_a_linear_of_any_block_are_fine) {
  MUST(qd_rules_check(&job, &model));
  add("layers\\.2\\..*down_proj", 0);
  add("layers\\.1\\.self_attn\\.q", 3);
  MUST(qd_rules_check(&job, &model));
}

Test(rules, an_ignore_with_a_typo_is_refused_with_names_beside_it) {
  add("donw_proj", 0);
  expect_refused("--ignore \"donw_proj\" finds no tensor");
  expect_refused("model.layers.0.self_attn.q_proj.weight, model.layers.0.self_attn.k_proj.weight");
}

Test(rules, an_override_with_a_typo_is_refused) {
  add("layers\\.3\\.", 8); /* the blocks are 0, 1 and 2 */
  expect_refused("--override \"layers\\.3\\.\" finds no linear");
}

Test(rules, what_is_never_quantized_may_be_ignored_but_not_overridden) {
  add("lm_head", 0);
  add("norm", 0);
  add("embed", 0);
  MUST(qd_rules_check(&job, &model));
  model.tied = true; /* a tied model has no head; a list made for all models names it all the same */
  MUST(qd_rules_check(&job, &model));
  add("lm_head", 8);
  expect_refused("--override \"lm_head\" finds no linear");
}

Test(rules, what_is_asked_to_be_quantized_may_not_be_kept) {
  job.head_bits = 4, job.embedding_bits = 8;
  MUST(qd_rules_check(&job, &model));
  add("lm_", 0);
  cr_expect_eq(qd_rules_check(&job, &model), QD_EINVAL);
  cr_expect_not_null(strstr(qd_error_text(), "finds lm_head.weight, which --quant-lm-head"), "%s", qd_error_text());
  job.head_bits = 0;
  MUST(qd_rules_check(&job, &model));
  job.scheme.group_size = 48, job.odd_shape = QD_ODD_SKIP;
  cr_expect_eq(qd_rules_check(&job, &model), QD_EINVAL);
  cr_expect_not_null(strstr(qd_error_text(), "--quant-embeddings is to quantize model.embed_tokens.weight"), "%s",
                     qd_error_text());
}

Test(rules, the_first_pattern_that_finds_nothing_is_named_behind_those_that_do) {
  add("q_proj", 0);
  add("x_proj", 0);
  add("y_proj", 0);
  expect_refused("\"x_proj\"");
}

Test(rules, a_job_that_would_quantize_nothing_is_refused) {
  add(".", 0);
  expect_refused("no linear of MODEL is left to quantize");
  add("layers\\.2\\..*up", 2); /* one is */
  MUST(qd_rules_check(&job, &model));
  job.odd_shape = QD_ODD_SKIP;
  MUST(qd_rules_check(&job, &model));
  job.rule[1].group_size = 15;
  expect_refused("no linear of MODEL is left to quantize");
}
