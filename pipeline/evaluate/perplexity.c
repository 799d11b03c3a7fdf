#include "pipeline/evaluate/perplexity.h"

#include "kernels/base/heap.h"
#include "kernels/base/log.h"
#include "pipeline/evaluate/evaluation_plan.h"
#include "pipeline/text.h"
#include "workers/agree.h"
#include "workers/partition.h"
#include "workers/team.h"

#include <math.h>
#include <string.h>

static const size_t hidden_bytes_a_rank = (size_t)2 << 30;

/* What is measured of one window: sums over its predictions, positions ascending. */
typedef struct window_sums {
  double  nll, nll_squared, kl, reference_nll;
  int64_t same, count;
} window_sums;

typedef struct evaluation {
  const qd_evaluation_request *request;
  qd_comm     *comm;
  qd_device   *device;
  qd_subject   subject, reference;
  qd_tokens    tokens;
  window_sums *sums; /* a window, in global order */
} evaluation;

const char *qd_ppl_style_name(qd_ppl_style style) { return style == QD_PPL_GPTQ ? "gptq" : "llama.cpp"; }

/* ---- text ---------------------------------------------------------------------------------------------------------------- */

static void put_bos(qd_tokens *tokens, int32_t bos) {
  for (int64_t i = 0; bos >= 0 && i < tokens->rows; i++) tokens->ids[i * tokens->sequence_tokens] = bos;
}

/* Positions from here on predict their next token. */
static int64_t first_scored(const evaluation *e) {
  return e->request->style == QD_PPL_GPTQ ? 0 : e->tokens.sequence_tokens / 2;
}

static qd_status check_predictions(const evaluation *e) {
  QD_CHECK(first_scored(e) < e->tokens.sequence_tokens - 1, QD_EINVAL,
           "--seqlen %" PRId64 " leaves nothing to predict in the style of %s", e->tokens.sequence_tokens,
           qd_ppl_style_name(e->request->style));
  return QD_OK;
}

static qd_status load_text(evaluation *e) {
  const qd_evaluation_request *r = e->request;
  qd_tokenizer *tokenizer;
  qd_tokens_request request = {.dataset = r->dataset,
                               .use = QD_TOKENS_EVALUATION,
                               .rows = r->max_windows,
                               .sequence_tokens = r->sequence_tokens,
                               .seed = r->seed,
                               .bos = r->bos,
                               .pack = r->pack,
                               .vocabulary = e->subject.model.vocabulary};
  QD_TRY(qd_text_load(e->comm, r->model, &e->subject.model, &request, &e->tokens, &tokenizer));
  int32_t bos = tokenizer != NULL && qd_tokenizer_adds_bos(tokenizer) ? qd_tokenizer_bos(tokenizer) : -1;
  qd_tokenizer_close(tokenizer);
  QD_TRY(qd_comm_bcast(e->comm, &bos, sizeof bos, 0));
  if (r->style == QD_PPL_LLAMA_CPP) put_bos(&e->tokens, bos);
  return qd_agree(e->comm, check_predictions(e));
}

static qd_status check_vocabularies(const evaluation *e) {
  QD_CHECK(e->reference.model.vocabulary == e->subject.model.vocabulary, QD_EBADINPUT,
           "the reference %s has a vocabulary of %" PRId64 ", %s one of %" PRId64, e->request->reference,
           e->reference.model.vocabulary, e->request->model, e->subject.model.vocabulary);
  return QD_OK;
}

static qd_status open_models(evaluation *e) {
  QD_TRY(qd_subject_open(&e->subject, e->request->model, e->request->compute, e->comm, e->device));
  e->subject.readers = e->request->readers;
  if (e->request->reference == NULL) return QD_OK;
  QD_TRY(qd_subject_open(&e->reference, e->request->reference, e->request->compute, e->comm, e->device));
  e->reference.readers = e->request->readers;
  return qd_agree(e->comm, check_vocabularies(e));
}

/* ---- scoring ------------------------------------------------------------------------------------------------------------- */

