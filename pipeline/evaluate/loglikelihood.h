/* Log-likelihoods of continuations, as lm-evaluation-harness scores multiple-choice tasks: the log-softmax (of fp32 logits, in
 * double) of each token of the continuation, summed in order.
 *
 * A request is run by itself: behind its last token is padding at the most, which causal attention never sees.  So its figures
 * depend neither on the other requests, nor on how they are put together, nor on the number of ranks. */
#ifndef QDIST_PIPELINE_EVALUATE_LOGLIKELIHOOD_H
#define QDIST_PIPELINE_EVALUATE_LOGLIKELIHOOD_H

#include "pipeline/evaluate/subject.h"

typedef struct qd_request {
  int64_t first, tokens; /* in ids: context, then continuation */
  int64_t scored;        /* the last so many are the continuation; less than tokens */
} qd_request;

typedef struct qd_requests { /* from the heap; requests with equal inputs that follow each other share one forward */
  int32_t    *ids;
  qd_request *at;
  size_t      n_ids, n, ids_capacity, capacity;
} qd_requests;

typedef struct qd_loglikelihood {
  double  value;  /* nats; 0 of an empty continuation */
  int64_t greedy; /* 1: each of its tokens has the largest logit, the first of equals */
} qd_loglikelihood;

/* The coordinator's requests on every rank.  Collective. */
qd_status qd_requests_bcast(qd_requests *requests, qd_comm *comm) QD_MUST_USE;
void      qd_requests_release(qd_requests *requests);

/* out (n) of all requests, alike on every rank.  The longest run first, in batches that fit memory (evaluation_plan.h, whose
 * bound the largest *planned_bytes is), a request's rank by its place in that order.  QD_ENOMEM before any work: not even the
 * longest fits; QD_ENUMERIC: a figure that is no number.  Collective. */
qd_status qd_loglikelihoods(qd_subject *subject, const qd_requests *requests, int64_t max_host_bytes, qd_loglikelihood *out,
                            int64_t *planned_bytes) QD_MUST_USE;

#endif
