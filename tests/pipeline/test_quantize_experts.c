/* Experts against what they must equal: a dense model, themselves in another order, rounding to nearest, the sum over all. */
#include "tests/pipeline/job_support.h"
#include "tests/support/safetensors_maker.h"

enum { HIDDEN = 12, FFN = 20, VOCABULARY = 72, MOST = 4, WINDOWS = 3 };

static qd_temporary_folder folder;
static void open_folder(void) { qd_temporary_folder_open(&folder); }
static void close_folder(void) { qd_temporary_folder_close(&folder); }
TestSuite(quantize_experts, .init = open_folder, .fini = close_folder);

/* ---- models of one block ------------------------------------------------------------------------------------------------- */

/* Which of the made experts each expert is, and the rows of the router. */
typedef struct experts {
  int   n, same[MOST];
  float router[MOST][HIDDEN];
} experts;

typedef struct making {
  qd_made_tensor tensor[64];
  char  name[64][96];
  float ffn[MOST][3][HIDDEN * FFN]; /* gate, up, down of each made expert */
  float ones[HIDDEN];
  int   n;
} making;
static making m;

static void add(const char *name, int64_t rows, int64_t columns, const float *data) {
  snprintf(m.name[m.n], sizeof m.name[0], "%s", name);
  m.tensor[m.n] =
      (qd_made_tensor){.name = m.name[m.n], .dtype = QD_F32, .rank = columns ? 2 : 1, .dim = {rows, columns}, .data = data};
  m.n++;
}

static void begin(void) {
  m.n = 0;
  for (int e = 0; e < MOST; e++)
    for (int l = 0; l < 3; l++)
      for (int i = 0; i < HIDDEN * FFN; i++) m.ffn[e][l][i] = 4 * qd_made_value((char[]){(char)('a' + 3 * e + l), '\0'}, i);
  for (int i = 0; i < HIDDEN; i++) m.ones[i] = 1;
  add("model.embed_tokens.weight", VOCABULARY, HIDDEN, NULL);
  add("model.norm.weight", HIDDEN, 0, m.ones);
  add("lm_head.weight", VOCABULARY, HIDDEN, NULL);
  add("model.layers.0.input_layernorm.weight", HIDDEN, 0, m.ones);
  add("model.layers.0.post_attention_layernorm.weight", HIDDEN, 0, m.ones);
  static const char *const attention[] = {"q", "k", "v", "o"};
  for (int i = 0; i < 4; i++) {
    char name[96];
    snprintf(name, sizeof name, "model.layers.0.self_attn.%s_proj.weight", attention[i]);
    add(name, HIDDEN, HIDDEN, NULL);
  }
}

static const char *finish(const char *name, const char *family, const char *members) {
  static char path[QD_TEMPORARY_PATH_BYTES], config[1024];
  snprintf(path, sizeof path, "%s", qd_temporary_make_folder(&folder, name));
  snprintf(config, sizeof config,
           "{\"model_type\": \"%s\", \"num_hidden_layers\": 1, \"hidden_size\": %d, \"intermediate_size\": %d, "
           "\"num_attention_heads\": 2, \"vocab_size\": %d, \"max_position_embeddings\": 4096, \"rms_norm_eps\": 1e-5%s}",
           family, HIDDEN, FFN, VOCABULARY, members);
  qd_make_model(path, config, m.tensor, m.n, 1);
  return path;
}

/* The feed-forward of made expert 0. */
static const char *make_dense(void) {
  begin();
  add("model.layers.0.mlp.gate_proj.weight", FFN, HIDDEN, m.ffn[0][0]);
  add("model.layers.0.mlp.up_proj.weight", FFN, HIDDEN, m.ffn[0][1]);
  add("model.layers.0.mlp.down_proj.weight", HIDDEN, FFN, m.ffn[0][2]);
  return finish("dense", "llama", "");
}

