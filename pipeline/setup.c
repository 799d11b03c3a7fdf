#include "pipeline/setup.h"

#include "kernels/base/heap.h"
#include "kernels/base/log.h"
#include "pipeline/keep.h"
#include "pipeline/rules.h"
#include "pipeline/same_model.h"
#include "pipeline/text.h"
#include "workers/team.h"

#include <stdio.h>
#include <string.h>

/* ---- loading ------------------------------------------------------------------------------------------------------------- */

static qd_status load_model(qd_run *run) {
  QD_TRY(qd_source_open(run->job->model, &run->source));
  QD_TRY(qd_model_from_source(run->source, &run->model));
  QD_TRY(qd_rules_check(run->job, &run->model));
  QD_TRY(qd_budget_open(&run->budget, run->job, &run->model));
  run->stored_model = run->model;
  run->stored_model.tied = run->model.tied && !qd_job_unties(run->job, &run->model);
  qd_arithmetic arithmetic = qd_compute_arithmetic(run->job->compute, run->model.dtype);
  run->act = qd_arithmetic_act(arithmetic);
  return qd_device_use_arithmetic(run->device, arithmetic);
}

enum { SHOWN_TOKENS = 48 };

/* Sequences are drawn at random places, so a short text gives the same tokens again and again instead of failing. */
static void show_extent(const qd_tokens *tokens) {
  int64_t all = tokens->rows * tokens->sequence_tokens;
  char dropped[64] = "";
  if (tokens->dropped_documents > 0)
    snprintf(dropped, sizeof dropped, "; %" PRId64 " shorter documents dropped", tokens->dropped_documents);
  qd_log("calibration: %" PRId64 " sequences of %" PRId64 " tokens, covering %" PRId64 " of the text's %" PRId64 " tokens%s",
         tokens->rows, tokens->sequence_tokens, tokens->distinct_tokens, tokens->text_tokens, dropped);
  if (all > tokens->text_tokens)
    qd_log_warning("the text is short: its %" PRId64 " tokens are fewer than the %" PRId64
                   " of all sequences together, so they overlap; a longer text calibrates better, fewer --nsamples cost less",
                   tokens->text_tokens, all);
}

static void show_parts(const qd_run *run) {
  for (int i = 0; i < run->tokens.n_parts; i++)
    qd_log("  %" PRId64 " of them from %s (weight %g)", run->tokens.part[i].rows, run->job->text[i].dataset,
           run->tokens.part[i].weight);
}

static void show_first_row(const qd_run *run, const qd_tokenizer *tokenizer) {
  char *text = NULL;
  int64_t n = run->tokens.sequence_tokens < SHOWN_TOKENS ? run->tokens.sequence_tokens : SHOWN_TOKENS;
  if (tokenizer == NULL) return;
  if (qd_tokenizer_decode(tokenizer, run->tokens.ids, (size_t)n, &text) != QD_OK) {
    qd_log_warning("the first sequence cannot be shown: %s", qd_error_text());
    return;
  }
  for (char *c = text; *c; c++)
    if (*c == '\n' || *c == '\r') *c = ' ';
  qd_log("first sequence: \"%s ...\"", text);
  qd_heap_free(text);
}

qd_status qd_setup_load_text(qd_run *run) {
  const qd_job *job = run->job;
  qd_tokenizer *tokenizer;
  if (job->dataset == NULL) return QD_OK;
  qd_tokens_request request = {.dataset = job->dataset, .text = job->text, .n_texts = job->n_texts,
                               .use = QD_TOKENS_CALIBRATION, .rows = job->nsamples,
                               .sequence_tokens = job->sequence_tokens, .seed = job->seed, .bos = job->bos, .pack = job->pack,
                               .vocabulary = run->model.vocabulary};
  QD_TRY(qd_text_load(run->comm, job->model, &run->model, &request, &run->tokens, &tokenizer));
  if (run->comm->rank == 0) show_extent(&run->tokens), show_parts(run), show_first_row(run, tokenizer);
  qd_tokenizer_close(tokenizer);
  run->mine = qd_partition_even(run->tokens.rows, run->comm->rank, run->comm->size);
  return QD_OK;
}

qd_status qd_setup_load_model(qd_run *run) {
  QD_TRY_ALL(run->comm, load_model(run));
  return qd_same_model(run->source, run->comm);
}

/* ---- planning ------------------------------------------------------------------------------------------------------------ */

static qd_status make_plan(qd_run *run, bool acts_on_disk) {
  qd_plan_request request = {.job = run->job,
                             .model = &run->model,
                             .source = run->source,
                             .device = run->device,
                             .act = run->act,
                             .sequences = run->tokens.rows,
                             .tokens = run->tokens.sequence_tokens,
                             .ranks = run->comm->size,
                             .first_on_node = qd_team_first_on_node(run->comm),
                             .acts_on_disk = acts_on_disk,
                             .launched = true};
  qd_plan_release(&run->plan);
  return qd_plan_make(&request, &run->plan);
}

static qd_plan_place place_of(const qd_run *run) {
  int on_node = qd_team_ranks_on_node(run->comm);
  return (qd_plan_place){.rank = run->comm->rank, .ranks_on_node = on_node, .running = on_node};
}

