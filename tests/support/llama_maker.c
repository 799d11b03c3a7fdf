#include "tests/support/llama_maker.h"

#include "tests/support/safetensors_maker.h"

#include <stdio.h>
#include <string.h>

enum { MAX_BLOCKS = 96, BLOCK_TENSORS = 64, MAX_TENSORS = MAX_BLOCKS * BLOCK_TENSORS + 3, MAX_WIDTH = 8192 };

typedef struct making {
  const qd_made_llama *widths;
  qd_made_tensor tensor[MAX_TENSORS];
  char name[MAX_TENSORS][64];
  uint16_t ones[MAX_WIDTH * 2]; /* of two or four bytes each */
  int n;
} making;

static qd_made_tensor *add(making *m, int block, const char *name, int64_t rows, int64_t columns) {
  QD_ASSERT(m->n < MAX_TENSORS);
  char *full = m->name[m->n];
  if (block < 0) snprintf(full, sizeof m->name[0], "%s.weight", name);
  else snprintf(full, sizeof m->name[0], "model.layers.%d.%s.weight", block, name);
  int shards = m->widths->shards > 1 ? m->widths->shards : 1;
  qd_made_tensor *t = &m->tensor[m->n];
  *t = (qd_made_tensor){
      .name = full, .dtype = m->widths->dtype, .rank = columns > 0 ? 2 : 1, .dim = {rows, columns}, .shard = m->n % shards};
  m->n++;
  return t;
}

static void add_norm(making *m, int block, const char *name) { add(m, block, name, m->widths->hidden, 0)->data = m->ones; }

static void add_experts(making *m, int block) {
  const qd_made_llama *w = m->widths;
  add(m, block, "mlp.gate", w->experts, w->hidden);
  add(m, block, "mlp.shared_expert_gate", 1, w->hidden);
  add(m, block, "mlp.shared_expert.gate_proj", w->shared_ffn, w->hidden);
  add(m, block, "mlp.shared_expert.up_proj", w->shared_ffn, w->hidden);
  add(m, block, "mlp.shared_expert.down_proj", w->hidden, w->shared_ffn);
  for (int e = 0; e < w->experts; e++) {
    char name[3][64];
    static const char *const linears[] = {"gate_proj", "up_proj", "down_proj"};
    for (int i = 0; i < 3; i++) {
      snprintf(name[i], sizeof name[i], "mlp.experts.%d.%s", e, linears[i]);
      add(m, block, name[i], i < 2 ? w->expert_ffn : w->hidden, i < 2 ? w->hidden : w->expert_ffn);
    }
  }
}

static void add_block(making *m, int block) {
  const qd_made_llama *w = m->widths;
  int head = w->hidden / w->heads;
  add_norm(m, block, "input_layernorm");
  add(m, block, "self_attn.q_proj", w->hidden, w->hidden);
  add(m, block, "self_attn.k_proj", head * w->kv_heads, w->hidden);
  add(m, block, "self_attn.v_proj", head * w->kv_heads, w->hidden);
  add(m, block, "self_attn.o_proj", w->hidden, w->hidden);
  add_norm(m, block, "post_attention_layernorm");
  if (w->experts > 0 && block % 2 == 1) {
    add_experts(m, block);
    return;
  }
  add(m, block, "mlp.gate_proj", w->ffn, w->hidden);
  add(m, block, "mlp.up_proj", w->ffn, w->hidden);
  add(m, block, "mlp.down_proj", w->hidden, w->ffn);
}

static void fill_ones(making *m) {
  float one = 1.0f;
  uint16_t half = m->widths->dtype == QD_F16 ? qd_f16_from_f32(one) : qd_bf16_from_f32(one);
  for (int i = 0; i < MAX_WIDTH; i++) {
    if (m->widths->dtype == QD_F32) memcpy(m->ones + 2 * i, &one, sizeof one);
    else m->ones[i] = half;
  }
}

static void print_config(const qd_made_llama *w, char *text, size_t size) {
  static const char format[] =
      " \"num_hidden_layers\": %d, \"hidden_size\": %d, \"intermediate_size\": %d, \"num_attention_heads\": %d,\n"
      " \"num_key_value_heads\": %d, \"vocab_size\": %d, \"max_position_embeddings\": %d, \"rms_norm_eps\": 1e-5, "
      "\"hidden_act\": \"silu\"}\n";
  static const char experts[] =
      "{\"model_type\": \"qwen2_moe\", \"qkv_bias\": false, \"decoder_sparse_step\": 2, \"num_experts\": %d, "
      "\"num_experts_per_tok\": %d,\n"
      " \"moe_intermediate_size\": %d, \"shared_expert_intermediate_size\": %d, \"norm_topk_prob\": true,";
  int n = 0;
  if (w->experts > 0) n = snprintf(text, size, experts, w->experts, w->top_k, w->expert_ffn, w->shared_ffn);
  else n = snprintf(text, size, "{\"model_type\": \"llama\",");
  n += snprintf(text + n, size - (size_t)n, format, w->blocks, w->hidden, w->ffn, w->heads, w->kv_heads, w->vocabulary,
                w->positions);
  QD_ASSERT(n > 0 && (size_t)n < size);
}

void qd_make_llama(const char *folder, const qd_made_llama *widths) {
  static making m;
  char config[1024];
  QD_ASSERT(widths->blocks <= MAX_BLOCKS && widths->hidden <= MAX_WIDTH && widths->hidden % widths->heads == 0);
  m.widths = widths, m.n = 0;
  fill_ones(&m);
  add(&m, -1, "model.embed_tokens", widths->vocabulary, widths->hidden);
  for (int block = 0; block < widths->blocks; block++) add_block(&m, block);
  add_norm(&m, -1, "model.norm");
  add(&m, -1, "lm_head", widths->vocabulary, widths->hidden);
  print_config(widths, config, sizeof config);
  qd_make_model(folder, config, m.tensor, m.n, widths->shards > 1 ? widths->shards : 1);
}

void qd_make_ids(const char *path, int n, int vocabulary, uint64_t seed) {
  FILE *file = fopen(path, "wb");
  QD_ASSERT(file != NULL);
  uint64_t state = seed * 0x9e3779b97f4a7c15u + 1;
  for (int i = 0; i < n; i++) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    double u = (double)(state >> 40) / 16777216.0;
    int32_t id = (int32_t)(u * u * vocabulary);
    QD_ASSERT(fwrite(&id, sizeof id, 1, file) == 1);
  }
  QD_ASSERT(fclose(file) == 0);
}
