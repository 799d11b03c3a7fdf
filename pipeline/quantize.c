/* Linears to codes.  Given the factor, rows are independent: the rows of all linears of a stage are cut over the ranks by cost
 * at multiples of QD_SHARE_ROWS, each rank quantizes its own, and afterwards every rank holds every linear whole. */
#include "kernels/base/heap.h"
#include "kernels/base/log.h"
#include "pipeline/outliers.h"
#include "pipeline/rows.h"

#include <stdio.h>
#include <string.h>

enum { MAX_STAGE_LINEARS = QD_N_LINEARS };

/* One linear of the stage that is to be quantized, with what is measured a row. */
typedef struct task {
  qd_weight *weight;
  int        index;        /* among the linears of its factor */
  double    *error, *norm; /* (R): d H d^T and w H w^T; |d|^2 and |w|^2 without calibration */
} task;

/* "block    3", where the log's lines begin. */
static const char *log_label(int64_t block, char text[QD_BLOCK_LABEL_BYTES]) {
  if (block == QD_REST) snprintf(text, QD_BLOCK_LABEL_BYTES, "model     ");
  else snprintf(text, QD_BLOCK_LABEL_BYTES, "block %4" PRId64, block);
  return text;
}

static void keep(int64_t block, qd_weight *weight, qd_role role, qd_fate fate) {
  char label[QD_BLOCK_LABEL_BYTES];
  const qd_scheme *scheme = &weight->q.scheme;
  weight->kept = qd_fate_name(fate);
  if (fate == QD_FATE_SKIPPED)
    qd_log("  %s  %-9s  kept: its %" PRId64 " columns are no multiple of the group of %" PRId64 " (--odd-shape skip)",
           log_label(block, label), qd_role_name(role), weight->slot.dim[1], scheme->group_size);
  else qd_log("  %s  %-9s  kept (--ignore)", log_label(block, label), qd_role_name(role));
}

static qd_fate fate_of(const qd_run *run, const qd_weight *weight, qd_scheme *scheme) {
  const qd_slot *slot = &weight->slot;
  return qd_role_is_linear(slot->role) ? qd_job_scheme(run->job, slot->name, slot->dim[1], scheme)
                                       : qd_job_rest_scheme(run->job, slot->role, slot->dim[1], scheme);
}

static int collect_tasks(const qd_run *run, qd_block *block, qd_stage stage, task *tasks) {
  int n = 0;
  for (qd_role role = qd_stage_first(stage); role <= qd_stage_last(stage); role++) {
    qd_weight *weight = qd_block_find(block, role);
    qd_fate fate = fate_of(run, weight, &weight->q.scheme);
    if (qd_fate_is_quantized(fate)) tasks[n++] = (task){.weight = weight};
    else keep(block->index, weight, role, fate);
  }
  return n;
}

static qd_status prepare_task(qd_run *run, const qd_stage_factor *factor, task *t) {
  const qd_slot *slot = &t->weight->slot;
  qd_rows_shape shape = {slot->dim[0], slot->dim[1], qd_outliers_most(slot->dim[0], slot->dim[1])};
  QD_TRY(qd_rows_new(run, &run->block_arena, factor, t->weight->q.scheme, shape, &t->weight->q));
  QD_TRY(qd_arena_new(&run->block_arena, (size_t)slot->dim[0], sizeof(double), &t->error));
  return qd_arena_new(&run->block_arena, (size_t)slot->dim[0], sizeof(double), &t->norm);
}

/* ---- one share ----------------------------------------------------------------------------------------------------------- */

/* A method counts rows from the first of the piece. */
static qd_status name_tensor(const task *t, qd_range rows, qd_status status) {
  if (status != QD_ENUMERIC) return status;
  if (rows.first == 0) QD_FAIL(status, "%s: %s", t->weight->slot.name, qd_error_text());
  QD_FAIL(status, "%s, its rows from %" PRId64 " on: %s", t->weight->slot.name, rows.first, qd_error_text());
}

