#include "pipeline/evaluate/loglikelihood.h"

#include "kernels/base/heap.h"
#include "kernels/base/log.h"
#include "pipeline/evaluate/evaluation_plan.h"
#include "workers/agree.h"
#include "workers/team.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* One forward, for one or more requests. */
typedef struct sequence {
  int64_t request, n; /* the first of them, and how many */
  int64_t tokens;     /* of the input: all but the last of the request's */
} sequence;

typedef struct scoring {
  qd_subject        *subject;
  const qd_requests *requests;
  sequence          *sequence; /* the longest first, else in the requests' order */
  int64_t            n;
  qd_loglikelihood  *out;
  size_t             program_bytes;
} scoring;

/* ---- sequences ----------------------------------------------------------------------------------------------------------- */

static bool same_input(const qd_requests *r, const qd_request *a, const qd_request *b) {
  return a->tokens == b->tokens && a->scored == b->scored &&
         memcmp(r->ids + a->first, r->ids + b->first, (size_t)(a->tokens - 1) * sizeof *r->ids) == 0;
}

static int longest_first(const void *a, const void *b) {
  const sequence *x = a, *y = b;
  if (x->tokens != y->tokens) return x->tokens < y->tokens ? 1 : -1;
  return (x->request > y->request) - (x->request < y->request);
}

static qd_status find_sequences(scoring *s) {
  const qd_requests *r = s->requests;
  QD_TRY(qd_heap_new(r->n, sizeof *s->sequence, &s->sequence));
  for (int64_t i = 0; i < (int64_t)r->n; i++) {
    sequence *last = s->n > 0 ? &s->sequence[s->n - 1] : NULL;
    if (last != NULL && same_input(r, &r->at[last->request], &r->at[i])) last->n++;
    else s->sequence[s->n++] = (sequence){i, 1, r->at[i].tokens - 1};
  }
  qsort(s->sequence, (size_t)s->n, sizeof *s->sequence, longest_first);
  return QD_OK;
}

/* ---- scoring ------------------------------------------------------------------------------------------------------------- */

/* Predictions of one or more requests whose logits are in memory together. */
typedef struct slab {
  qd_tensor rows, logits, target, nll;
  int64_t   request[QD_LOGIT_ROWS], n;
} slab;

static qd_status new_slab(scoring *s, slab *out) {
  const qd_model *model = &s->subject->model;
  qd_arena *scratch = &s->subject->device->scratch;
  double *nll;
  int32_t *target;
  out->n = 0;
  QD_TRY(qd_tensor_new_2d(scratch, s->subject->act, QD_LOGIT_ROWS, model->hidden, &out->rows));
  QD_TRY(qd_tensor_new_2d(scratch, QD_F32, QD_LOGIT_ROWS, model->vocabulary, &out->logits));
  QD_TRY(qd_arena_new(scratch, QD_LOGIT_ROWS, sizeof *nll, &nll));
  QD_TRY(qd_arena_new(scratch, QD_LOGIT_ROWS, sizeof *target, &target));
  out->nll = qd_tensor_1d(nll, QD_F64, QD_LOGIT_ROWS);
  out->target = qd_tensor_1d(target, QD_I32, QD_LOGIT_ROWS);
  return QD_OK;
}

static bool is_first_choice(const float *logits, int64_t vocabulary, int32_t target) {
  for (int64_t v = 0; v < vocabulary; v++)
    if (logits[v] > logits[target] || (v < target && logits[v] == logits[target])) return false;
  return true;
}

static qd_status flush(scoring *s, qd_block *rest, slab *b) {
  qd_tensor logits = qd_tensor_rows(b->logits, 0, b->n), target = qd_tensor_rows(b->target, 0, b->n);
  const double *nll = b->nll.data;
  const int32_t *wanted = b->target.data;
  if (b->n == 0) return QD_OK;
  QD_TRY(qd_subject_logits(s->subject, rest, qd_tensor_rows(b->rows, 0, b->n), logits));
  QD_TRY(qd_nll(s->subject->device, logits, target, qd_tensor_rows(b->nll, 0, b->n)));
  for (int64_t i = 0; i < b->n; i++) {
    const float *row = qd_tensor_at(logits, i).data;
    qd_loglikelihood *to = &s->out[b->request[i]];
    to->value -= nll[i];
    to->greedy &= is_first_choice(row, s->subject->model.vocabulary, wanted[i]);
  }
  b->n = 0;
  return QD_OK;
}

