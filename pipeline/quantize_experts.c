/* Experts: statistics and codes by their owners, each for itself (the layout of IST-DASLab's MoE-Quant).  An expert's unit is
 * QD_EXPERT_UNIT of its tokens in (sequence, position) order, so that nothing depends on where sequences or experts are; its
 * Hessian is never sent. */
#include "kernels/base/heap.h"
#include "kernels/base/log.h"
#include "pipeline/factorize.h"
#include "workers/partition.h"

#include <stdio.h>
#include <string.h>

typedef struct expert {
  int64_t   index;       /* -1: this rank has none in the round */
  qd_stage  stage;
  qd_stats  stats;       /* tokens 0: nothing else is set */
  double   *diagonal;    /* (units, C) */
  qd_tensor exponent;
  qd_tri    total;
  qd_tensor input;       /* of the last window */
} expert;

typedef qd_status (*window_visitor)(qd_run *run, expert *e, int64_t window);

/* ---- statistics ---------------------------------------------------------------------------------------------------------- */

static int64_t units_of(int64_t tokens) { return (tokens + QD_EXPERT_UNIT - 1) / QD_EXPERT_UNIT; }

static qd_status visit_window(qd_run *run, qd_block *block, expert *e, int64_t window, qd_tensor x, window_visitor visit) {
  if (x.dim[0] == 0) return QD_OK;
  e->input = x;
  if (e->stage == QD_STAGE_EXPERT_DOWN) QD_TRY(qd_experts_inner(&run->experts[0], block, e->index, x, &e->input));
  return visit(run, e, window);
}

/* Collective.  again: the input of a round's only window is still there. */
static qd_status visit_windows(qd_run *run, qd_block *block, int64_t round, expert *e, bool again, window_visitor visit) {
  int64_t windows = qd_experts_windows(&run->experts[0], round);
  if (again && windows == 1) {
    QD_TRY_ALL(run->comm, e->stats.tokens > 0 ? visit(run, e, 0) : QD_OK);
    return QD_OK;
  }
  for (int64_t w = 0; w < windows; w++) {
    qd_tensor x;
    QD_TRY(qd_experts_fetch(&run->experts[0], round, w, &x));
    QD_TRY_ALL(run->comm, visit_window(run, block, e, w, x, visit));
  }
  return QD_OK;
}

static qd_status add_diagonals(qd_run *run, expert *e, int64_t window) {
  int64_t columns = e->stats.columns, unit = window * (QD_EXPERT_WINDOW / QD_EXPERT_UNIT);
  qd_tensor stats;
  size_t mark = qd_arena_mark(&run->stats_arena);
  QD_TRY(qd_tensor_new_2d(&run->stats_arena, QD_F64, 3, columns, &stats));
  for (int64_t first = 0; first < e->input.dim[0]; first += QD_EXPERT_UNIT, unit++) {
    int64_t left = e->input.dim[0] - first;
    QD_TRY(qd_colstats(run->device, qd_tensor_rows(e->input, first, left < QD_EXPERT_UNIT ? left : QD_EXPERT_UNIT), stats));
    memcpy(e->diagonal + unit * columns, (double *)stats.data + columns, (size_t)columns * sizeof(double));
  }
  qd_arena_rewind(&run->stats_arena, mark);
  return QD_OK;
}

/* Whole units side by side, then what is left. */
static qd_status add_products(qd_run *run, expert *e, int64_t window) {
  (void)window;
  int64_t columns = e->stats.columns, whole = e->input.dim[0] / QD_EXPERT_UNIT, left = e->input.dim[0] % QD_EXPERT_UNIT;
  qd_tensor rest = qd_tensor_rows(e->input, whole * QD_EXPERT_UNIT, left);
  qd_tensor units = qd_tensor_3d(e->input.data, run->act, whole, QD_EXPERT_UNIT, columns);
  if (whole > 0) QD_TRY(qd_hessian(run->device, units, e->exponent, e->total));
  if (left == 0) return QD_OK;
  return qd_hessian(run->device, qd_tensor_3d(rest.data, run->act, 1, left, columns), e->exponent, e->total);
}

