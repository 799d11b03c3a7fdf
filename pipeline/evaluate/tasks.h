/* A model on multiple-choice tasks: from the files to the scores.  docs/evaluation.md says each convention. */
#ifndef QDIST_PIPELINE_EVALUATE_TASKS_H
#define QDIST_PIPELINE_EVALUATE_TASKS_H

#include "pipeline/evaluate/divergence.h"
#include "pipeline/evaluate/task_set.h"

typedef struct qd_group_score { /* of one subject */
  char   *name;
  int64_t documents;
  qd_mean acc;
} qd_group_score;

typedef struct qd_task_score {
  const qd_task  *task;
  int64_t         documents, shots;
  qd_mean         acc;        /* of several subjects: over all documents, the error pooled over subjects */
  qd_mean         acc_norm;   /* QD_TASK_ACC_AND_NORM */
  qd_mean         perplexity; /* QD_TASK_GREEDY: exp of minus the mean log-likelihood, its error to first order */
  qd_group_score *group;
  size_t          n_groups, group_capacity;
} qd_task_score;

typedef struct qd_task_scores {
  qd_task_score *at;
  size_t         n, capacity;
  int64_t        requests, tokens; /* of all requests */
  int64_t        planned_bytes;
} qd_task_scores;

/* The scores are on the coordinator (elsewhere there are none), the same for any number of ranks; request->output is written by
 * it, a line of JSON a document.  The tokenizer is that of the subject's folder.  Collective. */
qd_status qd_tasks_run(qd_subject *subject, const qd_tasks_request *request, int64_t max_host_bytes,
                       qd_task_scores *out) QD_MUST_USE;
void      qd_task_scores_release(qd_task_scores *scores); /* a zeroed one is fine */

#endif
