#include "pipeline/arch.h"

static const qd_arch_tensor block[] = {
    QD_LLAMA_LINEARS,
};

static const qd_arch_tensor rest[] = {QD_LLAMA_REST};

const qd_arch qd_arch_mistral = {
    .name = "mistral",
    .summary = "Llama with an optional sliding window",
    .block = block,
    .n_block = QD_COUNT_OF(block),
    .rest = rest,
    .n_rest = QD_COUNT_OF(rest),
    .usual_window = 4096,
    .window_by_config = true,
};