static qd_status decide_grid(qd_run *run, expert *e) {
  int64_t columns = e->stats.columns, units = units_of(e->stats.tokens);
  double *sum = e->stats.diagonal.data;
  if (e->stats.tokens == 0) return QD_OK;
  for (int64_t i = 0; i < units * columns; i++) {
    QD_CHECK(e->diagonal[i] < 1e300, QD_ENUMERIC, "%s is not finite in column %" PRId64, e->stats.what, i % columns);
    sum[i % columns] += e->diagonal[i];
  }
  return qd_hessian_grid(run->device, qd_tensor_2d(e->diagonal, QD_F64, units, columns), run->job->hessian_bound, e->exponent);
}

static qd_status begin_statistics(qd_run *run, int64_t block, expert *e) {
  int64_t columns = e->stats.columns;
  double *sum;
  snprintf(e->stats.what, sizeof e->stats.what, "block %" PRId64 ": %s of expert %" PRId64, block,
           qd_stage_input_name(e->stage), e->index);
  if (e->index < 0) return QD_OK;
  QD_TRY(qd_arena_new(&run->block_arena, (size_t)columns, sizeof *sum, &sum));
  memset(sum, 0, (size_t)columns * sizeof *sum);
  e->stats.diagonal = qd_tensor_1d(sum, QD_F64, columns);
  if (e->stats.tokens == 0) return QD_OK;
  e->stats.h = (qd_tri){.dtype = QD_F32, .n = columns}, e->total = (qd_tri){.dtype = QD_I64, .n = columns};
  return qd_arena_new(&run->stats_arena, qd_tri_elements(columns), sizeof(float), &e->stats.h.data);
}

static qd_status begin_grid(qd_run *run, expert *e) {
  int32_t *exponent;
  if (e->stats.tokens == 0) return QD_OK;
  QD_TRY(qd_arena_new(&run->stats_arena, (size_t)e->stats.columns, sizeof *exponent, &exponent));
  e->exponent = qd_tensor_1d(exponent, QD_I32, e->stats.columns);
  return QD_OK;
}

static qd_status begin_diagonals(qd_run *run, expert *e) {
  size_t n = (size_t)(units_of(e->stats.tokens) * e->stats.columns);
  return n > 0 ? qd_arena_new(&run->stats_arena, n, sizeof *e->diagonal, &e->diagonal) : QD_OK;
}

static qd_status begin_sum(qd_run *run, expert *e) {
  if (e->stats.tokens == 0) return QD_OK;
  QD_TRY(qd_arena_new(&run->stats_arena, qd_tri_elements(e->stats.columns), sizeof(int64_t), &e->total.data));
  memset(e->total.data, 0, qd_tri_bytes(e->stats.columns, QD_I64));
  return QD_OK;
}

static qd_status end_sum(qd_run *run, expert *e) {
  return e->stats.tokens > 0 ? qd_hessian_values(run->device, e->total, e->exponent, e->stats.h) : QD_OK;
}

/* The grid from the diagonals of all units, which then make room for the sum. */
static qd_status find_grid(qd_run *run, qd_block *block, int64_t round, expert *e) {
  QD_TRY_ALL(run->comm, begin_grid(run, e));
  size_t mark = qd_arena_mark(&run->stats_arena);
  QD_TRY_ALL(run->comm, begin_diagonals(run, e));
  QD_TRY(visit_windows(run, block, round, e, false, add_diagonals));
  QD_TRY_ALL(run->comm, decide_grid(run, e));
  qd_arena_rewind(&run->stats_arena, mark);
  return QD_OK;
}

/* The exact sum of every expert of a round, by its owner. */
static qd_status calibrate_round(qd_run *run, qd_block *block, int64_t round, expert *e) {
  QD_TRY_ALL(run->comm, begin_statistics(run, block->index, e));
  size_t mark = qd_arena_mark(&run->stats_arena);
  QD_TRY(find_grid(run, block, round, e));
  QD_TRY_ALL(run->comm, begin_sum(run, e));
  QD_TRY(visit_windows(run, block, round, e, true, add_products));
  QD_TRY_ALL(run->comm, end_sum(run, e));
  qd_arena_rewind(&run->stats_arena, mark);
  return QD_OK;
}

/* ---- codes --------------------------------------------------------------------------------------------------------------- */

