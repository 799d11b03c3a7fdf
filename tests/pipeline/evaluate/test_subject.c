#include "pipeline/evaluate/subject.h"

#include "pipeline/record.h"
#include "storage/seal.h"
#include "tests/pipeline/job_support.h"
#include "tests/support/safetensors_maker.h"

static qd_temporary_folder folder;
static void open_folder(void) { qd_temporary_folder_open(&folder); }
static void close_folder(void) { qd_temporary_folder_close(&folder); }
TestSuite(subject, .init = open_folder, .fini = close_folder);

static const place fast = {"cpu", NULL, 1};

/* ---- windows ------------------------------------------------------------------------------------------------------------ */

/* Many windows at once: each as if it were alone. */
static void expect_windows_alone(const char *path, qd_compute compute) {
  enum { WINDOWS = 3, TOKENS_A_WINDOW = 8 };
  golden g = golden_open("llama");
  logits all = run_model(path, compute, fast, g.ids, WINDOWS, TOKENS_A_WINDOW);
  for (int w = 0; w < WINDOWS; w++) {
    logits one = run_model(path, compute, fast, g.ids + w * TOKENS_A_WINDOW, 1, TOKENS_A_WINDOW);
    cr_expect_eq(memcmp(one.value, all.value + (size_t)w * TOKENS_A_WINDOW * (size_t)all.vocabulary, logits_bytes(&one)), 0,
                 "window %d", w);
    qd_heap_free(one.value);
  }
  qd_heap_free(all.value);
  golden_close(&g);
}

Test(subject, windows_do_not_know_each_other) {
  expect_windows_alone(golden_path("llama"), QD_COMPUTE_FP32);
  expect_windows_alone(golden_path("qwen2_window"), QD_COMPUTE_BF16);
}

/* ---- stores ------------------------------------------------------------------------------------------------------------- */

typedef void (*method_job)(qd_job *job, const char *ids, qd_act_order act_order);

static const char *make_store_by(method_job by, const char *model, const char *name, qd_act_order act_order,
                                 qd_compute compute) {
  static char output[QD_TEMPORARY_PATH_BYTES];
  snprintf(output, sizeof output, "%s", qd_temporary_path(&folder, name));
  qd_job job = small_job(golden_path(model), output);
  job.compute = compute;
  by(&job, write_ids(&folder, "calibration.i32", JOB_SEQUENCES * JOB_TOKENS), act_order);
  MUST(run_job(&job));
  return output;
}

static const char *make_store(const char *model, const char *name, qd_act_order act_order, qd_compute compute) {
  return make_store_by(gptq_job, model, name, act_order, compute);
}

/* One window multiplies codes as they are stored, several windows multiply expanded weights: the same bits, on every device. */
static void expect_same_bits(const char *path, qd_compute compute) {
  enum { WINDOWS = 3, TOKENS_A_WINDOW = 8 };
  golden g = golden_open("llama");
  place where[8];
  int n = places(where);
  logits all = run_model(path, compute, where[0], g.ids, WINDOWS, TOKENS_A_WINDOW);
  for (int i = 0; i < n; i++) {
    logits again = run_model(path, compute, where[i], g.ids, WINDOWS, TOKENS_A_WINDOW);
    cr_expect_eq(memcmp(again.value, all.value, logits_bytes(&all)), 0, "expanded, %s %s", where[i].device, where[i].isa);
    logits one = run_model(path, compute, where[i], g.ids + TOKENS_A_WINDOW, 1, TOKENS_A_WINDOW);
    cr_expect_eq(memcmp(one.value, all.value + (size_t)TOKENS_A_WINDOW * (size_t)all.vocabulary, logits_bytes(&one)), 0,
                 "fused, %s %s", where[i].device, where[i].isa);
    qd_heap_free(one.value);
    qd_heap_free(again.value);
  }
  qd_heap_free(all.value);
  golden_close(&g);
}

