#include "pipeline/job.h"

#include <criterion/criterion.h>

#include <stdio.h>
#include <string.h>

#include "kernels/base/heap.h"

#define MUST(call) cr_assert_eq((call), QD_OK, "%s", qd_error_text())

/* ---- rules -------------------------------------------------------------------------------------------------------------- */

static void add_rule(qd_job *job, const char *expression, int bits, int64_t group_size) {
  qd_rule *rule = &job->rule[job->n_rules++];
  *rule = (qd_rule){.expression = expression, .bits = bits, .group_size = group_size};
  MUST(qd_pattern_open(expression, bits ? "--override" : "--ignore", &rule->pattern));
}

static void close_rules(qd_job *job) {
  for (int i = 0; i < job->n_rules; i++) qd_pattern_close(job->rule[i].pattern);
  job->n_rules = 0;
}

/* bits 0: kept as it is. */
static void expect_scheme(const qd_job *job, const char *name, int bits, int64_t group_size) {
  qd_scheme scheme;
  bool quantized = qd_fate_is_quantized(qd_job_scheme(job, name, 768, &scheme)); /* 6 x 128 */
  cr_expect_eq(quantized, bits != 0, "%s", name);
  if (!quantized) return;
  cr_expect_eq(scheme.bits, bits, "%s: %d bits", name, scheme.bits);
  cr_expect_eq(scheme.group_size, group_size, "%s: groups of %" PRId64, name, scheme.group_size);
  cr_expect(scheme.symmetric && scheme.scale_dtype == QD_F16); /* the rest is the job's */
}

Test(job, the_last_rule_that_finds_a_name_decides) {
  qd_job job = {.scheme = {.bits = 4, .group_size = 128, .symmetric = true, .scale_dtype = QD_F16}};
  expect_scheme(&job, "model.layers.0.mlp.down_proj.weight", 4, 128);
  add_rule(&job, "down_proj", 8, 64);
  add_rule(&job, "layers\\.0\\.", 0, 0);
  add_rule(&job, "layers\\.0\\.mlp\\.up", 3, QD_PER_CHANNEL);
  add_rule(&job, "^model\\.layers\\.1\\.mlp\\.", 2, 32);
  expect_scheme(&job, "model.layers.2.mlp.down_proj.weight", 8, 64);
  expect_scheme(&job, "model.layers.2.mlp.gate_proj.weight", 4, 128);
  expect_scheme(&job, "model.layers.0.mlp.down_proj.weight", 0, 0);     /* ignored after it was overridden */
  expect_scheme(&job, "model.layers.0.mlp.up_proj.weight", 3, -1);      /* overridden after it was ignored */
  expect_scheme(&job, "model.layers.1.mlp.down_proj.weight", 2, 32);    /* overridden twice */
  expect_scheme(&job, "model.layers.10.self_attn.q_proj.weight", 4, 128);
  close_rules(&job);
  add_rule(&job, ".", 0, 0);
  expect_scheme(&job, "x", 0, 0);
  close_rules(&job);
}

/* 176 and 352 columns in groups of 128; a width that the group divides, and one below it. */
static void expect_fate(const qd_job *job, int64_t columns, qd_fate fate, int64_t group_size) {
  qd_scheme scheme;
  cr_expect_str_eq(qd_fate_name(qd_job_scheme(job, "q_proj", columns, &scheme)), qd_fate_name(fate));
  cr_expect_eq(scheme.group_size, group_size, "%" PRId64 " columns: groups of %" PRId64, columns, scheme.group_size);
}

