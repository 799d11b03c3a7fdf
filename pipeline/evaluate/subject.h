/* A model under evaluation: an original or a store, streamed block by block, with the hidden states of some windows. */
#ifndef QDIST_PIPELINE_EVALUATE_SUBJECT_H
#define QDIST_PIPELINE_EVALUATE_SUBJECT_H

#include "pipeline/experts.h"
#include "pipeline/feed.h"
#include "pipeline/job.h"

typedef struct qd_subject {
  const char *path;
  qd_comm    *comm;
  qd_device  *device;
  qd_model    model;
  qd_source  *source; /* of an original */
  qd_store    store;  /* of a store (folder NULL: it is none) */
  qd_feed     feed;
  qd_decoder  decoder;
  qd_readers  readers; /* set it before the forward; the coordinator */
  qd_arithmetic arithmetic;
  qd_dtype    act;    /* its activations' */
  qd_arena    block_arena, acts_arena;
  qd_tensor   h;      /* act (windows, T, hidden) */
  const int64_t *length; /* of each window; what follows is padding, which dense blocks leave out; NULL: all are whole */
  void       *mid;    /* of one window; where blocks have experts, acts has all windows' */
  qd_acts     acts;
  qd_experts  experts;
} qd_subject;

/* Whether a store is there, finished or begun; else it should be a model. */
bool qd_subject_is_store(const char *path);

/* path: a store's folder (it has a manifest.json) or a model's.  compute MODEL: what the store was made with, or the model's
 * own.  QD_EUNSUPPORTED: the store names an arithmetic that is not known here; QD_EUSAGE: compute INT8 where no quantized
 * weight is multiplied.  Collective. */
qd_status qd_subject_open(qd_subject *subject, const char *path, qd_compute compute, qd_comm *comm,
                          qd_device *device) QD_MUST_USE;

/* Memory for up to `windows` windows of `tokens` on this rank, in place of what was reserved before.  Collective. */
qd_status qd_subject_reserve(qd_subject *subject, int64_t windows, int64_t tokens) QD_MUST_USE;
void      qd_subject_release(qd_subject *subject); /* gives it back */

/* What a rank's experts meet. */
qd_experts_shape qd_subject_experts(const qd_subject *subject, int64_t windows, int64_t tokens);

/* The device as this subject will use it, for planning: several share one, each with an arithmetic of its own. */
qd_device qd_subject_device(const qd_subject *subject);

/* Where its blocks come from: not opened. */
qd_feed qd_subject_feed(const qd_subject *subject);

/* The arena of hidden states, for so many windows. */
size_t qd_subject_acts_bytes(const qd_subject *subject, int64_t windows, int64_t tokens);

/* Bytes of hidden states that one window takes. */
size_t qd_subject_window_bytes(const qd_subject *subject, int64_t tokens);

/* Run `windows` windows (ids I32 (windows, T), this rank's) through all blocks; *rest is left ready for logits.  Collective. */
qd_status qd_subject_forward(qd_subject *subject, qd_tensor ids, qd_block *rest) QD_MUST_USE;

/* h of `windows` windows through one block.  Collective. */
qd_status qd_subject_block(qd_subject *subject, qd_block *block, int64_t windows) QD_MUST_USE;

/* Logits F32 (n, V) of rows (act (n, hidden)) of the windows that were run last. */
qd_status qd_subject_logits(qd_subject *subject, qd_block *rest, qd_tensor rows, qd_tensor logits) QD_MUST_USE;
void      qd_subject_forward_done(qd_subject *subject); /* gives the stream's buffers back: `rest` dies */

void qd_subject_close(qd_subject *subject);

#endif
