/* The forward itself is tested against transformers in test_archs.c. */
#include "tests/pipeline/arch_support.h"

#define HEAD_NORMS                                                \
  {QD_Q_NORM, "model.layers.3.self_attn.q_norm.weight", HEAD, 0}, \
  {QD_K_NORM, "model.layers.3.self_attn.k_norm.weight", HEAD, 0}

Test(arch_qwen3, has_norms_over_heads_and_biases_as_configured) {
  EXPECT_BLOCK("qwen3", "", PROMISED_LINEARS, HEAD_NORMS);
  EXPECT_BLOCK("qwen3", "\"attention_bias\": true", PROMISED_LINEARS, HEAD_NORMS, PROMISED_QKV_BIASES, PROMISED_O_BIAS);
}

Test(arch_qwen3, has_a_head_unless_tied) {
  EXPECT_REST("qwen3", "", PROMISED_REST, PROMISED_HEAD);
  EXPECT_REST("qwen3", "\"tie_word_embeddings\": true", PROMISED_REST);
}

Test(arch_qwen3, has_its_window_from_a_block_on) {
  qd_model model = family_model("qwen3", "\"sliding_window\": 5, \"use_sliding_window\": true, \"max_window_layers\": 1");
  for (int64_t block = 0; block < 4; block++) cr_expect_eq(qd_model_window(&model, block), block < 1 ? 0 : 5);
}
