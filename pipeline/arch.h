/* A model family: mostly data.  A table of the tensors of a block and of the rest (role, name, shape), and flags of the shared
 * decoder (decoder.h).  Formulas: docs/methods.md; names and configuration keys are Hugging Face's. */
#ifndef QDIST_PIPELINE_ARCH_H
#define QDIST_PIPELINE_ARCH_H

#include "kernels/base/status.h"

/*    role            name in manifests   linear */
#define QD_ROLE_LIST(X)                     \
  X(QD_Q_PROJ,     "q_proj",     true)      \
  X(QD_K_PROJ,     "k_proj",     true)      \
  X(QD_V_PROJ,     "v_proj",     true)      \
  X(QD_O_PROJ,     "o_proj",     true)      \
  X(QD_GATE_PROJ,  "gate_proj",  true)      \
  X(QD_UP_PROJ,    "up_proj",    true)      \
  X(QD_DOWN_PROJ,  "down_proj",  true)      \
  X(QD_SHARED_GATE_PROJ, "shared_gate_proj", true) \
  X(QD_SHARED_UP_PROJ,   "shared_up_proj",   true) \
  X(QD_SHARED_DOWN_PROJ, "shared_down_proj", true) \
  X(QD_EXPERT_GATE_PROJ, "expert_gate_proj", true) \
  X(QD_EXPERT_UP_PROJ,   "expert_up_proj",   true) \
  X(QD_EXPERT_DOWN_PROJ, "expert_down_proj", true) \
  X(QD_Q_BIAS,     "q_bias",     false)     \
  X(QD_K_BIAS,     "k_bias",     false)     \
  X(QD_V_BIAS,     "v_bias",     false)     \
  X(QD_O_BIAS,     "o_bias",     false)     \
  X(QD_GATE_BIAS,  "gate_bias",  false)     \
  X(QD_UP_BIAS,    "up_bias",    false)     \
  X(QD_DOWN_BIAS,  "down_bias",  false)     \
  X(QD_INPUT_NORM, "input_norm", false)     \
  X(QD_POST_NORM,  "post_norm",  false)     \
  X(QD_Q_NORM,     "q_norm",     false)     \
  X(QD_K_NORM,     "k_norm",     false)     \
  X(QD_ROUTER,     "router",     false)     \
  X(QD_SHARED_ROUTER, "shared_router", false) \
  X(QD_EMBEDDING,  "embedding",  false)     \
  X(QD_FINAL_NORM, "final_norm", false)     \
  X(QD_HEAD,       "head",       false)

typedef enum qd_role {
#define QD_ROLE_CODE(code, name, linear) code,
  QD_ROLE_LIST(QD_ROLE_CODE)
#undef QD_ROLE_CODE
  QD_N_ROLES,
  QD_N_LINEARS = QD_EXPERT_DOWN_PROJ + 1, /* the linears come first */
  QD_N_BIASED = QD_DOWN_PROJ + 1          /* QD_Q_BIAS + i is the bias of linear i below this; the others have none */
} qd_role;

const char *qd_role_name(qd_role role);
bool        qd_role_find(const char *name, qd_role *out);
static inline bool qd_role_is_linear(qd_role role) { return role < QD_N_LINEARS; }
static inline bool qd_role_is_matrix(qd_role role) {
  return qd_role_is_linear(role) || role == QD_EMBEDDING || role == QD_HEAD || role == QD_ROUTER || role == QD_SHARED_ROUTER;
}
static inline bool qd_role_is_of_expert(qd_role role) { return role >= QD_EXPERT_GATE_PROJ && role <= QD_EXPERT_DOWN_PROJ; }

/* Widths that a tensor's shape is made of. */
typedef enum qd_width { QD_W_NONE, QD_W_HIDDEN, QD_W_QUERY, QD_W_KV, QD_W_FFN, QD_W_HEAD, QD_W_VOCABULARY, QD_W_ONE,
  QD_W_EXPERTS, QD_W_EXPERT_FFN, QD_W_SHARED_FFN } qd_width;

/* When a tensor belongs to the model, or to a block of it. */
typedef enum qd_condition {
  QD_ALWAYS, QD_IF_ATTENTION_BIAS, QD_IF_MLP_BIAS, QD_UNLESS_TIED, QD_IF_DENSE, QD_IF_SPARSE
} qd_condition;

typedef struct qd_arch_tensor {
  qd_role      role;
  const char  *name; /* "%" stands for the block's number, "#" for the expert's: such rows come last in a block */
  qd_width     rows, columns;
  qd_condition condition;
} qd_arch_tensor;

/* How a family of experts names things in config.json.  Routing: softmax over all experts, the largest top_k of them. */
typedef struct qd_arch_experts {
  const char *count, *other_count; /* number of experts; another key for it, or NULL */
  const char *ffn;                 /* an expert's width */
  const char *shared_ffn;          /* the shared expert's width; NULL: there is none */
  bool        every_block;         /* else decoder_sparse_step and mlp_only_layers say which blocks have experts */
  bool        renormalises;        /* always; else norm_topk_prob says so */
  bool        rounds_weights;      /* to the dtype of activations */
  const char *attention_bias;      /* key of biases on q, k, v if it is not attention_bias; they are there by default */
  bool        refuses_window;      /* a sliding window in some blocks is not supported */
} qd_arch_experts;

typedef struct qd_arch {
  const char *name;        /* "llama": config.json's model_type */
  const char *summary;     /* for --help */
  const qd_arch_tensor *block;
  int         n_block;
  const qd_arch_tensor *rest;
  int         n_rest;
  bool        window_by_config; /* config.json's sliding_window limits what a query sees */
  bool        window_by_switch; /* ... only if use_sliding_window */
  bool        window_by_layers; /* ... only where use_sliding_window and max_window_layers or layer_types say so */
  int64_t     usual_window;     /* of a configuration that does not mention sliding_window; 0: none */
  const qd_arch_experts *experts; /* NULL: all blocks are dense */
} qd_arch;

