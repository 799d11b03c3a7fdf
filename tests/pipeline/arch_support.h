/* For tests of a family: the tensors that a configuration promises. */
#ifndef QDIST_TESTS_PIPELINE_ARCH_SUPPORT_H
#define QDIST_TESTS_PIPELINE_ARCH_SUPPORT_H

#include <criterion/criterion.h>

#include <stdio.h>
#include <string.h>

#include "pipeline/model.h"
#include "storage/store.h"
#include "tests/pipeline/slots_support.h"

#define MUST(call) cr_assert_eq((call), QD_OK, "%s", qd_error_text())

/* Widths that cannot be taken for one another. */
enum { HIDDEN = 16, FFN = 24, QUERY = 4 * 6, KV = 2 * 6, HEAD = 6, VOCABULARY = 11 };

typedef struct promised {
  qd_role     role;
  const char *name;
  int64_t     rows, columns; /* columns 0: a vector */
} promised;

#define PROMISED_LINEARS PROMISED_ATTENTION, PROMISED_MLP, PROMISED_NORMS

#define PROMISED_ATTENTION                                                    \
  {QD_Q_PROJ, "model.layers.3.self_attn.q_proj.weight", QUERY, HIDDEN},       \
  {QD_K_PROJ, "model.layers.3.self_attn.k_proj.weight", KV, HIDDEN},          \
  {QD_V_PROJ, "model.layers.3.self_attn.v_proj.weight", KV, HIDDEN},          \
  {QD_O_PROJ, "model.layers.3.self_attn.o_proj.weight", HIDDEN, QUERY}

#define PROMISED_MLP                                                          \
  {QD_GATE_PROJ, "model.layers.3.mlp.gate_proj.weight", FFN, HIDDEN},         \
  {QD_UP_PROJ, "model.layers.3.mlp.up_proj.weight", FFN, HIDDEN},             \
  {QD_DOWN_PROJ, "model.layers.3.mlp.down_proj.weight", HIDDEN, FFN}

#define PROMISED_NORMS                                                        \
  {QD_INPUT_NORM, "model.layers.3.input_layernorm.weight", HIDDEN, 0},        \
  {QD_POST_NORM, "model.layers.3.post_attention_layernorm.weight", HIDDEN, 0}

#define PROMISED_QKV_BIASES                                          \
  {QD_Q_BIAS, "model.layers.3.self_attn.q_proj.bias", QUERY, 0},     \
  {QD_K_BIAS, "model.layers.3.self_attn.k_proj.bias", KV, 0},        \
  {QD_V_BIAS, "model.layers.3.self_attn.v_proj.bias", KV, 0}

#define PROMISED_O_BIAS {QD_O_BIAS, "model.layers.3.self_attn.o_proj.bias", HIDDEN, 0}

#define PROMISED_REST                                                    \
  {QD_EMBEDDING, "model.embed_tokens.weight", VOCABULARY, HIDDEN},       \
  {QD_FINAL_NORM, "model.norm.weight", HIDDEN, 0}

#define PROMISED_HEAD {QD_HEAD, "lm_head.weight", VOCABULARY, HIDDEN}

static inline qd_model family_model(const char *family, const char *members) {
  char text[512];
  qd_json *config;
  qd_model model;
  snprintf(text, sizeof text,
           "{\"model_type\": \"%s\", \"num_hidden_layers\": 4, \"hidden_size\": %d, \"intermediate_size\": %d, "
           "\"num_attention_heads\": 4,"
           " \"num_key_value_heads\": 2, \"head_dim\": %d, \"vocab_size\": %d%s%s}",
           family, HIDDEN, FFN, HEAD, VOCABULARY, *members ? ", " : "", members);
  MUST(qd_json_parse(text, strlen(text), "test", &config));
  MUST(qd_model_from_config(config, "test", &model));
  qd_json_free(config);
  return model;
}

/* Exactly these, in any order; an expert's by its name. */
static inline void expect_slots(const qd_model *model, int64_t block, const promised *expected, int n) {
  qd_slot slots[MAX_SLOTS];
  int found = 0;
  cr_expect_eq(all_slots(model, block, slots), n);
  for (int i = 0; i < n; i++)
    for (int k = 0; k < n; k++) {
      if (slots[k].role != expected[i].role || (slots[k].expert >= 0 && strcmp(slots[k].name, expected[i].name) != 0)) continue;
      cr_expect_str_eq(slots[k].name, expected[i].name);
      cr_expect_eq(slots[k].rank, expected[i].columns ? 2 : 1);
      cr_expect_eq(slots[k].dim[0], expected[i].rows, "%s", slots[k].name);
      cr_expect_eq(slots[k].dim[1], expected[i].columns, "%s", slots[k].name);
      found++;
    }
  cr_expect_eq(found, n);
}

#define EXPECT_BLOCK(family, members, ...)                                              \
  do {                                                                                  \
    qd_model model_ = family_model(family, members);                                    \
    const promised list_[] = {__VA_ARGS__};                                             \
    expect_slots(&model_, 3, list_, (int)(sizeof list_ / sizeof *list_));               \
  } while (0)

#define EXPECT_REST(family, members, ...)                                               \
  do {                                                                                  \
    qd_model model_ = family_model(family, members);                                    \
    const promised list_[] = {__VA_ARGS__};                                             \
    expect_slots(&model_, QD_REST, list_, (int)(sizeof list_ / sizeof *list_));         \
  } while (0)

#endif