Test(subject, fused_and_expanded_weights_give_the_same_bits) {
  expect_same_bits(make_store("llama_grouped", "static", QD_ORDER_STATIC, QD_COMPUTE_FP32), QD_COMPUTE_FP32);
  expect_same_bits(make_store("qwen2", "dynamic", QD_ORDER_DYNAMIC, QD_COMPUTE_FP32), QD_COMPUTE_FP32);
  expect_same_bits(make_store("qwen3_biases", "dynamic bf16", QD_ORDER_DYNAMIC, QD_COMPUTE_BF16), QD_COMPUTE_BF16);
}

/* ---- fused and expanded, block by block --------------------------------------------------------------------------------- */

typedef struct seen {
  int fused, expanded, ordered, outliers; /* linears */
} seen;

/* All linears of a block as dense weights, by qd_dequant, an expert's too. */
static void expand_all(qd_subject *subject, qd_block *block, qd_arena *arena, seen *count) {
  for (int i = 0; i < block->n; i++) {
    qd_weight *weight = &block->weight[i];
    if (!weight->quantized) continue;
    MUST(qd_weight_expand(subject->device, weight, subject->act, arena));
    count->ordered += qd_qtensor_has_order(&weight->q);
    count->outliers += weight->q.scheme.spqr && weight->q.outlier_values.dim[0] > 0;
  }
}

static void count_forms(const qd_block *block, seen *count) {
  for (int i = 0; i < block->n; i++)
    if (block->weight[i].quantized) *(block->weight[i].compute.rank == 0 ? &count->fused : &count->expanded) += 1;
}

static void next_item(qd_subject *subject, qd_block *block) {
  qd_arena_rewind(&subject->block_arena, 0);
  MUST(qd_feed_next(&subject->feed, block));
  MUST(qd_block_prepare(block, subject->act, &subject->block_arena));
}

/* One window through all blocks of a store: quantized weights as they are, or each expanded before its block runs. */
static logits run_blocks(const char *path, place where, int32_t *ids, int64_t tokens, bool expanded, seen *count) {
  qd_comm *comm = open_team();
  qd_device device = open_device(where);
  qd_arena arena;
  qd_subject s;
  qd_block block;
  MUST(qd_subject_open(&s, path, QD_COMPUTE_MODEL, comm, &device));
  MUST(qd_subject_reserve(&s, 1, tokens));
  MUST(qd_arena_open(&arena, "dense", (size_t)16 << 20));
  s.feed = qd_subject_feed(&s);
  MUST(qd_feed_open(&s.feed, comm));
  next_item(&s, &block);
  MUST(qd_decoder_embed(&s.decoder, &block, qd_tensor_1d(ids, QD_I32, tokens), qd_tensor_at(s.h, 0)));
  for (int64_t b = 0; b < s.model.n_blocks; b++) {
    next_item(&s, &block);
    qd_arena_rewind(&arena, 0);
    if (expanded) expand_all(&s, &block, &arena, count);
    MUST(qd_subject_block(&s, &block, 1));
    count_forms(&block, count);
  }
  next_item(&s, &block);
  MUST(qd_decoder_final_norm(&s.decoder, &block, qd_tensor_at(s.h, 0)));
  logits out = {.windows = 1, .tokens = tokens, .vocabulary = s.model.vocabulary};
  out.value = must_new((size_t)(tokens * out.vocabulary), sizeof *out.value);
  all_logits(&s, &block, &out);
  qd_subject_forward_done(&s);
  qd_subject_close(&s);
  qd_arena_close(&arena);
  qd_device_close(&device);
  qd_team_close(comm, false, 0);
  return out;
}

static void expect_fused_is_expanded(const char *path, bool has_outliers) {
  golden g = golden_open("llama");
  place where[8];
  int n = places(where);
  int64_t tokens = g.expected.tokens;
  seen first = {0}, other;
  logits dense = run_blocks(path, where[0], g.ids, tokens, true, &first);
  cr_expect(first.expanded > 0 && first.fused == 0 && first.ordered > 0);
  cr_expect_eq(first.outliers, has_outliers ? first.expanded : 0, "%d linears with outliers", first.outliers);
  for (int i = 0; i < n; i++) {
    other = (seen){0};
    logits codes = run_blocks(path, where[i], g.ids, tokens, false, &other);
    logits whole = run_model(path, QD_COMPUTE_MODEL, where[i], g.ids, 1, tokens);
    cr_expect(other.fused == first.expanded && other.expanded == 0);
    cr_expect_eq(memcmp(codes.value, dense.value, logits_bytes(&dense)), 0, "%s %s", where[i].device, where[i].isa);
    cr_expect_eq(memcmp(whole.value, dense.value, logits_bytes(&dense)), 0, "%s %s", where[i].device, where[i].isa);
    qd_heap_free(codes.value);
    qd_heap_free(whole.value);
  }
  qd_heap_free(dense.value);
  golden_close(&g);
}

