#define _GNU_SOURCE
#include "kernels/base/heap.h"
#include "kernels/vecmath.h"
#include "storage/source.h"
#include "tests/support/gguf_maker.h"
#include "tests/support/safetensors_maker.h"
#include "tests/support/temporary_folder.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { F32 = 0, F16 = 1, Q8_0 = 8, Q4_K = 12, BF16 = 30, HIDDEN = 64, KV = 32, FFN = 96, VOCABULARY = 40, HEAD = 16 };

static qd_temporary_folder folder;
static qd_gguf_maker maker;
static char file[600];

static void open_folder(void) {
  qd_temporary_folder_open(&folder);
  snprintf(file, sizeof file, "%s/model.gguf", folder.path);
}
static void close_folder(void) { qd_temporary_folder_close(&folder); }

TestSuite(source_gguf, .init = open_folder, .fini = close_folder);

/* ---- a model ------------------------------------------------------------------------------------------------------------- */

/* F32, of values that its name and the element's place give. */
static void add(const char *name, int64_t columns, int64_t rows, int64_t experts) {
  int64_t dim[] = {columns, rows > 0 ? rows : 1, experts}, n = columns * dim[1] * (experts > 0 ? experts : 1);
  float *values;
  cr_assert_eq(qd_heap_new((size_t)n, sizeof *values, &values), QD_OK);
  for (int64_t i = 0; i < n; i++) values[i] = qd_made_value(name, i);
  qd_make_gguf_tensor(&maker, name, F32, experts > 0 ? 3 : rows > 0 ? 2 : 1, dim, values, (size_t)n * sizeof *values);
  qd_heap_free(values);
}

static void add_attention(int block) {
  static const struct { const char *name; int64_t columns, rows; } tensors[] = {
      {"attn_norm", HIDDEN, 0}, {"ffn_norm", HIDDEN, 0}, {"attn_q", HIDDEN, HIDDEN}, {"attn_k", HIDDEN, KV},
      {"attn_v", HIDDEN, KV},   {"attn_output", HIDDEN, HIDDEN}};
  char name[64];
  for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++) {
    snprintf(name, sizeof name, "blk.%d.%s.weight", block, tensors[i].name);
    add(name, tensors[i].columns, tensors[i].rows, 0);
  }
}

static void add_ffn(int block, const char *ending, int64_t width, int64_t experts) {
  static const char *const names[] = {"ffn_gate", "ffn_up", "ffn_down"};
  char name[64];
  for (int i = 0; i < 3; i++) {
    snprintf(name, sizeof name, "blk.%d.%s%s.weight", block, names[i], ending);
    add(name, i < 2 ? HIDDEN : width, i < 2 ? width : HIDDEN, experts);
  }
}

static void add_dense(void) {
  add("token_embd.weight", HIDDEN, VOCABULARY, 0);
  add("output_norm.weight", HIDDEN, 0, 0);
  for (int b = 0; b < 2; b++) add_attention(b), add_ffn(b, "", FFN, 0);
}

static qd_source *opened(const char *path) {
  qd_source *source;
  cr_assert_eq(qd_source_open(path, &source), QD_OK, "%s", qd_error_text());
  return source;
}

static void expect_refusal(const char *path, qd_status expected, const char *first, const char *second) {
  qd_source *source;
  qd_status got = qd_source_open(path, &source);
  const char *text = qd_error_text();
  cr_expect_eq(got, expected, "%s: %s", qd_status_name(got), text);
  cr_expect_null(source);
  cr_expect(strstr(text, first) != NULL, "\"%s\" is not in: %s", first, text);
  cr_expect(strstr(text, second) != NULL, "\"%s\" is not in: %s", second, text);
  cr_expect_null(strchr(text, '\n'));
  qd_source_close(source);
}

/* The model as `maker` has it, written and refused. */
static void expect_made_refusal(qd_status expected, const char *first, const char *second) {
  qd_make_gguf(&maker, file);
  expect_refusal(file, expected, first, second);
}

static float *values_of(const qd_source *source, const char *name, const qd_source_tensor **t) {
  float *values;
  *t = qd_source_find(source, name);
  cr_assert_not_null(*t, "%s", name);
  cr_assert_eq(qd_heap_new((size_t)(*t)->bytes, 1, &values), QD_OK);
  cr_assert_eq(qd_source_read(source, *t, 0, values, (size_t)(*t)->bytes), QD_OK, "%s", qd_error_text());
  return values;
}

