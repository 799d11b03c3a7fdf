/* GGUF files as the original model: the stores are those of the Hugging Face folder that the file was made from. */
#define _XOPEN_SOURCE 700
#include "storage/source.h"
#include "tests/end_to_end/bad_input_support.h"
#include "tests/support/gguf_maker.h"

TestSuite(gguf_models, .init = setup, .fini = teardown, .timeout = 900);

#define DEMO QDIST_SOURCE_DIR "/jobs/demo/qdist-tiny"

/* ---- a GGUF file of a folder --------------------------------------------------------------------------------------------- */

enum { MOST = 1 << 12 };

static qd_gguf_maker maker;
static qd_source *from;
static const char *arch; /* GGUF's */

static int64_t setting(const char *key, int64_t otherwise) {
  const qd_json *value = qd_json_get(qd_source_config(from), key);
  return value != NULL ? qd_json_integer(value) : otherwise;
}

static void add_key(const char *name, int64_t value) {
  char key[128];
  snprintf(key, sizeof key, "%s.%s", arch, name);
  if (value > 0) qd_make_gguf_u32(&maker, key, (uint32_t)value);
}

static void add_number(const char *name, double value) {
  char key[128];
  snprintf(key, sizeof key, "%s.%s", arch, name);
  qd_make_gguf_f32(&maker, key, (float)value);
}

static const char *arch_of(const char *type) {
  static const char *const types[][2] = {{"llama", "llama"}, {"mixtral", "llama"}, {"qwen2", "qwen2"}, {"qwen3", "qwen3"},
                                         {"qwen2_moe", "qwen2moe"}, {"qwen3_moe", "qwen3moe"}};
  for (size_t i = 0; i < sizeof types / sizeof *types; i++)
    if (strcmp(types[i][0], type) == 0) return types[i][1];
  cr_assert_fail("%s", type);
  return NULL;
}

static void add_keys(void) {
  const qd_json *config = qd_source_config(from), *rope = qd_json_get(config, "rope_parameters");
  int64_t heads = setting("num_attention_heads", 0);
  qd_make_gguf_text(&maker, "general.architecture", arch);
  add_key("block_count", setting("num_hidden_layers", 0));
  add_key("embedding_length", setting("hidden_size", 0));
  add_key("feed_forward_length", setting("intermediate_size", 0));
  add_key("attention.head_count", heads);
  add_key("attention.head_count_kv", setting("num_key_value_heads", heads));
  add_key("attention.key_length", setting("head_dim", 0));
  add_key("attention.value_length", setting("head_dim", 0));
  add_key("context_length", setting("max_position_embeddings", 0));
  add_key("expert_count", setting("num_experts", setting("num_local_experts", 0)));
  add_key("expert_used_count", setting("num_experts_per_tok", 0));
  add_number("attention.layer_norm_rms_epsilon", qd_json_number(qd_json_get(config, "rms_norm_eps")));
  add_number("rope.freq_base", qd_json_number(qd_json_get(rope, "rope_theta")));
}