static bool is_short(const qd_run *run, int64_t tokens) {
  return run->job->method->needs_factor && tokens < run->job->moe_min_tokens;
}

/* Too few tokens: the Hessian of all tokens, if gate and up are meant and there are any, else none. */
static bool takes_shared(const qd_run *run, qd_stage stage, int64_t tokens) {
  return is_short(run, tokens) && tokens > 0 && stage == QD_STAGE_EXPERT_GATE_UP && run->job->moe_fallback == QD_MOE_SHARED;
}

static qd_status factorize(qd_run *run, const expert *e, const qd_stats *all, int64_t group_size, qd_stage_factor *factor) {
  bool needs = run->job->method->needs_factor, shared = takes_shared(run, e->stage, e->stats.tokens);
  *factor = (qd_stage_factor){.failed = needs && (e->stats.tokens == 0 || is_short(run, e->stats.tokens))};
  if (!needs || (factor->failed && !shared)) return QD_OK;
  return qd_factorize_here(run, shared ? all : &e->stats, group_size, factor);
}

static qd_status quantize_linear(qd_run *run, const expert *e, const qd_stage_factor *factor, qd_weight *weight) {
  QD_TRY(qd_quantize_alone(run, factor, e->stats.tokens > 0 ? &e->stats : NULL, weight));
  weight->result.shared = !factor->failed && takes_shared(run, e->stage, e->stats.tokens);
  if (qd_run_calibrates(run) && e->stats.tokens == 0) weight->result.loss = 0; /* of no token */
  return QD_OK;
}

static bool is_quantized(const qd_run *run, const qd_weight *weight, qd_scheme *scheme) {
  return qd_fate_is_quantized(qd_job_scheme(run->job, weight->slot.name, weight->slot.dim[1], scheme));
}

/* Gate and up share their input, and so their factor. */
static qd_status quantize_mine(qd_run *run, qd_block *block, const expert *e, const qd_stats *all) {
  qd_stage_factor factor;
  const qd_weight *factored = NULL; /* whose factor it is */
  size_t mark = qd_arena_mark(&run->stats_arena);
  for (qd_role role = qd_stage_first(e->stage); e->index >= 0 && role <= qd_stage_last(e->stage); role++) {
    qd_weight *weight = qd_block_find_expert(block, role, e->index);
    if (!is_quantized(run, weight, &weight->q.scheme)) continue;
    int64_t group_size = weight->q.scheme.group_size;
    if (factored == NULL || !qd_job_shares_factor(run->job, factored->q.scheme.group_size, group_size)) {
      qd_arena_rewind(&run->stats_arena, mark);
      QD_TRY(factorize(run, e, all, group_size, &factor));
      factored = weight;
    }
    QD_TRY(quantize_linear(run, e, &factor, weight));
  }
  qd_arena_rewind(&run->stats_arena, mark);
  return QD_OK;
}

static void keep_input(qd_run *run, const expert *e) {
  if (e->index < 0) return;
  qd_input_result *input = &run->expert_input[e->stage - QD_STAGE_EXPERT_GATE_UP][e->index];
  input->diagonal = e->stats.diagonal;
}

static qd_status quantize_round(qd_run *run, qd_block *block, qd_stage stage, int64_t round, const qd_stats *all) {
  expert e = {.stage = stage,
              .index = qd_partition_expert_of(run->model.experts, round, run->comm->rank, run->comm->size)};
  size_t mark = qd_arena_mark(&run->stats_arena);
  e.stats.columns = qd_decoder_mid_columns(&run->model, stage);
  if (qd_run_calibrates(run)) {
    e.stats.tokens = e.index < 0 ? 0 : qd_experts_tokens(&run->experts[0], e.index);
    qd_moment begin = qd_times_begin(run);
    QD_TRY(calibrate_round(run, block, round, &e));
    qd_times_end(run, begin, QD_TIME_CALIBRATE);
    keep_input(run, &e);
  }
  qd_moment begin = qd_times_begin(run);
  QD_TRY_ALL(run->comm, quantize_mine(run, block, &e, all));
  qd_times_end(run, begin, QD_TIME_LOOP);
  qd_arena_rewind(&run->stats_arena, mark);
  return QD_OK;
}

/* ---- everyone knows ------------------------------------------------------------------------------------------------------ */