static const char *make_sparse(const char *name, const experts *x) {
  char text[96], members[96];
  static const char *const linears[] = {"w1", "w3", "w2"};
  begin();
  add("model.layers.0.block_sparse_moe.gate.weight", x->n, HIDDEN, x->router[0]);
  for (int e = 0; e < x->n; e++)
    for (int l = 0; l < 3; l++) {
      snprintf(text, sizeof text, "model.layers.0.block_sparse_moe.experts.%d.%s.weight", e, linears[l]);
      add(text, l < 2 ? FFN : HIDDEN, l < 2 ? HIDDEN : FFN, m.ffn[x->same[e]][l]);
    }
  snprintf(members, sizeof members, ", \"num_local_experts\": %d, \"num_experts_per_tok\": 1", x->n);
  return finish(name, "mixtral", members);
}

/* Four experts: by the sign of one direction or of another, and one that is never the largest. */
static experts four_experts(void) {
  experts x = {.n = 4, .same = {0, 1, 2, 3}};
  for (int c = 0; c < HIDDEN; c++) {
    x.router[0][c] = c % 3 == 0 ? 1.0f : 0.25f, x.router[1][c] = -x.router[0][c];
    x.router[3][c] = c % 2 == 0 ? 1.5f : -1.5f; /* row 2 is zero: one of rows 0 and 1 is larger */
  }
  return x;
}

/* ---- stores -------------------------------------------------------------------------------------------------------------- */

static qd_job job_on(const char *model, const char *output, int64_t sequences, int64_t tokens) {
  qd_job job = small_job(model, qd_temporary_path(&folder, output));
  gptq_job(&job, write_ids(&folder, "text.i32", sequences * tokens), QD_ORDER_STATIC);
  job.nsamples = sequences, job.sequence_tokens = tokens, job.scheme.group_size = 4;
  return job;
}

static qd_store store_of(const qd_job *job) {
  qd_store store;
  MUST(run_job(job));
  MUST(qd_store_open(job->output, false, &store));
  return store;
}

static void expect_logged(const qd_job *job, const char *line) {
  char path[QD_TEMPORARY_PATH_BYTES + 16], *log;
  size_t n;
  snprintf(path, sizeof path, "%s/qdist.log", job->output);
  MUST(qd_file_read(path, 1 << 20, &log, &n));
  cr_expect_not_null(strstr(log, line), "\"%s\" is not in: %s", line, log);
  qd_heap_free(log);
}

static const qd_record *record_of(const qd_store *store, const char *role, int expert) {
  const qd_entry *entry = &store->block[0];
  for (int i = 0; i < entry->n_records; i++)
    if (strcmp(entry->record[i].role, role) == 0 && entry->record[i].expert == expert) return &entry->record[i];
  cr_assert_fail("no %s of %d", role, expert);
  return NULL;
}

/* The same values: digests are of values. */
static void expect_same_parts(const qd_record *a, const qd_record *b) {
  cr_assert_eq(a->n_parts, b->n_parts);
  for (int i = 0; i < a->n_parts; i++)
    cr_expect(qd_digest_equal(&a->part[i].digest, &b->part[i].digest), "%s: %s", a->name, a->part[i].name);
}

static double fact(const qd_record *record, const char *key) { return qd_json_number(qd_json_get(record->facts, key)); }
static bool   says(const qd_record *record, const char *key) {
  bool value = false;
  MUST(qd_json_take_bool(record->facts, "facts", key, false, &value));
  return value;
}

static void diagonal_of(const qd_store *store, const qd_record *input, double *to) {
  MUST(qd_store_read_part(store, &store->block[0], &input->part[0], to));
}

static logits run_some(const char *model, qd_compute compute) {
  int32_t ids[WINDOWS * 24];
  for (int i = 0; i < WINDOWS * 24; i++) ids[i] = (int32_t)(7 * i + i * i) % VOCABULARY;
  return run_model(model, compute, (place){"cpu", NULL, 1}, ids, WINDOWS, 24);
}

