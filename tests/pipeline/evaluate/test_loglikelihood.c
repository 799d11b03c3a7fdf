#include "pipeline/evaluate/loglikelihood.h"

#include "tests/pipeline/job_support.h"

static qd_temporary_folder folder;
static void open_folder(void) { qd_temporary_folder_open(&folder); }
static void close_folder(void) { qd_temporary_folder_close(&folder); }
TestSuite(loglikelihood, .init = open_folder, .fini = close_folder);

enum { REQUESTS = 7, IDS = 24 };

static const place fast = {"cpu", NULL, 1};

/* Of several lengths; 2 and 3 differ in their last token only, so that they share a forward; 5 has no continuation. */
static const qd_request lengths[REQUESTS] = {{0, 9, 3}, {2, 20, 1}, {4, 12, 2}, {4, 12, 2}, {0, 2, 1}, {3, 5, 0}, {1, 12, 11}};

static qd_requests make_requests(const int32_t *ids) {
  qd_requests r = {.n = REQUESTS};
  r.at = must_new(REQUESTS, sizeof *r.at);
  r.ids = must_new(REQUESTS * IDS, sizeof *r.ids);
  for (int i = 0; i < REQUESTS; i++) {
    r.at[i] = (qd_request){(int64_t)r.n_ids, lengths[i].tokens, lengths[i].scored};
    memcpy(r.ids + r.n_ids, ids + lengths[i].first, (size_t)lengths[i].tokens * sizeof *ids);
    r.n_ids += (size_t)lengths[i].tokens;
  }
  r.ids[r.at[3].first + 11] ^= 1;
  return r;
}

static qd_status score(const char *path, qd_compute compute, place where, const qd_requests *requests, int64_t max_host_bytes,
                       qd_loglikelihood *out) {
  qd_comm *comm = open_team();
  qd_device device = open_device(where);
  qd_subject subject;
  int64_t planned;
  MUST(qd_subject_open(&subject, path, compute, comm, &device));
  qd_status status = qd_loglikelihoods(&subject, requests, max_host_bytes, out, &planned);
  if (status == QD_OK) cr_expect_gt(planned, 0);
  qd_subject_close(&subject);
  qd_device_close(&device);
  qd_team_close(comm, false, 0);
  return status;
}

/* ---- by hand, in double -------------------------------------------------------------------------------------------------- */

static double log_softmax(const float *row, int64_t n, int32_t token) {
  double top = -INFINITY, sum = 0;
  for (int64_t i = 0; i < n; i++) top = fmax(top, (double)row[i]);
  for (int64_t i = 0; i < n; i++) sum += exp((double)row[i] - top);
  return (double)row[token] - top - log(sum);
}

static bool is_largest(const float *row, int64_t n, int32_t token) {
  for (int64_t i = 0; i < n; i++)
    if (row[i] > row[token]) return false;
  return true;
}

static void expect_by_hand(const char *path, const qd_requests *r, int i, const qd_loglikelihood *got) {
  int64_t n = r->at[i].tokens - 1;
  int32_t *ids = r->ids + r->at[i].first;
  logits l = run_model(path, QD_COMPUTE_FP32, fast, ids, 1, n);
  double sum = 0;
  bool greedy = true;
  for (int64_t t = r->at[i].tokens - r->at[i].scored; t <= n; t++) {
    const float *row = l.value + (t - 1) * l.vocabulary;
    sum += log_softmax(row, l.vocabulary, ids[t]);
    greedy = greedy && is_largest(row, l.vocabulary, ids[t]);
  }
  cr_expect(fabs(got->value - sum) <= 1e-6 * fmax(1, fabs(sum)), "%d: %.12g, by hand %.12g", i, got->value, sum);
  cr_expect_eq(got->greedy, greedy, "%d", i);
  qd_heap_free(l.value);
}

/* The ids that a model chooses itself, behind the first: their continuation is greedy. */
static void follow(const char *path, int32_t *ids, int64_t n) {
  for (int64_t t = 1; t < n; t++) {
    logits l = run_model(path, QD_COMPUTE_FP32, fast, ids, 1, t);
    const float *row = l.value + (t - 1) * l.vocabulary;
    ids[t] = 0;
    for (int32_t v = 0; v < l.vocabulary; v++)
      if (row[v] > row[ids[t]]) ids[t] = v;
    qd_heap_free(l.value);
  }
}

static void expect_model(const char *name) {
  golden g = golden_open(name);
  qd_loglikelihood got[REQUESTS];
  follow(g.path, g.ids, 3); /* request 4 */
  qd_requests requests = make_requests(g.ids);
  MUST(score(g.path, QD_COMPUTE_FP32, fast, &requests, 0, got));
  for (int i = 0; i < REQUESTS; i++) expect_by_hand(g.path, &requests, i, &got[i]);
  cr_expect_eq(got[4].greedy, 1);
  cr_expect_eq(got[5].value, 0);
  cr_expect_neq(got[2].value, got[3].value);
  qd_requests_release(&requests);
  golden_close(&g);
}

Test(loglikelihood, of_requests_of_several_lengths) { expect_model("llama"); }
Test(loglikelihood, where_blocks_have_experts) { expect_model("qwen2_moe"); }

/* ---- nothing but the request counts -------------------------------------------------------------------------------------- */

static void expect_alone(const char *path, qd_compute compute) {
  golden g = golden_open("llama");
  place where[8];
  int n = places(where);
  qd_loglikelihood all[REQUESTS], again[REQUESTS], one;
  qd_requests requests = make_requests(g.ids);
  MUST(score(path, compute, where[0], &requests, 0, all));
  for (int p = 1; p < n; p++) {
    MUST(score(path, compute, where[p], &requests, 0, again));
    cr_expect_eq(memcmp(all, again, sizeof all), 0, "%s %s", where[p].device, where[p].isa);
  }
  for (int i = 0; i < REQUESTS; i++) {
    qd_requests alone = {.ids = requests.ids + requests.at[i].first, .n = 1, .n_ids = (size_t)requests.at[i].tokens};
    qd_request own = {0, requests.at[i].tokens, requests.at[i].scored};
    alone.at = &own;
    MUST(score(path, compute, fast, &alone, 0, &one));
    cr_expect_eq(memcmp(&all[i], &one, sizeof one), 0, "%d: %.17g with others, %.17g alone", i, all[i].value, one.value);
  }
  qd_requests_release(&requests);
  golden_close(&g);
}

Test(loglikelihood, does_not_depend_on_other_requests) {
  expect_alone(golden_path("llama"), QD_COMPUTE_BF16);
  expect_alone(golden_path("qwen2_moe"), QD_COMPUTE_FP32);
}

Test(loglikelihood, of_a_store) {
  char store[QD_TEMPORARY_PATH_BYTES];
  snprintf(store, sizeof store, "%s", qd_temporary_path(&folder, "store"));
  qd_job job = small_job(golden_path("llama"), store);
  MUST(run_job(&job));
  expect_alone(store, QD_COMPUTE_FP32);
}

Test(loglikelihood, wants_memory_for_the_longest) {
  golden g = golden_open("llama");
  qd_loglikelihood got[REQUESTS];
  qd_requests requests = make_requests(g.ids);
  cr_expect_eq(score(g.path, QD_COMPUTE_FP32, fast, &requests, 1 << 16, got), QD_ENOMEM);
  cr_expect_not_null(strstr(qd_error_text(), "--max-host-mem"), "%s", qd_error_text());
  qd_requests_release(&requests);
  golden_close(&g);
}