/* Hugging Face's names and GGUF's; E: one of many experts, which go into one tensor. */
static const char *const pairs[][2] = {
    {"model.embed_tokens.weight", "token_embd.weight"}, {"model.norm.weight", "output_norm.weight"},
    {"lm_head.weight", "output.weight"}, {"input_layernorm.weight", "attn_norm.weight"},
    {"post_attention_layernorm.weight", "ffn_norm.weight"}, {"self_attn.q_proj.weight", "attn_q.weight"},
    {"self_attn.k_proj.weight", "attn_k.weight"}, {"self_attn.v_proj.weight", "attn_v.weight"},
    {"self_attn.o_proj.weight", "attn_output.weight"}, {"self_attn.q_proj.bias", "attn_q.bias"},
    {"self_attn.k_proj.bias", "attn_k.bias"}, {"self_attn.v_proj.bias", "attn_v.bias"},
    {"self_attn.o_proj.bias", "attn_output.bias"}, {"self_attn.q_norm.weight", "attn_q_norm.weight"},
    {"self_attn.k_norm.weight", "attn_k_norm.weight"}, {"mlp.gate_proj.weight", "ffn_gate.weight"},
    {"mlp.up_proj.weight", "ffn_up.weight"}, {"mlp.down_proj.weight", "ffn_down.weight"},
    {"mlp.gate_proj.bias", "ffn_gate.bias"}, {"mlp.up_proj.bias", "ffn_up.bias"}, {"mlp.down_proj.bias", "ffn_down.bias"},
    {"mlp.gate.weight", "ffn_gate_inp.weight"}, {"block_sparse_moe.gate.weight", "ffn_gate_inp.weight"},
    {"mlp.experts.E.gate_proj.weight", "ffn_gate_exps.weight"}, {"mlp.experts.E.up_proj.weight", "ffn_up_exps.weight"},
    {"mlp.experts.E.down_proj.weight", "ffn_down_exps.weight"},
    {"block_sparse_moe.experts.E.w1.weight", "ffn_gate_exps.weight"},
    {"block_sparse_moe.experts.E.w3.weight", "ffn_up_exps.weight"},
    {"block_sparse_moe.experts.E.w2.weight", "ffn_down_exps.weight"},
    {"mlp.shared_expert_gate.weight", "ffn_gate_inp_shexp.weight"},
    {"mlp.shared_expert.gate_proj.weight", "ffn_gate_shexp.weight"},
    {"mlp.shared_expert.up_proj.weight", "ffn_up_shexp.weight"},
    {"mlp.shared_expert.down_proj.weight", "ffn_down_shexp.weight"},
};

/* llama.cpp's order of the rows of q and k: row j d/2 + i of a head becomes row 2 i + j. */
static void permute(unsigned char *rows, const qd_source_tensor *t, int64_t heads) {
  size_t row = (size_t)t->bytes / (size_t)t->dim[0];
  int64_t d = t->dim[0] / heads;
  unsigned char *copy;
  cr_assert_eq(qd_heap_new((size_t)t->bytes, 1, &copy), QD_OK);
  memcpy(copy, rows, (size_t)t->bytes);
  for (int64_t r = 0; r < t->dim[0]; r++) {
    int64_t to = r / d * d + 2 * (r % (d / 2)) + r % d / (d / 2);
    memcpy(rows + (size_t)to * row, copy + (size_t)r * row, row);
  }
  qd_heap_free(copy);
}

static void read_into(const qd_source_tensor *t, unsigned char *to) {
  bool q = strstr(t->name, "q_proj") != NULL, k = strstr(t->name, "k_proj") != NULL;
  cr_assert_eq(qd_source_read(from, t, 0, to, (size_t)t->bytes), QD_OK, "%s", qd_error_text());
  if (strcmp(arch, "llama") == 0 && (q || k)) permute(to, t, setting(q ? "num_attention_heads" : "num_key_value_heads", 1));
}

/* prefix + the row's name with the expert's number in place of E. */
static const qd_source_tensor *find_expert(const char *prefix, const char *name, int64_t expert) {
  char full[256];
  const char *mark = strchr(name, 'E');
  if (mark == NULL) snprintf(full, sizeof full, "%s%s", prefix, name);
  else snprintf(full, sizeof full, "%s%.*s%d%s", prefix, (int)(mark - name), name, (int)expert, mark + 1);
  return qd_source_find(from, full);
}