/* Whether some rank's memory is too small: no failure, where the disk is the way out.  Collective. */
static qd_status memory_is_short(qd_run *run, bool *is_short) {
  qd_status fits;
  QD_TRY(qd_agree_on(run->comm, qd_plan_check_memory(&run->plan, place_of(run)), &fits));
  *is_short = fits != QD_OK;
  return QD_OK;
}

qd_status qd_setup_plan(qd_run *run) {
  bool on_disk = run->job->acts_place == QD_ACTS_DISK;
  QD_TRY_ALL(run->comm, make_plan(run, on_disk));
  if (run->job->acts_place == QD_ACTS_AUTO) {
    QD_TRY(memory_is_short(run, &on_disk));
    if (on_disk) QD_TRY_ALL(run->comm, make_plan(run, true));
  }
  QD_TRY_ALL(run->comm, qd_plan_check_memory(&run->plan, place_of(run)));
  QD_TRY_ALL(run->comm, run->comm->rank == 0 ? qd_plan_check_disk(&run->plan) : QD_OK);
  QD_TRY_ALL(run->comm, qd_plan_check_scratch(&run->plan, place_of(run)));
  return QD_OK;
}

/* ---- opening ------------------------------------------------------------------------------------------------------------- */

/* The plan sizes the arenas: one that is too small is a wrong plan. */
static size_t planned(const qd_run *run, qd_plan_part part) { return run->plan.rank[run->comm->rank].part[part]; }

static qd_status open_activations(qd_run *run) {
  qd_acts_shape shape = qd_plan_acts_shape(&run->plan.request, run->mine.n);
  QD_TRY(qd_arena_open(&run->acts_arena, "activations", planned(run, QD_PLAN_ACTIVATIONS)));
  QD_TRY(qd_acts_open(&run->acts.quantized, &shape, &run->acts_arena));
  if (!qd_run_keeps_original(run)) return QD_OK;
  shape = qd_plan_original_shape(&run->plan.request, run->mine.n);
  return qd_acts_open(&run->acts.original, &shape, &run->acts_arena);
}

static qd_status open_rest_arenas(qd_run *run) {
  QD_TRY(qd_arena_open(&run->block_arena, "block", planned(run, QD_PLAN_BLOCK)));
  return qd_arena_open(&run->write_arena, "writer", planned(run, QD_PLAN_WRITER));
}

static qd_status open_arenas(qd_run *run) {
  QD_TRY(open_rest_arenas(run));
  QD_TRY(
      qd_device_reserve(run->device, planned(run, QD_PLAN_SCRATCH) - qd_arena_cost(qd_device_packing_bytes(run->device), 1)));
  if (!qd_run_calibrates(run)) return QD_OK;
  QD_TRY(qd_arena_open(&run->stats_arena, "statistics", planned(run, QD_PLAN_STATISTICS)));
  QD_TRY(open_activations(run));
  return qd_decoder_open(&run->decoder, run->device, &run->model, run->act, run->tokens.sequence_tokens);
}

qd_status qd_setup_open_rest(qd_run *run) {
  QD_TRY_ALL(run->comm, open_rest_arenas(run));
  return QD_OK;
}

static qd_status open_experts(qd_run *run) {
  size_t experts = (size_t)run->model.experts;
  qd_experts_shape shape = qd_plan_experts(&run->plan, run->comm->rank);
  qd_acts *streams[] = {&run->acts.quantized, &run->acts.original};
  for (int i = 0; i < 2; i++) QD_TRY_ALL(run->comm, qd_heap_new(experts, sizeof *run->expert_input[i], &run->expert_input[i]));
  for (int i = 0; qd_run_calibrates(run) && i < 1 + qd_run_keeps_original(run); i++)
    QD_TRY(qd_experts_open(&run->experts[i], &shape, run->comm, &run->decoder, streams[i]));
  return QD_OK;
}

qd_status qd_setup_open(qd_run *run) {
  QD_TRY_ALL(run->comm, open_arenas(run));
  QD_TRY(open_experts(run));
  QD_TRY(qd_keep_restore(run));
  QD_TRY(qd_report_open(run, planned(run, QD_PLAN_REPORT)));
  run->feed = (qd_feed){.model = &run->model,
                        .source = run->source,
                        .store = &run->stored,
                        .blocks_stored = run->first_block,
                        .with_originals = qd_run_keeps_original(run),
                        .readers = run->job->readers,
                        .next = run->passed > 0 ? 1 + run->passed : 0};
  return qd_feed_open(&run->feed, run->comm);
}

void qd_setup_close_arenas(qd_run *run) {
  qd_write_close(run);
  for (int i = 0; i < 2; i++) qd_experts_close(&run->experts[i]);
  qd_keep_close(run);
  qd_decoder_close(&run->decoder);
  qd_report_close(&run->report);
  run->times.seconds[QD_TIME_THREADS] +=
      qd_acts_wait_seconds(&run->acts.quantized) + qd_acts_wait_seconds(&run->acts.original);
  qd_acts_close(&run->acts.quantized);
  qd_acts_close(&run->acts.original);
  qd_arena_close(&run->acts_arena);
  qd_arena_close(&run->stats_arena);
  qd_arena_close(&run->block_arena);
  qd_arena_close(&run->write_arena);
}