static void expect_same_logits(const char *a, const char *b) {
  static const qd_compute computes[] = {QD_COMPUTE_FP32, QD_COMPUTE_BF16};
  for (int c = 0; c < 2; c++) {
    logits x = run_some(a, computes[c]), y = run_some(b, computes[c]);
    cr_expect_eq(memcmp(x.value, y.value, logits_bytes(&x)), 0, "%s and %s", a, b);
    qd_heap_free(x.value);
    qd_heap_free(y.value);
  }
}

static const char *kept(const char *path) {
  static char paths[4][QD_TEMPORARY_PATH_BYTES];
  static int n;
  return strcpy(paths[n++ % 4], path);
}

/* ---- promises ------------------------------------------------------------------------------------------------------------ */

/* A sequence of 2048 tokens is a unit of either. */
Test(quantize_experts, one_expert_is_a_dense_block) {
  experts one = {.n = 1, .router = {{0.5f, -1}}};
  const char *dense = kept(make_dense()), *sparse = kept(make_sparse("one", &one));
  static const char *const pairs[][2] = {{"gate_proj", "expert_gate_proj"},
                                         {"up_proj", "expert_up_proj"},
                                         {"down_proj", "expert_down_proj"},
                                         {"gate_up_input", "expert_gate_up_input"},
                                         {"down_input", "expert_down_input"}};
  expect_same_logits(dense, sparse);
  for (int sequential = 0; sequential < 2; sequential++) {
    qd_job a = job_on(dense, sequential ? "a1" : "a0", 2, QD_EXPERT_UNIT),
           b = job_on(sparse, sequential ? "b1" : "b0", 2, QD_EXPERT_UNIT);
    a.true_sequential = b.true_sequential = sequential;
    qd_store x = store_of(&a), y = store_of(&b);
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
      expect_same_parts(record_of(&x, pairs[i][0], -1), record_of(&y, pairs[i][1], 0));
    for (size_t i = 0; i < 3; i++) {
      cr_expect_eq(fact(record_of(&x, pairs[i][0], -1), "loss"), fact(record_of(&y, pairs[i][1], 0), "loss"));
      cr_expect_eq(fact(record_of(&y, pairs[i][1], 0), "tokens"), 2 * QD_EXPERT_UNIT);
    }
    qd_store_close(&x);
    qd_store_close(&y);
  }
}

Test(quantize_experts, in_another_order_they_give_the_same) {
  static const int order[] = {2, 3, 1, 0};
  experts x = four_experts(), y = {.n = 4};
  for (int e = 0; e < 4; e++) {
    y.same[e] = order[e];
    memcpy(y.router[e], x.router[order[e]], sizeof y.router[e]);
  }
  const char *first = kept(make_sparse("first", &x)), *second = kept(make_sparse("second", &y));
  expect_same_logits(first, second);
  qd_job a = job_on(first, "a", 5, 24), b = job_on(second, "b", 5, 24);
  a.moe_min_tokens = b.moe_min_tokens = 8, a.moe_fallback = b.moe_fallback = QD_MOE_SHARED;
  qd_store s = store_of(&a), t = store_of(&b);
  for (int e = 0; e < 4; e++)
    for (qd_role role = QD_EXPERT_GATE_PROJ; role <= QD_EXPERT_DOWN_PROJ; role++)
      expect_same_parts(record_of(&s, qd_role_name(role), order[e]), record_of(&t, qd_role_name(role), e));
  qd_store_close(&s);
  qd_store_close(&t);
}

/* Each token is some expert's, so their diagonals add up to that of all; and with the same weights everywhere, what rounding
 * loses, tr(D H D^T), does so too: the whole Hessian. */
