#include "pipeline/feed.h"

#include "pipeline/record.h"
#include "tests/pipeline/job_support.h"

static qd_temporary_folder folder;
static qd_comm *comm;
static qd_source *source;
static qd_model model;
static qd_store store;

static void open_fixture(void) {
  qd_temporary_folder_open(&folder);
  comm = open_team();
}

static void close_fixture(void) {
  qd_store_close(&store);
  qd_source_close(source);
  qd_team_close(comm, false, 0);
  qd_temporary_folder_close(&folder);
}

TestSuite(feed, .init = open_fixture, .fini = close_fixture);

static void open_model(const char *name) {
  MUST(qd_source_open(golden_path(name), &source));
  MUST(qd_model_from_source(source, &model));
}

/* A store of the model, with orders, and one linear kept as it is. */
static void open_store(const char *name) {
  const char *output = qd_temporary_path(&folder, "store");
  qd_job job = small_job(golden_path(name), output);
  gptq_job(&job, write_ids(&folder, "x.i32", JOB_SEQUENCES * JOB_TOKENS), QD_ORDER_DYNAMIC);
  job.n_rules = 1;
  MUST(qd_pattern_open("1\\.mlp\\.up_proj", "--ignore", &job.rule[0].pattern));
  job.rule[0].expression = "1\\.mlp\\.up_proj";
  MUST(run_job(&job));
  qd_pattern_close(job.rule[0].pattern);
  MUST(qd_store_open(output, false, &store));
}

/* ---- expectations ------------------------------------------------------------------------------------------------------- */

static void expect_bytes_of_source(const qd_weight *weight) {
  const qd_source_tensor *tensor = qd_source_find(source, weight->slot.name);
  qd_digest digest;
  cr_assert_not_null(tensor, "%s", weight->slot.name);
  cr_assert_eq(weight->dtype, tensor->dtype);
  cr_assert_eq(qd_tensor_bytes(weight->original), tensor->bytes);
  unsigned char *data = must_new((size_t)tensor->bytes, 1);
  MUST(qd_source_read(source, tensor, 0, data, (size_t)tensor->bytes));
  cr_expect_eq(memcmp(data, weight->original.data, (size_t)tensor->bytes), 0, "%s", weight->slot.name);
  qd_digest_of(data, (size_t)tensor->bytes, &digest);
  cr_expect(qd_digest_equal(&digest, &weight->source), "%s", weight->slot.name);
  qd_heap_free(data);
}

static void expect_part(const qd_entry *entry, const qd_record *record, const char *name, qd_tensor got) {
  int p = 0;
  while (strcmp(record->part[p].name, name) != 0) p++;
  unsigned char *data = must_new(qd_tensor_bytes(got), 1);
  cr_assert_lt(p, record->n_parts);
  MUST(qd_store_read_part(&store, entry, &record->part[p], data));
  cr_expect_eq(memcmp(data, got.data, qd_tensor_bytes(got)), 0, "%s of %s", name, record->name);
  qd_heap_free(data);
}

static void expect_bytes_of_store(int64_t block, const qd_weight *weight) {
  const qd_entry *entry = qd_feed_entry(&store, block);
  const qd_record *record = qd_feed_record(entry, weight->slot.role, weight->slot.expert);
  qd_part parts[QD_MAX_PARTS];
  cr_assert_not_null(record);
  cr_assert_eq(weight->quantized, qd_record_is_quantized(record));
  cr_expect_eq(weight->dtype, record->dtype);
  cr_expect(qd_digest_equal(&weight->source, &record->source));
  if (!weight->quantized) {
    expect_part(entry, record, "values", weight->original);
    return;
  }
  int n = qd_qtensor_parts(&weight->q, parts);
  cr_expect_eq(n, record->n_parts);
  for (int i = 0; i < n; i++) expect_part(entry, record, parts[i].name, parts[i].tensor);
}

/* Exactly these roles. */
static void expect_roles(const qd_block *block, const qd_role *roles, int n) {
  cr_assert_eq(block->n, n);
  for (int i = 0; i < n; i++) {
    int k = 0;
    while (k < n && block->weight[k].slot.role != roles[i]) k++;
    cr_expect_lt(k, n, "%s is missing", qd_role_name(roles[i]));
  }
}