typedef struct told {
  qd_linear_result result;
  int32_t          has_order;
} told;

static qd_status tell(qd_run *run, qd_weight *weight) {
  told t = {.result = weight->result, .has_order = qd_qtensor_has_order(&weight->q)};
  int owner = qd_partition_expert(weight->slot.expert, run->comm->size);
  QD_TRY(qd_comm_bcast(run->comm, &t, sizeof t, owner));
  if (owner == run->comm->rank) return QD_OK;
  weight->result = t.result, weight->quantized = true, weight->compute = (qd_tensor){0};
  weight->q = qd_qtensor_shape(weight->q.scheme, weight->slot.dim[0], weight->slot.dim[1], t.has_order != 0);
  return QD_OK;
}

static void describe_inputs(qd_run *run, qd_stage stage) {
  int64_t columns = qd_decoder_mid_columns(&run->model, stage);
  for (int64_t e = 0; qd_run_calibrates(run) && e < run->model.experts; e++) {
    qd_input_result *input = &run->expert_input[stage - QD_STAGE_EXPERT_GATE_UP][e];
    input->expert = (int)e, input->tokens = qd_experts_tokens(&run->experts[0], e);
    if (qd_partition_expert(e, run->comm->size) != run->comm->rank) input->diagonal = qd_tensor_1d(NULL, QD_F64, columns);
    snprintf(input->name, sizeof input->name, "%s", qd_stage_input_name(stage));
  }
}

static qd_status share_result(qd_run *run, int64_t block, qd_weight *weight, double seconds) {
  qd_scheme scheme;
  qd_fate fate = qd_job_scheme(run->job, weight->slot.name, weight->slot.dim[1], &scheme);
  if (!qd_fate_is_quantized(fate)) {
    weight->kept = qd_fate_name(fate);
    qd_log_file("  block %4" PRId64 "  %s %d  kept (%s)", block, qd_role_name(weight->slot.role), weight->slot.expert,
                weight->kept);
    return QD_OK;
  }
  weight->q.scheme = scheme;
  QD_TRY(tell(run, weight));
  qd_quantize_log(block, weight, seconds);
  return QD_OK;
}

static qd_status share_results(qd_run *run, qd_block *block, qd_stage stage, double start) {
  describe_inputs(run, stage);
  for (int i = 0; i < block->n; i++) {
    qd_weight *weight = &block->weight[i];
    if (weight->slot.role >= qd_stage_first(stage) && weight->slot.role <= qd_stage_last(stage))
      QD_TRY(share_result(run, block->index, weight, (qd_seconds() - start) / (double)run->model.experts));
  }
  return QD_OK;
}

/* ---- the stage ----------------------------------------------------------------------------------------------------------- */

typedef struct counts { int64_t least, most, few; } counts;

static counts count_tokens(const qd_run *run) {
  counts c = {.least = INT64_MAX};
  for (int64_t e = 0; e < run->model.experts; e++) {
    int64_t tokens = qd_experts_tokens(&run->experts[0], e);
    c.least = tokens < c.least ? tokens : c.least, c.most = tokens > c.most ? tokens : c.most;
    c.few += tokens > 0 && is_short(run, tokens);
  }
  return c;
}

static void log_tokens(const qd_run *run, const qd_block *block) {
  for (int64_t e = 0; e < run->model.experts; e++)
    qd_log_file("  block %4" PRId64 "  expert %" PRId64 ": %" PRId64 " tokens", block->index, e,
                qd_experts_tokens(&run->experts[0], e));
}

/* ---- a line a block ------------------------------------------------------------------------------------------------------ */

/* By what a stage's experts were quantized, each by its first linear that was not kept. */
typedef struct ways { int64_t own, shared, rounded, kept; } ways;

static void count_way(qd_block *block, qd_stage stage, int64_t e, ways *n) {
  const qd_weight *first = NULL;
  for (qd_role role = qd_stage_first(stage); first == NULL && role <= qd_stage_last(stage); role++) {
    const qd_weight *weight = qd_block_find_expert(block, role, e);
    if (weight->quantized) first = weight;
  }
  if (first == NULL) n->kept++;
  else if (first->result.shared) n->shared++;
  else if (first->result.fallback) n->rounded++;
  else n->own++;
}

