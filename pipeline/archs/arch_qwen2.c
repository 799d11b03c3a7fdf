#include "pipeline/arch.h"

static const qd_arch_tensor block[] = {
    QD_LLAMA_LINEARS, QD_LLAMA_ATTENTION_BIASES(QD_ALWAYS),
};

static const qd_arch_tensor rest[] = {QD_LLAMA_REST};

const qd_arch qd_arch_qwen2 = {
    .name = "qwen2",
    .summary = "Qwen2 and Qwen2.5: biases on q, k and v",
    .block = block,
    .n_block = QD_COUNT_OF(block),
    .rest = rest,
    .n_rest = QD_COUNT_OF(rest),
    .usual_window = 4096,
    .window_by_layers = true,
};