/* That `name` holds elements [first, ...) of the GGUF tensor, as they are there. */
static void expect_values(const qd_source *source, const char *name, const char *gguf, int64_t first) {
  const qd_source_tensor *t;
  float *values = values_of(source, name, &t);
  cr_expect_eq(t->dtype, QD_F32);
  for (size_t i = 0; i < t->bytes / sizeof *values; i++)
    cr_expect_eq(values[i], qd_made_value(gguf, first + (int64_t)i), "%s[%zu]", name, i);
  qd_heap_free(values);
}

/* Row j d/2 + i of a head of d rows is the file's row 2 i + j. */
static void expect_permuted(const qd_source *source, const char *name, const char *gguf, int64_t columns) {
  const qd_source_tensor *t;
  float *values = values_of(source, name, &t);
  int64_t rows = t->dim[0];
  for (int64_t r = 0; r < rows; r++) {
    int64_t head = r / HEAD, j = r % HEAD / (HEAD / 2), i = r % (HEAD / 2);
    for (int64_t c = 0; c < columns; c++)
      cr_expect_eq(values[r * columns + c], qd_made_value(gguf, (head * HEAD + 2 * i + j) * columns + c), "%s row %d", name,
                   (int)r);
  }
  qd_heap_free(values);
}

static int64_t setting(const qd_source *source, const char *key) {
  return qd_json_integer(qd_json_get(qd_source_config(source), key));
}

static void expect_model_type(const qd_source *source, const char *type) {
  cr_expect_str_eq(qd_json_text(qd_json_get(qd_source_config(source), "model_type")), type);
}

/* ---- what is read -------------------------------------------------------------------------------------------------------- */

Test(source_gguf, llama_under_hugging_face_names) {
  qd_make_gguf_keys(&maker, "llama");
  add_dense();
  qd_make_gguf(&maker, file);
  const char *const paths[] = {file, folder.path};
  for (int p = 0; p < 2; p++) {
    qd_source *source = opened(paths[p]);
    cr_expect_eq(qd_source_tensors(source), 20);
    cr_expect_str_eq(qd_source_file_path(source, 0), file);
    cr_expect_str_eq(qd_source_format_name(source), "GGUF");
    expect_model_type(source, "llama");
    cr_expect_eq(setting(source, "vocab_size"), VOCABULARY);
    cr_expect_eq(setting(source, "head_dim"), HEAD);
    cr_expect_eq(setting(source, "num_key_value_heads"), 2);
    cr_expect_eq(qd_json_number(qd_json_get(qd_source_config(source), "rms_norm_eps")), 1e-5); /* not that of fp32 */
    expect_values(source, "model.embed_tokens.weight", "token_embd.weight", 0);
    expect_values(source, "model.layers.1.mlp.down_proj.weight", "blk.1.ffn_down.weight", 0);
    expect_values(source, "model.layers.0.self_attn.v_proj.weight", "blk.0.attn_v.weight", 0);
    expect_values(source, "model.layers.1.post_attention_layernorm.weight", "blk.1.ffn_norm.weight", 0);
    expect_permuted(source, "model.layers.0.self_attn.q_proj.weight", "blk.0.attn_q.weight", HIDDEN);
    expect_permuted(source, "model.layers.1.self_attn.k_proj.weight", "blk.1.attn_k.weight", HIDDEN);
    cr_expect_str_eq(qd_source_side_file(source, 0), "config.json");
    cr_expect_null(qd_source_side_file(source, 1)); /* no vocabulary */
    qd_source_close(source);
  }
}

Test(source_gguf, rows_of_qwen_are_in_order) {
  qd_make_gguf_keys(&maker, "qwen2");
  add_dense();
  add("blk.0.attn_q.bias", HIDDEN, 0, 0);
  add("output.weight", HIDDEN, VOCABULARY, 0);
  qd_make_gguf(&maker, file);
  qd_source *source = opened(file);
  expect_model_type(source, "qwen2");
  cr_expect_null(qd_json_get(qd_source_config(source), "attention_bias"));
  expect_values(source, "model.layers.0.self_attn.q_proj.weight", "blk.0.attn_q.weight", 0);
  expect_values(source, "model.layers.0.self_attn.q_proj.bias", "blk.0.attn_q.bias", 0);
  expect_values(source, "lm_head.weight", "output.weight", 0);
  qd_source_close(source);
}