Test(subject, codes_as_they_are_give_the_logits_of_dense_weights) {
  expect_fused_is_expanded(make_store("llama", "gptq", QD_ORDER_DYNAMIC, QD_COMPUTE_FP32), false);
  expect_fused_is_expanded(make_store("llama_bf16", "gptq bf16", QD_ORDER_DYNAMIC, QD_COMPUTE_BF16), false);
  expect_fused_is_expanded(make_store("qwen3_moe", "experts", QD_ORDER_DYNAMIC, QD_COMPUTE_FP32), false);
}

Test(subject, outliers_stand_in_the_chain_where_they_stand_in_dense_weights) {
  expect_fused_is_expanded(make_store_by(spqr_job, "llama", "spqr", QD_ORDER_DYNAMIC, QD_COMPUTE_FP32), true);
  expect_fused_is_expanded(make_store_by(spqr_job, "llama_bf16", "spqr bf16", QD_ORDER_DYNAMIC, QD_COMPUTE_BF16), true);
}

/* ---- int8 --------------------------------------------------------------------------------------------------------------- */

/* Rounded activations are near, and another model's: so many windows as one, on every device, and near what f32 gives. */
static void expect_int8(const char *path) {
  enum { WINDOWS = 3, TOKENS_A_WINDOW = 8 };
  golden g = golden_open("llama");
  place where[8];
  int n = places(where);
  logits all = run_model(path, QD_COMPUTE_INT8, where[0], g.ids, WINDOWS, TOKENS_A_WINDOW);
  logits exact = run_model(path, QD_COMPUTE_FP32, fast, g.ids, WINDOWS, TOKENS_A_WINDOW);
  for (int i = 0; i < n; i++) {
    logits again = run_model(path, QD_COMPUTE_INT8, where[i], g.ids, WINDOWS, TOKENS_A_WINDOW);
    cr_expect_eq(memcmp(again.value, all.value, logits_bytes(&all)), 0, "%s %s", where[i].device, where[i].isa);
    qd_heap_free(again.value);
  }
  double away = largest_difference(all.value, exact.value, logits_bytes(&all) / sizeof(float));
  cr_expect(away > 1e-4 && away < 0.3, "int8 changes logits by %g", away);
  qd_heap_free(exact.value);
  qd_heap_free(all.value);
  golden_close(&g);
}

Test(subject, int8_gives_the_same_bits_on_every_device) {
  expect_int8(make_store("llama", "int8 gptq", QD_ORDER_DYNAMIC, QD_COMPUTE_BF16));
  expect_int8(make_store("qwen3_moe", "int8 experts", QD_ORDER_STATIC, QD_COMPUTE_FP32));
  const char *store = make_store_by(spqr_job, "llama_bf16", "int8 spqr", QD_ORDER_DYNAMIC, QD_COMPUTE_FP32);
  expect_int8(store);
  expect_windows_alone(store, QD_COMPUTE_INT8);
}

/* Of given hidden states. */
static logits head_of(const char *path, qd_compute compute, int32_t *ids) {
  enum { T = 8, MOST = T * 256 };
  float h[MOST];
  for (int i = 0; i < MOST; i++) h[i] = (float)((i * 37) % 101) / 101 - 0.5f;
  qd_comm *comm = open_team();
  qd_device device = open_device(fast);
  qd_subject subject;
  qd_block rest;
  MUST(qd_subject_open(&subject, path, compute, comm, &device));
  MUST(qd_subject_reserve(&subject, 1, T));
  MUST(qd_subject_forward(&subject, qd_tensor_2d(ids, QD_I32, 1, T), &rest));
  cr_assert_leq(subject.model.hidden, MOST / T);
  logits out = {.windows = 1, .tokens = T, .vocabulary = subject.model.vocabulary};
  out.value = must_new((size_t)(out.tokens * out.vocabulary), sizeof *out.value);
  qd_tensor rows = qd_tensor_2d(h, QD_F32, T, subject.model.hidden);
  MUST(qd_subject_logits(&subject, &rest, rows, qd_tensor_2d(out.value, QD_F32, out.tokens, out.vocabulary)));
  qd_subject_forward_done(&subject);
  qd_subject_close(&subject);
  qd_device_close(&device);
  qd_team_close(comm, false, 0);
  return out;
}