/* The predictions of one request, its tokens ascending. */
static qd_status score_request(scoring *s, qd_block *rest, qd_tensor h, int64_t request, slab *b) {
  const qd_request *r = &s->requests->at[request];
  const int32_t *ids = s->requests->ids + r->first;
  int32_t *target = b->target.data;
  s->out[request] = (qd_loglikelihood){0, 1};
  for (int64_t t = r->tokens - r->scored; t < r->tokens; t++) {
    if (b->n == QD_LOGIT_ROWS) QD_TRY(flush(s, rest, b));
    qd_tensor from = qd_tensor_rows(h, t - 1, 1), to = qd_tensor_rows(b->rows, b->n, 1);
    memcpy(to.data, from.data, (size_t)from.dim[1] * qd_dtype_bytes(from.dtype));
    b->request[b->n] = request, target[b->n++] = ids[t];
  }
  return QD_OK;
}

static qd_status score_sequences(scoring *s, qd_block *rest, const sequence *mine, int64_t n, int ranks) {
  size_t mark = qd_arena_mark(&s->subject->device->scratch);
  slab b;
  QD_TRY(new_slab(s, &b));
  for (int64_t i = 0; i < n; i++) {
    qd_tensor h = qd_tensor_at(s->subject->h, i);
    for (int64_t k = 0; k < mine[i * ranks].n; k++) QD_TRY(score_request(s, rest, h, mine[i * ranks].request + k, &b));
  }
  QD_TRY(flush(s, rest, &b));
  qd_arena_rewind(&s->subject->device->scratch, mark);
  return QD_OK;
}

/* ---- batches ------------------------------------------------------------------------------------------------------------- */

/* The sequence at place p is rank p mod ranks's: neighbours are of like length, so that ranks have like work. */
static int64_t count_of(int64_t n, int rank, int ranks) { return n > rank ? (n - rank + ranks - 1) / ranks : 0; }

/* What the process has now, but for arenas that were used before and are planned anew for each batch. */
static size_t program_bytes(const qd_subject *subject) {
  size_t now = (size_t)qd_memory_now().resident, used = subject->block_arena.peak_bytes + subject->device->scratch.peak_bytes;
  return now > used ? now - used : now;
}

static qd_evaluation_sizes sizes_of(const scoring *s, int64_t tokens) {
  qd_comm *comm = s->subject->comm;
  return (qd_evaluation_sizes){.subject = {s->subject, NULL},
                               .device = s->subject->device,
                               .tokens = tokens,
                               .result_bytes = 2 * s->requests->n * sizeof *s->out,
                               .program_bytes = s->program_bytes,
                               .ranks = comm->size,
                               .first_on_node = qd_team_first_on_node(comm)};
}

/* Inputs of this rank's sequences, filled up with the token 0, and their lengths. */
static qd_status gather_inputs(const scoring *s, const sequence *mine, int64_t n, qd_tensor *ids, int64_t **length) {
  int64_t tokens = ids->dim[1];
  int32_t *to;
  QD_TRY(qd_heap_new((size_t)n, sizeof **length, length));
  QD_TRY(qd_heap_new((size_t)(n * tokens), sizeof *to, &to));
  ids->data = to;
  for (int64_t i = 0; i < n; i++) {
    const sequence *one = &mine[i * s->subject->comm->size];
    (*length)[i] = one->tokens;
    memcpy(to + i * tokens, s->requests->ids + s->requests->at[one->request].first, (size_t)one->tokens * sizeof *to);
  }
  return QD_OK;
}