Test(source_gguf, biases_and_a_window_of_llama) {
  qd_make_gguf_keys(&maker, "llama");
  qd_make_gguf_u32(&maker, "llama.attention.sliding_window", 24);
  add_dense();
  add("blk.0.attn_q.bias", HIDDEN, 0, 0);
  add("blk.0.ffn_gate.bias", FFN, 0, 0);
  qd_make_gguf(&maker, file);
  qd_source *source = opened(file);
  expect_model_type(source, "mistral");
  cr_expect_eq(setting(source, "sliding_window"), 24);
  expect_permuted(source, "model.layers.0.self_attn.q_proj.bias", "blk.0.attn_q.bias", 1);
  expect_values(source, "model.layers.0.mlp.gate_proj.bias", "blk.0.ffn_gate.bias", 0);
  qd_source_close(source);
}

Test(source_gguf, stacked_experts_are_a_tensor_each) {
  static const struct { const char *arch, *type, *gate, *down; } archs[] = {
      {"llama", "mixtral", "block_sparse_moe.experts.2.w1", "block_sparse_moe.experts.1.w2"},
      {"qwen3moe", "qwen3_moe", "mlp.experts.2.gate_proj", "mlp.experts.1.down_proj"},
      {"qwen2moe", "qwen2_moe", "mlp.experts.2.gate_proj", "mlp.experts.1.down_proj"}};
  for (int a = 0; a < 3; a++) {
    char key[64], name[128];
    bool shared = strcmp(archs[a].arch, "qwen2moe") == 0;
    qd_make_gguf_keys(&maker, archs[a].arch);
    snprintf(key, sizeof key, "%s.expert_count", archs[a].arch);
    qd_make_gguf_u32(&maker, key, 3);
    snprintf(key, sizeof key, "%s.expert_used_count", archs[a].arch);
    qd_make_gguf_u32(&maker, key, 2);
    add("token_embd.weight", HIDDEN, VOCABULARY, 0);
    add_attention(0);
    add("blk.0.ffn_gate_inp.weight", HIDDEN, 3, 0);
    add_ffn(0, "_exps", 32, 3);
    if (shared) add("blk.0.ffn_gate_inp_shexp.weight", HIDDEN, 0, 0), add_ffn(0, "_shexp", 48, 0);
    qd_make_gguf(&maker, file);
    qd_source *source = opened(file);
    expect_model_type(source, archs[a].type);
    cr_expect_eq(setting(source, a == 0 ? "num_local_experts" : "num_experts"), 3);
    if (a > 0) cr_expect_eq(setting(source, "moe_intermediate_size"), 32);
    snprintf(name, sizeof name, "model.layers.0.%s.weight", archs[a].gate);
    expect_values(source, name, "blk.0.ffn_gate_exps.weight", 2 * 32 * HIDDEN);
    snprintf(name, sizeof name, "model.layers.0.%s.weight", archs[a].down);
    expect_values(source, name, "blk.0.ffn_down_exps.weight", 1 * 32 * HIDDEN);
    if (shared) {
      cr_expect_eq(setting(source, "shared_expert_intermediate_size"), 48);
      expect_values(source, "model.layers.0.mlp.shared_expert_gate.weight", "blk.0.ffn_gate_inp_shexp.weight", 0);
      cr_expect_eq(qd_source_find(source, "model.layers.0.mlp.shared_expert_gate.weight")->dim[1], HIDDEN);
      expect_values(source, "model.layers.0.mlp.shared_expert.up_proj.weight", "blk.0.ffn_up_shexp.weight", 0);
    }
    qd_source_close(source);
  }
}

/* Experts as files of early 2024 have them. */
Test(source_gguf, experts_in_tensors_of_their_own) {
  qd_make_gguf_keys(&maker, "llama");
  qd_make_gguf_u32(&maker, "llama.expert_count", 2);
  qd_make_gguf_u32(&maker, "llama.expert_used_count", 1);
  add("token_embd.weight", HIDDEN, VOCABULARY, 0);
  add("blk.0.ffn_up.1.weight", HIDDEN, FFN, 0);
  qd_make_gguf(&maker, file);
  qd_source *source = opened(file);
  expect_values(source, "model.layers.0.block_sparse_moe.experts.1.w3.weight", "blk.0.ffn_up.1.weight", 0);
  qd_source_close(source);
}