/* A head is a linear like the others where it is quantized, and left alone where it is not. */
Test(subject, int8_is_of_a_quantized_head_only) {
  golden g = golden_open("llama");
  for (int bits = 0; bits <= 8; bits += 8) {
    qd_job job = small_job(golden_path("llama"), qd_temporary_path(&folder, bits ? "head" : "no head"));
    job.head_bits = bits;
    MUST(run_job(&job));
    const char *store = qd_temporary_path(&folder, bits ? "head" : "no head");
    logits f32 = head_of(store, QD_COMPUTE_FP32, g.ids), int8 = head_of(store, QD_COMPUTE_INT8, g.ids);
    double away = largest_difference(f32.value, int8.value, logits_bytes(&f32) / sizeof(float));
    cr_expect(bits ? away > 1e-5 && away < 0.1 : away == 0, "%d bits: int8 changes logits by %g", bits, away);
    qd_heap_free(f32.value);
    qd_heap_free(int8.value);
  }
  golden_close(&g);
}

enum { MOST_TENSORS = 64 };

/* The parts of a quantized record, or the values of a plain one (F32). */
static qd_tensor read_record(const qd_store *store, const qd_entry *entry, const qd_record *record, qd_arena *arena,
                             qd_qtensor *q) {
  qd_tensor w;
  MUST(qd_tensor_new_2d(arena, QD_F32, record->dim[0], record->rank == 2 ? record->dim[1] : 1, &w));
  for (int p = 0; p < record->n_parts; p++) {
    const qd_stored_part *part = &record->part[p];
    size_t elements = (size_t)part->dim[0] * (size_t)(part->rank == 2 ? part->dim[1] : 1);
    void *data;
    MUST(qd_arena_new(arena, elements, qd_dtype_bytes(part->dtype), &data));
    MUST(qd_store_read_part(store, entry, part, data));
    if (qd_record_is_quantized(record)) MUST(qd_record_bind_part(record, p, data, q));
    else qd_widen(data, part->dtype, w.data, elements);
  }
  return w;
}

/* w = the effective weight, columns in their own order. */
static void expand(const qd_qtensor *q, qd_device *device, qd_arena *arena, qd_tensor w) {
  qd_tensor stored;
  const int32_t *order = q->order.data;
  MUST(qd_tensor_new_2d(arena, QD_F32, q->rows, q->columns, &stored));
  MUST(qd_dequant(device, q, stored));
  for (int64_t r = 0; r < q->rows; r++)
    for (int64_t p = 0; p < q->columns; p++)
      ((float *)w.data)[r * q->columns + (qd_qtensor_has_order(q) ? order[p] : p)] = ((float *)stored.data)[r * q->columns + p];
}

static int effective_tensors(const qd_store *store, qd_device *device, qd_arena *arena, qd_made_tensor out[MOST_TENSORS]) {
  int n = 0;
  for (int64_t b = QD_REST; b < store->n_blocks; b++) {
    const qd_entry *entry = qd_feed_entry(store, b);
    for (int i = 0; i < entry->n_records; i++) {
      const qd_record *record = &entry->record[i];
      if (strcmp(record->scheme, "statistics") == 0) continue;
      qd_qtensor q = {0};
      qd_tensor w = read_record(store, entry, record, arena, &q);
      if (qd_record_is_quantized(record)) expand(&q, device, arena, w);
      cr_assert_lt(n, MOST_TENSORS);
      out[n++] = (qd_made_tensor){
          .name = record->name, .dtype = QD_F32, .rank = record->rank, .dim = {record->dim[0], record->dim[1]}, .data = w.data};
    }
  }
  return n;
}