/* Piece by piece, so that scratch does not grow with the share: rows are independent, and pieces hold whole tiles. */
static qd_status quantize_share(qd_run *run, const qd_stage_factor *factor, const qd_stats *stats, const task *t,
                                qd_range share) {
  int64_t most = qd_plan_piece_rows(run->device, t->weight->q.scheme, t->weight->slot.dim[1]), end = share.first + share.n;
  for (qd_range rows = {.first = share.first}; rows.first < end; rows.first += rows.n) {
    rows.n = end - rows.first < most ? end - rows.first : most;
    qd_qtensor q = qd_qtensor_rows(&t->weight->q, rows.first, rows.n);
    QD_TRY(name_tensor(t, rows, qd_rows_quantize(run, factor, stats, t->index, qd_rows_together(rows.first, rows.n), &q,
                                                 t->error + rows.first, t->norm + rows.first)));
  }
  return QD_OK;
}

static qd_status quantize_my_shares(qd_run *run, const qd_stage_factor *factor, const qd_stats *stats, const task *tasks,
                                    const qd_share *shares, int n_shares) {
  for (int i = 0; i < n_shares; i++)
    if (shares[i].rank == run->comm->rank)
      QD_TRY(quantize_share(run, factor, stats, &tasks[shares[i].linear], shares[i].rows));
  return QD_OK;
}

/* ---- everyone's rows to everyone ----------------------------------------------------------------------------------------- */

/* What so many rows have: the last of them may be fewer. */
typedef struct row_unit {
  size_t  bytes;
  int64_t rows;
} row_unit;

static size_t unit_bytes(row_unit unit, int64_t rows) { return (size_t)((rows + unit.rows - 1) / unit.rows) * unit.bytes; }

static qd_status share_rows(qd_run *run, void *data, row_unit unit, int linear, const qd_share *shares, int n_shares) {
  size_t *bytes, offset = 0;
  QD_TRY(qd_heap_new((size_t)run->comm->size, sizeof *bytes, &bytes));
  for (int i = 0; i < n_shares; i++)
    if (shares[i].linear == linear) bytes[shares[i].rank] += unit_bytes(unit, shares[i].rows.n);
  for (int r = 0; r < run->comm->rank; r++) offset += bytes[r];
  qd_status status = qd_comm_allgatherv(run->comm, (unsigned char *)data + offset, bytes[run->comm->rank], data, bytes);
  qd_heap_free(bytes);
  return status;
}

/* Rows of a part that hold one row of the linear, or a run of those that share statistics. */
static qd_status share_part(qd_run *run, const qd_qtensor *q, qd_tensor part, int linear, const qd_share *shares,
                            int n_shares) {
  int64_t unit = part.rank == 3 ? q->scheme.stat_group : 1;
  size_t row_bytes = (size_t)(part.dim[1] * (part.rank == 3 ? part.dim[2] : 1)) * qd_dtype_bytes(part.dtype);
  return share_rows(run, part.data, (row_unit){row_bytes, unit}, linear, shares, n_shares);
}

static qd_status share_outliers(qd_run *run, qd_qtensor *q, int linear, const qd_share *shares, int n_shares) {
  qd_range *rows_of;
  if (!q->scheme.spqr) return QD_OK;
  QD_TRY_ALL(run->comm, qd_heap_new((size_t)run->comm->size, sizeof *rows_of, &rows_of));
  for (int i = 0; i < n_shares; i++)
    if (shares[i].linear == linear) rows_of[shares[i].rank] = shares[i].rows;
  qd_status status = qd_outliers_share(run->comm, rows_of, qd_outliers_most(q->rows, q->columns), q);
  qd_heap_free(rows_of);
  return status;
}

static qd_status share_task(qd_run *run, const task *t, int linear, const qd_share *shares, int n_shares) {
  static const row_unit numbers = {sizeof(double), 1};
  qd_part parts[QD_MAX_PARTS];
  int n = qd_qtensor_parts(&t->weight->q, parts);
  for (int i = 0; i < n; i++)
    if (parts[i].tensor.rank >= 2) QD_TRY(share_part(run, &t->weight->q, parts[i].tensor, linear, shares, n_shares));
  QD_TRY(name_tensor(t, (qd_range){0, 0}, share_outliers(run, &t->weight->q, linear, shares, n_shares)));
  QD_TRY(share_rows(run, t->error, numbers, linear, shares, n_shares));
  return share_rows(run, t->norm, numbers, linear, shares, n_shares);
}