/* Any bytes of a tensor are the same bytes, wherever reading begins and ends, in blocks and in rows that change places. */
Test(source_gguf, reads_any_stretch) {
  enum { ROWS = 32, COLUMNS = 512, BLOCK = 144, TENSOR = ROWS * COLUMNS / 256 * BLOCK };
  static unsigned char blocks[TENSOR];
  for (int i = 0; i < TENSOR; i++) blocks[i] = (unsigned char)(i * 37 + i / 11);
  for (int i = 0; i < TENSOR; i += BLOCK) memcpy(blocks + i, "\x66\x2e\x1f\x2a", 4); /* 0.1, 0.048 */
  qd_make_gguf_keys(&maker, "llama");
  add("token_embd.weight", HIDDEN, VOCABULARY, 0);
  qd_make_gguf_tensor(&maker, "blk.0.attn_q.weight", Q4_K, 2, (int64_t[]){COLUMNS, ROWS}, blocks, TENSOR);
  qd_make_gguf_tensor(&maker, "blk.0.attn_v.weight", Q4_K, 2, (int64_t[]){COLUMNS, ROWS}, blocks, TENSOR);
  qd_make_gguf(&maker, file);
  qd_source *source = opened(file);
  const char *const names[] = {"model.layers.0.self_attn.q_proj.weight", "model.layers.0.self_attn.v_proj.weight"};
  for (int t = 0; t < 2; t++) {
    const qd_source_tensor *tensor;
    float *whole = values_of(source, names[t], &tensor);
    static unsigned char part[ROWS * COLUMNS * sizeof(float)];
    cr_assert_eq(tensor->bytes, sizeof part);
    for (uint64_t at = 0, n = 1; at < tensor->bytes; at += n, n = (n * 7 + 5) % 3001) {
      uint64_t left = tensor->bytes - at;
      cr_assert_eq(qd_source_read(source, tensor, at, part + at, (size_t)(n < left ? n : left)), QD_OK);
    }
    cr_expect_eq(memcmp(part, whole, sizeof part), 0, "%s", names[t]);
    qd_heap_free(whole);
  }
  const qd_source_tensor *q, *v;
  float *a = values_of(source, names[0], &q), *b = values_of(source, names[1], &v);
  for (int r = 0; r < ROWS; r++) { /* 4 heads of 8 rows */
    int stored = r / 8 * 8 + 2 * (r % 4) + r % 8 / 4;
    cr_expect_eq(memcmp(a + r * COLUMNS, b + stored * COLUMNS, COLUMNS * sizeof *a), 0, "row %d", r);
  }
  qd_heap_free(a), qd_heap_free(b);
  qd_source_close(source);
}

Test(source_gguf, keeps_the_types_that_are_no_blocks) {
  static const uint16_t half[2 * 32] = {0x3c00, 0x4000};
  qd_make_gguf_keys(&maker, "llama");
  qd_make_gguf_tensor(&maker, "token_embd.weight", BF16, 2, (int64_t[]){32, 2}, half, sizeof half);
  qd_make_gguf_tensor(&maker, "output.weight", F16, 2, (int64_t[]){32, 2}, half, sizeof half);
  qd_make_gguf(&maker, file);
  qd_source *source = opened(file);
  uint16_t got[2];
  const qd_source_tensor *t = qd_source_find(source, "lm_head.weight");
  cr_expect_eq(t->dtype, QD_F16);
  cr_assert_eq(qd_source_read(source, t, 0, got, sizeof got), QD_OK);
  cr_expect_eq(memcmp(got, half, sizeof got), 0);
  cr_expect_eq(qd_source_find(source, "model.embed_tokens.weight")->dtype, QD_BF16);
  cr_expect_str_eq(qd_json_text(qd_json_get(qd_source_config(source), "torch_dtype")), "bfloat16");
  qd_source_close(source);
}

/* ---- rope ---------------------------------------------------------------------------------------------------------------- */

static void add_divisors(double factor, float change) {
  float divisor[HEAD / 2];
  for (int i = 0; i < HEAD / 2; i++) {
    double wavelength = 2 * 3.14159265358979323846 * qd_vm_pow(500000, i / (HEAD / 2.0)), smooth = (8192 / wavelength - 1) / 3;
    divisor[i] = (float)(wavelength < 2048 ? 1 : wavelength > 8192 ? factor : 1 / ((1 - smooth) / factor + smooth));
  }
  divisor[2] += change;
  qd_make_gguf_keys(&maker, "llama");
  qd_make_gguf_f32(&maker, "llama.rope.freq_base", 500000);
  add("token_embd.weight", HIDDEN, VOCABULARY, 0);
  qd_make_gguf_tensor(&maker, "rope_freqs.weight", F32, 1, (int64_t[]){HEAD / 2}, divisor, sizeof divisor);
  qd_make_gguf(&maker, file);
}