static const char *make_effective_model(const char *path) {
  qd_store store;
  qd_arena arena;
  qd_made_tensor tensors[MOST_TENSORS];
  char config[PATH_BYTES], *text;
  size_t bytes;
  qd_device device = open_device(fast);
  MUST(qd_store_open(path, false, &store));
  MUST(qd_arena_open(&arena, "tensors", (size_t)16 << 20));
  int n = effective_tensors(&store, &device, &arena, tensors);
  snprintf(config, sizeof config, "%s/config.json", path);
  MUST(qd_file_read(config, 1 << 20, &text, &bytes));
  const char *made = qd_temporary_make_folder(&folder, "effective");
  qd_make_model(made, text, tensors, n, 1);
  qd_heap_free(text);
  qd_arena_close(&arena);
  qd_store_close(&store);
  qd_device_close(&device);
  return made;
}

static void expect_effective_weights(const char *model, qd_act_order act_order, double bound) {
  const char *path = make_store(model, "store", act_order, QD_COMPUTE_FP32);
  golden g = golden_open(model);
  const char *effective = make_effective_model(path);
  logits store = run_model(path, QD_COMPUTE_FP32, fast, g.ids, 1, g.expected.tokens);
  logits plain = run_model(effective, QD_COMPUTE_FP32, fast, g.ids, 1, g.expected.tokens);
  size_t n = logits_bytes(&store) / sizeof(float);
  cr_expect_leq(largest_difference(store.value, plain.value, n), bound);
  double away = largest_difference(store.value, g.expected.value, n);
  cr_expect(away > 0.1 && away < 10, "4 bits change logits by %g", away);
  qd_heap_free(store.value);
  qd_heap_free(plain.value);
  golden_close(&g);
}

/* With an order the products are summed in stored order: other rounding. */
Test(subject, a_store_computes_with_its_effective_weights) { expect_effective_weights("llama_biases", QD_ORDER_STATIC, 0); }
Test(subject, a_store_with_an_order_as_well) { expect_effective_weights("mistral_window", QD_ORDER_DYNAMIC, 1e-4); }

/* ---- arithmetic --------------------------------------------------------------------------------------------------------- */

static qd_arithmetic arithmetic_of(const char *path, qd_compute compute) {
  qd_comm *comm = open_team();
  qd_device device = open_device(fast);
  qd_subject subject;
  MUST(qd_subject_open(&subject, path, compute, comm, &device));
  qd_arithmetic arithmetic = subject.arithmetic;
  cr_expect_eq(subject.act, qd_arithmetic_act(arithmetic));
  qd_subject_close(&subject);
  qd_device_close(&device);
  qd_team_close(comm, false, 0);
  return arithmetic;
}

Test(subject, arithmetic_is_the_models_or_the_stores) {
  cr_expect_eq(arithmetic_of(golden_path("llama_bf16"), QD_COMPUTE_MODEL), QD_ARITHMETIC_BF16_PAIRS);
  cr_expect_eq(arithmetic_of(golden_path("llama_f16"), QD_COMPUTE_MODEL), QD_ARITHMETIC_F32);
  cr_expect_eq(arithmetic_of(golden_path("llama_bf16"), QD_COMPUTE_FP32), QD_ARITHMETIC_F32);
  const char *bf16 = make_store("llama", "made in bf16", QD_ORDER_STATIC, QD_COMPUTE_BF16);
  cr_expect_eq(arithmetic_of(bf16, QD_COMPUTE_MODEL), QD_ARITHMETIC_BF16_PAIRS);
  cr_expect_eq(arithmetic_of(bf16, QD_COMPUTE_FP32), QD_ARITHMETIC_F32);
  const char *f32 = make_store("llama_bf16", "made in f32", QD_ORDER_STATIC, QD_COMPUTE_FP32);
  cr_expect_eq(arithmetic_of(f32, QD_COMPUTE_MODEL), QD_ARITHMETIC_F32);
  cr_expect_eq(arithmetic_of(f32, QD_COMPUTE_BF16), QD_ARITHMETIC_BF16_PAIRS);
  cr_expect_eq(arithmetic_of(f32, QD_COMPUTE_BF16_AMX), QD_ARITHMETIC_BF16_AMX);
  const char *amx = make_store("llama", "made for amx", QD_ORDER_STATIC, QD_COMPUTE_BF16_AMX);
  cr_expect_eq(arithmetic_of(amx, QD_COMPUTE_MODEL), QD_ARITHMETIC_BF16_AMX);
  cr_expect_eq(arithmetic_of(amx, QD_COMPUTE_BF16), QD_ARITHMETIC_BF16_PAIRS);
}

