/* The forward itself is tested against transformers in test_archs.c. */
#include "tests/pipeline/arch_support.h"

enum { EXPERT_FFN = 20, SHARED_FFN = 28 };
#define TWO_EXPERTS                                                                                   \
  "\"num_experts\": 2, \"num_experts_per_tok\": 1, \"moe_intermediate_size\": 20, "                  \
  "\"shared_expert_intermediate_size\": 28"
#define EXPERT(number)                                                                                   \
  {QD_EXPERT_GATE_PROJ, "model.layers.3.mlp.experts." #number ".gate_proj.weight", EXPERT_FFN, HIDDEN},  \
  {QD_EXPERT_UP_PROJ, "model.layers.3.mlp.experts." #number ".up_proj.weight", EXPERT_FFN, HIDDEN},      \
  {QD_EXPERT_DOWN_PROJ, "model.layers.3.mlp.experts." #number ".down_proj.weight", HIDDEN, EXPERT_FFN}
#define ROUTER {QD_ROUTER, "model.layers.3.mlp.gate.weight", 2, HIDDEN}
#define SHARED                                                                                         \
  {QD_SHARED_GATE_PROJ, "model.layers.3.mlp.shared_expert.gate_proj.weight", SHARED_FFN, HIDDEN},      \
  {QD_SHARED_UP_PROJ, "model.layers.3.mlp.shared_expert.up_proj.weight", SHARED_FFN, HIDDEN},          \
  {QD_SHARED_DOWN_PROJ, "model.layers.3.mlp.shared_expert.down_proj.weight", HIDDEN, SHARED_FFN},      \
  {QD_SHARED_ROUTER, "model.layers.3.mlp.shared_expert_gate.weight", 1, HIDDEN}

Test(arch_qwen2_moe, has_biases_unless_told_otherwise_and_a_shared_expert) {
  EXPECT_BLOCK("qwen2_moe", TWO_EXPERTS, PROMISED_ATTENTION, PROMISED_NORMS, PROMISED_QKV_BIASES, SHARED, ROUTER, EXPERT(0),
               EXPERT(1));
  EXPECT_BLOCK("qwen2_moe", TWO_EXPERTS ", \"qkv_bias\": false", PROMISED_ATTENTION, PROMISED_NORMS, SHARED, ROUTER, EXPERT(0),
               EXPERT(1));
  EXPECT_BLOCK("qwen2_moe", TWO_EXPERTS ", \"mlp_only_layers\": [0, 3]", PROMISED_LINEARS, PROMISED_QKV_BIASES);
  EXPECT_REST("qwen2_moe", TWO_EXPERTS, PROMISED_REST, PROMISED_HEAD);
}

Test(arch_qwen2_moe, has_no_window) {
  qd_model model = family_model("qwen2_moe", TWO_EXPERTS ", \"sliding_window\": 5, \"max_window_layers\": 0");
  for (int64_t block = 0; block < 4; block++) cr_expect_eq(qd_model_window(&model, block), 0);
}
