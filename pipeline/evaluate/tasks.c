#include "pipeline/evaluate/tasks.h"

#include "kernels/base/heap.h"
#include "kernels/base/log.h"
#include "pipeline/evaluate/task_scores.h"
#include "storage/atomic.h"
#include "workers/agree.h"

#include <string.h>

typedef struct run {
  qd_subject             *subject;
  const qd_tasks_request *request;
  qd_tokenizer           *tokenizer;
  qd_task_set            *set; /* on the coordinator */
  size_t                  n, capacity;
  qd_requests             requests;
  qd_loglikelihood       *found;
} run;

/* ---- on the coordinator -------------------------------------------------------------------------------------------------- */

/* The output's folder and name. */
static qd_status write_output(const char *path, const void *data, size_t n) {
  const char *slash = strrchr(path, '/');
  char *folder;
  QD_TRY(slash != NULL ? qd_heap_text(path, (size_t)(slash - path) + 1, &folder) : qd_heap_text(".", 1, &folder));
  qd_status status = qd_atomic_write(folder, folder, slash != NULL ? slash + 1 : path, data, n);
  qd_heap_free(folder);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

static qd_status resolve(run *r) {
  const char *item = r->request->tasks;
  for (;;) {
    size_t n = strcspn(item, ",");
    QD_CHECK(n > 0, QD_EINVAL, "--tasks: a name is missing in \"%.200s\"", r->request->tasks);
    QD_TRY(qd_heap_grow(&r->set, &r->capacity, r->n + 1, sizeof *r->set));
    r->set[r->n] = (qd_task_set){0};
    QD_TRY(qd_task_set_resolve(r->request, item, n, &r->set[r->n++]));
    if (item[n] == '\0') return QD_OK;
    item += n + 1;
  }
}

static qd_status open_tokenizer(run *r) {
  const char *folder = r->subject->path;
  qd_status status = qd_tokenizer_open(folder, &r->tokenizer);
  QD_CHECK(status != QD_ENOTFOUND, QD_ENOTFOUND, "%s has no tokenizer.json, which tasks need", folder);
  QD_TRY(status);
  QD_CHECK(qd_tokenizer_size(r->tokenizer) <= r->subject->model.vocabulary, QD_EBADINPUT,
           "%s: the tokenizer has %" PRId64 " entries, the model's vocabulary (vocab_size, embedding rows) only %" PRId64,
           folder, qd_tokenizer_size(r->tokenizer), r->subject->model.vocabulary);
  return QD_OK;
}

static qd_status prepare(run *r) {
  QD_TRY(resolve(r));
  QD_TRY(open_tokenizer(r));
  if (r->request->output != NULL) QD_TRY(write_output(r->request->output, "", 0)); /* what cannot be written is told now */
  for (size_t i = 0; i < r->n; i++) {
    qd_task_set *set = &r->set[i];
    QD_TRY(qd_task_set_read(set, r->request));
    QD_TRY(qd_task_set_encode(set, r->tokenizer, r->subject->model.max_positions, &r->requests));
    qd_log("task %s: %zu documents of %s, %" PRId64 " shots, %zu requests", set->task->name, set->n, set->path, set->shots,
           r->requests.n - set->first_request);
  }
  return QD_OK;
}

static qd_status write_lines(const run *r) {
  qd_task_text out = {0};
  qd_status status = QD_OK;
  for (size_t i = 0; i < r->n && status == QD_OK; i++) {
    size_t first = r->set[i].first_request;
    status = qd_task_lines(&r->set[i], r->requests.at + first, r->found + first, &out);
  }
  if (status == QD_OK) status = write_output(r->request->output, out.text, out.n);
  qd_heap_free(out.text);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

static qd_status score(const run *r, qd_task_scores *out) {
  for (size_t i = 0; i < r->n; i++) {
    QD_TRY(qd_heap_grow(&out->at, &out->capacity, out->n + 1, sizeof *out->at));
    QD_TRY(qd_task_score_of(&r->set[i], r->found + r->set[i].first_request, &out->at[out->n++]));
  }
  return r->request->output != NULL ? write_lines(r) : QD_OK;
}

/* ---- on all ranks -------------------------------------------------------------------------------------------------------- */

static qd_status run_tasks(run *r, int64_t max_host_bytes, qd_task_scores *out) {
  qd_comm *comm = r->subject->comm;
  QD_TRY_ALL(comm, comm->rank == 0 ? prepare(r) : QD_OK);
  QD_TRY(qd_requests_bcast(&r->requests, comm));
  out->requests = (int64_t)r->requests.n, out->tokens = (int64_t)r->requests.n_ids;
  QD_TRY_ALL(comm, qd_heap_new(r->requests.n, sizeof *r->found, &r->found));
  QD_TRY(qd_loglikelihoods(r->subject, &r->requests, max_host_bytes, r->found, &out->planned_bytes));
  return qd_agree(comm, comm->rank == 0 ? score(r, out) : QD_OK);
}

qd_status qd_tasks_run(qd_subject *subject, const qd_tasks_request *request, int64_t max_host_bytes, qd_task_scores *out) {
  run r = {.subject = subject, .request = request};
  *out = (qd_task_scores){0};
  qd_status status = run_tasks(&r, max_host_bytes, out);
  for (size_t i = 0; i < r.n; i++) qd_task_set_release(&r.set[i]);
  qd_heap_free(r.set);
  qd_heap_free(r.found);
  qd_requests_release(&r.requests);
  qd_tokenizer_close(r.tokenizer);
  if (status == QD_OK) return QD_OK;
  qd_task_scores_release(out);
  return qd_forward(status, __FILE__, __LINE__);
}

void qd_task_scores_release(qd_task_scores *scores) {
  for (size_t i = 0; i < scores->n; i++) qd_task_score_release(&scores->at[i]);
  qd_heap_free(scores->at);
  *scores = (qd_task_scores){0};
}