void qd_setup_close(qd_run *run) {
  for (int i = 0; i < 2; i++) qd_heap_free(run->expert_input[i]);
  qd_setup_close_arenas(run);
  qd_feed_close(&run->feed);
  qd_store_close(&run->stored);
  qd_tokens_release(&run->tokens);
  qd_source_close(run->source);
  qd_plan_release(&run->plan);
}

/* ---- between stages ------------------------------------------------------------------------------------------------------ */

static qd_status embed_window(qd_run *run, qd_block *rest, const qd_acts_window *window) {
  int64_t tokens = run->tokens.sequence_tokens, first = run->mine.first + window->first;
  for (int64_t i = 0; i < window->n; i++) {
    qd_tensor ids = qd_tensor_1d(run->tokens.ids + (first + i) * tokens, QD_I32, tokens);
    QD_TRY(qd_decoder_embed(&run->decoder, rest, ids, qd_tensor_at(window->h, i)));
  }
  return QD_OK;
}

static qd_status embed_mine(qd_run *run, qd_acts *acts, qd_block *rest) {
  qd_acts_window window;
  qd_acts_begin(acts, (qd_acts_use){.writes_h = true});
  for (;;) {
    QD_TRY(qd_acts_next(acts, &window));
    if (window.n == 0) return QD_OK;
    QD_TRY(embed_window(run, rest, &window));
  }
}

qd_status qd_setup_embed(qd_run *run, qd_block *rest) {
  QD_TRY_ALL(run->comm, qd_run_calibrates(run) ? embed_mine(run, &run->acts.quantized, rest) : QD_OK);
  QD_TRY_ALL(run->comm, qd_run_keeps_original(run) ? embed_mine(run, &run->acts.original, rest) : QD_OK);
  return QD_OK;
}

qd_status qd_setup_forward(qd_run *run, qd_block *block) {
  QD_TRY(qd_enter(run, block));
  QD_FOR_STAGES(stage, &run->model, block->index) QD_TRY(qd_advance(run, block, stage));
  return QD_OK;
}

qd_status qd_setup_keep_input(qd_run *run, qd_stage stage, const qd_stats *stats) {
  qd_input_result *input = &run->input[stage];
  double *diagonal;
  QD_TRY(qd_arena_new(&run->block_arena, (size_t)stats->columns, sizeof *diagonal, &diagonal));
  memcpy(diagonal, stats->diagonal.data, (size_t)stats->columns * sizeof *diagonal);
  input->diagonal = qd_tensor_1d(diagonal, QD_F64, stats->columns);
  input->tokens = stats->tokens, input->expert = -1;
  strncpy(input->name, qd_stage_input_name(stage), sizeof input->name - 1);
  return QD_OK;
}

/* ---- for the log ----------------------------------------------------------------------------------------------------------
 */

qd_status qd_setup_log_units(qd_run *run) {
  enum { UNITS = QD_ISA_AMX + 1, REFUSED = UNITS };
  int64_t ranks[UNITS + 1] = {0};
  char text[256] = "";
  ranks[run->device->isa] = 1, ranks[REFUSED] = run->device->unit_refused;
  QD_TRY(qd_comm_reduce_i64(run->comm, ranks, UNITS + 1, 0));
  for (qd_isa isa = QD_ISA_PORTABLE; isa <= QD_ISA_AMX; isa++)
    if (ranks[isa] > 0)
      snprintf(text + strlen(text), sizeof text - strlen(text), "%s%s on %" PRId64, *text ? ", " : "", qd_isa_name(isa),
               ranks[isa]);
  qd_log_file("arithmetic %s; units by number of ranks: %s", qd_arithmetic_name(run->device->arithmetic), text);
  if (ranks[REFUSED] > 0)
    qd_log_warning("on %" PRId64 " ranks a better unit is left out: it does not sum as its manual says; same bits, slower",
                   ranks[REFUSED]);
  return QD_OK;
}

/* ---- in the end ---------------------------------------------------------------------------------------------------------- */

qd_status qd_setup_log_peaks(qd_run *run) {
  int64_t *peak, mine = qd_memory_now().peak;
  size_t *bytes;
  int size = run->comm->size;
  QD_TRY(qd_heap_new((size_t)size, sizeof *peak, &peak));
  qd_status status = qd_heap_new((size_t)size, sizeof *bytes, &bytes);
  for (int r = 0; status == QD_OK && r < size; r++) bytes[r] = sizeof mine;
  status = qd_agree(run->comm, status);
  if (status == QD_OK) status = qd_comm_allgatherv(run->comm, &mine, sizeof mine, peak, bytes);
  for (int r = 0; status == QD_OK && r < size; r++)
    qd_log_file("rank %d: peak host memory %" PRId64 " bytes, planned %zu", r, peak[r], run->plan.rank[r].host_bytes);
  qd_heap_free(bytes);
  qd_heap_free(peak);
  return status;
}
