#include "storage/sources/gguf_model.h"

#include "kernels/base/heap.h"
#include "kernels/vecmath.h"
#include "storage/sources/gguf_blocks.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { KEY_BYTES = 128, MAX_COUNT = 1 << 24, MAX_BLOCKS = 4096 };

/* ---- which family -------------------------------------------------------------------------------------------------------- */

typedef struct family {
  const char *arch, *model_type, *class_name;
  bool sparse, permuted;
  bool renormalises;      /* usual value of expert_weights_norm */
  const char *bias_key;   /* of config.json: biases on q, k and v; NULL: always there */
} family;

static const family families[] = {
    {"llama", "llama", "LlamaForCausalLM", false, true, false, "attention_bias"},
    {"llama", "mixtral", "MixtralForCausalLM", true, true, true, "attention_bias"},
    {"qwen2", "qwen2", "Qwen2ForCausalLM", false, false, false, NULL},
    {"qwen3", "qwen3", "Qwen3ForCausalLM", false, false, false, "attention_bias"},
    {"qwen2moe", "qwen2_moe", "Qwen2MoeForCausalLM", true, false, false, "qkv_bias"},
    {"qwen3moe", "qwen3_moe", "Qwen3MoeForCausalLM", true, false, true, "attention_bias"},
};
enum { N_FAMILIES = sizeof families / sizeof *families };

/* Keys of an architecture that are read, or say nothing of the forward.  Any other may change it. */
static const char *const known_keys[] = {
    "context_length", "embedding_length", "block_count", "feed_forward_length", "vocab_size", "tensor_data_layout",
    "attention.head_count", "attention.head_count_kv", "attention.key_length", "attention.value_length",
    "attention.layer_norm_rms_epsilon", "attention.sliding_window", "attention.causal", "rope.freq_base",
    "rope.dimension_count", "rope.scaling.type", "rope.scaling.factor", "rope.scale_linear",
    "rope.scaling.original_context_length", "rope.scaling.finetuned", "expert_count", "expert_used_count",
    "expert_feed_forward_length", "expert_shared_feed_forward_length", "expert_weights_norm", "expert_gating_func"};

static const family *family_of(const char *arch, bool sparse) {
  for (int i = 0; i < N_FAMILIES; i++)
    if (strcmp(families[i].arch, arch) == 0 && families[i].sparse == sparse) return &families[i];
  return NULL;
}

static const family *family_of_model(const qd_gguf_model *m) { return family_of(m->arch, m->experts > 0); }

static qd_status check_keys(const qd_gguf *gguf, const char *arch) {
  size_t n = strlen(arch);
  for (size_t i = 0; i < gguf->n_values; i++) {
    const char *key = gguf->value[i].key;
    if (strncmp(key, arch, n) != 0 || key[n] != '.') continue;
    bool known = false;
    for (size_t k = 0; k < sizeof known_keys / sizeof *known_keys && !known; k++)
      known = strcmp(key + n + 1, known_keys[k]) == 0;
    QD_CHECK(known, QD_EUNSUPPORTED, "%s: the key %.200s is not supported: it may change the model's forward",
             gguf->bytes->name, key);
  }
  return QD_OK;
}

static const char *key_of(const char *arch, const char *name, char key[KEY_BYTES]) {
  snprintf(key, KEY_BYTES, "%s.%s", arch, name);
  return key;
}

static qd_status integer(const qd_gguf_model *m, const char *name, int64_t otherwise, int64_t *out) {
  char key[KEY_BYTES];
  return qd_gguf_integer(m->gguf, key_of(m->arch, name, key), 0, MAX_COUNT, otherwise, out);
}

static qd_status needed(const qd_gguf_model *m, const char *name, int64_t *out) {
  QD_TRY(integer(m, name, -1, out));
  QD_CHECK(*out >= 1, QD_EBADINPUT, "%s: %s.%s must be there and at least 1", m->gguf->bytes->name, m->arch, name);
  return QD_OK;
}