#define EXPECT_ROLES(block, ...)                                                       \
  do {                                                                                 \
    const qd_role roles_[] = {__VA_ARGS__};                                            \
    expect_roles(block, roles_, (int)(sizeof roles_ / sizeof *roles_));                \
  } while (0)

/* The whole stream: embedding, blocks, final norm and head.  Blocks below `stored` must come from the store. */
static void expect_stream(qd_feed *feed, int64_t stored) {
  qd_block block;
  MUST(qd_feed_open(feed, comm));
  for (int64_t item = 0; item < model.n_blocks + 2; item++) {
    MUST(qd_feed_next(feed, &block));
    bool is_block = item > 0 && item <= model.n_blocks;
    cr_expect_eq(block.index, is_block ? item - 1 : QD_REST);
    if (item == 0) EXPECT_ROLES(&block, QD_EMBEDDING);
    if (item > model.n_blocks && !model.tied) EXPECT_ROLES(&block, QD_FINAL_NORM, QD_HEAD);
    if (item > model.n_blocks && model.tied) EXPECT_ROLES(&block, QD_FINAL_NORM, QD_EMBEDDING);
    for (int i = 0; i < block.n; i++) {
      bool from_store = feed->source == NULL || (is_block && block.index < stored);
      if (from_store) expect_bytes_of_store(block.index, &block.weight[i]);
      else expect_bytes_of_source(&block.weight[i]);
    }
  }
  qd_feed_close(feed);
}

/* ---- tests -------------------------------------------------------------------------------------------------------------- */

Test(feed, brings_a_model_as_it_is) {
  static const char *const names[] = {"llama_sharded", "llama_grouped", "llama_biases", "llama_f16"};
  for (int i = 0; i < 4; i++) {
    open_model(names[i]);
    qd_feed feed = {.model = &model, .source = source};
    expect_stream(&feed, 0);
    qd_source_close(source), source = NULL;
  }
}

Test(feed, brings_a_store_as_it_is) {
  open_model("llama_biases");
  open_store("llama_biases");
  qd_feed feed = {.model = &model, .store = &store, .blocks_stored = model.n_blocks};
  expect_stream(&feed, model.n_blocks);
}

Test(feed, brings_a_tied_store_as_it_is) {
  open_model("qwen3");
  open_store("qwen3");
  qd_feed feed = {.model = &model, .store = &store, .blocks_stored = model.n_blocks};
  expect_stream(&feed, model.n_blocks);
}

/* As a resumed job sees them. */
Test(feed, brings_stored_blocks_first_and_originals_after) {
  open_model("llama_biases");
  open_store("llama_biases");
  for (int64_t stored = 0; stored <= model.n_blocks; stored++) {
    qd_feed feed = {.model = &model, .source = source, .store = &store, .blocks_stored = stored};
    expect_stream(&feed, stored);
  }
}

/* Both forms of a finished linear; what is not quantized comes once.  After qd_block_use_stored it is the store's block. */
Test(feed, brings_stored_blocks_with_their_originals) {
  qd_block block;
  open_model("llama_biases");
  open_store("llama_biases");
  qd_feed feed = {.model = &model, .source = source, .store = &store, .blocks_stored = 1, .with_originals = true, .next = 1};
  MUST(qd_feed_open(&feed, comm));
  for (int64_t b = 0; b < 2; b++) {
    MUST(qd_feed_next(&feed, &block));
    cr_assert_eq(block.index, b);
    for (int i = 0; i < block.n; i++) {
      cr_expect_eq(block.weight[i].stored, b == 0 && qd_role_is_linear(block.weight[i].slot.role));
      cr_expect(!block.weight[i].quantized);
      expect_bytes_of_source(&block.weight[i]);
    }
    qd_block_use_stored(&block);
    for (int i = 0; b == 0 && i < block.n; i++)
      if (qd_role_is_linear(block.weight[i].slot.role)) expect_bytes_of_store(0, &block.weight[i]);
      else cr_expect(!block.weight[i].quantized);
  }
  qd_feed_close(&feed);
  feed = (qd_feed){.model = &model, .source = source, .next = model.n_blocks + 1}; /* may begin anywhere */
  MUST(qd_feed_open(&feed, comm));
  MUST(qd_feed_next(&feed, &block));
  EXPECT_ROLES(&block, QD_FINAL_NORM, QD_HEAD);
  qd_feed_close(&feed);
}