Test(job, odd_shapes_take_the_way_that_was_asked_for) {
  static const struct {
    qd_odd_shape shape;
    qd_fate      fate;
    int64_t      group;
  } ways[] = {{QD_ODD_RAGGED, QD_FATE_RAGGED, 128},
              {QD_ODD_PER_CHANNEL, QD_FATE_WHOLE_ROWS, QD_PER_CHANNEL},
              {QD_ODD_SKIP, QD_FATE_SKIPPED, 128}};
  for (int i = 0; i < 3; i++) {
    qd_job job = {.scheme = {.bits = 4, .group_size = 128, .scale_dtype = QD_F16}, .odd_shape = ways[i].shape};
    expect_fate(&job, 176, ways[i].fate, ways[i].group);
    expect_fate(&job, 352, ways[i].fate, ways[i].group);
    expect_fate(&job, 96, ways[i].fate, ways[i].group);
    expect_fate(&job, 128, QD_FATE_PLAIN, 128);
    expect_fate(&job, 256, QD_FATE_PLAIN, 128);
    add_rule(&job, "q_proj", 3, 88);
    expect_fate(&job, 352, QD_FATE_PLAIN, 88); /* the rule's group divides it */
    expect_fate(&job, 128, ways[i].fate, ways[i].group == 128 ? 88 : ways[i].group);
    add_rule(&job, "q_proj", 3, QD_PER_CHANNEL);
    expect_fate(&job, 352, QD_FATE_PLAIN, QD_PER_CHANNEL);
    add_rule(&job, "q_proj", 0, 0);
    expect_fate(&job, 352, QD_FATE_IGNORED, QD_PER_CHANNEL);
    close_rules(&job);
  }
}

/* ---- names -------------------------------------------------------------------------------------------------------------- */

Test(job, head_and_embedding_have_bits_of_their_own) {
  qd_job job = {.scheme = {.bits = 3, .group_size = 64, .symmetric = true}, .head_bits = 6};
  qd_model model = {.hidden = 100, .tied = true};
  qd_scheme scheme;
  cr_expect_eq(qd_job_rest_scheme(&job, QD_HEAD, 128, &scheme), QD_FATE_PLAIN);
  cr_expect(scheme.bits == 6 && scheme.group_size == 64 && scheme.symmetric);
  cr_expect_eq(qd_job_rest_scheme(&job, QD_EMBEDDING, 128, &scheme), QD_FATE_IGNORED);
  cr_expect_eq(qd_job_rest_scheme(&job, QD_FINAL_NORM, 128, &scheme), QD_FATE_IGNORED);
  cr_expect(qd_job_unties(&job, &model));
  job.odd_shape = QD_ODD_SKIP;
  cr_expect_not(qd_job_unties(&job, &model));
  job.head_bits = 0, job.embedding_bits = 2, model.hidden = 128;
  cr_expect(qd_job_quantizes(&job, QD_EMBEDDING, &model) && !qd_job_quantizes(&job, QD_HEAD, &model));
  cr_expect(qd_job_unties(&job, &model));
  model.tied = false;
  cr_expect_not(qd_job_unties(&job, &model));
}

Test(job, orders_have_names) {
  static const char *const names[] = {"none", "static", "dynamic", "group-aware"};
  qd_act_order found;
  for (qd_act_order order = QD_ORDER_NONE; order <= QD_ORDER_GROUP; order++) {
    cr_expect_str_eq(qd_act_order_name(order), names[order]);
    cr_assert(qd_act_order_find(names[order], &found));
    cr_expect_eq(found, order);
  }
  cr_expect(!qd_act_order_find("descending", &found));
  cr_expect(!qd_act_order_find("", &found));
}

