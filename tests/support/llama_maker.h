/* Small models with random weights, and token ids for them. */
#ifndef QDIST_TESTS_SUPPORT_LLAMA_MAKER_H
#define QDIST_TESTS_SUPPORT_LLAMA_MAKER_H

#include "kernels/base/dtype.h"

typedef struct qd_made_llama {
  qd_dtype dtype; /* F32, F16 or BF16 */
  int blocks, hidden, ffn, heads, kv_heads, vocabulary, positions;
  int shards;     /* 0 and 1: one file */
  int experts, top_k, expert_ffn, shared_ffn; /* experts 0: none; else every second block has them (qwen2_moe) */
} qd_made_llama;

/* In an existing folder; without a tokenizer. */
void qd_make_llama(const char *folder, const qd_made_llama *widths);

/* NAME.i32: n ids below `vocabulary`, the small ones more frequent, another sequence for each seed. */
void qd_make_ids(const char *path, int n, int vocabulary, uint64_t seed);

#endif