Test(feed, may_be_left_at_any_item) {
  qd_block block;
  open_model("llama");
  for (int items = 0; items < 4; items++) {
    qd_feed feed = {.model = &model, .source = source};
    MUST(qd_feed_open(&feed, comm));
    for (int i = 0; i < items; i++) MUST(qd_feed_next(&feed, &block));
    qd_feed_close(&feed);
    qd_feed_close(&feed);
  }
}

/* After a resume the activations may stand behind some blocks, which are not read again. */
Test(feed, may_begin_at_any_item) {
  qd_block block;
  open_model("llama");
  for (int64_t first = 0; first <= model.n_blocks; first++) {
    qd_feed feed = {.model = &model, .source = source, .next = first};
    MUST(qd_feed_open(&feed, comm));
    MUST(qd_feed_next(&feed, &block));
    cr_expect_eq(block.index, first == 0 ? QD_REST : first - 1);
    for (int i = 0; i < block.n; i++) expect_bytes_of_source(&block.weight[i]);
    qd_feed_close(&feed);
  }
}

Test(feed, finds_records_by_role) {
  open_model("llama_biases");
  open_store("llama_biases");
  const qd_record *record = qd_feed_record(qd_feed_entry(&store, 1), QD_UP_BIAS, -1);
  cr_assert_not_null(record);
  cr_expect_str_eq(record->name, "model.layers.1.mlp.up_proj.bias");
  cr_expect_str_eq(qd_feed_record(qd_feed_entry(&store, QD_REST), QD_HEAD, -1)->name, "lm_head.weight");
  cr_expect_null(qd_feed_record(qd_feed_entry(&store, 0), QD_HEAD, -1));
  cr_expect_null(qd_feed_record(qd_feed_entry(&store, 0), QD_Q_NORM, -1));
}

/* ---- a store against the model ------------------------------------------------------------------------------------------ */

static void expect_refusal(qd_status expected, const char *text) {
  cr_expect_eq(qd_feed_check_store(&store, &model), expected, "%s", text);
  cr_expect(strstr(qd_error_text(), store.folder) != NULL && strstr(qd_error_text(), text) != NULL, "no %s in \"%s\"", text,
            qd_error_text());
}

/* One change, a refusal, and back. */
#define DAMAGED(type, place, value, expected, text) \
  do {                                              \
    type *at_ = &(place), kept_ = *at_;             \
    *at_ = value;                                   \
    expect_refusal(expected, text);                 \
    *at_ = kept_;                                   \
  } while (0)

static qd_record *record_of(int64_t block, qd_role role) {
  qd_entry *entry = block == QD_REST ? &store.rest : &store.block[block];
  for (int i = 0; i < entry->n_records; i++)
    if (strcmp(entry->record[i].role, qd_role_name(role)) == 0) return &entry->record[i];
  cr_assert_fail("no %s", qd_role_name(role));
  return NULL;
}

Test(feed, a_store_that_does_not_hold_the_model_is_refused) {
  open_model("llama_biases");
  open_store("llama_biases");
  MUST(qd_feed_check_store(&store, &model));
  DAMAGED(int64_t, model.n_blocks, 3, QD_ECORRUPT, "2 blocks, config.json 3");
  DAMAGED(int64_t, model.n_blocks, 1, QD_ECORRUPT, "2 blocks, config.json 1");
  DAMAGED(int64_t, model.ffn, 47, QD_ECORRUPT, "mlp.gate_proj.weight");
  DAMAGED(int64_t, model.vocabulary, 73, QD_ECORRUPT, "model.embed_tokens.weight");
  DAMAGED(char, record_of(1, QD_UP_PROJ)->role[0], 'x', QD_ECORRUPT, "model.layers.1.mlp.up_proj.weight");
  DAMAGED(int, record_of(1, QD_UP_PROJ)->expert, 0, QD_ECORRUPT, "model.layers.1.mlp.up_proj.weight");
  DAMAGED(int, record_of(0, QD_DOWN_BIAS)->rank, 2, QD_ECORRUPT, "model.layers.0.mlp.down_proj.bias");
  DAMAGED(int64_t, record_of(0, QD_K_PROJ)->part[0].dim[1], 5, QD_ECORRUPT, "model.layers.0.self_attn.k_proj.weight");
  DAMAGED(char, record_of(0, QD_K_PROJ)->scheme[0], 'x', QD_EUNSUPPORTED, "\"xniform\"");
  DAMAGED(qd_dtype, record_of(QD_REST, QD_FINAL_NORM)->dtype, QD_F16, QD_ECORRUPT, "model.norm.weight");
  store.finished = false;
  DAMAGED(int64_t, model.n_blocks, 1, QD_ECORRUPT, "journal");
  MUST(qd_feed_check_store(&store, &model));
  model.n_blocks = 3; /* a job that is not done */
  cr_expect_eq(qd_feed_check_store(&store, &model), QD_OK);
}