Test(job, arithmetic_follows_the_model_unless_told) {
  const qd_dtype all[] = {QD_F32, QD_F16, QD_BF16};
  for (int i = 0; i < 3; i++) {
    qd_arithmetic own = all[i] == QD_BF16 ? QD_ARITHMETIC_BF16_PAIRS : QD_ARITHMETIC_F32;
    cr_expect_eq(qd_compute_arithmetic(QD_COMPUTE_MODEL, all[i]), own);
    cr_expect_eq(qd_compute_arithmetic(QD_COMPUTE_FP32, all[i]), QD_ARITHMETIC_F32);
    cr_expect_eq(qd_compute_arithmetic(QD_COMPUTE_BF16, all[i]), QD_ARITHMETIC_BF16_PAIRS);
    cr_expect_eq(qd_compute_arithmetic(QD_COMPUTE_BF16_AMX, all[i]), QD_ARITHMETIC_BF16_AMX);
  }
  cr_expect_eq(qd_arithmetic_act(QD_ARITHMETIC_F32), QD_F32);
  cr_expect_eq(qd_arithmetic_act(QD_ARITHMETIC_BF16_PAIRS), QD_BF16);
  cr_expect_eq(qd_arithmetic_act(QD_ARITHMETIC_BF16_AMX), QD_BF16);
  cr_expect_str_eq(qd_arithmetic_name(QD_ARITHMETIC_F32), "f32");
  cr_expect_str_eq(qd_arithmetic_name(QD_ARITHMETIC_BF16_PAIRS), "bf16-pairs");
  cr_expect_str_eq(qd_arithmetic_name(QD_ARITHMETIC_BF16_AMX), "bf16-amx");
}

/* ---- describing and comparing ------------------------------------------------------------------------------------------- */

/* Everything that a description is made from. */
typedef struct subject {
  qd_job    job;
  qd_model  model;
  qd_tokens tokens;
  bool      calibrates;
  qd_digest config, tokenizer;
} subject;

static subject usual(void) {
  subject s = {.job = {.method = &qd_method_gptq,
                       .scheme = {.bits = 4, .group_size = 128, .scale_dtype = QD_F16},
                       .damp = 1,
                       .act_order = QD_ORDER_STATIC,
                       .true_sequential = true,
                       .block = 128,
                       .pack = true,
                       .seed = 7,
                       .shard_bytes = 1 << 20},
               .model = {.arch = qd_arch_find("llama"), .n_blocks = 2, .dtype = QD_BF16},
               .tokens = {.rows = 8, .sequence_tokens = 64, .text_tokens = 1000, .kind = QD_TEXT_PLAIN},
               .calibrates = true};
  qd_digest_of("text", 4, &s.tokens.text_digest);
  qd_digest_of("config", 6, &s.config);
  qd_digest_of("tokenizer", 9, &s.tokenizer);
  return s;
}

static qd_json *describe(const subject *s) {
  return qd_job_describe(&s->job, &s->model, s->calibrates ? &s->tokens : NULL, &s->config, &s->tokenizer);
}

/* As it comes back from the disk. */
static qd_json *stored(const subject *s) {
  char *text;
  qd_json *made = describe(s), *back;
  MUST(qd_json_print(made, 2, &text));
  MUST(qd_json_parse(text, strlen(text), "job.json", &back));
  qd_heap_free(text);
  qd_json_free(made);
  return back;
}

static void expect_same(const subject *was, const subject *now) {
  qd_json *a = stored(was), *b = describe(now);
  cr_expect_eq(qd_job_compare(a, b, "OUT"), QD_OK, "%s", qd_error_text());
  qd_json_free(a);
  qd_json_free(b);
}

static void expect_difference(const subject *was, const subject *now, const char *key, const char *then, const char *today) {
  qd_json *a = stored(was), *b = describe(now);
  char wanted[256];
  snprintf(wanted, sizeof wanted, "OUT holds another job: %s was %s there, now it is %s", key, then, today);
  cr_expect_eq(qd_job_compare(a, b, "OUT"), QD_EEXIST, "%s", key);
  cr_expect(strstr(qd_error_text(), wanted) != NULL, "\"%s\" instead of \"%s\"", qd_error_text(), wanted);
  qd_json_free(a);
  qd_json_free(b);
}

Test(job, what_decides_no_bit_makes_no_other_job) {
  subject was = usual(), now = was;
  expect_same(&was, &now);
  now.job.model = "elsewhere", now.job.output = "OUT2", now.job.dataset = "moved.txt", now.job.no_resume = true;
  now.job.stop_after_seconds = 60, now.job.status_file = "s", now.job.job_name = "77", now.job.nsamples = 9;
  now.tokens.path = NULL;
  expect_same(&was, &now);
}

