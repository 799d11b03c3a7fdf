/* The forward itself is tested against transformers in test_archs.c. */
#include "tests/pipeline/arch_support.h"

#define TWO_EXPERTS "\"num_local_experts\": 2, \"num_experts_per_tok\": 1"

Test(arch_mixtral, has_its_experts_in_every_block) {
  EXPECT_BLOCK("mixtral", TWO_EXPERTS, PROMISED_ATTENTION, PROMISED_NORMS,
               {QD_ROUTER, "model.layers.3.block_sparse_moe.gate.weight", 2, HIDDEN},
               {QD_EXPERT_GATE_PROJ, "model.layers.3.block_sparse_moe.experts.0.w1.weight", FFN, HIDDEN},
               {QD_EXPERT_UP_PROJ, "model.layers.3.block_sparse_moe.experts.0.w3.weight", FFN, HIDDEN},
               {QD_EXPERT_DOWN_PROJ, "model.layers.3.block_sparse_moe.experts.0.w2.weight", HIDDEN, FFN},
               {QD_EXPERT_GATE_PROJ, "model.layers.3.block_sparse_moe.experts.1.w1.weight", FFN, HIDDEN},
               {QD_EXPERT_UP_PROJ, "model.layers.3.block_sparse_moe.experts.1.w3.weight", FFN, HIDDEN},
               {QD_EXPERT_DOWN_PROJ, "model.layers.3.block_sparse_moe.experts.1.w2.weight", HIDDEN, FFN});
  EXPECT_REST("mixtral", TWO_EXPERTS, PROMISED_REST, PROMISED_HEAD);
}

Test(arch_mixtral, renormalises_whatever_the_file_says) {
  qd_model model = family_model("mixtral", TWO_EXPERTS ", \"norm_topk_prob\": false, \"decoder_sparse_step\": 2");
  cr_expect(model.renormalises && !model.rounds_weights && model.experts == 2 && model.top_k == 1);
  for (int64_t block = 0; block < 4; block++) cr_expect(qd_model_is_sparse(&model, block));
}

Test(arch_mixtral, has_a_window_only_if_the_file_names_one) {
  qd_model none = family_model("mixtral", TWO_EXPERTS), some = family_model("mixtral", TWO_EXPERTS ", \"sliding_window\": 5");
  cr_expect_eq(qd_model_window(&none, 1), 0);
  cr_expect_eq(qd_model_window(&some, 1), 5);
}