static void add_tensor(const char *prefix, const char *to_prefix, const char *const name[2]) {
  const qd_source_tensor *first = find_expert(prefix, name[0], 0);
  if (first == NULL) return;
  bool stacked = strchr(name[0], 'E') != NULL;
  int64_t n = stacked ? setting("num_experts", setting("num_local_experts", 0)) : 1, dim[4];
  char full[128];
  unsigned char *data;
  cr_assert_eq(qd_heap_new((size_t)n, (size_t)first->bytes, &data), QD_OK);
  for (int64_t e = 0; e < n; e++) read_into(find_expert(prefix, name[0], e), data + (size_t)e * (size_t)first->bytes);
  for (int i = 0; i < first->rank; i++) dim[i] = first->dim[first->rank - 1 - i];
  dim[first->rank] = n;
  snprintf(full, sizeof full, "%s%s", to_prefix, name[1]);
  uint32_t type = first->dtype == QD_BF16 ? 30 : first->dtype == QD_F16 ? 1 : 0;
  qd_make_gguf_tensor(&maker, full, type, first->rank + stacked, dim, data, (size_t)n * (size_t)first->bytes);
  qd_heap_free(data);
}

static void add_tensors(void) {
  for (int64_t block = -1; block < setting("num_hidden_layers", 0); block++)
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
      char prefix[64] = "", to[64] = "";
      if ((i < 3) != (block < 0)) continue;
      if (block >= 0) snprintf(prefix, sizeof prefix, "model.layers.%d.", (int)block);
      if (block >= 0) snprintf(to, sizeof to, "blk.%d.", (int)block);
      add_tensor(prefix, to, pairs[i]);
    }
}

static void begin_gguf(const char *path) {
  cr_assert_eq(qd_source_open(path, &from), QD_OK, "%s", qd_error_text());
  arch = arch_of(qd_json_text(qd_json_get(qd_source_config(from), "model_type")));
  add_keys();
  add_tensors();
}

static void end_gguf(const char *file) {
  qd_make_gguf(&maker, file);
  qd_source_close(from);
}

/* ---- the same store ------------------------------------------------------------------------------------------------------ */

static void expect_same_blocks(const char *a, const char *b) {
  static const char *const files[] = {"block-00000.h5", "block-00001.h5", "model.h5"};
  for (int i = 0; i < 3; i++) {
    char path[2][700], *bytes[2];
    size_t n[2];
    for (int k = 0; k < 2; k++) {
      snprintf(path[k], sizeof path[k], "%s/%s", k ? b : a, files[i]);
      cr_assert_eq(qd_file_read(path[k], (size_t)1 << 30, &bytes[k], &n[k]), QD_OK, "%s", qd_error_text());
    }
    cr_expect(n[0] == n[1] && memcmp(bytes[0], bytes[1], n[0]) == 0, "%s and %s differ", path[0], path[1]);
    qd_heap_free(bytes[0]), qd_heap_free(bytes[1]);
  }
}

static double mean_nll(const char *path) {
  qd_run run =
      run_words(0, (const char *const[]){"evaluate", "--model", path, "--dataset", ids, "--seqlen", "16", "--json", NULL});
  qd_json *json;
  expect_code(&run, 0, path);
  cr_assert_eq(qd_json_parse(run.out.text, run.out.n, "output", &json), QD_OK, "%s", qd_error_text());
  double value = qd_json_number(qd_json_get(json, "mean_nll"));
  qd_json_free(json);
  qd_run_close(&run);
  return value;
}

/* The golden models of the families, some ranks and ways of reading, a store that can be evaluated, in both forms. */
static void check_family(const char *name, int ranks, const char *readers) {
  char path[600], file[600], other[600];
  snprintf(path, sizeof path, "%s/tests/golden/archs/%s", QDIST_SOURCE_DIR, name);
  snprintf(file, sizeof file, "%s/%s.gguf", folder.path, name);
  snprintf(other, sizeof other, "%s/other", folder.path);
  begin_gguf(path);
  end_gguf(file);
#define JOB "--dataset", ids, "--seqlen", "16", "-b", "3", "-g", "16"
  EXPECT(0, "wrote", out, "quantize", "--model", path, JOB, "--output", out);
  EXPECT_RANKS(ranks, 0, "wrote", other, "quantize", "--model", file, JOB, "--output", other, "--readers", readers);
  expect_same_blocks(out, other);
  cr_expect_eq(mean_nll(path), mean_nll(file), "%s", name);
  cr_expect_eq(mean_nll(out), mean_nll(other), "%s", name);
  EXPECT(0, "", "", "verify", other);
  qd_temporary_remove(out), qd_temporary_remove(other);
}