Test(source_gguf, llama_3_scaling_is_recognised) {
  add_divisors(8, 0);
  qd_source *source = opened(file);
  const qd_json *rope = qd_json_get(qd_source_config(source), "rope_scaling");
  cr_expect_str_eq(qd_json_text(qd_json_get(rope, "rope_type")), "llama3");
  cr_expect_eq(qd_json_number(qd_json_get(rope, "factor")), 8);
  cr_expect_eq(qd_json_number(qd_json_get(rope, "high_freq_factor")), 4);
  cr_expect_eq(qd_json_integer(qd_json_get(rope, "original_max_position_embeddings")), 8192);
  cr_expect_eq(qd_source_tensors(source), 1);
  qd_source_close(source);
  add_divisors(1, 0); /* divides by 1: none */
  source = opened(file);
  cr_expect_null(qd_json_get(qd_source_config(source), "rope_scaling"));
  qd_source_close(source);
  add_divisors(8, 0.5f);
  expect_refusal(file, QD_EUNSUPPORTED, "rope_freqs.weight", "element 2");
}

Test(source_gguf, linear_scaling) {
  qd_make_gguf_keys(&maker, "llama");
  qd_make_gguf_text(&maker, "llama.rope.scaling.type", "linear");
  qd_make_gguf_f32(&maker, "llama.rope.scaling.factor", 4);
  add("token_embd.weight", HIDDEN, VOCABULARY, 0);
  qd_make_gguf(&maker, file);
  qd_source *source = opened(file);
  cr_expect_str_eq(qd_json_text(qd_json_get(qd_json_get(qd_source_config(source), "rope_scaling"), "rope_type")), "linear");
  qd_source_close(source);
}

/* ---- several files ------------------------------------------------------------------------------------------------------- */

static void make_part(int number, int count, int told, int tensors) {
  char name[64];
  uint16_t no = (uint16_t)told, n = (uint16_t)count;
  int32_t all = (int32_t)tensors;
  snprintf(name, sizeof name, "m-%05d-of-%05d.gguf", number, count);
  qd_make_gguf_raw(&maker, "split.no", 2, &no, sizeof no);
  qd_make_gguf_raw(&maker, "split.count", 2, &n, sizeof n);
  qd_make_gguf_raw(&maker, "split.tensors.count", 5, &all, sizeof all);
  qd_make_gguf(&maker, qd_temporary_path(&folder, name));
}

static void make_first(int tensors) {
  qd_make_gguf_keys(&maker, "llama");
  add("output_norm.weight", HIDDEN, 0, 0);
  make_part(1, 2, 0, tensors);
}

static void make_second(int told) {
  add("token_embd.weight", HIDDEN, VOCABULARY, 0);
  add("blk.0.attn_q.weight", HIDDEN, HIDDEN, 0);
  make_part(2, 2, told, 3);
}

Test(source_gguf, parts_are_one_model) {
  make_first(3), make_second(1);
  const char *const paths[] = {folder.path, qd_temporary_path(&folder, "m-00001-of-00002.gguf")};
  for (int p = 0; p < 2; p++) {
    qd_source *source = opened(paths[p]);
    cr_expect_eq(qd_source_files(source), 2);
    cr_expect_eq(qd_source_find(source, "model.embed_tokens.weight")->file, 1);
    expect_values(source, "model.embed_tokens.weight", "token_embd.weight", 0);
    expect_permuted(source, "model.layers.0.self_attn.q_proj.weight", "blk.0.attn_q.weight", HIDDEN);
    qd_source_close(source);
  }
  expect_refusal(qd_temporary_path(&folder, "m-00002-of-00002.gguf"), QD_ENOTFOUND, "part 2 of 2", "name the first one");
  make_second(0);
  expect_refusal(paths[1], QD_EBADINPUT, "part 1 of 2", "its name says 2 of 2");
  make_first(4), make_second(1);
  expect_refusal(paths[1], QD_EBADINPUT, "promises 4 tensors", "there are 3");
  cr_assert_eq(unlink(qd_temporary_path(&folder, "m-00002-of-00002.gguf")), 0);
  expect_refusal(paths[1], QD_ENOTFOUND, "m-00002-of-00002.gguf is missing", "part 2 of 2");
}

