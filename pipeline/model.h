/* What a model is: its shapes and the names of its tensors, from config.json and its family, checked against the tensors that
 * are there. */
#ifndef QDIST_PIPELINE_MODEL_H
#define QDIST_PIPELINE_MODEL_H

#include "kernels/base/dtype.h"
#include "pipeline/arch.h"
#include "storage/json.h"
#include "storage/source.h"

enum { QD_MAX_HEAD_PAIRS = 1024, QD_MAX_BLOCKS = 100000 };

typedef struct qd_model {
  const qd_arch *arch;
  int64_t n_blocks, hidden, ffn, heads, kv_heads, head_dim, vocabulary, max_positions;
  double  norm_eps;
  bool    tied, attention_bias, mlp_bias;
  int64_t window;             /* keys that a query sees; 0: all */
  int64_t window_from_block;  /* the window holds in blocks from here on */
  double  frequency[QD_MAX_HEAD_PAIRS]; /* rotary, per pair, scaled as the configuration says */
  double  rope_factor;        /* cos and sin are multiplied by it */
  qd_dtype dtype;             /* of the weights: F32, F16 or BF16 */
  int64_t experts, top_k, expert_ffn, shared_ffn; /* experts 0: every block is dense; shared_ffn 0: no shared expert */
  bool    renormalises, rounds_weights;           /* routing: ops.h, qd_route */
  int64_t sparse_step;                            /* block b may have experts if sparse_step divides b + 1 */
  uint64_t only_dense[(QD_MAX_BLOCKS + 63) / 64]; /* bit b: block b has none all the same */
} qd_model;

/* From a configuration alone.  QD_EBADINPUT names the key; QD_EUNSUPPORTED: unknown family, rope type or activation. */
qd_status qd_model_from_config(const qd_json *config, const char *what, qd_model *out) QD_MUST_USE;

/* The same, with every tensor of every block looked up and its shape checked, and the dtype taken from them.
 * QD_EBADINPUT names the tensor, the shape expected and the one there. */
qd_status qd_model_from_source(const qd_source *source, qd_model *out) QD_MUST_USE;

/* One tensor of the model. */
typedef struct qd_slot {
  qd_role role;
  int     expert; /* -1: none */
  char    name[160];
  int     rank;
  int64_t dim[2];
} qd_slot;

/* The tensors of block `block` (or of the rest: QD_REST), in the family's order, then those of expert 0, of expert 1 ...: how
 * many, and tensor `index` of them.  _most: of any block. */
int  qd_model_n_slots(const qd_model *model, int64_t block);
int  qd_model_most_slots(const qd_model *model);
void qd_model_slot(const qd_model *model, int64_t block, int index, qd_slot *slot);

/* The original's tensor behind a slot: of a head that is tied, the embedding's.  NULL: there is none. */
const qd_source_tensor *qd_model_original(const qd_model *model, const qd_source *source, const qd_slot *slot);

/* Whether a block has experts; whether the model has blocks that do, or that do not. */
bool qd_model_is_sparse(const qd_model *model, int64_t block);
bool qd_model_has_blocks(const qd_model *model, bool sparse);

int64_t qd_model_window(const qd_model *model, int64_t block); /* 0: no limit */

/* In features of a linear; 0: the model has none such. */
int64_t qd_model_columns(const qd_model *model, qd_role linear);

#endif
