/* The weights of one block in memory: a byte image that the coordinator streams, views into it, and the form in which they are
 * computed with.
 *
 * An image is the same bytes whether it comes from the original model (every tensor as it is there) or from a store (the parts
 * of each record): a *feed* knows its layout. */
#ifndef QDIST_PIPELINE_BLOCK_H
#define QDIST_PIPELINE_BLOCK_H

#include "kernels/ops.h"
#include "pipeline/model.h"
#include "storage/store.h"

/* What is known of a quantized linear beside its parts. */
typedef struct qd_linear_result {
  double  loss;            /* mean over calibration tokens of |(W - Q) x|^2; without calibration: of the weights, |W - Q|^2 */
  double  relative_error;  /* tr(D H D^T) / tr(W H W^T), D = W - Q; without calibration |D|^2 / |W|^2 */
  double  damping;         /* as used, relative to the mean diagonal; 0: none */
  int64_t tokens;          /* calibration tokens of its input */
  int64_t outliers;        /* weights that are kept as they are */
  double  threshold;       /* of outliers, as used; INFINITY: none were looked for */
  int64_t coarse_scales;   /* so small that fp16 rounds them coarsely */
  bool    fallback;        /* rounded to nearest because the factor failed, or an expert saw too few tokens */
  bool    shared;          /* an expert's, by the Hessian of all tokens because it saw too few itself */
} qd_linear_result;

/* One tensor of the block. */
typedef struct qd_weight {
  qd_slot    slot;
  qd_dtype   dtype;      /* of the original tensor */
  bool       quantized;
  const char *kept;      /* why a linear was not quantized (qd_fate_name); NULL: it was, or nobody tried */
  bool       stored;     /* a finished linear that came with its original: q waits for qd_block_use_stored */
  qd_tensor  original;   /* as it came (plain); in the image */
  qd_qtensor q;          /* quantized */
  qd_tensor  compute;    /* linears: act dtype; norms and biases: F32; rank 0: not expanded */
  const qd_panels *panels; /* of a linear that stays in memory: what is multiplied by; else NULL */
  qd_digest  source;     /* of the original tensor's bytes (rank 0) */
  qd_linear_result result; /* of a linear that was quantized in this run */
  const qd_json   *facts;  /* of a quantized one that was read back from the output: its record's; else NULL */
} qd_weight;

/* All ranks have all tensors, but only its owner computes with an expert's: on the others `compute` and the data of codes that
 * were made in this run are missing. */
typedef struct qd_block {
  int64_t    index;  /* QD_REST: embedding, final norm, head */
  int        n;
  qd_weight *weight; /* whose memory: the feed's */
  int        rank, ranks;
} qd_block;

/* "block 3", "model" for QD_REST: for messages. */
enum { QD_BLOCK_LABEL_BYTES = 32 };
const char *qd_block_label(int64_t block, char text[QD_BLOCK_LABEL_BYTES]);

qd_weight *qd_block_find(qd_block *block, qd_role role); /* NULL: the model has none; not of experts */
qd_weight *qd_block_find_expert(qd_block *block, qd_role role, int64_t expert);

/* Whether this rank computes with a weight. */
bool qd_block_computes(const qd_block *block, const qd_weight *weight);

/* Weights that are not quantized hold neither NaN nor Inf, or QD_EBADINPUT names `model`, tensor and element. */
qd_status qd_block_check_finite(const qd_block *block, qd_device *device, const char *model) QD_MUST_USE;

/* Widen or round everything plain to what is computed with: linears and embeddings to `act`, norms and biases to F32. */
qd_status qd_block_prepare(qd_block *block, qd_dtype act, qd_arena *arena) QD_MUST_USE;

/* From now on finished linears are computed with as they are stored, no longer with the originals that came with them. */
void qd_block_use_stored(qd_block *block);

/* The effective weight of a quantized linear in act dtype, from the arena: `compute` from now on. */
qd_status qd_weight_expand(qd_device *device, qd_weight *weight, qd_dtype act, qd_arena *arena) QD_MUST_USE;

#endif
