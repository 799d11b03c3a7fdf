#include "pipeline/evaluate/perplexity.h"

#include "kernels/base/heap.h"
#include "kernels/base/log.h"
#include "kernels/vecmath.h"
#include "pipeline/evaluate/evaluation_plan.h"
#include "pipeline/text.h"
#include "workers/agree.h"
#include "workers/partition.h"
#include "workers/team.h"

#include <math.h>
#include <string.h>

typedef struct evaluation {
  const qd_evaluation_request *request;
  qd_comm     *comm;
  qd_device   *device;
  qd_subject   subject, reference;
  qd_tokens    tokens;
  qd_prediction *prediction; /* (windows, predictions of each), in global order */
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

static int64_t predictions_a_window(const evaluation *e) { return e->tokens.sequence_tokens - 1 - first_scored(e); }

static bool has_reference(const evaluation *e) { return e->request->reference != NULL; }

static qd_status check_predictions(const evaluation *e) {
  QD_CHECK(!has_reference(e) || e->tokens.sequence_tokens <= e->reference.model.max_positions, QD_EINVAL,
           "--seqlen %" PRId64 " is more than the reference's %" PRId64 " positions (max_position_embeddings)",
           e->tokens.sequence_tokens, e->reference.model.max_positions);
  QD_CHECK(predictions_a_window(e) > 0, QD_EINVAL,
           "--seqlen %" PRId64 " leaves nothing to predict in the style of %s", e->tokens.sequence_tokens,
           qd_ppl_style_name(e->request->style));
  return QD_OK;
}

/* 0: what is usual for a text. */
static int64_t window_tokens(const evaluation *e) {
  enum { LLAMA_CPP_TOKENS = 512 };
  int64_t positions = e->subject.model.max_positions;
  if (e->request->sequence_tokens > 0 || e->request->style == QD_PPL_GPTQ) return e->request->sequence_tokens;
  return positions < LLAMA_CPP_TOKENS ? positions : LLAMA_CPP_TOKENS;
}

/* A wrong number of lines means other windows than those of published figures. */
static void report_text(const evaluation *e) {
  enum { TRAIN_ROWS = 36718, VALIDATION_ROWS = 3760, TEST_ROWS = 4358 };
  const qd_tokens *t = &e->tokens;
  qd_log("text: %s:%s, %" PRId64 " tokens, %" PRId64 " windows of %" PRId64, qd_text_kind_name(t->kind),
         t->path != NULL ? t->path : "", t->text_tokens, t->rows, t->sequence_tokens);
  bool whole = t->text_rows == TRAIN_ROWS || t->text_rows == VALIDATION_ROWS || t->text_rows == TEST_ROWS;
  if (t->kind == QD_TEXT_WIKITEXT2 && !whole)
    qd_log_warning("wikitext2: %" PRId64 " lines are none of WikiText-2's splits (raw: test %d, validation %d, train %d): the "
                   "figure compares with no published one", t->text_rows, TEST_ROWS, VALIDATION_ROWS, TRAIN_ROWS);
}

static qd_status spell_alike(const qd_tokenizer *own, const qd_tokenizer *other, const int32_t *ids, size_t n, bool *out) {
  char *text = NULL, *other_text = NULL;
  qd_status status = qd_tokenizer_decode(own, ids, n, &text);
  if (status == QD_OK) status = qd_tokenizer_decode(other, ids, n, &other_text);
  *out = status == QD_OK && strcmp(text, other_text) == 0;
  qd_heap_free(text);
  qd_heap_free(other_text);
  return status;
}

/* On rank 0.  As many tokens are not the same tokens: what they mean is compared, as it is no error where only the spelling of
 * special ones differs. */
static void compare_tokenizers(const evaluation *e, const qd_tokenizer *own) {
  qd_tokenizer *other = NULL;
  bool alike = true;
  qd_status status = own != NULL && has_reference(e) ? qd_tokenizer_open(e->request->reference, &other) : QD_ENOTFOUND;
  for (int64_t i = 0; i < e->tokens.rows && alike && status == QD_OK; i++)
    status = spell_alike(own, other, e->tokens.ids + i * e->tokens.sequence_tokens, (size_t)e->tokens.sequence_tokens, &alike);
  if (status == QD_OK && !alike)
    qd_log_warning("the tokenizer of the reference %s gives other texts for the same tokens: the divergence is that of another "
                   "text", e->request->reference);
  qd_tokenizer_close(other);
  qd_error_clear();
}

static qd_status load_text(evaluation *e) {
  const qd_evaluation_request *r = e->request;
  qd_tokenizer *tokenizer;
  qd_tokens_request request = {.dataset = r->dataset,
                               .use = QD_TOKENS_EVALUATION,
                               .rows = r->max_windows,
                               .sequence_tokens = window_tokens(e),
                               .seed = r->seed,
                               .bos = r->bos,
                               .pack = r->pack,
                               .llama_cpp = r->style == QD_PPL_LLAMA_CPP,
                               .vocabulary = e->subject.model.vocabulary};
  QD_TRY(qd_text_load(e->comm, r->model, &e->subject.model, &request, &e->tokens, &tokenizer));
  int32_t bos = tokenizer != NULL && qd_tokenizer_adds_bos(tokenizer) ? qd_tokenizer_bos(tokenizer) : -1;
  if (e->comm->rank == 0) compare_tokenizers(e, tokenizer);
  qd_tokenizer_close(tokenizer);
  QD_TRY(qd_comm_bcast(e->comm, &bos, sizeof bos, 0));
  if (r->style == QD_PPL_LLAMA_CPP) put_bos(&e->tokens, bos);
  report_text(e);
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
  if (e->request->reference == NULL || e->request->dataset == NULL) return QD_OK;
  qd_compute compute = e->request->compute == QD_COMPUTE_INT8 ? e->request->reference_compute : e->request->compute;
  QD_TRY(qd_subject_open(&e->reference, e->request->reference, compute, e->comm, e->device));
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

static qd_status compare_slab(evaluation *e, qd_block *reference_rest, qd_tensor rows, slab s, int64_t n, qd_prediction *to) {
  const double *nll = s.nll.data, *kl = s.kl.data;
  const int32_t *same = s.same.data;
  qd_tensor reference = qd_tensor_rows(s.reference_logits, 0, n);
  QD_TRY(qd_subject_logits(&e->reference, reference_rest, rows, reference));
  QD_TRY(qd_nll(e->device, reference, qd_tensor_rows(s.target, 0, n), qd_tensor_rows(s.nll, 0, n)));
  QD_TRY(qd_kl(e->device, reference, qd_tensor_rows(s.logits, 0, n), qd_tensor_rows(s.kl, 0, n), qd_tensor_rows(s.same, 0, n)));
  for (int64_t i = 0; i < n; i++) to[i].reference_nll = nll[i], to[i].kl = kl[i], to[i].same = same[i];
  return QD_OK;
}

static qd_status score_rows(evaluation *e, qd_block *rest, qd_block *reference_rest, int64_t local, int64_t window,
                            int64_t first, int64_t n, slab s) {
  qd_prediction *to = e->prediction + window * predictions_a_window(e) + first - first_scored(e);
  const double *nll = s.nll.data;
  qd_tensor logits = qd_tensor_rows(s.logits, 0, n), target = qd_tensor_rows(s.target, 0, n);
  memcpy(target.data, e->tokens.ids + window * e->tokens.sequence_tokens + first + 1, (size_t)n * sizeof(int32_t));
  QD_TRY(qd_subject_logits(&e->subject, rest, qd_tensor_rows(qd_tensor_at(e->subject.h, local), first, n), logits));
  QD_TRY(qd_nll(e->device, logits, target, qd_tensor_rows(s.nll, 0, n)));
  for (int64_t i = 0; i < n; i++) to[i].nll = nll[i];
  if (e->request->reference == NULL) return QD_OK;
  return compare_slab(e, reference_rest, qd_tensor_rows(qd_tensor_at(e->reference.h, local), first, n), s, n, to);
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

static size_t window_bytes(const evaluation *e) { return (size_t)predictions_a_window(e) * sizeof *e->prediction; }

static qd_status gather_predictions(evaluation *e, qd_range batch) {
  size_t *bytes;
  QD_TRY(qd_heap_new((size_t)e->comm->size, sizeof *bytes, &bytes));
  for (int r = 0; r < e->comm->size; r++) bytes[r] = (size_t)qd_partition_even(batch.n, r, e->comm->size).n * window_bytes(e);
  qd_range mine = qd_partition_even(batch.n, e->comm->rank, e->comm->size);
  qd_prediction *all = e->prediction + batch.first * predictions_a_window(e);
  qd_status status =
      qd_comm_allgatherv(e->comm, all + mine.first * predictions_a_window(e), bytes[e->comm->rank], all, bytes);
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
  return gather_predictions(e, batch);
}

/* Of one window: sums over its predictions, positions ascending. */
typedef struct window_sums { double nll, squared, reference; } window_sums;

static window_sums sums_of(const evaluation *e, int64_t window) {
  window_sums s = {0};
  const qd_prediction *p = e->prediction + window * predictions_a_window(e);
  for (int64_t i = 0; i < predictions_a_window(e); i++)
    s.nll += p[i].nll, s.squared += p[i].nll * p[i].nll, s.reference += p[i].reference_nll;
  return s;
}

static void report_batch(const evaluation *e, int64_t done) {
  double nll = 0;
  for (int64_t w = 0; w < done; w++) nll += sums_of(e, w).nll;
  qd_log("windows %" PRId64 "/%" PRId64 "  perplexity so far %.4f", done, e->tokens.rows,
         qd_vm_exp(nll / (double)(done * predictions_a_window(e))));
}

static qd_evaluation_sizes sizes_of(const evaluation *e) {
  return (qd_evaluation_sizes){.subject = {&e->subject, e->request->reference != NULL ? &e->reference : NULL},
                               .device = e->device,
                               .tokens = e->tokens.sequence_tokens,
                               .result_bytes = (size_t)e->tokens.rows * window_bytes(e) * (e->request->reference ? 2 : 1),
                               .ranks = e->comm->size,
                               .first_on_node = qd_team_first_on_node(e->comm)};
}

static qd_status evaluate_windows(evaluation *e, qd_plan_rank *plan) {
  int64_t tokens = e->tokens.sequence_tokens, ranks = e->comm->size;
  qd_evaluation_sizes sizes = sizes_of(e);
  QD_TRY(qd_evaluation_choose_windows(&sizes, (e->tokens.rows + ranks - 1) / ranks, e->request->max_host_bytes, e->comm));
  qd_evaluation_plan(&sizes, e->comm->rank, plan);
  qd_evaluation_log(&sizes, plan);
  int64_t a_rank = sizes.windows;
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

static qd_status summarize(const evaluation *e, qd_evaluation *out) {
  double squared = 0, reference = 0, window_means = 0;
  int64_t a_window = predictions_a_window(e);
  out->windows = e->tokens.rows, out->tokens = out->windows * a_window;
  out->sequence_tokens = e->tokens.sequence_tokens, out->text_tokens = e->tokens.text_tokens;
  out->text_rows = e->tokens.text_rows, out->text_kind = e->tokens.kind;
  for (int64_t w = 0; w < e->tokens.rows; w++) {
    window_sums s = sums_of(e, w);
    window_means += s.nll / (double)a_window;
    squared += s.squared, reference += s.reference;
  }
  double count = (double)out->tokens;
  out->mean_nll = window_means / (double)out->windows;
  out->perplexity = qd_vm_exp(out->mean_nll);
  out->standard_error = out->perplexity * qd_mean_of(out->mean_nll * count, squared, out->tokens).error;
  out->reference_mean_nll = reference / count;
  if (!out->has_reference) return QD_OK;
  return qd_divergence_of(e->prediction, out->windows, a_window, &out->divergence);
}

/* Weights are finite where a block is read; activations may still pass what fp32 holds. */
static qd_status check_finite(const evaluation *e, const qd_evaluation *result) {
  QD_CHECK(isfinite(result->mean_nll), QD_ENUMERIC, "%s: the perplexity is not a number: its activations overflow",
           e->request->model);
  return QD_OK;
}

static qd_status evaluate_text(evaluation *e, qd_evaluation *out) {
  qd_plan_rank plan;
  QD_TRY(load_text(e));
  QD_TRY_ALL(e->comm, qd_heap_new((size_t)e->tokens.rows, window_bytes(e), &e->prediction));
  QD_TRY(evaluate_windows(e, &plan));
  QD_TRY_ALL(e->comm, summarize(e, out));
  out->planned_bytes = (int64_t)plan.host_bytes;
  return qd_agree(e->comm, check_finite(e, out));
}

static qd_status evaluate(evaluation *e, qd_evaluation *out) {
  QD_TRY(open_models(e));
  out->arithmetic = e->subject.arithmetic, out->reference_arithmetic = e->reference.arithmetic;
  out->has_text = e->request->dataset != NULL;
  out->has_reference = out->has_text && e->request->reference != NULL;
  if (out->has_text) QD_TRY(evaluate_text(e, out));
  if (e->request->tasks.tasks == NULL) return QD_OK;
  qd_subject_release(&e->subject);
  qd_subject_release(&e->reference);
  QD_TRY(qd_tasks_run(&e->subject, &e->request->tasks, e->request->max_host_bytes, &out->tasks));
  if (out->planned_bytes < out->tasks.planned_bytes) out->planned_bytes = out->tasks.planned_bytes;
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
  qd_heap_free(e.prediction);
  out->peak_bytes = qd_memory_now().peak;
  out->seconds = qd_seconds() - start;
  return status;
}

void qd_evaluation_release(qd_evaluation *result) { qd_task_scores_release(&result->tasks); }