static void open_spqr_store(void) {
  const char *output = qd_temporary_path(&folder, "store");
  qd_job job = small_job(golden_path("llama"), output);
  gptq_job(&job, write_ids(&folder, "x.i32", JOB_SEQUENCES * JOB_TOKENS), QD_ORDER_DYNAMIC);
  job.method = &qd_method_spqr, job.outlier_threshold = 0.2;
  job.scheme = (qd_scheme){.bits = 3, .group_size = 8, .scale_dtype = QD_F16, .spqr = true, .scale_bits = 3, .zero_bits = 3,
                           .stat_group = 4};
  MUST(run_job(&job));
  MUST(qd_store_open(output, false, &store));
}

/* Another file takes the place of a part, digests and all. */
static void replace_part(qd_entry *entry, qd_record *record, const char *name, void *data) {
  int p = 0;
  while (strcmp(record->part[p].name, name) != 0) p++;
  qd_stored_part *part = &record->part[p];
  qd_entry_file *files = must_new((size_t)entry->n_files + 1, sizeof *files);
  qd_out_tensor out = {part->dataset, qd_tensor_1d(data, part->dtype, part->dim[0])};
  memcpy(files, entry->file, (size_t)entry->n_files * sizeof *files);
  qd_temporary_make_folder(&folder, "store/partial"); /* where files are written first */
  MUST(qd_store_write_file(store.folder, "other.h5", &out, 1, &files[entry->n_files], &part->digest));
  qd_heap_free(entry->file);
  entry->file = files, part->file = entry->n_files++;
}

/* The store's second block fails with these words; the status. */
static qd_status failure_of_block_1(const char *says) {
  qd_feed feed = {.model = &model, .store = &store, .blocks_stored = 2};
  qd_block block;
  qd_status status = QD_OK;
  MUST(qd_feed_open(&feed, comm));
  int items = 0;
  for (; items < 4 && status == QD_OK; items++) status = qd_feed_next(&feed, &block);
  cr_expect_eq(items, 3);
  cr_expect_not_null(strstr(qd_error_text(), says), "%s", qd_error_text());
  qd_feed_close(&feed);
  return status;
}

/* What no damage explains, since the digests fit. */
Test(feed, outliers_that_are_not_reached_are_told_with_their_tensor) {
  open_model("llama");
  open_spqr_store();
  qd_record *record = record_of(1, QD_UP_PROJ);
  int32_t *pointers = must_new((size_t)record->dim[0] + 1, sizeof *pointers);
  memset(pointers, 0, ((size_t)record->dim[0] + 1) * sizeof *pointers);
  cr_assert_gt(qd_record_outliers(record), 0);
  replace_part(&store.block[1], record, "outlier_rows", pointers);
  cr_expect_eq(failure_of_block_1("model.layers.1.mlp.up_proj.weight: quantized linear: outlier_rows lead from 0 to 0"),
               QD_EBADINPUT);
  qd_heap_free(pointers);
}

/* A byte of a stored file that changes is found when the block is read. */
Test(feed, a_damaged_file_is_everyones_failure) {
  open_model("llama");
  open_store("llama");
  char path[PATH_BYTES];
  snprintf(path, sizeof path, "%s/block-00001.h5", store.folder);
  FILE *file = fopen(path, "r+b");
  cr_assert(file != NULL && fseek(file, 0, SEEK_END) == 0);
  long bytes = ftell(file);
  for (long at = bytes / 3; at < bytes; at += 64) cr_assert(fseek(file, at, SEEK_SET) == 0 && fputc(0x5a, file) != EOF);
  cr_assert_eq(fclose(file), 0);
  cr_expect_neq(failure_of_block_1("block-00001.h5"), QD_OK);
}
