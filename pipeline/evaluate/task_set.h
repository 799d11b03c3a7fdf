/* A task's documents, read from its file, and the requests that are made of them: texts with their shots, as token ids. */
#ifndef QDIST_PIPELINE_EVALUATE_TASK_SET_H
#define QDIST_PIPELINE_EVALUATE_TASK_SET_H

#include "pipeline/evaluate/loglikelihood.h"
#include "pipeline/evaluate/task_document.h"
#include "storage/tokenizer.h"

enum { QD_USUAL_SHOTS = -1 };

typedef struct qd_tasks_request {
  const char *tasks;  /* [TASK:]FILE[+SHOTS] or TASK, separated by commas */
  const char *folder; /* where the file of a TASK is; NULL: nowhere */
  const char *output; /* a file for each document's figures; NULL: none */
  int64_t     shots;  /* QD_USUAL_SHOTS: none, but for MMLU 5 */
  int64_t     limit;  /* the first so many documents of each task, of MMLU of each subject; 0: all */
} qd_tasks_request;

typedef struct qd_task_set {
  const qd_task    *task;
  char             *path, *shots_path; /* shots_path NULL: shots are drawn from the documents themselves */
  int64_t           shots;
  qd_task_document *document, *shot;
  size_t            n, capacity, n_shots, shot_capacity;
  size_t            first_request;     /* its requests: a choice each, in order */
} qd_task_set;

/* What an element of qd_tasks_request.tasks names (n bytes).  QD_EINVAL: no task; QD_ENOTFOUND: no file. */
qd_status qd_task_set_resolve(const qd_tasks_request *request, const char *item, size_t n, qd_task_set *out) QD_MUST_USE;

/* Read its documents and shots.  QD_EBADINPUT names file and line; too few shots. */
qd_status qd_task_set_read(qd_task_set *set, const qd_tasks_request *request) QD_MUST_USE;

/* The harness's rules: white space at the end of a context goes to the front of the continuation; the continuation's tokens are
 * those of both together behind as many as the context has alone; of what is too long for `positions` the front is left out.
 * Appends to *out.  QD_EBADINPUT: a context without a token, a continuation longer than `positions`. */
qd_status qd_task_set_encode(qd_task_set *set, const qd_tokenizer *tokenizer, int64_t positions, qd_requests *out) QD_MUST_USE;

void qd_task_set_release(qd_task_set *set);

#endif
