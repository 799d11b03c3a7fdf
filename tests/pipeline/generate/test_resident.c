#include "pipeline/generate/resident.h"

#include "tests/pipeline/job_support.h"

static qd_temporary_folder folder;
static void open_folder(void) { qd_temporary_folder_open(&folder); }
static void close_folder(void) { qd_temporary_folder_close(&folder); }
TestSuite(resident, .init = open_folder, .fini = close_folder);

static const place fast = {"cpu", NULL, 1};

/* Logits behind every token, the first `prompt` of them in one pass, the others one by one: those of the full forward. */
static void expect_full_forward(const char *path, qd_compute compute, place where, int32_t *ids, int64_t tokens,
                                int64_t prompt) {
  logits wanted = run_model(path, compute, where, ids, 1, tokens);
  qd_comm *comm = open_team();
  qd_device device = open_device(where);
  qd_resident r;
  size_t row = (size_t)wanted.vocabulary * sizeof(float);
  MUST(qd_resident_open(&r, path, compute, comm, &device));
  MUST(qd_resident_load(&r, tokens));
  MUST(qd_resident_pass(&r, ids, prompt, 0));
  for (int64_t t = prompt;; t++) {
    cr_assert(memcmp(r.logits.data, wanted.value + (t - 1) * wanted.vocabulary, row) == 0,
              "%s on %s %s, token %d of %d, prompt %d", path, where.device, where.isa ? where.isa : "", (int)t,
              (int)tokens, (int)prompt);
    if (t == tokens) break;
    MUST(qd_resident_pass(&r, ids + t, 1, t));
  }
  qd_resident_close(&r);
  qd_device_close(&device);
  qd_team_close(comm, false, 0);
  qd_heap_free(wanted.value);
}

static int32_t *some_ids(int64_t n) {
  int32_t *ids = must_new((size_t)n, sizeof *ids);
  for (int64_t i = 0; i < n; i++) ids[i] = (int32_t)((i * i * 7 + 5 * i + 3) % 72);
  return ids;
}

/* Dense and sparse, with a shared expert and without, biases, norms of heads, a window, a tied head. */
Test(resident, decodes_every_family_as_the_full_forward) {
  static const char *const models[] = {"llama", "llama_biases", "llama_grouped", "mistral_window", "qwen2_window",
                                       "qwen3", "mixtral_window", "qwen2_moe", "qwen3_moe"};
  for (size_t m = 0; m < sizeof models / sizeof models[0]; m++) {
    golden g = golden_open(models[m]);
    expect_full_forward(g.path, QD_COMPUTE_FP32, fast, g.ids, g.expected.tokens, 1);
    expect_full_forward(g.path, QD_COMPUTE_BF16, fast, g.ids, g.expected.tokens, g.expected.tokens / 2);
    golden_close(&g);
  }
}

static const char *store_of(const char *model, qd_compute compute, bool ordered) {
  char ids[PATH_BYTES];
  snprintf(ids, sizeof ids, "%s", write_ids(&folder, "ids.i32", JOB_SEQUENCES * JOB_TOKENS));
  qd_job job = small_job(golden_path(model), qd_temporary_path(&folder, model));
  job.compute = compute;
  if (ordered) gptq_job(&job, ids, QD_ORDER_DYNAMIC);
  MUST(run_job(&job));
  return qd_temporary_path(&folder, model);
}

Test(resident, decodes_codes_on_every_device) {
  enum { T = 21 };
  int32_t *ids = some_ids(T);
  place where[8];
  int n = places(where);
  char dense[PATH_BYTES], sparse[PATH_BYTES];
  snprintf(dense, sizeof dense, "%s", store_of("llama_bf16", QD_COMPUTE_MODEL, true));
  snprintf(sparse, sizeof sparse, "%s", store_of("qwen2_moe", QD_COMPUTE_MODEL, false));
  for (int i = 0; i < n; i++) {
    where[i].threads = i % 2 + 1;
    expect_full_forward(dense, QD_COMPUTE_MODEL, where[i], ids, T, 5);
    expect_full_forward(sparse, QD_COMPUTE_MODEL, where[i], ids, T, 1);
  }
  qd_heap_free(ids);
}

