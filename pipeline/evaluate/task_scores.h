/* What a task's log-likelihoods come to, and a line of JSON for each document. */
#ifndef QDIST_PIPELINE_EVALUATE_TASK_SCORES_H
#define QDIST_PIPELINE_EVALUATE_TASK_SCORES_H

#include "pipeline/evaluate/tasks.h"

/* found: of the set's requests, a choice each, in order. */
qd_status qd_task_score_of(const qd_task_set *set, const qd_loglikelihood *found, qd_task_score *out) QD_MUST_USE;
void      qd_task_score_release(qd_task_score *score);

typedef struct qd_task_text { /* from the heap */
  char  *text;
  size_t n, capacity;
} qd_task_text;

/* Appends a line for each document; `request` are the set's own. */
qd_status qd_task_lines(const qd_task_set *set, const qd_request *request, const qd_loglikelihood *found,
                        qd_task_text *out) QD_MUST_USE;

#endif
