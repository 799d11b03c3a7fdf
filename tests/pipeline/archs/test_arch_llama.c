/* The forward itself is tested against transformers in test_archs.c. */
#include "tests/pipeline/arch_support.h"

#define MLP_BIASES                                               \
  {QD_GATE_BIAS, "model.layers.3.mlp.gate_proj.bias", FFN, 0},   \
  {QD_UP_BIAS, "model.layers.3.mlp.up_proj.bias", FFN, 0},       \
  {QD_DOWN_BIAS, "model.layers.3.mlp.down_proj.bias", HIDDEN, 0}

Test(arch_llama, has_biases_as_configured) {
  EXPECT_BLOCK("llama", "", PROMISED_LINEARS);
  EXPECT_BLOCK("llama", "\"attention_bias\": true", PROMISED_LINEARS, PROMISED_QKV_BIASES, PROMISED_O_BIAS);
  EXPECT_BLOCK("llama", "\"mlp_bias\": true", PROMISED_LINEARS, MLP_BIASES);
  EXPECT_BLOCK("llama", "\"attention_bias\": true, \"mlp_bias\": true", PROMISED_LINEARS, PROMISED_QKV_BIASES, PROMISED_O_BIAS,
               MLP_BIASES);
}

Test(arch_llama, has_a_head_unless_tied) {
  EXPECT_REST("llama", "", PROMISED_REST, PROMISED_HEAD);
  EXPECT_REST("llama", "\"tie_word_embeddings\": true", PROMISED_REST);
}

Test(arch_llama, has_no_window) {
  qd_model model = family_model("llama", "\"sliding_window\": 5, \"use_sliding_window\": true, \"max_window_layers\": 0");
  for (int64_t block = 0; block < 4; block++) cr_expect_eq(qd_model_window(&model, block), 0);
}
