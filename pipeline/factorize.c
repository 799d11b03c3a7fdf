#include "pipeline/factorize.h"

#include "kernels/base/log.h"

#include <math.h>
#include <string.h>

/* The ladder: damping as asked for, then ten times more each time, and no less than this. */
enum { LADDER_STEPS = 5 };
static const double ladder_factor = 10, least_ladder_damping = 1e-4;

static double diagonal_of(qd_tri h, int64_t j) { return (double)((const float *)h.data)[qd_tri_index(j, j)]; }

static void find_dead(qd_tri h, uint8_t *dead) {
  for (int64_t j = 0; j < h.n; j++) dead[j] = diagonal_of(h, j) == 0;
}

/* What a dead column's diagonal becomes.  The reference sets it to 1 in H = 2/n X^T X (n sequences), before the mean: n / 2 in
 * X^T X. Ours is the mean of the live ones, so that scaling the inputs changes nothing. */
static void mean_diagonal(const qd_run *run, qd_tri h, const uint8_t *dead, double *mean, double *dead_value) {
  double sum = 0;
  int64_t live = 0;
  for (int64_t j = 0; j < h.n; j++) sum += diagonal_of(h, j), live += !dead[j];
  if (run->job->scheme.compat) {
    *dead_value = (double)run->tokens.rows / 2;
    *mean = (sum + (double)(h.n - live) * *dead_value) / (double)h.n;
  } else {
    *mean = live > 0 ? sum / (double)live : 1;
    *dead_value = *mean;
  }
}

static qd_status make_order(const qd_run *run, qd_tri h, double dead_value, int64_t group_size, qd_stage_factor *factor) {
  float *diagonal;
  qd_arena *scratch = &run->device->scratch;
  size_t mark = qd_arena_mark(scratch);
  QD_TRY(qd_arena_new(scratch, (size_t)h.n, sizeof *diagonal, &diagonal));
  const uint8_t *dead = factor->dead.data;
  for (int64_t j = 0; j < h.n; j++)
    diagonal[j] = dead[j] && run->job->scheme.compat ? (float)dead_value : (float)diagonal_of(h, j);
  qd_status status = qd_method_order(run->job->act_order, group_size, diagonal, h.n, factor->order.data);
  qd_arena_rewind(scratch, mark);
  return status;
}

/* One try; *pivot >= 0 names the column that failed. */
static qd_status try_damping(qd_run *run, const qd_stats *stats, double mean, double dead_value, double damping,
                             qd_stage_factor *factor, qd_tri work, qd_tensor add, int64_t *pivot) {
  double *diagonal = add.data;
  const uint8_t *dead = factor->dead.data;
  for (int64_t j = 0; j < stats->columns; j++) diagonal[j] = damping * mean + (dead[j] ? dead_value : 0);
  qd_factor_args args = {.h = stats->h, .order = factor->order, .add = add, .work = work, .u = factor->u};
  return qd_factor(run->device, &args, pivot);
}

static qd_status climb_ladder(qd_run *run, const qd_block *block, qd_stage stage, const qd_stats *stats, double mean,
                              double dead_value, qd_stage_factor *factor) {
  int64_t pivot = -1;
  double damping = run->job->damp, *add;
  qd_tri work = {.dtype = QD_F64, .n = stats->columns};
  size_t mark = qd_arena_mark(&run->stats_arena);
  QD_TRY(qd_arena_new(&run->stats_arena, qd_tri_elements(stats->columns), sizeof(double), &work.data));
  QD_TRY(qd_arena_new(&run->stats_arena, (size_t)stats->columns, sizeof *add, &add));
  for (int step = 0; step <= LADDER_STEPS; step++) {
    QD_TRY(try_damping(run, stats, mean, dead_value, damping, factor, work, qd_tensor_1d(add, QD_F64, stats->columns), &pivot));
    factor->damping = damping;
    if (pivot < 0) break;
    double next = fmax(damping * ladder_factor, least_ladder_damping);
    qd_log_warning("block %" PRId64 ": %s: the Hessian is not positive at column %" PRId64 " with damping %g", block->index,
                   qd_stage_input_name(stage), pivot, damping);
    damping = next;
  }
  qd_arena_rewind(&run->stats_arena, mark);
  factor->failed = pivot >= 0;
  QD_CHECK(!factor->failed || run->job->on_failure == QD_FAILURE_RTN, QD_ENUMERIC,
           "block %" PRId64 ": the Hessian of %s has no factor even with damping %g (pivot at column %" PRId64 ")",
           block->index, qd_stage_input_name(stage), factor->damping, pivot);
  if (factor->failed)
    qd_log_warning("block %" PRId64 ": the linears of %s are rounded to nearest: no damping up to %g gave a factor",
                   block->index, qd_stage_input_name(stage), factor->damping);
  return QD_OK;
}