/* Sums over rows: tiles of QD_LOSS_TILE in order. */
static double sum_of_rows(const double *value, int64_t rows) {
  double total = 0;
  for (int64_t first = 0; first < rows; first += QD_LOSS_TILE) {
    double tile = 0;
    for (int64_t r = first; r < rows && r < first + QD_LOSS_TILE; r++) tile += value[r];
    total += tile;
  }
  return total;
}

/* fp16 holds scales below 2^-14 with fewer and fewer bits; below 2^-20 their rounding shifts the grid by more than 1 in 32. */
static int64_t coarse_scales(const qd_qtensor *q) {
  const uint16_t *scale = q->scales.data;
  int64_t n = 0;
  if (q->scheme.spqr || q->scales.dtype != QD_F16) return 0;
  for (int64_t i = 0; i < qd_tensor_elements(q->scales); i++) n += qd_f16_to_f32(scale[i]) < 0x1p-20f;
  return n;
}

static void warn_of_coarse_scales(const qd_weight *weight) {
  int64_t n = weight->result.coarse_scales;
  if (n > 0)
    qd_log_warning("%s: %" PRId64 " of %" PRId64
                   " scales are so small that fp16 rounds them coarsely; --scale-dtype f32 keeps them exact",
                   weight->slot.name, n, qd_tensor_elements(weight->q.scales));
}

static void finish_task(const qd_run *run, const qd_stage_factor *factor, const qd_stats *stats, const task *t) {
  int64_t rows = t->weight->slot.dim[0];
  double error = sum_of_rows(t->error, rows), norm = sum_of_rows(t->norm, rows);
  t->weight->result = (qd_linear_result){.loss = stats ? error / (double)stats->tokens : error,
                                         .relative_error = norm > 0 ? error / norm : 0,
                                         .damping = run->job->method->needs_factor ? factor->damping : 0,
                                         .tokens = stats ? stats->tokens : 0,
                                         .fallback = factor->failed,
                                         .outliers = qd_outliers_of(&t->weight->q),
                                         .threshold = factor->threshold,
                                         .coarse_scales = coarse_scales(&t->weight->q)};
  t->weight->quantized = true;
  t->weight->compute = (qd_tensor){0};
}

static void outliers_text(const qd_weight *weight, char *text, size_t size) {
  *text = '\0';
  if (!weight->q.scheme.spqr) return;
  snprintf(text, size, "  outliers %.3f %% threshold %.4g",
           100 * (double)weight->result.outliers / (double)(weight->slot.dim[0] * weight->slot.dim[1]),
           weight->result.threshold);
}

void qd_quantize_log(int64_t block, const qd_weight *weight, double seconds) {
  char name[48], outliers[64], label[QD_BLOCK_LABEL_BYTES];
  const qd_linear_result *r = &weight->result;
  bool expert = weight->slot.expert >= 0;
  if (expert) snprintf(name, sizeof name, "%s %d", qd_role_name(weight->slot.role), weight->slot.expert);
  else snprintf(name, sizeof name, "%s", qd_role_name(weight->slot.role));
  outliers_text(weight, outliers, sizeof outliers);
  (expert ? qd_log_file : qd_log)("  %s  %-9s  [%6" PRId64 ", %6" PRId64
                                  "]  %d bits  loss %-11.5g relative error %-10.4g damping %-6g%s %7.2f s%s",
                                  log_label(block, label), name, weight->slot.dim[0], weight->slot.dim[1],
                                  weight->q.scheme.bits, r->loss, r->relative_error, r->damping, outliers, seconds,
                                  r->shared               ? "  (Hessian of all tokens)"
                                  : r->fallback && expert ? "  (rounded to nearest)"
                                                          : "");
  warn_of_coarse_scales(weight);
}

qd_status qd_quantize_alone(qd_run *run, const qd_stage_factor *factor, const qd_stats *stats, int index) {
  qd_weight *weight = factor->linears.weight[index];
  qd_range rows = {0, weight->slot.dim[0]};
  task t = {.weight = weight, .index = index};
  QD_TRY(prepare_task(run, factor, &t));
  QD_TRY(quantize_share(run, factor, stats, &t, rows));
  qd_outliers_settle(&weight->q);
  finish_task(run, factor, stats, &t);
  return QD_OK;
}