#define DIFFERS(change, key, then, today)             \
  do {                                                \
    subject was = usual(), now = was;                 \
    change;                                           \
    expect_difference(&was, &now, key, then, today);  \
  } while (0)

Test(job, each_setting_that_differs_is_named) {
  DIFFERS(now.job.method = &qd_method_rtn, "method", "\"gptq\"", "\"rtn\"");
  DIFFERS(now.job.scheme.bits = 3, "bits", "4", "3");
  DIFFERS(now.job.scheme.group_size = -1, "group_size", "128", "-1");
  DIFFERS(now.job.scheme.symmetric = true, "symmetric (--sym, --asym)", "false", "true");
  DIFFERS(now.job.scheme.mse = true, "mse", "false", "true");
  DIFFERS(now.job.scheme.scale_dtype = QD_F32, "scale_dtype", "\"F16\"", "\"F32\"");
  DIFFERS(now.job.scheme.compat = true, "compat", "\"none\"", "\"reference\"");
  DIFFERS(now.job.act_order = QD_ORDER_GROUP, "act_order", "\"static\"", "\"group-aware\"");
  DIFFERS(now.job.true_sequential = false, "true_sequential", "true", "false");
  DIFFERS(now.job.damp = 0.5, "damp", "1.0", "0.5");
  DIFFERS(now.job.block = 64, "block_size", "128", "64");
  DIFFERS(now.job.on_failure = QD_FAILURE_STOP, "on_hessian_failure", "\"rtn\"", "\"stop\"");
  DIFFERS((now.job.gptaq = true, now.job.gptaq_alpha = 0.25), "gptaq_alpha (--gptaq, --gptaq-alpha)", "not given", "0.25");
  DIFFERS((was.job.gptaq = now.job.gptaq = true, now.job.gptaq_alpha = 1), "gptaq_alpha (--gptaq, --gptaq-alpha)", "0.0",
          "1.0");
  DIFFERS(now.job.head_bits = 8, "head_bits (--quant-lm-head)", "not given", "8");
  DIFFERS(was.job.embedding_bits = 4, "embedding_bits (--quant-embeddings)", "4", "not given");
  DIFFERS(was.job.kl_positions = 64, "kl_positions (--report-kl, --kl-positions)", "64", "not given");
  DIFFERS(now.job.compute = QD_COMPUTE_FP32, "arithmetic (--arithmetic, --compute-dtype)", "\"bf16-pairs\"", "\"f32\"");
  DIFFERS(now.job.compute = QD_COMPUTE_BF16_AMX, "arithmetic (--arithmetic, --compute-dtype)", "\"bf16-pairs\"",
          "\"bf16-amx\"");
  DIFFERS(now.job.shard_bytes = 1 << 21, "shard_bytes (--shard-size)", "1048576", "2097152");
}

Test(job, another_model_is_named) {
  DIFFERS(now.model.arch = qd_arch_find("qwen2"), "model.architecture (--model)", "\"llama\"", "\"qwen2\"");
  DIFFERS(now.job.odd_shape = QD_ODD_SKIP, "odd_shape", "\"ragged\"", "\"skip\"");
  DIFFERS(now.job.odd_shape = QD_ODD_PER_CHANNEL, "odd_shape", "\"ragged\"", "\"per-channel\"");
  DIFFERS(now.model.n_blocks = 3, "model.blocks (--model)", "2", "3");
  DIFFERS(now.model.dtype = QD_F16; now.job.compute = was.job.compute = QD_COMPUTE_FP32, "model.dtype (--model)", "\"BF16\"",
          "\"F16\"");
  subject was = usual(), now = was;
  char then[QD_DIGEST_DIGITS + 3], today[QD_DIGEST_DIGITS + 3];
  qd_digest_of("other", 5, &now.config);
  snprintf(then, sizeof then, "\"%s\"", was.config.hex), snprintf(today, sizeof today, "\"%s\"", now.config.hex);
  expect_difference(&was, &now, "model.config_digest (config.json of --model)", then, today);
  now = was;
  qd_digest_of("other", 5, &now.tokenizer);
  snprintf(then, sizeof then, "\"%s\"", was.tokenizer.hex), snprintf(today, sizeof today, "\"%s\"", now.tokenizer.hex);
  expect_difference(&was, &now, "model.tokenizer_digest (tokenizer.json of --model)", then, today);
}