typedef struct verdict {
  double  damping;
  int32_t failed;
} verdict;

static qd_status share_factor(qd_run *run, int owner, qd_stage_factor *factor) {
  verdict v = {.damping = factor->damping, .failed = factor->failed};
  QD_TRY(qd_comm_bcast(run->comm, &v, sizeof v, owner));
  factor->damping = v.damping, factor->failed = v.failed != 0;
  return factor->failed ? QD_OK : qd_comm_bcast(run->comm, factor->u.data, qd_tri_bytes(factor->u.n, QD_F32), owner);
}

/* Of the cross sum and the factor; the owner has both. */
static qd_status form_asymmetry(qd_run *run, int owner, const qd_stats *stats, qd_stage_factor *factor) {
  if (!stats->asymmetric || factor->failed) return QD_OK;
  factor->p = (qd_tri){.dtype = QD_F32, .n = stats->columns};
  QD_TRY(qd_arena_new(&run->stats_arena, qd_tri_elements(stats->columns), sizeof(float), &factor->p.data));
  qd_asymmetry_args args = {
      .cross = stats->cross, .order = factor->order, .u = factor->u, .alpha = run->job->gptaq_alpha, .p = factor->p};
  QD_TRY_ALL(run->comm, run->comm->rank == owner ? qd_asymmetry(run->device, &args) : QD_OK);
  return qd_comm_bcast(run->comm, factor->p.data, qd_tri_bytes(factor->p.n, QD_F32), owner);
}

qd_status qd_factorize(qd_run *run, const qd_block *block, qd_stage stage, const qd_stats *stats, int64_t group_size,
                       qd_stage_factor *factor) {
  int64_t columns = stats->columns;
  uint8_t *dead;
  int32_t *order;
  double mean, dead_value;
  *factor = (qd_stage_factor){.u = {.dtype = QD_F32, .n = columns}};
  QD_TRY(qd_arena_new(&run->stats_arena, (size_t)columns, sizeof *dead, &dead));
  QD_TRY(qd_arena_new(&run->stats_arena, (size_t)columns, sizeof *order, &order));
  factor->dead = qd_tensor_1d(dead, QD_U8, columns);
  factor->order = qd_tensor_1d(order, QD_I32, columns);
  find_dead(stats->h, dead);
  mean_diagonal(run, stats->h, dead, &mean, &dead_value);
  QD_TRY(make_order(run, stats->h, dead_value, group_size, factor));
  if (!run->job->method->needs_factor) return QD_OK;
  QD_TRY(qd_arena_new(&run->stats_arena, qd_tri_elements(columns), sizeof(float), &factor->u.data));
  int owner = qd_stage_owner(run, block->index, stage);
  QD_TRY_ALL(run->comm, run->comm->rank == owner ? climb_ladder(run, block, stage, stats, mean, dead_value, factor) : QD_OK);
  QD_TRY(share_factor(run, owner, factor));
  return form_asymmetry(run, owner, stats, factor);
}
