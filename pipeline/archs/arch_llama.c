#include "pipeline/arch.h"

static const qd_arch_tensor block[] = {
    QD_LLAMA_LINEARS, QD_LLAMA_ATTENTION_BIASES(QD_IF_ATTENTION_BIAS), QD_LLAMA_OUTPUT_BIAS(QD_IF_ATTENTION_BIAS),
    QD_LLAMA_MLP_BIASES(QD_IF_MLP_BIAS),
};

static const qd_arch_tensor rest[] = {QD_LLAMA_REST};

const qd_arch qd_arch_llama = {
    .name = "llama",
    .summary = "Llama 1, 2 and 3 and what follows them (SmolLM, Vicuna ...)",
    .block = block,
    .n_block = QD_COUNT_OF(block),
    .rest = rest,
    .n_rest = QD_COUNT_OF(rest),
};