/* ---- the stage ----------------------------------------------------------------------------------------------------------- */

static qd_status quantize_tasks(qd_run *run, int64_t block, const qd_stage_factor *factor, const qd_stats *stats, task *tasks,
                                int n) {
  double start = qd_seconds(), cost[MAX_STAGE_LINEARS];
  int64_t rows[MAX_STAGE_LINEARS];
  qd_share *shares;
  int n_shares;
  for (int i = 0; i < n; i++) {
    tasks[i].index = i;
    QD_TRY_ALL(run->comm, prepare_task(run, factor, &tasks[i]));
    rows[i] = tasks[i].weight->slot.dim[0];
    cost[i] = (double)tasks[i].weight->slot.dim[1] * (double)tasks[i].weight->slot.dim[1];
  }
  QD_TRY(qd_heap_new((size_t)(n + run->comm->size), sizeof *shares, &shares));
  qd_partition_rows(n, rows, cost, qd_plan_share_rows(tasks[0].weight->q.scheme), run->comm->size, shares, &n_shares);
  qd_status status = qd_agree(run->comm, quantize_my_shares(run, factor, stats, tasks, shares, n_shares));
  for (int i = 0; status == QD_OK && i < n; i++) status = share_task(run, &tasks[i], i, shares, n_shares);
  qd_heap_free(shares);
  if (status != QD_OK) return qd_forward(status, __FILE__, __LINE__);
  for (int i = 0; i < n; i++) {
    finish_task(run, factor, stats, &tasks[i]);
    qd_budget_spend(&run->budget, tasks[i].weight->result.outliers, qd_tensor_elements(tasks[i].weight->original));
    qd_quantize_log(block, tasks[i].weight, (qd_seconds() - start) / n);
  }
  return QD_OK;
}

static int64_t group_of(const task *t) { return t->weight->q.scheme.group_size; }

/* How many linears from the first on have its factor. */
static int same_factor(const qd_run *run, const task *tasks, int n) {
  int same = 1;
  while (same < n && qd_job_shares_factor(run->job, group_of(&tasks[0]), group_of(&tasks[same]))) same++;
  return same;
}

static qd_linears linears_of(const task *tasks, int n) {
  qd_linears out = {.n = n};
  for (int i = 0; i < n; i++) out.weight[i] = tasks[i].weight;
  return out;
}

qd_status qd_quantize(qd_run *run, qd_block *block, qd_stage stage, const qd_stats *stats) {
  task tasks[MAX_STAGE_LINEARS];
  int n = collect_tasks(run, block, stage, tasks);
  for (int done = 0; done < n;) {
    int same = same_factor(run, tasks + done, n - done);
    qd_stage_factor factor = {.linears = linears_of(tasks + done, same)};
    size_t mark = qd_arena_mark(&run->stats_arena);
    qd_moment begin = qd_times_begin(run);
    if (stats != NULL) QD_TRY(qd_factorize(run, block, stage, stats, &factor));
    qd_times_end(run, begin, QD_TIME_FACTOR);
    begin = qd_times_begin(run);
    QD_TRY(quantize_tasks(run, block->index, &factor, stats, tasks + done, same));
    qd_times_end(run, begin, QD_TIME_LOOP);
    qd_arena_rewind(&run->stats_arena, mark);
    done += same;
  }
  return QD_OK;
}

/* No input, so no Hessian: rounded to nearest, whatever the method. */
qd_status qd_quantize_embedding(qd_run *run, qd_block *block) {
  qd_weight *weight = qd_block_find(block, QD_EMBEDDING);
  task t = {.weight = weight};
  qd_stage_factor nearest = {.linears = linears_of(&t, 1), .nearest = true};
  if (!qd_fate_is_quantized(fate_of(run, weight, &weight->q.scheme))) return QD_OK;
  qd_moment begin = qd_times_begin(run);
  QD_TRY(quantize_tasks(run, block->index, &nearest, NULL, &t, 1));
  qd_times_end(run, begin, QD_TIME_LOOP);
  return QD_OK;
}
