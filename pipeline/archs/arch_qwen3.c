#include "pipeline/arch.h"

static const qd_arch_tensor block[] = {
    QD_LLAMA_LINEARS, QD_LLAMA_HEAD_NORMS, QD_LLAMA_ATTENTION_BIASES(QD_IF_ATTENTION_BIAS),
    QD_LLAMA_OUTPUT_BIAS(QD_IF_ATTENTION_BIAS),
};

static const qd_arch_tensor rest[] = {QD_LLAMA_REST};

const qd_arch qd_arch_qwen3 = {
    .name = "qwen3",
    .summary = "RMSNorm over each head of q and k before the rotary embedding",
    .block = block,
    .n_block = QD_COUNT_OF(block),
    .rest = rest,
    .n_rest = QD_COUNT_OF(rest),
    .usual_window = 4096,
    .window_by_layers = true,
};