static void expect_refusal_of(const char *path, qd_compute compute, qd_status expected, const char *text) {
  qd_comm *comm = open_team();
  qd_device device = open_device(fast);
  qd_subject subject;
  cr_expect_eq(qd_subject_open(&subject, path, compute, comm, &device), expected, "%s", qd_error_text());
  cr_expect(strstr(qd_error_text(), text) != NULL, "%s", qd_error_text());
  qd_subject_close(&subject);
  qd_device_close(&device);
  qd_team_close(comm, false, 0);
}

static void expect_refusal(const char *path, qd_status expected, const char *text) {
  expect_refusal_of(path, QD_COMPUTE_MODEL, expected, text);
}

Test(subject, refuses_int8_where_no_quantized_weight_is_multiplied) {
  expect_refusal_of(golden_path("llama"), QD_COMPUTE_INT8, QD_EUSAGE, "has none");
  const char *store = make_store("llama", "codes", QD_ORDER_STATIC, QD_COMPUTE_FP32);
  cr_expect_eq(arithmetic_of(store, QD_COMPUTE_INT8), QD_ARITHMETIC_INT8);
  cr_expect_eq(arithmetic_of(store, QD_COMPUTE_MODEL), QD_ARITHMETIC_F32);
}

Test(subject, refuses_what_is_neither_model_nor_store) {
  expect_refusal(qd_temporary_path(&folder, "nothing"), QD_ENOTFOUND, "nothing");
  qd_temporary_make_folder(&folder, "empty");
  expect_refusal(qd_temporary_path(&folder, "empty"), QD_ENOTFOUND, "config.json");
}

/* What config.json says decides what comes out: one that is not the store's own is refused, though it may be sound in itself.
 */
Test(subject, refuses_a_store_whose_configuration_was_exchanged) {
  const char *path = make_store("llama", "store", QD_ORDER_STATIC, QD_COMPUTE_FP32);
  char config[PATH_BYTES], *text;
  size_t n;
  snprintf(config, sizeof config, "%s/config.json", path);
  MUST(qd_file_read(config, 1 << 20, &text, &n));
  strstr(text, "\"num_hidden_layers\": 2")[strlen("\"num_hidden_layers\": ")] = '1';
  FILE *file = fopen(config, "wb");
  cr_assert(file != NULL && fwrite(text, 1, n, file) == n && fclose(file) == 0);
  qd_heap_free(text);
  expect_refusal(path, QD_ECORRUPT, "config.json is damaged");
}

/* A manifest of a later version, whose arithmetic is not known here: nothing is guessed. */
Test(subject, refuses_an_arithmetic_that_it_does_not_know) {
  const char *path = make_store("llama", "store", QD_ORDER_STATIC, QD_COMPUTE_FP32), *name;
  char manifest[PATH_BYTES];
  qd_json *read, *job, *changed = qd_json_object();
  const qd_json *value;
  snprintf(manifest, sizeof manifest, "%s/manifest.json", path);
  MUST(qd_seal_read(manifest, &read));
  job = qd_json_copy(qd_json_get(read, "job"));
  qd_json_set_text(job, "arithmetic", "posit-16");
  for (size_t i = 0; qd_json_member(read, i, &name, &value); i++)
    if (strcmp(name, "digest") != 0) qd_json_set(changed, name, strcmp(name, "job") == 0 ? job : qd_json_copy(value));
  MUST(qd_seal_write(changed, path, path, "manifest.json"));
  qd_json_free(changed);
  qd_json_free(read);
  expect_refusal(path, QD_EUNSUPPORTED, "posit-16");
  cr_expect_eq(arithmetic_of(path, QD_COMPUTE_BF16), QD_ARITHMETIC_BF16_PAIRS, "unless another is asked for");
}
