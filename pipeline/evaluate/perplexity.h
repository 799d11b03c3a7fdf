/* Perplexity, and divergence from a reference, over windows of a text; windows over ranks, blocks streamed.
 *
 *   gptq       non-overlapping windows, all T - 1 predictions, exp of the mean over windows of the mean NLL
 *   llama.cpp  the first token of each window becomes BOS (where the tokenizer adds one); positions T/2 .. T - 2 predict their
 * next */
#ifndef QDIST_PIPELINE_EVALUATE_PERPLEXITY_H
#define QDIST_PIPELINE_EVALUATE_PERPLEXITY_H

#include "kernels/device.h"
#include "pipeline/job.h"
#include "workers/comm.h"

typedef enum qd_ppl_style { QD_PPL_GPTQ, QD_PPL_LLAMA_CPP } qd_ppl_style;

typedef struct qd_evaluation_request {
  const char  *model, *reference; /* reference NULL: none */
  const char  *dataset;
  int64_t      sequence_tokens, max_windows; /* 0: all */
  qd_ppl_style style;
  qd_compute   compute;
  qd_add_bos   bos;
  int64_t      seed;
  bool         pack;
  qd_readers   readers;
  int64_t      max_host_bytes; /* --max-host-mem, of a node; 0: as much as there is */
} qd_evaluation_request;

typedef struct qd_evaluation {
  double  mean_nll, perplexity, standard_error; /* nats; of the perplexity */
  int64_t windows, tokens;                      /* tokens: predictions scored */
  bool    has_reference;
  double  kl_mean, top1_agreement, reference_mean_nll;
  qd_arithmetic arithmetic;
  double  seconds;
  int64_t planned_bytes, peak_bytes;            /* of this rank's memory */
} qd_evaluation;

/* Collective; the same result on every rank but for its memory.  QD_ENOMEM before any work: not even one window at a time fits
 * (evaluation_plan.h). */
qd_status qd_evaluate(const qd_evaluation_request *request, qd_comm *comm, qd_device *device, qd_evaluation *out) QD_MUST_USE;

const char *qd_ppl_style_name(qd_ppl_style style);

#endif
