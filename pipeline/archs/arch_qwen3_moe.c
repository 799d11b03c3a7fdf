#include "pipeline/arch.h"

static const qd_arch_tensor block[] = {
    QD_LLAMA_ATTENTION,
    QD_LLAMA_NORMS,
    QD_LLAMA_HEAD_NORMS,
    QD_LLAMA_ATTENTION_BIASES(QD_IF_ATTENTION_BIAS),
    QD_LLAMA_OUTPUT_BIAS(QD_IF_ATTENTION_BIAS),
    QD_LLAMA_MLP(QD_IF_DENSE),
    QD_QWEN_EXPERTS,
};

static const qd_arch_tensor rest[] = {QD_LLAMA_REST};

static const qd_arch_experts experts = {
    .count = "num_experts",
    .other_count = "num_local_experts",
    .ffn = "moe_intermediate_size",
    .rounds_weights = true,
};

const qd_arch qd_arch_qwen3_moe = {
    .name = "qwen3_moe",
    .summary = "Qwen3 with experts in some blocks or all",
    .block = block,
    .n_block = QD_COUNT_OF(block),
    .rest = rest,
    .n_rest = QD_COUNT_OF(rest),
    .window_by_config = true,
    .window_by_switch = true,
    .usual_window = 4096,
    .experts = &experts,
};