/* Rows [first, first + n) of a window predict the tokens behind them. */
typedef struct slab {
  qd_tensor logits, reference_logits, target, nll, kl, same;
} slab;

static qd_status new_slab(evaluation *e, slab *s) {
  qd_arena *scratch = &e->device->scratch;
  int64_t vocabulary = e->subject.model.vocabulary;
  QD_TRY(qd_tensor_new_2d(scratch, QD_F32, QD_LOGIT_ROWS, vocabulary, &s->logits));
  if (e->request->reference != NULL) QD_TRY(qd_tensor_new_2d(scratch, QD_F32, QD_LOGIT_ROWS, vocabulary, &s->reference_logits));
  double *doubles;
  int32_t *integers;
  QD_TRY(qd_arena_new(scratch, 2 * QD_LOGIT_ROWS, sizeof *doubles, &doubles));
  QD_TRY(qd_arena_new(scratch, 2 * QD_LOGIT_ROWS, sizeof *integers, &integers));
  s->nll = qd_tensor_1d(doubles, QD_F64, QD_LOGIT_ROWS);
  s->kl = qd_tensor_1d(doubles + QD_LOGIT_ROWS, QD_F64, QD_LOGIT_ROWS);
  s->target = qd_tensor_1d(integers, QD_I32, QD_LOGIT_ROWS);
  s->same = qd_tensor_1d(integers + QD_LOGIT_ROWS, QD_I32, QD_LOGIT_ROWS);
  return QD_OK;
}

static qd_status compare_slab(evaluation *e, qd_block *reference_rest, qd_tensor rows, slab s, int64_t n, window_sums *sums) {
  const double *nll = s.nll.data, *kl = s.kl.data;
  const int32_t *same = s.same.data;
  qd_tensor reference = qd_tensor_rows(s.reference_logits, 0, n);
  QD_TRY(qd_subject_logits(&e->reference, reference_rest, rows, reference));
  QD_TRY(qd_nll(e->device, reference, qd_tensor_rows(s.target, 0, n), qd_tensor_rows(s.nll, 0, n)));
  QD_TRY(qd_kl(e->device, reference, qd_tensor_rows(s.logits, 0, n), qd_tensor_rows(s.kl, 0, n), qd_tensor_rows(s.same, 0, n)));
  for (int64_t i = 0; i < n; i++) sums->reference_nll += nll[i], sums->kl += kl[i], sums->same += same[i];
  return QD_OK;
}

static qd_status score_rows(evaluation *e, qd_block *rest, qd_block *reference_rest, int64_t local, int64_t window,
                            int64_t first, int64_t n, slab s) {
  window_sums *sums = &e->sums[window];
  const double *nll = s.nll.data;
  qd_tensor logits = qd_tensor_rows(s.logits, 0, n), target = qd_tensor_rows(s.target, 0, n);
  memcpy(target.data, e->tokens.ids + window * e->tokens.sequence_tokens + first + 1, (size_t)n * sizeof(int32_t));
  QD_TRY(qd_subject_logits(&e->subject, rest, qd_tensor_rows(qd_tensor_at(e->subject.h, local), first, n), logits));
  QD_TRY(qd_nll(e->device, logits, target, qd_tensor_rows(s.nll, 0, n)));
  for (int64_t i = 0; i < n; i++) sums->nll += nll[i], sums->nll_squared += nll[i] * nll[i];
  sums->count += n;
  if (e->request->reference == NULL) return QD_OK;
  return compare_slab(e, reference_rest, qd_tensor_rows(qd_tensor_at(e->reference.h, local), first, n), s, n, sums);
}

static qd_status score_windows(evaluation *e, qd_block *rest, qd_block *reference_rest, qd_range mine) {
  int64_t tokens = e->tokens.sequence_tokens;
  size_t mark = qd_arena_mark(&e->device->scratch);
  slab s;
  QD_TRY(new_slab(e, &s));
  for (int64_t local = 0; local < mine.n; local++)
    for (int64_t first = first_scored(e); first < tokens - 1; first += QD_LOGIT_ROWS) {
      int64_t n = tokens - 1 - first < QD_LOGIT_ROWS ? tokens - 1 - first : QD_LOGIT_ROWS;
      QD_TRY(score_rows(e, rest, reference_rest, local, mine.first + local, first, n, s));
    }
  qd_arena_rewind(&e->device->scratch, mark);
  return QD_OK;
}