Test(gguf_models, llama) { check_family("llama_grouped", 3, "all"); }
Test(gguf_models, llama_biases) { check_family("llama_biases", 2, "coordinator"); }
Test(gguf_models, qwen2) { check_family("qwen2", 2, "node"); }
Test(gguf_models, qwen3_head_norms) { check_family("qwen3", 1, "coordinator"); }
Test(gguf_models, mixtral) { check_family("mixtral", 3, "coordinator"); }
Test(gguf_models, qwen2_moe) { check_family("qwen2_moe", 2, "all"); }
Test(gguf_models, qwen3_moe_bf16) { check_family("qwen3_moe_bf16", 1, "coordinator"); }

/* ---- text, resuming, a name ---------------------------------------------------------------------------------------------- */

static void add_vocabulary(void) {
  qd_json *tokenizer;
  const char *list[MOST], *text;
  static char merge[MOST][256];
  int32_t type[MOST];
  size_t n = 0;
  cr_assert_eq(qd_json_read(DEMO "/tokenizer.json", 1 << 24, &tokenizer), QD_OK, "%s", qd_error_text());
  const qd_json *model_part = qd_json_get(tokenizer, "model"), *merges = qd_json_get(model_part, "merges"), *id;
  for (; qd_json_member(qd_json_get(model_part, "vocab"), n, &text, &id); n++)
    list[qd_json_integer(id)] = text, type[n] = n < qd_json_length(qd_json_get(tokenizer, "added_tokens")) ? 3 : 1;
  qd_make_gguf_text(&maker, "tokenizer.ggml.model", "gpt2");
  qd_make_gguf_text(&maker, "tokenizer.ggml.pre", "llama-bpe");
  qd_make_gguf_texts(&maker, "tokenizer.ggml.tokens", list, n);
  qd_make_gguf_ints(&maker, "tokenizer.ggml.token_type", type, n);
  for (size_t i = 0; i < qd_json_length(merges); i++) {
    const qd_json *m = qd_json_at(merges, i);
    snprintf(merge[i], sizeof merge[i], "%s %s", qd_json_text(qd_json_at(m, 0)), qd_json_text(qd_json_at(m, 1)));
    list[i] = merge[i];
  }
  qd_make_gguf_texts(&maker, "tokenizer.ggml.merges", list, qd_json_length(merges));
  qd_make_gguf_u32(&maker, "tokenizer.ggml.bos_token_id", 0);
  qd_json_free(tokenizer);
}

#define TEXT_JOB "--dataset", QDIST_SOURCE_DIR "/docs/glossary.md", "--nsamples", "4", "--seqlen", "64", "--output"

Test(gguf_models, text_a_stop_and_a_name) {
  char file[600], other[600];
  snprintf(file, sizeof file, "%s/tiny.gguf", folder.path);
  snprintf(other, sizeof other, "%s/other", folder.path);
  begin_gguf(DEMO);
  add_vocabulary();
  end_gguf(file);
  EXPECT(0, "wrote", out, "quantize", "--model", DEMO, TEXT_JOB, out);
  EXPECT(75, "stopped with 1 of 6 blocks on disk", "", "quantize", "--model", file, TEXT_JOB, other, "--stop-after",
         "0.000001");
  EXPECT_RANKS(2, 0, "going on with", "wrote", "quantize", "--model", "Tiny", "--model-path", folder.path, TEXT_JOB, other);
  expect_same_blocks(out, other);
  EXPECT(0, "", "", "evaluate", "--model", other, "--dataset", QDIST_SOURCE_DIR "/docs/glossary.md", "--seqlen", "64",
         "--max-windows", "2", "--reference", "tiny.gguf", "--model-path", folder.path);
  flip(file, -40);
  EXPECT(1, "holds a job on another model", file, "quantize", "--model", file, TEXT_JOB, other);
}