Test(source_gguf, a_folder_with_several_models) {
  make_first(3), make_second(1);
  qd_make_gguf_keys(&maker, "llama");
  qd_make_gguf(&maker, qd_temporary_path(&folder, "other.gguf"));
  expect_refusal(folder.path, QD_ENOTFOUND, "several models (m-00001-of-00002.gguf, m-00002-of-00002.gguf, other.gguf)",
                 "name the file");
}

/* ---- what is refused ----------------------------------------------------------------------------------------------------- */

Test(source_gguf, says_what_is_not_supported) {
  qd_make_gguf_keys(&maker, "gemma3");
  expect_made_refusal(QD_EUNSUPPORTED, "general.architecture \"gemma3\"", "llama, qwen2");
  qd_make_gguf_u32(&maker, "llama.block_count", 2);
  expect_made_refusal(QD_EUNSUPPORTED, "general.architecture \"\"", "");
  qd_make_gguf_keys(&maker, "llama");
  qd_make_gguf_text(&maker, "general.type", "adapter");
  expect_made_refusal(QD_EUNSUPPORTED, "general.type", "adapter");
  qd_make_gguf_keys(&maker, "llama");
  qd_make_gguf_f32(&maker, "llama.logit_scale", 2);
  expect_made_refusal(QD_EUNSUPPORTED, "llama.logit_scale", "forward");
  qd_make_gguf_keys(&maker, "llama");
  qd_make_gguf_bool(&maker, "llama.attention.causal", 0);
  expect_made_refusal(QD_EUNSUPPORTED, "not causal", "");
  qd_make_gguf_keys(&maker, "qwen3moe");
  qd_make_gguf_u32(&maker, "qwen3moe.expert_gating_func", 2);
  expect_made_refusal(QD_EUNSUPPORTED, "expert_gating_func 2", "softmax");
  qd_make_gguf_keys(&maker, "qwen3moe");
  expect_made_refusal(QD_EUNSUPPORTED, "qwen3moe with expert_count 0", "");
  qd_make_gguf_keys(&maker, "llama");
  qd_make_gguf_u32(&maker, "llama.rope.dimension_count", 8);
  expect_made_refusal(QD_EUNSUPPORTED, "rope.dimension_count 8 of 16", "");
  qd_make_gguf_keys(&maker, "llama");
  add_dense();
  add("blk.0.attn_sinks.weight", 4, 0, 0);
  expect_made_refusal(QD_EUNSUPPORTED, "blk.0.attn_sinks.weight", "not known");
  qd_make_gguf_keys(&maker, "llama");
  qd_make_gguf_text(&maker, "tokenizer.ggml.model", "gpt2");
  qd_make_gguf_text(&maker, "tokenizer.ggml.pre", "tekken");
  add_dense();
  expect_made_refusal(QD_EUNSUPPORTED, "pre-tokenizer \"tekken\"", "smollm");
  qd_make_gguf_keys(&maker, "llama");
  qd_make_gguf_text(&maker, "tokenizer.ggml.model", "bert");
  add_dense();
  expect_made_refusal(QD_EUNSUPPORTED, "\"bert\"", "llama and gpt2");
}

Test(source_gguf, says_what_contradicts_itself) {
  qd_make_gguf_keys(&maker, "llama");
  expect_made_refusal(QD_EBADINPUT, "no matrix token_embd.weight", "");
  qd_make_gguf_text(&maker, "general.architecture", "llama");
  expect_made_refusal(QD_EBADINPUT, "llama.attention.head_count", "must be there");
  qd_make_gguf_keys(&maker, "llama");
  add("token_embd.weight", HIDDEN, VOCABULARY, 0);
  add("blk.0.attn_q.weight", HIDDEN, 63, 0);
  expect_made_refusal(QD_EBADINPUT, "blk.0.attn_q.weight", "63 rows");
  qd_make_gguf_keys(&maker, "llama");
  qd_make_gguf_u32(&maker, "llama.expert_count", 4);
  qd_make_gguf_u32(&maker, "llama.expert_used_count", 2);
  add("token_embd.weight", HIDDEN, VOCABULARY, 0);
  add_ffn(0, "_exps", 32, 3);
  expect_made_refusal(QD_EBADINPUT, "holds 3 experts", "expert_count is 4");
  qd_make_gguf_text(&maker, "general.architecture", "llama");
  qd_make_gguf_text(&maker, "llama.attention.head_count", "4");
  expect_made_refusal(QD_EBADINPUT, "llama.attention.head_count", "is of the type text");
}