/* ---- batches of windows -------------------------------------------------------------------------------------------------- */

static qd_status gather_sums(evaluation *e, qd_range batch) {
  size_t *bytes;
  QD_TRY(qd_heap_new((size_t)e->comm->size, sizeof *bytes, &bytes));
  for (int r = 0; r < e->comm->size; r++) bytes[r] = (size_t)qd_partition_even(batch.n, r, e->comm->size).n * sizeof *e->sums;
  qd_range mine = qd_partition_even(batch.n, e->comm->rank, e->comm->size);
  window_sums *all = e->sums + batch.first;
  qd_status status = qd_comm_allgatherv(e->comm, all + mine.first, bytes[e->comm->rank], all, bytes);
  qd_heap_free(bytes);
  return status;
}

static qd_status evaluate_batch(evaluation *e, qd_range batch) {
  qd_block rest, reference_rest = {0};
  qd_range mine = qd_partition_even(batch.n, e->comm->rank, e->comm->size);
  mine.first += batch.first;
  qd_tensor ids =
      qd_tensor_2d(e->tokens.ids + mine.first * e->tokens.sequence_tokens, QD_I32, mine.n, e->tokens.sequence_tokens);
  if (e->request->reference != NULL) QD_TRY(qd_subject_forward(&e->reference, ids, &reference_rest));
  QD_TRY(qd_subject_forward(&e->subject, ids, &rest));
  QD_TRY(qd_agree(e->comm, score_windows(e, &rest, &reference_rest, mine)));
  qd_subject_forward_done(&e->subject);
  if (e->request->reference != NULL) qd_subject_forward_done(&e->reference);
  return gather_sums(e, batch);
}

static void report_batch(const evaluation *e, int64_t done) {
  double nll = 0;
  int64_t count = 0;
  for (int64_t w = 0; w < done; w++) nll += e->sums[w].nll, count += e->sums[w].count;
  qd_log("windows %" PRId64 "/%" PRId64 "  perplexity so far %.4f", done, e->tokens.rows, exp(nll / (double)count));
}

static qd_evaluation_sizes sizes_of(const evaluation *e, int64_t windows) {
  return (qd_evaluation_sizes){.subject = {&e->subject, e->request->reference != NULL ? &e->reference : NULL},
                               .device = e->device,
                               .tokens = e->tokens.sequence_tokens,
                               .windows = windows,
                               .result_bytes = (size_t)e->tokens.rows * sizeof *e->sums,
                               .ranks = e->comm->size,
                               .first_on_node = qd_team_first_on_node(e->comm)};
}

/* As many windows as fit into memory, as all ranks have it: the fewer at a time, the more often the model is read. */
static qd_status choose_windows(evaluation *e, int64_t *windows) {
  int on_node = qd_team_ranks_on_node(e->comm);
  qd_plan_place place = {.rank = e->comm->rank, .ranks_on_node = on_node, .running = on_node};
  int64_t most = (e->tokens.rows + e->comm->size - 1) / e->comm->size;
  *windows = (int64_t)(hidden_bytes_a_rank / qd_subject_window_bytes(&e->subject, e->tokens.sequence_tokens));
  *windows = *windows > most ? most : *windows < 1 ? 1 : *windows;
  for (;; *windows = (*windows + 1) / 2) {
    qd_evaluation_sizes sizes = sizes_of(e, *windows);
    qd_status fits, status = qd_evaluation_check(&sizes, e->request->max_host_bytes, place);
    if (*windows == 1) return qd_agree(e->comm, status);
    QD_TRY(qd_agree_on(e->comm, status, &fits));
    if (fits == QD_OK) return QD_OK;
  }
}

