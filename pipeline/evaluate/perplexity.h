/* Perplexity, and divergence from a reference, over windows of a text; windows over ranks, blocks streamed.
 *
 *   gptq       non-overlapping windows, all T - 1 predictions, exp of the mean over windows of the mean NLL
 *   llama.cpp  the text without its last newline; the first token of each window becomes BOS (where the tokenizer adds one);
 *              positions T/2 .. T - 2 predict their next; exp of the mean over all predictions, which is the same; at least two
 *              windows of tokens */
#ifndef QDIST_PIPELINE_EVALUATE_PERPLEXITY_H
#define QDIST_PIPELINE_EVALUATE_PERPLEXITY_H

#include "kernels/device.h"
#include "pipeline/evaluate/tasks.h"
#include "pipeline/job.h"
#include "storage/tokens.h"
#include "workers/comm.h"

typedef enum qd_ppl_style { QD_PPL_GPTQ, QD_PPL_LLAMA_CPP } qd_ppl_style;

typedef struct qd_evaluation_request {
  const char  *model, *reference; /* reference NULL: none */
  const char  *dataset;           /* NULL: tasks only */
  qd_tasks_request tasks;         /* .tasks NULL: none; of the model alone */
  int64_t      sequence_tokens; /* 0: 2048, in the style of llama.cpp 512; the model's positions if they are fewer */
  int64_t      max_windows;     /* 0: all */
  qd_ppl_style style;
  qd_compute   compute;
  qd_compute   reference_compute; /* of the reference where `compute` is INT8, never INT8 itself */
  qd_add_bos   bos;
  int64_t      seed;
  bool         pack;
  qd_readers   readers;
  int64_t      max_host_bytes; /* --max-host-mem, of a node; 0: as much as there is */
} qd_evaluation_request;

typedef struct qd_evaluation {
  bool    has_text, has_reference;
  double  mean_nll, perplexity, standard_error; /* nats; of the perplexity */
  int64_t windows, sequence_tokens, tokens;     /* tokens: predictions scored */
  int64_t text_tokens, text_rows;               /* of the whole text (qd_tokens) */
  qd_text_kind text_kind;
  double  reference_mean_nll;
  qd_divergence divergence;                     /* with has_reference */
  qd_arithmetic arithmetic, reference_arithmetic;
  double  seconds;
  int64_t planned_bytes, peak_bytes;            /* of this rank's memory */
  qd_task_scores tasks;                         /* on the coordinator */
} qd_evaluation;

/* Collective; the same result on every rank but for its memory and the tasks' scores.  QD_ENOMEM before any work: not even one
 * window at a time fits (evaluation_plan.h). */
qd_status qd_evaluate(const qd_evaluation_request *request, qd_comm *comm, qd_device *device, qd_evaluation *out) QD_MUST_USE;

void qd_evaluation_release(qd_evaluation *result); /* a zeroed one is fine */

const char *qd_ppl_style_name(qd_ppl_style style);

#endif
