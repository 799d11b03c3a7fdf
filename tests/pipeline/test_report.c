/* Against a straightforward evaluation: whole logits of either model after so many blocks, distributions by libm. */
#include "pipeline/report.h"

#include "pipeline/stages.h"
#include "tests/pipeline/job_support.h"

enum { VOCABULARY = 72 };

static qd_temporary_folder folder;
static int32_t *ids;
static char ids_path[QD_TEMPORARY_PATH_BYTES], model[PATH_BYTES];

static void open_fixture(void) {
  size_t bytes;
  char *text;
  qd_temporary_folder_open(&folder);
  snprintf(ids_path, sizeof ids_path, "%s", write_ids(&folder, "ids.i32", JOB_SEQUENCES * JOB_TOKENS));
  MUST(qd_file_read(ids_path, 1 << 20, &text, &bytes));
  ids = must_new(bytes, 1);
  memcpy(ids, text, bytes);
  qd_heap_free(text);
}

static void close_fixture(void) {
  qd_heap_free(ids);
  qd_temporary_folder_close(&folder);
}

TestSuite(report, .init = open_fixture, .fini = close_fixture);

/* ---- the straightforward way --------------------------------------------------------------------------------------------- */

/* The residual stream of a model or store after its first `blocks` blocks, and logits as if they were all. */
typedef struct lens {
  float *h, *logits; /* (sequences, T, hidden), (sequences, T, V) */
  int64_t hidden;
} lens;

static void next_block(qd_subject *s, qd_block *block) {
  qd_arena_rewind(&s->block_arena, 0);
  MUST(qd_feed_next(&s->feed, block));
  MUST(qd_block_prepare(block, s->act, &s->block_arena));
}

static void advance(qd_subject *s, qd_block *block, int64_t i) {
  qd_tensor h = qd_tensor_at(s->h, i);
  MUST(qd_decoder_enter(&s->decoder, block, h, s->mid));
  for (qd_stage stage = 0; stage < QD_N_STAGES; stage++) MUST(qd_decoder_advance(&s->decoder, block, stage, h, s->mid));
}

static void look(qd_subject *s, int64_t blocks, lens *out) {
  qd_block block;
  MUST(qd_feed_open(&s->feed, s->comm));
  for (int64_t item = 0; item < s->model.n_blocks + 2; item++) {
    next_block(s, &block);
    for (int64_t i = 0; i < JOB_SEQUENCES; i++) {
      qd_tensor row = qd_tensor_1d(ids + i * JOB_TOKENS, QD_I32, JOB_TOKENS);
      if (item == 0) MUST(qd_decoder_embed(&s->decoder, &block, row, qd_tensor_at(s->h, i)));
      else if (item <= blocks) advance(s, &block, i);
    }
  }
  memcpy(out->h, s->h.data, qd_tensor_bytes(s->h));
  qd_tensor table = qd_tensor_3d(out->logits, QD_F32, JOB_SEQUENCES, JOB_TOKENS, VOCABULARY);
  for (int64_t i = 0; i < JOB_SEQUENCES; i++) {
    MUST(qd_decoder_final_norm(&s->decoder, &block, qd_tensor_at(s->h, i)));
    MUST(qd_decoder_logits(&s->decoder, &block, qd_tensor_at(s->h, i), qd_tensor_at(table, i)));
  }
}

static lens look_at(const char *path, int64_t blocks) {
  qd_comm *comm = open_team();
  qd_device device = open_device((place){"cpu", NULL, 1});
  qd_subject s;
  MUST(qd_subject_open(&s, path, QD_COMPUTE_FP32, comm, &device));
  MUST(qd_subject_reserve(&s, JOB_SEQUENCES, JOB_TOKENS));
  s.feed = (qd_feed){.model = &s.model, .source = s.source};
  if (s.source == NULL) s.feed.store = &s.store, s.feed.blocks_stored = s.model.n_blocks;
  lens out = {.hidden = s.model.hidden};
  out.h = must_new((size_t)(JOB_SEQUENCES * JOB_TOKENS * out.hidden), sizeof *out.h);
  out.logits = must_new(JOB_SEQUENCES * JOB_TOKENS * VOCABULARY, sizeof *out.logits);
  look(&s, blocks, &out);
  qd_subject_close(&s);
  qd_device_close(&device);
  qd_team_close(comm, false, 0);
  return out;
}

static double log_of_sum(const float *z) {
  double sum = 0;
  for (int v = 0; v < VOCABULARY; v++) sum += exp((double)z[v]);
  return log(sum);
}

static double divergence(const float *p, const float *q) {
  double kl = 0, log_p = log_of_sum(p), log_q = log_of_sum(q);
  for (int v = 0; v < VOCABULARY; v++)
    kl += exp((double)p[v] - log_p) * (((double)p[v] - log_p) - ((double)q[v] - log_q));
  return kl;
}

static double mean_divergence(const lens *p, const lens *q, const int *positions, int n) {
  double sum = 0;
  for (int64_t i = 0; i < JOB_SEQUENCES; i++)
    for (int k = 0; k < n; k++) {
      int64_t at = (i * JOB_TOKENS + positions[k]) * VOCABULARY;
      sum += divergence(p->logits + at, q->logits + at);
    }
  return sum / (double)(JOB_SEQUENCES * n);
}

