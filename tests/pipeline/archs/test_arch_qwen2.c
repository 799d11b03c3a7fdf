/* The forward itself is tested against transformers in test_archs.c. */
#include "tests/pipeline/arch_support.h"

Test(arch_qwen2, has_biases_on_q_k_and_v) {
  EXPECT_BLOCK("qwen2", "", PROMISED_LINEARS, PROMISED_QKV_BIASES);
  EXPECT_BLOCK("qwen2", "\"attention_bias\": true, \"mlp_bias\": true", PROMISED_LINEARS, PROMISED_QKV_BIASES);
}

Test(arch_qwen2, has_a_head_unless_tied) {
  EXPECT_REST("qwen2", "", PROMISED_REST, PROMISED_HEAD);
  EXPECT_REST("qwen2", "\"tie_word_embeddings\": true", PROMISED_REST);
}

Test(arch_qwen2, has_its_window_from_a_block_on) {
  qd_model model = family_model("qwen2", "\"sliding_window\": 5, \"use_sliding_window\": true, \"max_window_layers\": 2");
  for (int64_t block = 0; block < 4; block++) cr_expect_eq(qd_model_window(&model, block), block < 2 ? 0 : 5);
}
