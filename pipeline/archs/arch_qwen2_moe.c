#include "pipeline/arch.h"

static const qd_arch_tensor block[] = {
    QD_LLAMA_ATTENTION,
    QD_LLAMA_NORMS,
    QD_LLAMA_ATTENTION_BIASES(QD_IF_ATTENTION_BIAS),
    QD_LLAMA_MLP(QD_IF_DENSE),
    {QD_SHARED_GATE_PROJ, "model.layers.%.mlp.shared_expert.gate_proj.weight", QD_W_SHARED_FFN, QD_W_HIDDEN, QD_IF_SPARSE},
    {QD_SHARED_UP_PROJ, "model.layers.%.mlp.shared_expert.up_proj.weight", QD_W_SHARED_FFN, QD_W_HIDDEN, QD_IF_SPARSE},
    {QD_SHARED_DOWN_PROJ, "model.layers.%.mlp.shared_expert.down_proj.weight", QD_W_HIDDEN, QD_W_SHARED_FFN, QD_IF_SPARSE},
    {QD_SHARED_ROUTER, "model.layers.%.mlp.shared_expert_gate.weight", QD_W_ONE, QD_W_HIDDEN, QD_IF_SPARSE},
    QD_QWEN_EXPERTS,
};

static const qd_arch_tensor rest[] = {QD_LLAMA_REST};

static const qd_arch_experts experts = {
    .count = "num_experts",
    .other_count = "num_local_experts",
    .ffn = "moe_intermediate_size",
    .shared_ffn = "shared_expert_intermediate_size",
    .rounds_weights = true,
    .attention_bias = "qkv_bias",
    .refuses_window = true,
};

const qd_arch qd_arch_qwen2_moe = {
    .name = "qwen2_moe",
    .summary = "Qwen1.5-MoE and Qwen2-MoE: experts in some blocks or all, beside them one that every token takes",
    .block = block,
    .n_block = QD_COUNT_OF(block),
    .rest = rest,
    .n_rest = QD_COUNT_OF(rest),
    .window_by_layers = true,
    .usual_window = 4096,
    .experts = &experts,
};
