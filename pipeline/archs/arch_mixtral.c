#include "pipeline/arch.h"

static const qd_arch_tensor block[] = {
    QD_LLAMA_ATTENTION,
    QD_LLAMA_NORMS,
    {QD_ROUTER, "model.layers.%.block_sparse_moe.gate.weight", QD_W_EXPERTS, QD_W_HIDDEN, QD_IF_SPARSE},
    {QD_EXPERT_GATE_PROJ, "model.layers.%.block_sparse_moe.experts.#.w1.weight", QD_W_EXPERT_FFN, QD_W_HIDDEN, QD_IF_SPARSE},
    {QD_EXPERT_UP_PROJ, "model.layers.%.block_sparse_moe.experts.#.w3.weight", QD_W_EXPERT_FFN, QD_W_HIDDEN, QD_IF_SPARSE},
    {QD_EXPERT_DOWN_PROJ, "model.layers.%.block_sparse_moe.experts.#.w2.weight", QD_W_HIDDEN, QD_W_EXPERT_FFN, QD_IF_SPARSE},
};

static const qd_arch_tensor rest[] = {QD_LLAMA_REST};

static const qd_arch_experts experts = {
    .count = "num_local_experts",
    .ffn = "intermediate_size",
    .every_block = true,
    .renormalises = true,
};

const qd_arch qd_arch_mixtral = {
    .name = "mixtral",
    .summary = "Mistral with experts in every block",
    .block = block,
    .n_block = QD_COUNT_OF(block),
    .rest = rest,
    .n_rest = QD_COUNT_OF(rest),
    .window_by_config = true,
    .experts = &experts,
};
