/* The forward itself is tested against transformers in test_archs.c. */
#include "tests/pipeline/arch_support.h"

Test(arch_mistral, has_no_biases) {
  EXPECT_BLOCK("mistral", "", PROMISED_LINEARS);
  EXPECT_BLOCK("mistral", "\"attention_bias\": true, \"mlp_bias\": true", PROMISED_LINEARS);
}

Test(arch_mistral, has_a_head_unless_tied) {
  EXPECT_REST("mistral", "", PROMISED_REST, PROMISED_HEAD);
  EXPECT_REST("mistral", "\"tie_word_embeddings\": true", PROMISED_REST);
}

Test(arch_mistral, has_its_window_in_every_block) {
  qd_model model = family_model("mistral", "\"sliding_window\": 5, \"use_sliding_window\": false, \"max_window_layers\": 2");
  for (int64_t block = 0; block < 4; block++) cr_expect_eq(qd_model_window(&model, block), 5);
}