/* ---- damage -------------------------------------------------------------------------------------------------------------- */

static void make_small(void) {
  static const char *const tokens[] = {"a", "b"};
  static unsigned char blocks[34] = {0, 0x3c, 1, 2, 3};
  qd_make_gguf_keys(&maker, "llama");
  qd_make_gguf_text(&maker, "tokenizer.ggml.model", "llama");
  qd_make_gguf_texts(&maker, "tokenizer.ggml.tokens", tokens, 2);
  qd_make_gguf_u32(&maker, "tokenizer.ggml.bos_token_id", 1);
  qd_make_gguf_floats(&maker, "tokenizer.ggml.scores", (float[]){0, -1}, 2);
  qd_make_gguf_tensor(&maker, "token_embd.weight", Q8_0, 2, (int64_t[]){32, 1}, blocks, sizeof blocks);
  qd_make_gguf_tensor(&maker, "output_norm.weight", F32, 1, (int64_t[]){4}, blocks, 16);
  qd_make_gguf(&maker, file);
}

/* Whatever the bytes are, opening and reading end. */
static qd_status open_and_read(void) {
  qd_source *source;
  char *text;
  size_t n;
  qd_status status = qd_source_open(file, &source);
  for (size_t i = 0; status == QD_OK && i < qd_source_tensors(source); i++) {
    const qd_source_tensor *t = qd_source_tensor_at(source, i);
    unsigned char *data;
    if (t->bytes > 1 << 20) continue;
    cr_assert_eq(qd_heap_new((size_t)t->bytes, 1, &data), QD_OK);
    status = qd_source_read(source, t, 0, data, (size_t)t->bytes);
    qd_heap_free(data);
  }
  qd_source_close(source);
  if (qd_side_file_read(file, "tokenizer.json", QD_SIDE_FILE_BYTES, &text, &n) == QD_OK) qd_heap_free(text);
  return status;
}

Test(source_gguf, every_truncation_and_every_changed_bit) {
  char *bytes;
  size_t n;
  make_small();
  cr_assert_eq(open_and_read(), QD_OK, "%s", qd_error_text());
  cr_assert_eq(qd_file_read(file, 1 << 20, &bytes, &n), QD_OK);
  for (size_t cut = 0; cut < n - 16; cut++) { /* the last bytes only fill up to the alignment */
    qd_temporary_write(&folder, "model.gguf", bytes, cut);
    cr_assert_neq(open_and_read(), QD_OK, "%zu of %zu bytes", cut, n);
    cr_assert(strstr(qd_error_text(), "model.gguf") != NULL, "%s", qd_error_text());
  }
  for (size_t bit = 0; bit < 8 * n; bit++) {
    bytes[bit / 8] = (char)(bytes[bit / 8] ^ 1 << bit % 8);
    qd_temporary_write(&folder, "model.gguf", bytes, n);
    if (open_and_read() != QD_OK) cr_assert_null(strchr(qd_error_text(), '\n'), "%s", qd_error_text());
    bytes[bit / 8] = (char)(bytes[bit / 8] ^ 1 << bit % 8);
  }
  qd_heap_free(bytes);
}

Test(source_gguf, made_side_files_are_always_the_same) {
  char *first, *second;
  size_t n, m;
  make_small();
  for (int i = 0; i < 3; i++) {
    const char *name = (const char *const[]){"config.json", "tokenizer.json", "tokenizer_config.json"}[i];
    cr_assert_eq(qd_side_file_read(file, name, QD_SIDE_FILE_BYTES, &first, &n), QD_OK, "%s", qd_error_text());
    cr_assert_eq(qd_side_file_read(folder.path, name, QD_SIDE_FILE_BYTES, &second, &m), QD_OK, "%s", qd_error_text());
    cr_expect_str_eq(first, second);
    qd_heap_free(first), qd_heap_free(second);
  }
  cr_expect_eq(qd_side_file_read(file, "vocab.json", QD_SIDE_FILE_BYTES, &first, &n), QD_ENOTFOUND);
}
