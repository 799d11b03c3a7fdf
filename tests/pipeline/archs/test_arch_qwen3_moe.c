/* The forward itself is tested against transformers in test_archs.c. */
#include "tests/pipeline/arch_support.h"

enum { EXPERT_FFN = 20 };
#define TWO_EXPERTS "\"num_experts\": 2, \"num_experts_per_tok\": 1, \"moe_intermediate_size\": 20"
#define HEAD_NORMS                                                \
  {QD_Q_NORM, "model.layers.3.self_attn.q_norm.weight", HEAD, 0}, \
  {QD_K_NORM, "model.layers.3.self_attn.k_norm.weight", HEAD, 0}
#define EXPERT(number)                                                                                   \
  {QD_EXPERT_GATE_PROJ, "model.layers.3.mlp.experts." #number ".gate_proj.weight", EXPERT_FFN, HIDDEN},  \
  {QD_EXPERT_UP_PROJ, "model.layers.3.mlp.experts." #number ".up_proj.weight", EXPERT_FFN, HIDDEN},      \
  {QD_EXPERT_DOWN_PROJ, "model.layers.3.mlp.experts." #number ".down_proj.weight", HIDDEN, EXPERT_FFN}
#define ROUTER {QD_ROUTER, "model.layers.3.mlp.gate.weight", 2, HIDDEN}

Test(arch_qwen3_moe, has_experts_and_dense_blocks_as_configured) {
  EXPECT_BLOCK("qwen3_moe", TWO_EXPERTS, PROMISED_ATTENTION, PROMISED_NORMS, HEAD_NORMS, ROUTER, EXPERT(0), EXPERT(1));
  EXPECT_BLOCK("qwen3_moe", TWO_EXPERTS ", \"mlp_only_layers\": [3]", PROMISED_LINEARS, HEAD_NORMS);
  EXPECT_BLOCK("qwen3_moe", TWO_EXPERTS ", \"decoder_sparse_step\": 3, \"attention_bias\": true", PROMISED_LINEARS, HEAD_NORMS,
               PROMISED_QKV_BIASES, PROMISED_O_BIAS);
  EXPECT_REST("qwen3_moe", TWO_EXPERTS ", \"tie_word_embeddings\": true", PROMISED_REST);
}

Test(arch_qwen3_moe, blocks_are_sparse_by_step_and_list) {
  qd_model model = family_model("qwen3_moe", TWO_EXPERTS ", \"decoder_sparse_step\": 2, \"mlp_only_layers\": [1, 70]");
  for (int64_t block = 0; block < 4; block++) cr_expect_eq(qd_model_is_sparse(&model, block), block == 3);
  cr_expect(qd_model_has_blocks(&model, true) && qd_model_has_blocks(&model, false));
}

Test(arch_qwen3_moe, weights_are_renormalised_if_the_file_says_so) {
  qd_model no = family_model("qwen3_moe", TWO_EXPERTS),
           yes = family_model("qwen3_moe", TWO_EXPERTS ", \"norm_topk_prob\": true");
  cr_expect(!no.renormalises && yes.renormalises && yes.rounds_weights);
}

Test(arch_qwen3_moe, has_its_window_in_every_block_if_at_all) {
  qd_model off = family_model("qwen3_moe", TWO_EXPERTS ", \"sliding_window\": 5, \"use_sliding_window\": false");
  qd_model on =
      family_model("qwen3_moe", TWO_EXPERTS ", \"sliding_window\": 5, \"use_sliding_window\": true, \"max_window_layers\": 2");
  for (int64_t block = 0; block < 4; block++) {
    cr_expect_eq(qd_model_window(&off, block), 0);
    cr_expect_eq(qd_model_window(&on, block), 5);
  }
}