Test(job, another_text_is_named) {
  DIFFERS(now.tokens.rows = 9, "dataset.sequences (--nsamples)", "8", "9");
  DIFFERS(now.tokens.sequence_tokens = 65, "dataset.sequence_tokens (--seqlen)", "64", "65");
  DIFFERS(now.job.seed = 8, "dataset.seed (--seed)", "7", "8");
  DIFFERS(now.job.bos = QD_BOS_NO, "dataset.add_bos (--add-bos)", "\"auto\"", "\"no\"");
  DIFFERS(now.job.bos = QD_BOS_YES, "dataset.add_bos (--add-bos)", "\"auto\"", "\"yes\"");
  DIFFERS(now.job.pack = false, "dataset.pack (--no-pack)", "true", "false");
  DIFFERS(now.tokens.text_tokens = 1001, "dataset.text_tokens (--dataset)", "1000", "1001");
  DIFFERS(now.tokens.dropped_documents = 2, "dataset.dropped_documents (--dataset)", "0", "2");
  DIFFERS(strcpy(now.tokens.chat_digest.hex, "abc"), "dataset.chat_template (--dataset)", "not given", "\"abc\"");
  DIFFERS((now.tokens.n_parts = 1, now.tokens.part[0].weight = 0.5), "dataset.kind (--dataset KIND:)", "\"plain\"",
          "\"mixture\"");
  subject was = usual(), now = was;
  now.tokens.kind = QD_TEXT_JSONL;
  qd_json *a = stored(&was), *b = describe(&now);
  cr_expect_eq(qd_job_compare(a, b, "OUT"), QD_EEXIST);
  cr_expect(strstr(qd_error_text(), "dataset.kind (--dataset KIND:) was") != NULL, "%s", qd_error_text());
  qd_json_free(a);
  qd_json_free(b);
  now = was;
  char then[QD_DIGEST_DIGITS + 3], today[QD_DIGEST_DIGITS + 3];
  qd_digest_of("other", 5, &now.tokens.text_digest);
  snprintf(then, sizeof then, "\"%s\"", was.tokens.text_digest.hex),
      snprintf(today, sizeof today, "\"%s\"", now.tokens.text_digest.hex);
  expect_difference(&was, &now, "dataset.digest (--dataset)", then, today);
}

static void expect_named(const subject *was, const subject *now, const char *beginning, const char *ending) {
  qd_json *a = stored(was), *b = describe(now);
  cr_expect_eq(qd_job_compare(a, b, "OUT"), QD_EEXIST);
  cr_expect(strstr(qd_error_text(), beginning) != NULL && strstr(qd_error_text(), ending) != NULL, "%s", qd_error_text());
  qd_json_free(a);
  qd_json_free(b);
}

Test(job, a_text_that_came_or_went_is_named) {
  subject was = usual(), now = was;
  now.calibrates = false;
  expect_named(&was, &now, "dataset was {", "now it is not given");
  expect_named(&now, &was, "dataset was not given", "now it is {");
}

Test(job, other_rules_are_named) {
  subject was = usual(), now = was;
  add_rule(&now.job, "down_proj", 8, 64);
  expect_named(&was, &now, "rules (--ignore, --override) was [] there", "down_proj");
  was.job.rule[0] = (qd_rule){.expression = "down_proj", .bits = 8, .group_size = 32}, was.job.n_rules = 1;
  expect_named(&was, &now, "rules (--ignore, --override) was", "\"group_size\": 64");
  was.job.rule[0].group_size = 64;
  expect_same(&was, &now);
  was.job.rule[1] = now.job.rule[0], was.job.rule[0].expression = "up_proj", was.job.n_rules = 2;
  expect_named(&was, &now, "rules (--ignore, --override) was", "up_proj");
  close_rules(&now.job);
}