/* What is known, and changes the forward all the same where it has another value than the usual one. */
static qd_status check_values(const qd_gguf_model *m) {
  enum { SOFTMAX = 1 };
  char key[KEY_BYTES];
  int64_t gating;
  bool causal;
  QD_TRY(integer(m, "expert_gating_func", SOFTMAX, &gating));
  QD_CHECK(gating == SOFTMAX, QD_EUNSUPPORTED, "%s: expert_gating_func %" PRId64 " is not supported (softmax, 1, is)",
           m->gguf->bytes->name, gating);
  QD_TRY(qd_gguf_bool(m->gguf, key_of(m->arch, "attention.causal", key), true, &causal));
  QD_CHECK(causal, QD_EUNSUPPORTED, "%s: attention that is not causal is not supported", m->gguf->bytes->name);
  return QD_OK;
}

/* A known name for the architecture, so that it outlives the text. */
static qd_status find_arch(const qd_gguf *gguf, const char **out) {
  char *arch, *type = NULL;
  *out = NULL;
  QD_TRY(qd_gguf_text(gguf, "general.architecture", &arch));
  for (int i = 0; arch != NULL && i < N_FAMILIES; i++)
    if (strcmp(families[i].arch, arch) == 0) *out = families[i].arch;
  qd_status status = qd_gguf_text(gguf, "general.type", &type);
  if (status == QD_OK && type != NULL && strcmp(type, "model") != 0)
    status = qd_fail(QD_EUNSUPPORTED, __FILE__, __LINE__, "%s holds no model: general.type is \"%.40s\"", gguf->bytes->name,
                     type);
  else if (status == QD_OK && *out == NULL)
    status = qd_fail(QD_EUNSUPPORTED, __FILE__, __LINE__,
                     "%s: general.architecture \"%.40s\" is not supported (llama, qwen2, qwen3, qwen2moe and qwen3moe are)",
                     gguf->bytes->name, arch ? arch : "");
  qd_heap_free(type);
  qd_heap_free(arch);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

qd_status qd_gguf_model_of(const qd_gguf *gguf, size_t n_files, qd_gguf_model *out) {
  *out = (qd_gguf_model){.gguf = gguf, .n_files = n_files};
  QD_TRY(find_arch(gguf, &out->arch));
  QD_TRY(check_keys(gguf, out->arch));
  QD_TRY(check_values(out));
  QD_TRY(integer(out, "expert_count", 0, &out->experts));
  const family *f = family_of_model(out);
  QD_CHECK(f != NULL, QD_EUNSUPPORTED, "%s: a model of the architecture %s with expert_count %" PRId64 " is not supported",
           gguf->bytes->name, out->arch, out->experts);
  out->model_type = f->model_type, out->permuted = f->permuted;
  QD_TRY(needed(out, "attention.head_count", &out->heads));
  QD_TRY(integer(out, "attention.head_count_kv", out->heads, &out->kv_heads));
  QD_TRY(needed(out, "block_count", &out->n_blocks));
  QD_CHECK(out->n_blocks <= MAX_BLOCKS, QD_EBADINPUT, "%s: %s.block_count is %" PRId64 ", at most %d are read",
           gguf->bytes->name, out->arch, out->n_blocks, MAX_BLOCKS);
  return QD_OK;
}

/* ---- config.json --------------------------------------------------------------------------------------------------------- */

/* In whichever file. */
static const qd_gguf_tensor *find(const qd_gguf_model *m, const char *name, const qd_gguf **file) {
  const qd_gguf_tensor *found = NULL;
  for (size_t i = 0; i < m->n_files && found == NULL; i++) {
    found = qd_gguf_find_tensor(&m->gguf[i], name);
    *file = &m->gguf[i];
  }
  return found;
}

static bool has(const qd_gguf_model *m, const char *name) {
  const qd_gguf *file;
  return find(m, name, &file) != NULL;
}

static bool block_has(const qd_gguf_model *m, int64_t block, const char *name) {
  char full[KEY_BYTES];
  snprintf(full, sizeof full, "blk.%" PRId64 ".%s", block, name);
  return has(m, full);
}

/* Rows of the tensor in the first block that has it; 0: none has. */
static int64_t rows_in_block(const qd_gguf_model *m, const char *name) {
  const qd_gguf *file;
  char full[KEY_BYTES];
  int64_t block = 0;
  while (block < m->n_blocks && !block_has(m, block, name)) block++;
  snprintf(full, sizeof full, "blk.%" PRId64 ".%s", block, name);
  const qd_gguf_tensor *t = find(m, full, &file);
  return t != NULL && t->rank >= 2 ? t->dim[1] : 0;
}

static qd_status set_needed(const qd_gguf_model *m, const char *name, qd_json *config, const char *key) {
  int64_t value;
  QD_TRY(needed(m, name, &value));
  qd_json_set_integer(config, key, value);
  return QD_OK;
}

static qd_status set_heads(const qd_gguf_model *m, qd_json *config) {
  int64_t hidden, key, value, rotated;
  QD_TRY(needed(m, "embedding_length", &hidden));
  int64_t usual = hidden / m->heads;
  QD_TRY(integer(m, "attention.key_length", usual, &key));
  QD_TRY(integer(m, "attention.value_length", key, &value));
  QD_TRY(integer(m, "rope.dimension_count", key, &rotated));
  QD_CHECK(key == value, QD_EUNSUPPORTED,
           "%s: heads of %" PRId64 " elements for keys and %" PRId64 " for values are not supported", m->gguf->bytes->name, key,
           value);
  QD_CHECK(key == rotated, QD_EUNSUPPORTED,
           "%s: rope.dimension_count %" PRId64 " of %" PRId64 " elements of a head is not supported", m->gguf->bytes->name,
           rotated, key);
  qd_json_set_integer(config, "num_attention_heads", m->heads);
  qd_json_set_integer(config, "num_key_value_heads", m->kv_heads);
  qd_json_set_integer(config, "head_dim", key);
  return QD_OK;
}

static qd_status set_experts(const qd_gguf_model *m, qd_json *config) {
  const family *f = family_of_model(m);
  int64_t used, width = rows_in_block(m, "ffn_gate_exps.weight");
  char key[KEY_BYTES];
  bool norm;
  if (m->experts == 0) return QD_OK;
  bool mixtral = strcmp(m->model_type, "mixtral") == 0;
  QD_TRY(needed(m, "expert_used_count", &used));
  QD_TRY(qd_gguf_bool(m->gguf, key_of(m->arch, "expert_weights_norm", key), f->renormalises, &norm));
  QD_CHECK(norm || !mixtral, QD_EUNSUPPORTED, "%s: expert_weights_norm false is not supported for %s", m->gguf->bytes->name,
           m->model_type);
  qd_json_set_integer(config, mixtral ? "num_local_experts" : "num_experts", m->experts);
  qd_json_set_integer(config, "num_experts_per_tok", used);
  if (mixtral) return QD_OK;
  qd_json_set_integer(config, "moe_intermediate_size", width);
  if (strcmp(m->model_type, "qwen2_moe") == 0)
    qd_json_set_integer(config, "shared_expert_intermediate_size", rows_in_block(m, "ffn_gate_shexp.weight"));
  qd_json_set_bool(config, "norm_topk_prob", norm);
  qd_json_set_integer(config, "decoder_sparse_step", 1);
  qd_json *dense = qd_json_array();
  for (int64_t block = 0; block < m->n_blocks; block++)
    if (!block_has(m, block, "ffn_gate_inp.weight")) qd_json_append_integer(dense, block);
  qd_json_set(config, "mlp_only_layers", dense);
  return QD_OK;
}

/* An expert's width stands in for that of dense blocks where a file does not tell it. */
static qd_status set_widths(const qd_gguf_model *m, qd_json *config) {
  int64_t width;
  QD_TRY(set_needed(m, "embedding_length", config, "hidden_size"));
  QD_TRY(integer(m, "feed_forward_length", rows_in_block(m, "ffn_gate_exps.weight"), &width));
  qd_json_set_integer(config, "intermediate_size", width);
  qd_json_set_integer(config, "num_hidden_layers", m->n_blocks);
  QD_TRY(set_heads(m, config));
  QD_TRY(set_needed(m, "context_length", config, "max_position_embeddings"));
  return set_experts(m, config);
}

/* ---- rope ---------------------------------------------------------------------------------------------------------------- */

/* Llama 3's scaling is in a GGUF file by what it divides each frequency by: convert_hf_to_gguf.py, LlamaModel.  low_freq_factor
 * and high_freq_factor are those of all models that have it. */
enum { LLAMA3_LOW = 1, LLAMA3_HIGH = 4, LLAMA3_POSITIONS = 8192 };

static double llama3_divisor(double frequency, double factor, double positions) {
  const double pi = 3.14159265358979323846;
  double wavelength = 2 * pi / frequency;
  if (wavelength < positions / LLAMA3_HIGH) return 1;
  if (wavelength > positions / LLAMA3_LOW) return factor;
  double smooth = (positions / wavelength - LLAMA3_LOW) / (LLAMA3_HIGH - LLAMA3_LOW);
  return 1 / ((1 - smooth) / factor + smooth);
}

static qd_status fit_llama3(const qd_gguf_model *m, const float *divisor, int64_t n, double theta, qd_json *config) {
  int64_t positions;
  double factor = 1;
  const double tolerance = 1e-4; /* they were computed in fp32 */
  QD_TRY(integer(m, "rope.scaling.original_context_length", LLAMA3_POSITIONS, &positions));
  for (int64_t i = 0; i < n; i++) factor = (double)divisor[i] > factor ? (double)divisor[i] : factor;
  for (int64_t i = 0; i < n; i++) {
    double expected = llama3_divisor(qd_vm_pow(theta, -(double)i / (double)n), factor, (double)positions);
    QD_CHECK(fabs((double)divisor[i] - expected) <= tolerance * expected, QD_EUNSUPPORTED,
             "%s: rope_freqs.weight is not Llama 3's scaling: element %" PRId64 " is %g, expected %g", m->gguf->bytes->name, i,
             (double)divisor[i], expected);
  }
  if (factor == 1) return QD_OK;
  qd_json *rope = qd_json_object();
  qd_json_set_text(rope, "rope_type", "llama3");
  qd_json_set_number(rope, "factor", factor);
  qd_json_set_number(rope, "low_freq_factor", LLAMA3_LOW);
  qd_json_set_number(rope, "high_freq_factor", LLAMA3_HIGH);
  qd_json_set_integer(rope, "original_max_position_embeddings", positions);
  qd_json_set(config, "rope_scaling", rope);
  return QD_OK;
}

static qd_status set_divisors(const qd_gguf_model *m, double theta, qd_json *config) {
  const qd_gguf *file;
  const qd_gguf_tensor *t = find(m, "rope_freqs.weight", &file);
  int64_t n = qd_json_integer(qd_json_get(config, "head_dim")) / 2;
  float *divisor;
  QD_CHECK(t->type == 0 && t->rank == 1 && t->dim[0] == n, QD_EBADINPUT,
           "%s: rope_freqs.weight must be %" PRId64 " elements of F32", m->gguf->bytes->name, n);
  QD_TRY(qd_heap_new((size_t)n, sizeof *divisor, &divisor));
  qd_status status = qd_bytes_read(file->bytes, t->offset, divisor, (size_t)t->bytes);
  if (status == QD_OK) status = fit_llama3(m, divisor, n, theta, config);
  qd_heap_free(divisor);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

/* What is no linear scaling is refused by its name where config.json is read. */
static qd_status set_scaling(const qd_gguf_model *m, const char *type, qd_json *config) {
  char key[KEY_BYTES];
  double old, factor;
  QD_TRY(qd_gguf_number(m->gguf, key_of(m->arch, "rope.scale_linear", key), 1, &old));
  QD_TRY(qd_gguf_number(m->gguf, key_of(m->arch, "rope.scaling.factor", key), old, &factor));
  if (type == NULL && factor != 1) type = "linear";
  if (type == NULL || strcmp(type, "none") == 0) return QD_OK;
  qd_json *rope = qd_json_object();
  qd_json_set_text(rope, "rope_type", type);
  qd_json_set_number(rope, "factor", factor);
  qd_json_set(config, "rope_scaling", rope);
  return QD_OK;
}

static qd_status set_rope(const qd_gguf_model *m, qd_json *config) {
  char key[KEY_BYTES], *type;
  double theta;
  QD_TRY(qd_gguf_number(m->gguf, key_of(m->arch, "rope.freq_base", key), 10000, &theta));
  qd_json_set_number(config, "rope_theta", theta);
  QD_TRY(qd_gguf_text(m->gguf, key_of(m->arch, "rope.scaling.type", key), &type));
  qd_status status = set_scaling(m, type, config);
  qd_heap_free(type);
  QD_TRY(status);
  if (!has(m, "rope_freqs.weight")) return QD_OK;
  QD_CHECK(qd_json_get(config, "rope_scaling") == NULL, QD_EUNSUPPORTED,
           "%s: rope.scaling and rope_freqs.weight together are not supported", m->gguf->bytes->name);
  return set_divisors(m, theta, config);
}

/* ---- the rest of it ------------------------------------------------------------------------------------------------------ */

static qd_status set_norm(const qd_gguf_model *m, qd_json *config) {
  char key[KEY_BYTES];
  double eps;
  QD_TRY(qd_gguf_number(m->gguf, key_of(m->arch, "attention.layer_norm_rms_epsilon", key), -1, &eps));
  QD_CHECK(eps >= 0, QD_EBADINPUT, "%s: %s must be there and at least 0", m->gguf->bytes->name, key);
  qd_json_set_number(config, "rms_norm_eps", eps);
  return QD_OK;
}

static qd_status set_window(const qd_gguf_model *m, qd_json *config) {
  int64_t window;
  QD_TRY(integer(m, "attention.sliding_window", 0, &window));
  QD_CHECK(window == 0 || m->permuted, QD_EUNSUPPORTED, "%s: %s.attention.sliding_window is not supported",
           m->gguf->bytes->name, m->arch);
  if (m->experts > 0 && window == 0) qd_json_set(config, "sliding_window", NULL);
  if (window > 0) qd_json_set_integer(config, "sliding_window", window);
  return QD_OK;
}

static void set_biases(const qd_gguf_model *m, qd_json *config) {
  const char *key = family_of_model(m)->bias_key;
  if (key != NULL) qd_json_set_bool(config, key, block_has(m, 0, "attn_q.bias"));
  if (strcmp(m->model_type, "llama") == 0)
    qd_json_set_bool(config, "mlp_bias", block_has(m, 0, "ffn_gate.bias"));
}

static qd_status set_tokens(const qd_gguf_model *m, qd_json *config) {
  static const char *const names[][2] = {{"tokenizer.ggml.bos_token_id", "bos_token_id"},
                                         {"tokenizer.ggml.eos_token_id", "eos_token_id"},
                                         {"tokenizer.ggml.padding_token_id", "pad_token_id"}};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    int64_t id;
    QD_TRY(qd_gguf_integer(m->gguf, names[i][0], 0, MAX_COUNT, -1, &id));
    if (id >= 0) qd_json_set_integer(config, names[i][1], id);
  }
  return QD_OK;
}

static qd_status set_embedding(const qd_gguf_model *m, qd_json *config) {
  const qd_gguf *file;
  const qd_gguf_tensor *embedding = find(m, "token_embd.weight", &file);
  QD_CHECK(embedding != NULL && embedding->rank == 2, QD_EBADINPUT, "%s holds no matrix token_embd.weight",
           m->gguf->bytes->name);
  qd_dtype dtype = qd_gguf_block_of(embedding->type)->dtype;
  qd_json_set_integer(config, "vocab_size", embedding->dim[1]);
  qd_json_set_bool(config, "tie_word_embeddings", !has(m, "output.weight"));
  qd_json_set_text(config, "torch_dtype", dtype == QD_F32 ? "float32" : dtype == QD_F16 ? "float16" : "bfloat16");
  return QD_OK;
}

/* A window that a file of the architecture llama names is Mistral's; without one the two are the same. */
static const family *named(const qd_gguf_model *m, const qd_json *config) {
  static const family mistral = {.model_type = "mistral", .class_name = "MistralForCausalLM"};
  bool has_window = qd_json_get(config, "sliding_window") != NULL;
  return has_window && m->experts == 0 ? &mistral : family_of_model(m);
}

static qd_status fill_config(const qd_gguf_model *m, qd_json *config) {
  qd_json *classes = qd_json_array();
  qd_json_set(config, "architectures", classes);
  qd_json_set_text(config, "model_type", m->model_type);
  qd_json_set_text(config, "hidden_act", "silu");
  QD_TRY(set_widths(m, config));
  QD_TRY(set_norm(m, config));
  QD_TRY(set_rope(m, config));
  QD_TRY(set_window(m, config));
  set_biases(m, config);
  QD_TRY(set_embedding(m, config));
  QD_TRY(set_tokens(m, config));
  qd_json_append_text(classes, named(m, config)->class_name);
  qd_json_set_text(config, "model_type", named(m, config)->model_type);
  return QD_OK;
}

qd_status qd_gguf_config(const qd_gguf_model *model, qd_json **out) {
  *out = qd_json_object();
  qd_status status = fill_config(model, *out);
  if (status == QD_OK) return QD_OK;
  qd_json_free(*out);
  *out = NULL;
  return qd_forward(status, __FILE__, __LINE__);
}

/* ---- tensors ------------------------------------------------------------------------------------------------------------- */

typedef enum rows { AS_THEY_ARE, OF_Q, OF_K, ONE_ROW, LEFT_OUT } rows;

/* "%" stands for a block's number, "#" for an expert's: where only Hugging Face's name has it, all experts are stacked. */
typedef struct naming {
  const char *gguf, *name;
  rows        rows;
  const char *mixtral; /* its own name there; NULL: the same */
} naming;

#define BLOCK "model.layers.%."
#define EXPERTS BLOCK "mlp.experts.#."
#define MIXTRAL BLOCK "block_sparse_moe.experts.#."

static const naming names[] = {
    {"token_embd.weight", "model.embed_tokens.weight", AS_THEY_ARE, NULL},
    {"output_norm.weight", "model.norm.weight", AS_THEY_ARE, NULL},
    {"output.weight", "lm_head.weight", AS_THEY_ARE, NULL},
    {"rope_freqs.weight", "", LEFT_OUT, NULL},
    {"blk.%.attn_norm.weight", BLOCK "input_layernorm.weight", AS_THEY_ARE, NULL},
    {"blk.%.ffn_norm.weight", BLOCK "post_attention_layernorm.weight", AS_THEY_ARE, NULL},
    {"blk.%.attn_q.weight", BLOCK "self_attn.q_proj.weight", OF_Q, NULL},
    {"blk.%.attn_k.weight", BLOCK "self_attn.k_proj.weight", OF_K, NULL},
    {"blk.%.attn_v.weight", BLOCK "self_attn.v_proj.weight", AS_THEY_ARE, NULL},
    {"blk.%.attn_output.weight", BLOCK "self_attn.o_proj.weight", AS_THEY_ARE, NULL},
    {"blk.%.attn_q.bias", BLOCK "self_attn.q_proj.bias", OF_Q, NULL},
    {"blk.%.attn_k.bias", BLOCK "self_attn.k_proj.bias", OF_K, NULL},
    {"blk.%.attn_v.bias", BLOCK "self_attn.v_proj.bias", AS_THEY_ARE, NULL},
    {"blk.%.attn_output.bias", BLOCK "self_attn.o_proj.bias", AS_THEY_ARE, NULL},
    {"blk.%.attn_q_norm.weight", BLOCK "self_attn.q_norm.weight", AS_THEY_ARE, NULL},
    {"blk.%.attn_k_norm.weight", BLOCK "self_attn.k_norm.weight", AS_THEY_ARE, NULL},
    {"blk.%.ffn_gate.weight", BLOCK "mlp.gate_proj.weight", AS_THEY_ARE, NULL},
    {"blk.%.ffn_up.weight", BLOCK "mlp.up_proj.weight", AS_THEY_ARE, NULL},
    {"blk.%.ffn_down.weight", BLOCK "mlp.down_proj.weight", AS_THEY_ARE, NULL},
    {"blk.%.ffn_gate.bias", BLOCK "mlp.gate_proj.bias", AS_THEY_ARE, NULL},
    {"blk.%.ffn_up.bias", BLOCK "mlp.up_proj.bias", AS_THEY_ARE, NULL},
    {"blk.%.ffn_down.bias", BLOCK "mlp.down_proj.bias", AS_THEY_ARE, NULL},
    {"blk.%.ffn_gate_inp.weight", BLOCK "mlp.gate.weight", AS_THEY_ARE, BLOCK "block_sparse_moe.gate.weight"},
    {"blk.%.ffn_gate_exps.weight", EXPERTS "gate_proj.weight", AS_THEY_ARE, MIXTRAL "w1.weight"},
    {"blk.%.ffn_up_exps.weight", EXPERTS "up_proj.weight", AS_THEY_ARE, MIXTRAL "w3.weight"},
    {"blk.%.ffn_down_exps.weight", EXPERTS "down_proj.weight", AS_THEY_ARE, MIXTRAL "w2.weight"},
    {"blk.%.ffn_gate.#.weight", EXPERTS "gate_proj.weight", AS_THEY_ARE, MIXTRAL "w1.weight"},
    {"blk.%.ffn_up.#.weight", EXPERTS "up_proj.weight", AS_THEY_ARE, MIXTRAL "w3.weight"},
    {"blk.%.ffn_down.#.weight", EXPERTS "down_proj.weight", AS_THEY_ARE, MIXTRAL "w2.weight"},
    {"blk.%.ffn_gate_inp_shexp.weight", BLOCK "mlp.shared_expert_gate.weight", ONE_ROW, NULL},
    {"blk.%.ffn_gate_shexp.weight", BLOCK "mlp.shared_expert.gate_proj.weight", AS_THEY_ARE, NULL},
    {"blk.%.ffn_up_shexp.weight", BLOCK "mlp.shared_expert.up_proj.weight", AS_THEY_ARE, NULL},
    {"blk.%.ffn_down_shexp.weight", BLOCK "mlp.shared_expert.down_proj.weight", AS_THEY_ARE, NULL},
};

enum { MAX_DIGITS = 6 };

/* The numbers for "%" and "#", -1 for one that the pattern lacks; false if it is another name. */
static bool fits(const char *pattern, const char *name, int64_t number[2]) {
  number[0] = number[1] = -1;
  for (; *pattern != '\0'; pattern++) {
    if (*pattern != '%' && *pattern != '#') {
      if (*pattern != *name++) return false;
      continue;
    }
    size_t digits = strspn(name, "0123456789");
    if (digits == 0 || digits > MAX_DIGITS || (name[0] == '0' && digits > 1)) return false;
    number[*pattern == '#'] = strtoll(name, NULL, 10);
    name += digits;
  }
  return *name == '\0';
}

/* An expert whose number is not known yet keeps its "#". */
static void spell(const char *pattern, const int64_t number[2], char *name, size_t size) {
  size_t n = 0;
  name[0] = '\0';
  for (; *pattern != '\0' && n + 1 < size; pattern++) {
    int64_t value = *pattern == '%' ? number[0] : *pattern == '#' ? number[1] : -1;
    if (value >= 0) n += (size_t)snprintf(name + n, size - n, "%" PRId64, value);
    else name[n++] = *pattern, name[n] = '\0';
  }
}

static qd_status place(const qd_gguf_model *m, const qd_gguf_tensor *t, const naming *named_by, qd_gguf_place *out) {
  bool stacked = strchr(out->name, '#') != NULL;
  int rank = t->rank - stacked, heads = 0;
  QD_CHECK(rank == 1 || rank == 2, QD_EBADINPUT, "%s: the tensor %s has %d dimensions, %d or %d are expected",
           m->gguf->bytes->name, t->name, t->rank, 1 + stacked, 2 + stacked);
  QD_CHECK(!stacked || t->dim[t->rank - 1] == m->experts, QD_EBADINPUT,
           "%s: the tensor %s holds %" PRId64 " experts, expert_count is %" PRId64, m->gguf->bytes->name, t->name,
           t->dim[t->rank - 1], m->experts);
  out->rank = rank, out->experts = stacked ? m->experts : 1;
  for (int i = 0; i < rank; i++) out->dim[i] = t->dim[rank - 1 - i];
  if (named_by->rows == ONE_ROW && rank == 1) out->rank = 2, out->dim[1] = out->dim[0], out->dim[0] = 1;
  if (m->permuted && named_by->rows == OF_Q) heads = (int)m->heads;
  if (m->permuted && named_by->rows == OF_K) heads = (int)m->kv_heads;
  QD_CHECK(heads == 0 || out->dim[0] % (2 * heads) == 0, QD_EBADINPUT,
           "%s: the tensor %s has %" PRId64 " rows, no multiple of 2 for each of %d heads", m->gguf->bytes->name, t->name,
           out->dim[0], heads);
  out->heads = heads;
  return QD_OK;
}

qd_status qd_gguf_place_of(const qd_gguf_model *m, const qd_gguf_tensor *t, qd_gguf_place *out) {
  int64_t number[2];
  *out = (qd_gguf_place){0};
  bool mixtral = strcmp(m->model_type, "mixtral") == 0;
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    if (!fits(names[i].gguf, t->name, number)) continue;
    out->left_out = names[i].rows == LEFT_OUT;
    if (out->left_out) return QD_OK;
    spell(mixtral && names[i].mixtral != NULL ? names[i].mixtral : names[i].name, number, out->name, sizeof out->name);
    return place(m, t, &names[i], out);
  }
  QD_FAIL(QD_EUNSUPPORTED, "%s: the tensor %s is there, which a model of the architecture %s is not known to have",
          m->gguf->bytes->name, t->name, m->arch);
}