static void add_way(char *text, size_t size, int64_t n, const char *what) {
  size_t used = strlen(text);
  if (n > 0) snprintf(text + used, size - used, "%s %" PRId64 " %s", text[used - 1] == ':' ? "" : ",", n, what);
}

/* "; gate and up: 50 by their own Hessian, 14 by that of all tokens" */
static void tell_ways(const qd_run *run, qd_block *block, qd_stage stage, char *text, size_t size) {
  ways n = {0};
  size_t used = strlen(text);
  for (int64_t e = 0; e < run->model.experts; e++) count_way(block, stage, e, &n);
  snprintf(text + used, size - used, "; %s:", stage == QD_STAGE_EXPERT_DOWN ? "down" : "gate and up");
  add_way(text, size, n.own, run->job->method->needs_factor ? "by their own Hessian" : "quantized");
  add_way(text, size, n.shared, "by that of all tokens");
  add_way(text, size, n.rounded, "rounded to nearest");
  add_way(text, size, n.kept, "kept");
}

/* Of linears that tokens were seen by, or of all where there is no calibration. */
static const qd_weight *worst_linear(const qd_run *run, const qd_block *block, double *mean) {
  const qd_weight *worst = NULL;
  int64_t n = 0;
  *mean = 0;
  for (int i = 0; i < block->n; i++) {
    const qd_weight *weight = &block->weight[i];
    const qd_linear_result *r = &weight->result;
    if (weight->slot.expert < 0 || !weight->quantized || (qd_run_calibrates(run) && r->tokens == 0)) continue;
    if (worst == NULL || r->relative_error > worst->result.relative_error) worst = weight;
    *mean += r->relative_error, n++;
  }
  if (n > 0) *mean /= (double)n;
  return worst;
}

static void log_block(const qd_run *run, qd_block *block) {
  char text[512] = "", error[128] = "";
  double mean;
  const qd_weight *worst = worst_linear(run, block, &mean);
  if (qd_run_calibrates(run)) {
    counts c = count_tokens(run);
    snprintf(text, sizeof text, ", of %" PRId64 " to %" PRId64 " tokens", c.least, c.most);
  }
  tell_ways(run, block, QD_STAGE_EXPERT_GATE_UP, text, sizeof text);
  tell_ways(run, block, QD_STAGE_EXPERT_DOWN, text, sizeof text);
  if (worst != NULL)
    snprintf(error, sizeof error, "; relative error %.4g, at worst %.4g (%s of expert %d)", mean, worst->result.relative_error,
             qd_role_name(worst->slot.role), worst->slot.expert);
  qd_log("  block %4" PRId64 "  experts    %" PRId64 "%s%s", block->index, run->model.experts, text, error);
}

/* Both stages, in whatever order. */
static bool is_complete(const qd_block *block) {
  for (int i = 0; i < block->n; i++) {
    const qd_weight *weight = &block->weight[i];
    if (weight->slot.expert >= 0 && !weight->quantized && weight->kept == NULL) return false;
  }
  return true;
}

/* ---- the whole ----------------------------------------------------------------------------------------------------------- */

static bool needs_shared(const qd_run *run, qd_stage stage) {
  return qd_run_calibrates(run) && stage == QD_STAGE_EXPERT_GATE_UP && run->job->moe_fallback == QD_MOE_SHARED &&
         count_tokens(run).few > 0;
}

qd_status qd_quantize_experts(qd_run *run, qd_block *block, qd_stage stage) {
  double start = qd_seconds();
  int64_t rounds = qd_partition_expert_rounds(run->model.experts, run->comm->size);
  qd_stats all = {0};
  size_t mark = qd_arena_mark(&run->stats_arena);
  if (qd_run_calibrates(run) && stage == QD_STAGE_EXPERT_GATE_UP) log_tokens(run, block);
  if (needs_shared(run, stage)) QD_TRY(qd_calibrate(run, block, stage, &all));
  for (int64_t round = 0; round < rounds; round++) QD_TRY(quantize_round(run, block, stage, round, &all));
  qd_arena_rewind(&run->stats_arena, mark);
  QD_TRY(share_results(run, block, stage, start));
  if (is_complete(block)) log_block(run, block);
  return QD_OK;
}
