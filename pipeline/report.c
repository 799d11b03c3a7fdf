#include "pipeline/report.h"

#include "kernels/base/log.h"
#include "pipeline/stages.h"

#include <math.h>
#include <string.h>

enum { LOGIT_ROWS = 128, N_STREAMS = 2 };

/* Of one sequence, positions ascending. */
typedef struct qd_report_sums {
  double kl, difference, norm;
} qd_report_sums;

static int64_t positions_of(const qd_job *job, int64_t tokens) {
  return job->kl_positions < tokens ? job->kl_positions : tokens;
}

static int64_t slab_of(int64_t positions) { return positions < LOGIT_ROWS ? positions : LOGIT_ROWS; }

/* ---- opening ------------------------------------------------------------------------------------------------------------- */

size_t qd_report_bytes(const qd_plan_request *r, int64_t sequences) {
  if (r->job->kl_positions == 0 || r->sequences == 0) return 0;
  size_t sums = qd_arena_cost((size_t)r->sequences, sizeof(qd_report_sums));
  if (sequences == 0) return sums;
  size_t element = qd_dtype_bytes(r->act), hidden = (size_t)r->model->hidden, vocabulary = (size_t)r->model->vocabulary;
  size_t positions = (size_t)positions_of(r->job, r->tokens), slab = (size_t)slab_of((int64_t)positions);
  return sums + qd_arena_cost(vocabulary * hidden, element) + qd_arena_cost(hidden, sizeof(float)) +
         N_STREAMS * (qd_arena_cost(positions * hidden, element) + qd_arena_cost(slab * vocabulary, sizeof(float))) +
         qd_arena_cost(slab, sizeof(double)) + qd_arena_cost(slab, sizeof(int32_t)) +
         qd_arena_cost((size_t)r->tokens * hidden, sizeof(float)) + qd_arena_cost(3 * hidden, sizeof(double));
}

/* What is computed with as it came would go with its image. */
static qd_status keep_weight(qd_weight *weight, qd_arena *arena) {
  const void *from = weight->compute.data;
  if (from != weight->original.data) return QD_OK;
  QD_TRY(qd_arena_new(arena, qd_tensor_bytes(weight->compute), 1, &weight->compute.data));
  memcpy(weight->compute.data, from, qd_tensor_bytes(weight->compute));
  return QD_OK;
}

static qd_status take_head(qd_run *run) {
  qd_report *report = &run->report;
  QD_TRY(qd_block_check_finite(&report->head, run->device, run->job->model));
  if (run->mine.n == 0) return QD_OK;
  QD_TRY(qd_block_prepare(&report->head, run->act, &report->arena));
  for (int i = 0; i < report->head.n; i++) QD_TRY(keep_weight(&report->head.weight[i], &report->arena));
  return QD_OK;
}

/* The last item of a feed of the original model. */
static qd_status read_head(qd_run *run) {
  qd_feed feed = {.model = &run->model, .source = run->source, .next = run->model.n_blocks + 1, .readers = run->job->readers};
  QD_TRY(qd_feed_open(&feed, run->comm));
  qd_block *head = &run->report.head;
  qd_status status = qd_feed_next(&feed, head);
  if (status == QD_OK) { /* the feed's weights go with it */
    memcpy(run->report.head_weight, head->weight, (size_t)head->n * sizeof *head->weight);
    head->weight = run->report.head_weight;
  }
  if (status == QD_OK) status = qd_agree(run->comm, take_head(run));
  qd_feed_close(&feed);
  return status;
}

static qd_status new_rows(qd_run *run) {
  qd_report *report = &run->report;
  int64_t positions = positions_of(run->job, run->tokens.sequence_tokens), slab = slab_of(positions),
          hidden = run->model.hidden;
  for (int s = 0; s < N_STREAMS; s++) {
    QD_TRY(qd_tensor_new_2d(&report->arena, run->act, positions, hidden, &report->rows[s]));
    QD_TRY(qd_tensor_new_2d(&report->arena, QD_F32, slab, run->model.vocabulary, &report->logits[s]));
  }
  report->kl = qd_tensor_1d(NULL, QD_F64, slab), report->same = qd_tensor_1d(NULL, QD_I32, slab);
  QD_TRY(qd_arena_new(&report->arena, (size_t)slab, sizeof(double), &report->kl.data));
  QD_TRY(qd_arena_new(&report->arena, (size_t)slab, sizeof(int32_t), &report->same.data));
  QD_TRY(qd_tensor_new_2d(&report->arena, QD_F32, run->tokens.sequence_tokens, hidden, &report->difference));
  return qd_tensor_new_2d(&report->arena, QD_F64, 3, hidden, &report->stats);
}

static qd_status open_arena(qd_run *run, size_t bytes) {
  qd_report *report = &run->report;
  QD_TRY(qd_arena_open(&report->arena, "report", bytes));
  QD_TRY(qd_arena_new(&report->arena, (size_t)run->tokens.rows, sizeof *report->sums, &report->sums));
  return run->mine.n > 0 ? new_rows(run) : QD_OK;
}

static bool is_asked_for(const qd_run *run) { return run->job->kl_positions > 0 && qd_run_calibrates(run); }

qd_status qd_report_open(qd_run *run, size_t arena_bytes) {
  if (!is_asked_for(run)) return QD_OK;
  QD_TRY_ALL(run->comm, open_arena(run, arena_bytes));
  return read_head(run);
}

void qd_report_close(qd_report *report) {
  qd_arena_close(&report->arena);
  *report = (qd_report){0};
}