Test(resident, decodes_a_quantized_head_and_embedding) {
  enum { T = 9 };
  int32_t *ids = some_ids(T);
  char store[PATH_BYTES];
  snprintf(store, sizeof store, "%s", qd_temporary_path(&folder, "store"));
  qd_job job = small_job(golden_path("llama"), store);
  job.head_bits = 8, job.embedding_bits = 4;
  MUST(run_job(&job));
  expect_full_forward(store, QD_COMPUTE_FP32, fast, ids, T, 4);
  qd_heap_free(ids);
}

/* Rows of a product are independent, rounded activations too. */
Test(resident, decodes_in_int8_as_the_full_forward) {
  enum { T = 21 };
  int32_t *ids = some_ids(T);
  place where[8];
  int n = places(where);
  char dense[PATH_BYTES], sparse[PATH_BYTES], outliers[PATH_BYTES], text[PATH_BYTES];
  snprintf(dense, sizeof dense, "%s", store_of("llama_bf16", QD_COMPUTE_MODEL, true));
  snprintf(sparse, sizeof sparse, "%s", store_of("qwen2_moe", QD_COMPUTE_MODEL, false));
  snprintf(text, sizeof text, "%s", write_ids(&folder, "ids.i32", JOB_SEQUENCES * JOB_TOKENS));
  snprintf(outliers, sizeof outliers, "%s", qd_temporary_path(&folder, "outliers"));
  qd_job job = small_job(golden_path("llama"), outliers);
  spqr_job(&job, text, QD_ORDER_DYNAMIC);
  job.head_bits = 8;
  MUST(run_job(&job));
  for (int i = 0; i < n; i++) {
    where[i].threads = i % 2 + 1;
    expect_full_forward(dense, QD_COMPUTE_INT8, where[i], ids, T, 5);
    expect_full_forward(sparse, QD_COMPUTE_INT8, where[i], ids, T, 1);
    expect_full_forward(outliers, QD_COMPUTE_INT8, where[i], ids, T, 7);
  }
  qd_heap_free(ids);
}

/* Longer than a pass, and than a chunk of a product over keys. */
Test(resident, cuts_a_long_prompt) {
  enum { T = 2 * QD_PASS_TOKENS + 5 };
  int32_t *ids = some_ids(T);
  expect_full_forward(golden_path("llama"), QD_COMPUTE_BF16, fast, ids, T, T - 2);
  expect_full_forward(golden_path("mistral_window"), QD_COMPUTE_FP32, (place){"cpu", NULL, 2}, ids, T, QD_PASS_TOKENS + 1);
  qd_heap_free(ids);
}

Test(resident, refuses_an_id_beyond_the_vocabulary) {
  int32_t ids[] = {1, 1000000};
  qd_comm *comm = open_team();
  qd_device device = open_device(fast);
  qd_resident r;
  MUST(qd_resident_open(&r, golden_path("llama"), QD_COMPUTE_MODEL, comm, &device));
  MUST(qd_resident_load(&r, 2));
  cr_expect_eq(qd_resident_pass(&r, ids, 2, 0), QD_EBADINPUT);
  qd_resident_close(&r);
  qd_device_close(&device);
  qd_team_close(comm, false, 0);
}

static void expect_plan(const char *store, qd_compute compute) {
  qd_comm *comm = open_team();
  qd_device device = open_device(fast);
  qd_resident r;
  qd_plan_rank alone, of_three;
  MUST(qd_resident_open(&r, store, compute, comm, &device));
  qd_resident_plan(&r, 50, 0, &alone);
  comm->size = 3;
  qd_resident_plan(&r, 50, 0, &of_three);
  comm->size = 1;
  cr_expect_lt(of_three.part[QD_PLAN_BLOCK], alone.part[QD_PLAN_BLOCK]);
  cr_expect_lt(of_three.part[QD_PLAN_ACTIVATIONS], alone.part[QD_PLAN_ACTIVATIONS]);
  MUST(qd_resident_load(&r, 50));
  cr_expect_eq(r.weights.used_bytes, r.weights.capacity_bytes);
  cr_expect_eq(r.cache.used_bytes, r.cache.capacity_bytes);
  qd_resident_close(&r);
  qd_device_close(&device);
  qd_team_close(comm, false, 0);
}

/* Codes take an eighth of fp32, and what a rank holds falls with their number; its arenas are filled to the brim. */
Test(resident, plans_what_it_takes) {
  char store[PATH_BYTES];
  snprintf(store, sizeof store, "%s", store_of("llama", QD_COMPUTE_MODEL, true));
  expect_plan(store, QD_COMPUTE_MODEL);
  expect_plan(store, QD_COMPUTE_INT8);
}