Test(quantize_experts, their_hessians_add_up_to_the_dense_one) {
  experts x = four_experts();
  for (int e = 0; e < 4; e++) x.same[e] = 0;
  qd_job a = job_on(kept(make_dense()), "a", 5, 24), b = job_on(kept(make_sparse("same", &x)), "b", 5, 24);
  a.method = b.method = &qd_method_rtn;
  qd_store s = store_of(&a), t = store_of(&b);
  double all[HIDDEN], sum[HIDDEN] = {0}, lost = 0, tokens = 0;
  diagonal_of(&s, record_of(&s, "gate_up_input", -1), all);
  for (int e = 0; e < 4; e++) {
    double one[HIDDEN];
    const qd_record *gate = record_of(&t, "expert_gate_proj", e);
    diagonal_of(&t, record_of(&t, "expert_gate_up_input", e), one);
    for (int c = 0; c < HIDDEN; c++) sum[c] += one[c];
    cr_expect_eq(fact(gate, "tokens"), fact(record_of(&t, "expert_gate_up_input", e), "tokens"));
    lost += fact(gate, "loss") * fact(gate, "tokens"), tokens += fact(gate, "tokens");
  }
  const qd_record *dense = record_of(&s, "gate_proj", -1);
  cr_expect_eq(tokens, 5 * 24);
  for (int c = 0; c < HIDDEN; c++)
    cr_expect(fabs(sum[c] - all[c]) <= 1e-12 * all[c], "column %d: %.17g and %.17g", c, sum[c], all[c]);
  double wanted = fact(dense, "loss") * fact(dense, "tokens");
  cr_expect(wanted > 0 && fabs(lost - wanted) <= 1e-5 * wanted, "%.9g and %.9g", lost, wanted);
  qd_store_close(&s);
  qd_store_close(&t);
}

Test(quantize_experts, an_empty_one_is_rounded_to_nearest) {
  experts x = four_experts();
  const char *model = kept(make_sparse("four", &x));
  for (int fallback = QD_MOE_RTN; fallback <= QD_MOE_SHARED; fallback++) {
    qd_job gptq = job_on(model, fallback ? "a1" : "a0", 5, 24), rtn = job_on(model, fallback ? "b1" : "b0", 5, 24);
    gptq.moe_fallback = (qd_moe_fallback)fallback, gptq.moe_min_tokens = 8, rtn.method = &qd_method_rtn;
    qd_store s = store_of(&gptq), t = store_of(&rtn);
    for (qd_role role = QD_EXPERT_GATE_PROJ; role <= QD_EXPERT_DOWN_PROJ; role++) {
      const qd_record *empty = record_of(&s, qd_role_name(role), 2), *full = record_of(&s, qd_role_name(role), 0);
      cr_expect(fact(empty, "tokens") == 0 && fact(empty, "loss") == 0 && says(empty, "fallback_rtn"));
      cr_expect(fact(full, "tokens") > 8 && !says(full, "fallback_rtn") && !says(full, "shared_hessian"));
      expect_same_parts(empty, record_of(&t, qd_role_name(role), 2));
      cr_expect(!qd_digest_equal(&full->part[0].digest, &record_of(&t, qd_role_name(role), 0)->part[0].digest));
    }
    expect_logged(&gptq, "experts    4, of 0 to ");
    expect_logged(&gptq, "; down: 3 by their own Hessian, 1 rounded to nearest; relative error ");
    expect_logged(&rtn, "; gate and up: 4 quantized; down: 4 quantized; relative error ");
    qd_store_close(&s);
    qd_store_close(&t);
  }
}

/* All of them see fewer tokens than asked for: rounded, or gate and up by the Hessian of all tokens, which is the dense one's.
 */