/* ---- one sequence -------------------------------------------------------------------------------------------------------- */

/* The residual stream at the chosen positions, normed for the head. */
static qd_status take_rows(qd_run *run, qd_tensor h, qd_tensor rows) {
  int64_t positions = rows.dim[0], tokens = h.dim[0];
  size_t bytes = (size_t)h.dim[1] * qd_dtype_bytes(h.dtype);
  for (int64_t i = 0; i < positions; i++) {
    int64_t t = (i + 1) * tokens / positions - 1;
    memcpy((unsigned char *)rows.data + (size_t)i * bytes, (const unsigned char *)h.data + (size_t)t * bytes, bytes);
  }
  return qd_decoder_final_norm(&run->decoder, &run->report.head, rows);
}

static qd_status divergence(qd_run *run, qd_report_sums *sums) {
  qd_report *report = &run->report;
  int64_t positions = report->rows[0].dim[0], slab = report->kl.dim[0];
  const double *kl = report->kl.data;
  for (int64_t first = 0; first < positions; first += slab) {
    int64_t n = positions - first < slab ? positions - first : slab;
    qd_tensor logits[N_STREAMS];
    for (int s = 0; s < N_STREAMS; s++) {
      logits[s] = qd_tensor_rows(report->logits[s], 0, n);
      QD_TRY(qd_decoder_logits(&run->decoder, &report->head, qd_tensor_rows(report->rows[s], first, n), logits[s]));
    }
    QD_TRY(qd_kl(run->device, logits[0], logits[1], qd_tensor_rows(report->kl, 0, n), qd_tensor_rows(report->same, 0, n)));
    for (int64_t i = 0; i < n; i++) sums->kl += kl[i];
  }
  return QD_OK;
}

static qd_status square_of(qd_run *run, qd_tensor x, double *out) {
  qd_tensor stats = run->report.stats;
  QD_TRY(qd_colstats(run->device, x, stats));
  const double *squares = (const double *)stats.data + stats.dim[1];
  for (int64_t c = 0; c < stats.dim[1]; c++) *out += squares[c];
  return QD_OK;
}

static qd_status measure_sequence(qd_run *run, qd_tensor original, qd_tensor quantized, qd_report_sums *sums) {
  qd_report *report = &run->report;
  *sums = (qd_report_sums){0};
  QD_TRY(qd_subtract(run->device, original, quantized, report->difference));
  QD_TRY(square_of(run, report->difference, &sums->difference));
  QD_TRY(square_of(run, original, &sums->norm));
  QD_TRY(take_rows(run, original, report->rows[0]));
  QD_TRY(take_rows(run, quantized, report->rows[1]));
  return divergence(run, sums);
}

/* ---- a block ------------------------------------------------------------------------------------------------------------- */

static qd_status measure_mine(qd_run *run) {
  qd_acts_window original, quantized;
  qd_acts_begin(&run->acts.original, (qd_acts_use){.reads_h = true});
  qd_acts_begin(&run->acts.quantized, (qd_acts_use){.reads_h = true});
  for (;;) {
    QD_TRY(qd_acts_next(&run->acts.original, &original));
    QD_TRY(qd_acts_next(&run->acts.quantized, &quantized));
    if (original.n == 0) return QD_OK;
    for (int64_t i = 0; i < original.n; i++)
      QD_TRY(measure_sequence(run, qd_tensor_at(original.h, i), qd_tensor_at(quantized.h, i),
                              &run->report.sums[run->mine.first + original.first + i]));
  }
}

static void add_up(qd_run *run) {
  qd_report_sums total = {0};
  for (int64_t s = 0; s < run->tokens.rows; s++) {
    const qd_report_sums *sums = &run->report.sums[s];
    total.kl += sums->kl, total.difference += sums->difference, total.norm += sums->norm;
  }
  int64_t positions = run->tokens.rows * positions_of(run->job, run->tokens.sequence_tokens);
  run->report.block = (qd_block_report){.kl = total.kl / (double)positions,
                                        .positions = positions,
                                        .stream_error = total.norm > 0 ? total.difference / total.norm : 0};
  run->report.measured = true;
}

static qd_status check_finite(const qd_block_report *report, int64_t block) {
  QD_CHECK(isfinite(report->kl) && isfinite(report->stream_error), QD_ENUMERIC,
           "block %" PRId64 ": the divergence from the original model is not finite: activations overflow", block);
  return QD_OK;
}

qd_status qd_report_block(qd_run *run, int64_t block) {
  if (!is_asked_for(run)) return QD_OK;
  qd_moment begin = qd_times_begin(run);
  QD_TRY_ALL(run->comm, measure_mine(run));
  QD_TRY(qd_units_gather(run, run->report.sums, sizeof *run->report.sums));
  add_up(run);
  const qd_block_report *report = &run->report.block;
  QD_TRY_ALL(run->comm, check_finite(report, block));
  qd_times_end(run, begin, QD_TIME_REPORT);
  qd_log("  block %4" PRId64 "  next-token KL %.6g nats over %" PRId64 " positions, relative error of the residual stream %.6g",
         block, report->kl, report->positions, report->stream_error);
  return QD_OK;
}

qd_json *qd_report_facts(const qd_report *report) {
  if (!report->measured) return NULL;
  qd_json *facts = qd_json_object();
  qd_json_set_number(facts, "kl", report->block.kl);
  qd_json_set_integer(facts, "kl_positions", report->block.positions);
  qd_json_set_number(facts, "stream_error", report->block.stream_error);
  return facts;
}