#define QD_ARCH(name) extern const qd_arch qd_arch_##name;
#include "pipeline/archs.def"
#undef QD_ARCH

const qd_arch *qd_arch_find(const char *model_type); /* NULL: unknown */
const char    *qd_arch_names(void);                  /* "llama, mistral, ..." for messages */
const qd_arch *qd_arch_at(int index);                /* NULL past the end */

/* What all families with Llama's names share. */
#define QD_LLAMA_LINEARS QD_LLAMA_ATTENTION, QD_LLAMA_MLP(QD_ALWAYS), QD_LLAMA_NORMS

#define QD_LLAMA_ATTENTION                                                                               \
  {QD_Q_PROJ, "model.layers.%.self_attn.q_proj.weight", QD_W_QUERY, QD_W_HIDDEN, QD_ALWAYS},             \
  {QD_K_PROJ, "model.layers.%.self_attn.k_proj.weight", QD_W_KV, QD_W_HIDDEN, QD_ALWAYS},                \
  {QD_V_PROJ, "model.layers.%.self_attn.v_proj.weight", QD_W_KV, QD_W_HIDDEN, QD_ALWAYS},                \
  {QD_O_PROJ, "model.layers.%.self_attn.o_proj.weight", QD_W_HIDDEN, QD_W_QUERY, QD_ALWAYS}

#define QD_LLAMA_MLP(condition)                                                                          \
  {QD_GATE_PROJ, "model.layers.%.mlp.gate_proj.weight", QD_W_FFN, QD_W_HIDDEN, condition},               \
  {QD_UP_PROJ, "model.layers.%.mlp.up_proj.weight", QD_W_FFN, QD_W_HIDDEN, condition},                   \
  {QD_DOWN_PROJ, "model.layers.%.mlp.down_proj.weight", QD_W_HIDDEN, QD_W_FFN, condition}

#define QD_LLAMA_NORMS                                                                                   \
  {QD_INPUT_NORM, "model.layers.%.input_layernorm.weight", QD_W_HIDDEN, QD_W_NONE, QD_ALWAYS},           \
  {QD_POST_NORM, "model.layers.%.post_attention_layernorm.weight", QD_W_HIDDEN, QD_W_NONE, QD_ALWAYS}

#define QD_LLAMA_ATTENTION_BIASES(condition)                                             \
  {QD_Q_BIAS, "model.layers.%.self_attn.q_proj.bias", QD_W_QUERY, QD_W_NONE, condition}, \
  {QD_K_BIAS, "model.layers.%.self_attn.k_proj.bias", QD_W_KV, QD_W_NONE, condition},    \
  {QD_V_BIAS, "model.layers.%.self_attn.v_proj.bias", QD_W_KV, QD_W_NONE, condition}

#define QD_LLAMA_OUTPUT_BIAS(condition) \
  {QD_O_BIAS, "model.layers.%.self_attn.o_proj.bias", QD_W_HIDDEN, QD_W_NONE, condition}

#define QD_LLAMA_MLP_BIASES(condition)                                                \
  {QD_GATE_BIAS, "model.layers.%.mlp.gate_proj.bias", QD_W_FFN, QD_W_NONE, condition}, \
  {QD_UP_BIAS, "model.layers.%.mlp.up_proj.bias", QD_W_FFN, QD_W_NONE, condition},     \
  {QD_DOWN_BIAS, "model.layers.%.mlp.down_proj.bias", QD_W_HIDDEN, QD_W_NONE, condition}

#define QD_LLAMA_HEAD_NORMS                                                              \
  {QD_Q_NORM, "model.layers.%.self_attn.q_norm.weight", QD_W_HEAD, QD_W_NONE, QD_ALWAYS}, \
  {QD_K_NORM, "model.layers.%.self_attn.k_norm.weight", QD_W_HEAD, QD_W_NONE, QD_ALWAYS}

/* Router and experts with Qwen's names. */
#define QD_QWEN_EXPERTS                                                                                                       \
  {QD_ROUTER, "model.layers.%.mlp.gate.weight", QD_W_EXPERTS, QD_W_HIDDEN, QD_IF_SPARSE},                                     \
  {QD_EXPERT_GATE_PROJ, "model.layers.%.mlp.experts.#.gate_proj.weight", QD_W_EXPERT_FFN, QD_W_HIDDEN, QD_IF_SPARSE},         \
  {QD_EXPERT_UP_PROJ, "model.layers.%.mlp.experts.#.up_proj.weight", QD_W_EXPERT_FFN, QD_W_HIDDEN, QD_IF_SPARSE},             \
  {QD_EXPERT_DOWN_PROJ, "model.layers.%.mlp.experts.#.down_proj.weight", QD_W_HIDDEN, QD_W_EXPERT_FFN, QD_IF_SPARSE}

#define QD_LLAMA_REST                                                                          \
  {QD_EMBEDDING, "model.embed_tokens.weight", QD_W_VOCABULARY, QD_W_HIDDEN, QD_ALWAYS},        \
  {QD_FINAL_NORM, "model.norm.weight", QD_W_HIDDEN, QD_W_NONE, QD_ALWAYS},                     \
  {QD_HEAD, "lm_head.weight", QD_W_VOCABULARY, QD_W_HIDDEN, QD_UNLESS_TIED}

#define QD_COUNT_OF(table) ((int)(sizeof(table) / sizeof((table)[0])))

#endif