Test(quantize_experts, those_with_few_tokens_take_the_fallback) {
  experts x = four_experts();
  for (int e = 0; e < 4; e++) x.same[e] = 0;
  const char *model = kept(make_sparse("same", &x));
  qd_job rtn = job_on(model, "rtn", 5, 24), shared = job_on(model, "shared", 5, 24),
         dense = job_on(kept(make_dense()), "of-dense", 5, 24);
  rtn.moe_min_tokens = shared.moe_min_tokens = 121, shared.moe_fallback = QD_MOE_SHARED;
  qd_store r = store_of(&rtn), s = store_of(&shared), d = store_of(&dense);
  for (qd_role role = QD_EXPERT_GATE_PROJ; role <= QD_EXPERT_DOWN_PROJ; role++) {
    const qd_record *rounded = record_of(&r, qd_role_name(role), 0), *other = record_of(&s, qd_role_name(role), 0);
    bool gate_or_up = role != QD_EXPERT_DOWN_PROJ;
    cr_expect(says(rounded, "fallback_rtn") && !says(rounded, "shared_hessian"));
    cr_expect_eq(says(other, "shared_hessian"), gate_or_up);
    cr_expect_eq(says(other, "fallback_rtn"), !gate_or_up);
    if (gate_or_up) expect_same_parts(other, record_of(&d, role == QD_EXPERT_GATE_PROJ ? "gate_proj" : "up_proj", -1));
    else expect_same_parts(other, rounded);
  }
  expect_logged(&rtn, "; gate and up: 4 rounded to nearest; down: 4 rounded to nearest; relative error ");
  expect_logged(&shared, "; gate and up: 3 by that of all tokens, 1 rounded to nearest; down: 4 rounded to nearest; ");
  qd_store_close(&r);
  qd_store_close(&s);
  qd_store_close(&d);
}

Test(quantize_experts, as_many_tokens_as_asked_for_are_enough) {
  experts one = {.n = 1, .router = {{0.5f, -1}}};
  const char *model = kept(make_sparse("one", &one));
  for (int more = 0; more < 2; more++) {
    qd_job job = job_on(model, more ? "more" : "enough", 5, 24);
    job.moe_min_tokens = 5 * 24 + more;
    qd_store s = store_of(&job);
    cr_expect_eq(says(record_of(&s, "expert_gate_proj", 0), "fallback_rtn"), more);
    qd_store_close(&s);
  }
}

static qd_store store_with_rule(qd_job job, const char *expression, int64_t group_size) {
  job.n_rules = 1, job.act_order = QD_ORDER_GROUP;
  job.rule[0] = (qd_rule){.expression = expression, .bits = 4, .group_size = group_size};
  MUST(qd_pattern_open(expression, "--override", &job.rule[0].pattern));
  qd_store s = store_of(&job);
  qd_pattern_close(job.rule[0].pattern);
  return s;
}

/* An order that follows groups is another one for up than for gate, and so is the factor. */
Test(quantize_experts, up_in_groups_of_its_own_has_a_factor_of_its_own) {
  experts one = {.n = 1, .router = {{0.5f, -1}}};
  const char *dense = kept(make_dense()), *sparse = kept(make_sparse("one", &one));
  qd_store x = store_with_rule(job_on(dense, "a", 5, 24), "up_proj", 6),
           y = store_with_rule(job_on(sparse, "b", 5, 24), "w3", 6);
  expect_same_parts(record_of(&x, "gate_proj", -1), record_of(&y, "expert_gate_proj", 0));
  expect_same_parts(record_of(&x, "up_proj", -1), record_of(&y, "expert_up_proj", 0));
  qd_store_close(&x);
  qd_store_close(&y);
}

Test(quantize_experts, rules_name_single_experts) {
  experts x = four_experts();
  qd_job job = job_on(kept(make_sparse("four", &x)), "a", 5, 24);
  job.n_rules = 2;
  job.rule[0] = (qd_rule){.expression = "experts\\.1\\."};
  job.rule[1] = (qd_rule){.expression = "experts\\.3\\.w2", .bits = 8, .group_size = 5};
  for (int i = 0; i < 2; i++) MUST(qd_pattern_open(job.rule[i].expression, "--override", &job.rule[i].pattern));
  qd_store s = store_of(&job);
  for (int i = 0; i < 2; i++) qd_pattern_close(job.rule[i].pattern);
  cr_expect_str_eq(record_of(&s, "expert_up_proj", 1)->scheme, "none");
  cr_expect_str_eq(record_of(&s, "router", -1)->scheme, "none");
  cr_expect_eq(fact(record_of(&s, "expert_down_proj", 3), "bits"), 8);
  cr_expect_eq(fact(record_of(&s, "expert_down_proj", 0), "bits"), 4);
  qd_store_close(&s);
}