static void report_plan(const evaluation *e, int64_t windows, qd_plan_rank *plan) {
  char memory[32];
  qd_evaluation_sizes sizes = sizes_of(e, windows);
  qd_evaluation_plan(&sizes, e->comm->rank, plan);
  qd_size_text((double)plan->host_bytes, memory, sizeof memory);
  qd_log("plan: %s of memory on rank 0, %" PRId64 " window%s at a time on a rank", memory, windows, windows == 1 ? "" : "s");
}

static qd_status evaluate_windows(evaluation *e, qd_plan_rank *plan) {
  int64_t tokens = e->tokens.sequence_tokens, a_rank;
  QD_TRY(choose_windows(e, &a_rank));
  report_plan(e, a_rank, plan);
  qd_evaluation_sizes sizes = sizes_of(e, a_rank);
  QD_TRY_ALL(e->comm, qd_device_reserve(e->device, qd_evaluation_scratch(&sizes)));
  QD_TRY(qd_subject_reserve(&e->subject, a_rank, tokens));
  if (e->request->reference != NULL) QD_TRY(qd_subject_reserve(&e->reference, a_rank, tokens));
  for (int64_t first = 0; first < e->tokens.rows; first += a_rank * e->comm->size) {
    int64_t n = e->tokens.rows - first < a_rank * e->comm->size ? e->tokens.rows - first : a_rank * e->comm->size;
    QD_TRY(evaluate_batch(e, (qd_range){first, n}));
    report_batch(e, first + n);
  }
  return QD_OK;
}

static void summarize(const evaluation *e, qd_evaluation *out) {
  double squared = 0, kl = 0, reference = 0, window_means = 0;
  int64_t same = 0;
  out->windows = e->tokens.rows;
  for (int64_t w = 0; w < e->tokens.rows; w++) {
    const window_sums *s = &e->sums[w];
    window_means += s->nll / (double)s->count;
    squared += s->nll_squared, kl += s->kl, reference += s->reference_nll, same += s->same, out->tokens += s->count;
  }
  double count = (double)out->tokens;
  out->mean_nll = window_means / (double)out->windows;
  out->perplexity = exp(out->mean_nll);
  double variance = squared / count - out->mean_nll * out->mean_nll;
  out->standard_error = count > 1 && variance > 0 ? out->perplexity * sqrt(variance / (count - 1)) : 0;
  out->has_reference = e->request->reference != NULL;
  out->kl_mean = kl / count, out->top1_agreement = (double)same / count, out->reference_mean_nll = reference / count;
  out->arithmetic = e->subject.arithmetic;
}

/* Weights are finite where a block is read; activations may still pass what fp32 holds. */
static qd_status check_finite(const evaluation *e, const qd_evaluation *result) {
  QD_CHECK(isfinite(result->mean_nll), QD_ENUMERIC, "%s: the perplexity is not a number: its activations overflow",
           e->request->model);
  return QD_OK;
}

static qd_status evaluate(evaluation *e, qd_evaluation *out) {
  QD_TRY(open_models(e));
  QD_TRY(load_text(e));
  QD_TRY_ALL(e->comm, qd_heap_new((size_t)e->tokens.rows, sizeof *e->sums, &e->sums));
  qd_plan_rank plan;
  QD_TRY(evaluate_windows(e, &plan));
  summarize(e, out);
  out->planned_bytes = (int64_t)plan.host_bytes;
  QD_TRY_ALL(e->comm, check_finite(e, out));
  return QD_OK;
}

qd_status qd_evaluate(const qd_evaluation_request *request, qd_comm *comm, qd_device *device, qd_evaluation *out) {
  double start = qd_seconds();
  evaluation e = {.request = request, .comm = comm, .device = device};
  *out = (qd_evaluation){0};
  qd_status status = evaluate(&e, out);
  qd_subject_close(&e.subject);
  if (request->reference != NULL) qd_subject_close(&e.reference);
  qd_tokens_release(&e.tokens);
  qd_heap_free(e.sums);
  out->peak_bytes = qd_memory_now().peak;
  out->seconds = qd_seconds() - start;
  return status;
}