static qd_status run_batch(scoring *s, const sequence *batch, int64_t n_batch) {
  qd_comm *comm = s->subject->comm;
  const sequence *mine = batch + comm->rank;
  int64_t *length = NULL, n = count_of(n_batch, comm->rank, comm->size);
  qd_tensor ids = qd_tensor_2d(NULL, QD_I32, n, batch->tokens);
  qd_block rest;
  qd_status status = qd_agree(comm, gather_inputs(s, mine, n, &ids, &length));
  s->subject->length = length;
  if (status == QD_OK) status = qd_subject_forward(s->subject, ids, &rest);
  if (status == QD_OK) status = qd_agree(comm, score_sequences(s, &rest, mine, n, comm->size));
  qd_subject_forward_done(s->subject);
  s->subject->length = NULL;
  qd_heap_free(length);
  qd_heap_free(ids.data);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

static qd_status run_batches(scoring *s, int64_t max_host_bytes, int64_t *planned_bytes) {
  qd_comm *comm = s->subject->comm;
  for (int64_t done = 0; done < s->n;) {
    const sequence *batch = s->sequence + done;
    qd_evaluation_sizes sizes = sizes_of(s, batch->tokens);
    qd_plan_rank plan;
    QD_TRY(qd_evaluation_choose_windows(&sizes, count_of(s->n - done, 0, comm->size), max_host_bytes, comm));
    qd_evaluation_plan(&sizes, comm->rank, &plan);
    qd_evaluation_log(&sizes, &plan);
    if (*planned_bytes < (int64_t)plan.host_bytes) *planned_bytes = (int64_t)plan.host_bytes;
    QD_TRY_ALL(comm, qd_device_reserve(s->subject->device, qd_evaluation_scratch(&sizes)));
    QD_TRY(qd_subject_reserve(s->subject, sizes.windows, sizes.tokens));
    int64_t n = s->n - done < sizes.windows * comm->size ? s->n - done : sizes.windows * comm->size;
    QD_TRY(run_batch(s, batch, n));
    done += n;
    qd_log("sequences %" PRId64 "/%" PRId64, done, s->n);
  }
  return QD_OK;
}

/* ---- results ------------------------------------------------------------------------------------------------------------- */

/* Results of the sequences of one rank, between their places and a list; returns how many. */
static size_t copy_results(scoring *s, int rank, qd_loglikelihood *list, bool to_list) {
  size_t n = 0;
  for (int64_t p = rank; p < s->n; p += s->subject->comm->size)
    for (int64_t k = 0; k < s->sequence[p].n; k++, n++) {
      qd_loglikelihood *place = &s->out[s->sequence[p].request + k];
      if (to_list) list[n] = *place;
      else if (list != NULL) *place = list[n];
    }
  return n;
}

static qd_status exchange(scoring *s, qd_loglikelihood *list, size_t *bytes) {
  qd_comm *comm = s->subject->comm;
  size_t before = 0;
  for (int r = 0; r < comm->size; r++) bytes[r] = copy_results(s, r, NULL, false) * sizeof *list;
  for (int r = 0; r < comm->rank; r++) before += bytes[r] / sizeof *list;
  copy_results(s, comm->rank, list + before, true);
  QD_TRY(qd_comm_allgatherv(comm, list + before, bytes[comm->rank], list, bytes));
  for (int r = 0; r < comm->size; r++) list += copy_results(s, r, list, false);
  return QD_OK;
}

static qd_status gather_results(scoring *s) {
  qd_loglikelihood *list = NULL;
  size_t *bytes = NULL;
  qd_status status = qd_heap_new(s->requests->n, sizeof *list, &list);
  if (status == QD_OK) status = qd_heap_new((size_t)s->subject->comm->size, sizeof *bytes, &bytes);
  status = qd_agree(s->subject->comm, status);
  if (status == QD_OK) status = exchange(s, list, bytes);
  qd_heap_free(list);
  qd_heap_free(bytes);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

static qd_status check_finite(const scoring *s) {
  for (size_t i = 0; i < s->requests->n; i++)
    QD_CHECK(isfinite(s->out[i].value), QD_ENUMERIC, "%s: a log-likelihood is not a number: its activations overflow",
             s->subject->path);
  return QD_OK;
}

qd_status qd_loglikelihoods(qd_subject *subject, const qd_requests *requests, int64_t max_host_bytes, qd_loglikelihood *out,
                            int64_t *planned_bytes) {
  scoring s = {.subject = subject, .requests = requests, .out = out, .program_bytes = program_bytes(subject)};
  *planned_bytes = 0;
  qd_status status = qd_agree(subject->comm, find_sequences(&s));
  if (status == QD_OK) status = run_batches(&s, max_host_bytes, planned_bytes);
  if (status == QD_OK) status = gather_results(&s);
  if (status == QD_OK) status = qd_agree(subject->comm, check_finite(&s));
  qd_subject_release(subject);
  qd_heap_free(s.sequence);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

/* ---- requests ------------------------------------------------------------------------------------------------------------ */

static qd_status make_room(qd_requests *requests) {
  QD_TRY(qd_heap_new(requests->n, sizeof *requests->at, &requests->at));
  return qd_heap_new(requests->n_ids, sizeof *requests->ids, &requests->ids);
}

qd_status qd_requests_bcast(qd_requests *requests, qd_comm *comm) {
  size_t n[2] = {requests->n, requests->n_ids};
  QD_TRY(qd_comm_bcast(comm, n, sizeof n, 0));
  if (comm->rank != 0) *requests = (qd_requests){.n = n[0], .n_ids = n[1]};
  QD_TRY_ALL(comm, comm->rank == 0 ? QD_OK : make_room(requests));
  QD_TRY(qd_comm_bcast(comm, requests->at, requests->n * sizeof *requests->at, 0));
  return qd_comm_bcast(comm, requests->ids, requests->n_ids * sizeof *requests->ids, 0);
}

void qd_requests_release(qd_requests *requests) {
  qd_heap_free(requests->ids);
  qd_heap_free(requests->at);
  *requests = (qd_requests){0};
}