static double stream_error(const lens *p, const lens *q) {
  double difference = 0, norm = 0;
  for (int64_t i = 0; i < JOB_SEQUENCES * JOB_TOKENS * p->hidden; i++) {
    difference += ((double)p->h[i] - (double)q->h[i]) * ((double)p->h[i] - (double)q->h[i]);
    norm += (double)p->h[i] * (double)p->h[i];
  }
  return difference / norm;
}

/* ---- what the store tells ------------------------------------------------------------------------------------------------ */

static double fact(const qd_store *store, int64_t block, const char *key) {
  const qd_json *value = qd_json_get(store->block[block].facts, key);
  cr_assert(qd_json_is_number(value), "block %d has no %s", (int)block, key);
  return qd_json_number(value);
}

static void expect_near(double got, double wanted, const char *what, int64_t block) {
  cr_expect(fabs(got - wanted) <= 1e-5 * wanted, "block %d: %s %.9g, %.9g by hand", (int)block, what, got, wanted);
  cr_expect_gt(wanted, 1e-6, "block %d: nothing to compare", (int)block);
}

static const char *make_store(const char *name, qd_job *job) {
  snprintf(model, sizeof model, "%s", golden_path(name));
  job->model = model, job->output = qd_temporary_path(&folder, "store");
  MUST(run_job(job));
  return job->output;
}

static qd_job reporting_job(int64_t positions) {
  qd_job job = small_job(NULL, NULL);
  gptq_job(&job, ids_path, QD_ORDER_DYNAMIC);
  job.compute = QD_COMPUTE_FP32, job.kl_positions = positions, job.scheme.bits = 2;
  return job;
}

static void expect_report(const char *name, qd_job job, const int *positions, int n) {
  qd_store store;
  const char *output = make_store(name, &job);
  MUST(qd_store_open(output, false, &store));
  for (int64_t b = 0; b < store.n_blocks; b++) {
    lens p = look_at(model, b + 1), q = look_at(output, b + 1);
    expect_near(fact(&store, b, "kl"), mean_divergence(&p, &q, positions, n), "kl", b);
    expect_near(fact(&store, b, "stream_error"), stream_error(&p, &q), "stream_error", b);
    cr_expect_eq(fact(&store, b, "kl_positions"), JOB_SEQUENCES * n);
    qd_heap_free(p.h), qd_heap_free(p.logits), qd_heap_free(q.h), qd_heap_free(q.logits);
  }
  cr_expect_null(store.rest.facts);
  qd_store_close(&store);
}

/* More than there are: all.  A head of its own, one that is tied, and one that is converted. */
Test(report, is_the_divergence_of_all_positions) {
  static const char *const models[] = {"llama_biases", "llama_grouped", "llama_bf16"};
  int all[JOB_TOKENS];
  for (int t = 0; t < JOB_TOKENS; t++) all[t] = t;
  for (int m = 0; m < 3; m++) {
    qd_job job = reporting_job(m == 0 ? JOB_TOKENS : 1000);
    job.true_sequential = m != 1;
    expect_report(models[m], job, all, JOB_TOKENS);
    char path[QD_TEMPORARY_PATH_BYTES + 32];
    snprintf(path, sizeof path, "%s.%d", qd_temporary_path(&folder, "store"), m);
    cr_assert_eq(rename(qd_temporary_path(&folder, "store"), path), 0);
  }
}

Test(report, takes_positions_at_equal_distances_and_the_last) {
  static const int five[] = {3, 8, 13, 18, 23};
  expect_report("llama", reporting_job(5), five, 5);
}

/* What is not quantized is not off, to the last bit. */
Test(report, of_what_is_kept_is_zero) {
  static const char *const kept[] = {"layers", "layers\\.0\\."};
  for (int k = 0; k < 2; k++) {
    qd_store store;
    char name[16];
    qd_job job = reporting_job(7);
    snprintf(name, sizeof name, "kept%d", k);
    snprintf(model, sizeof model, "%s", golden_path("llama_biases"));
    job.model = model, job.output = qd_temporary_path(&folder, name), job.n_rules = 1;
    job.rule[0].expression = kept[k];
    MUST(qd_pattern_open(kept[k], "--ignore", &job.rule[0].pattern));
    MUST(run_job(&job));
    MUST(qd_store_open(job.output, false, &store));
    cr_expect_eq(fact(&store, 0, "kl"), 0);
    cr_expect_eq(fact(&store, 0, "stream_error"), 0);
    if (k == 0) cr_expect_eq(fact(&store, 1, "kl"), 0);
    else cr_expect_gt(fact(&store, 1, "kl"), 0);
    qd_store_close(&store);
    qd_pattern_close(job.rule[0].pattern);
  }
}

Test(report, rounding_with_text_has_one_too_and_others_none) {
  qd_store store;
  qd_job job = reporting_job(6);
  job.method = &qd_method_rtn, job.act_order = QD_ORDER_NONE;
  MUST(qd_store_open(make_store("llama", &job), false, &store));
  cr_expect_gt(fact(&store, 1, "kl"), fact(&store, 0, "kl") / 10);
  qd_store_close(&store);
  job.kl_positions = 0, job.output = qd_temporary_path(&folder, "silent");
  MUST(run_job(&job));
  MUST(qd_store_open(job.output, false, &store));
  cr_expect_null(store.block[0].facts);
  qd_store_close(&store);
}
