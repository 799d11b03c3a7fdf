#include "pipeline/factorize.h"

#include "kernels/base/log.h"
#include "pipeline/outliers.h"
#include "pipeline/sample.h"

#include <math.h>
#include <string.h>

/* The ladder: damping as asked for, then ten times more each time, and no less than this. */
enum { LADDER_STEPS = 5 };
static const double ladder_factor = 10, least_ladder_damping = 1e-4;

static double diagonal_of(qd_tri h, int64_t j) { return (double)((const float *)h.data)[qd_tri_index(j, j)]; }

static void find_dead(qd_tri h, uint8_t *dead) {
  for (int64_t j = 0; j < h.n; j++) dead[j] = diagonal_of(h, j) == 0;
}

/* Whether the mean and the order are taken as GPTQ's reference takes them, after its dead columns got a diagonal; SpQR's takes
 * them before. */
static bool dead_count(const qd_run *run) { return run->job->scheme.compat && !run->job->scheme.spqr; }

/* What a dead column's diagonal becomes.  The reference sets it to 1 in H = 2/n X^T X (n sequences): n / 2 in X^T X.  Ours is
 * the mean of the live ones, so that scaling the inputs changes nothing. */
static void mean_diagonal(const qd_run *run, qd_tri h, const uint8_t *dead, double *mean, double *dead_value) {
  double sum = 0;
  int64_t live = 0;
  for (int64_t j = 0; j < h.n; j++) sum += diagonal_of(h, j), live += !dead[j];
  if (run->job->scheme.compat) {
    *dead_value = (double)run->tokens.rows / 2;
    *mean = (sum + (dead_count(run) ? (double)(h.n - live) * *dead_value : 0)) / (double)h.n;
  } else {
    *mean = live > 0 ? sum / (double)live : 1;
    *dead_value = *mean;
  }
}

/* Columns by the likeness of one linear's weights. */
static qd_status order_by_weights(qd_run *run, const qd_weight *weight, qd_tensor order) {
  qd_tensor w;
  QD_TRY(qd_tensor_new_2d(&run->device->scratch, QD_F32, weight->slot.dim[0], weight->slot.dim[1], &w));
  qd_widen(weight->original.data, weight->dtype, w.data, (size_t)qd_tensor_elements(w));
  return qd_spearman_order(run->device, w, order);
}

static qd_status order_by_diagonal(qd_run *run, qd_tri h, double dead_value, const qd_stage_factor *factor) {
  float *diagonal;
  const uint8_t *dead = factor->dead.data;
  QD_TRY(qd_arena_new(&run->device->scratch, (size_t)h.n, sizeof *diagonal, &diagonal));
  for (int64_t j = 0; j < h.n; j++)
    diagonal[j] = dead[j] && dead_count(run) ? (float)dead_value : (float)diagonal_of(h, j);
  return qd_method_order(run->job->act_order, factor->linears.weight[0]->q.scheme.group_size, diagonal, h.n,
                         factor->order.data);
}

static qd_status make_order(qd_run *run, qd_tri h, double dead_value, const qd_stage_factor *factor) {
  qd_arena *scratch = &run->device->scratch;
  size_t mark = qd_arena_mark(scratch);
  qd_status status = run->job->act_order == QD_ORDER_SPEARMAN ? order_by_weights(run, factor->linears.weight[0], factor->order)
                                                              : order_by_diagonal(run, h, dead_value, factor);
  qd_arena_rewind(scratch, mark);
  return status;
}

/* What the candidates for a damping are made of. */
typedef struct ground {
  const qd_stats *stats;
  double mean, dead_value; /* of the diagonal; of dead columns */
} ground;

/* One try; *pivot >= 0 names the column that failed. */
static qd_status try_damping(qd_run *run, const ground *g, double damping, qd_stage_factor *factor, qd_tri work, qd_tensor add,
                             int64_t *pivot) {
  double *diagonal = add.data, dead_value = g->dead_value;
  const uint8_t *dead = factor->dead.data;
  if (run->job->scheme.compat && run->job->scheme.spqr) dead_value -= damping * g->mean; /* set, not added to */
  for (int64_t j = 0; j < g->stats->columns; j++) diagonal[j] = damping * g->mean + (dead[j] ? dead_value : 0);
  qd_factor_args args = {.h = g->stats->h, .order = factor->order, .add = add, .work = work, .u = factor->u};
  return qd_factor(run->device, &args, pivot);
}

/* From `damping` up to `steps` rungs above it. */
static qd_status climb_ladder(qd_run *run, const ground *g, double damping, int steps, qd_stage_factor *factor) {
  int64_t pivot = -1, columns = g->stats->columns;
  double *add;
  qd_tri work = {.dtype = QD_F64, .n = columns};
  size_t mark = qd_arena_mark(&run->stats_arena);
  QD_TRY(qd_arena_new(&run->stats_arena, qd_tri_elements(columns), sizeof(double), &work.data));
  QD_TRY(qd_arena_new(&run->stats_arena, (size_t)columns, sizeof *add, &add));
  for (int step = 0; step <= steps; step++) {
    QD_TRY(try_damping(run, g, damping, factor, work, qd_tensor_1d(add, QD_F64, columns), &pivot));
    factor->damping = damping;
    if (pivot < 0) break;
    double next = fmax(damping * ladder_factor, least_ladder_damping);
    qd_log_warning("%s: the Hessian is not positive at column %" PRId64 " with damping %g", g->stats->what, pivot, damping);
    damping = next;
  }
  qd_arena_rewind(&run->stats_arena, mark);
  factor->failed = pivot >= 0;
  return QD_OK;
}

/* ---- a few dampings, and the threshold of outliers ----------------------------------------------------------------------- */

const double qd_dampings[QD_N_DAMPINGS] = {0.01, 0.1, 1};

static int n_candidates(const qd_job *job) { return job->damp_auto ? QD_N_DAMPINGS : 1; }

typedef struct verdict {
  double  damping, threshold, cost;
  int32_t failed;
} verdict;

/* The factor of candidate k, with what a sample says of it.  Only the last climbs: it is the largest. */
static qd_status try_candidate(qd_run *run, const ground *g, int k, qd_stage_factor *factor, verdict *v) {
  const qd_job *job = run->job;
  qd_sampled sampled = {.threshold = factor->threshold};
  int steps = k + 1 == n_candidates(job) ? LADDER_STEPS : 0;
  QD_TRY(climb_ladder(run, g, job->damp_auto ? qd_dampings[k] : job->damp, steps, factor));
  if (!factor->failed && job->avg_bits > 0)
    QD_TRY(qd_sample_find(run, factor, g->stats, qd_budget_share(&run->budget), &sampled));
  else if (!factor->failed && qd_job_samples(job)) QD_TRY(qd_sample(run, factor, g->stats, &sampled));
  *v = (verdict){.damping = factor->damping, .threshold = sampled.threshold, .cost = sampled.cost, .failed = factor->failed};
  return QD_OK;
}

/* The best of the candidates that are this rank's (every `step`th from `first` on) is left in factor->u. */
static qd_status try_candidates(qd_run *run, const ground *g, int first, int step, qd_stage_factor *factor, verdict *verdicts) {
  double threshold = factor->threshold;
  int best = -1, n = n_candidates(run->job);
  qd_tri spare = factor->u;
  size_t mark = qd_arena_mark(&run->stats_arena);
  if (n > 1) QD_TRY(qd_arena_new(&run->stats_arena, qd_tri_elements(spare.n), sizeof(float), &spare.data));
  qd_tri kept = factor->u, other = spare;
  for (int k = first; k < n; k += step) {
    factor->threshold = threshold;
    factor->u = best < 0 ? kept : other;
    QD_TRY(try_candidate(run, g, k, factor, &verdicts[k]));
    if (best >= 0 && (verdicts[k].failed || (!verdicts[best].failed && verdicts[k].cost >= verdicts[best].cost))) continue;
    if (best >= 0) memcpy(kept.data, other.data, qd_tri_bytes(kept.n, QD_F32));
    best = k;
  }
  factor->u = kept;
  qd_arena_rewind(&run->stats_arena, mark);
  return QD_OK;
}

static int best_of(const verdict *v, int n) {
  int best = 0;
  for (int k = 1; k < n; k++)
    if (!v[k].failed && (v[best].failed || v[k].cost < v[best].cost)) best = k;
  return v[best].failed ? n - 1 : best;
}

/* U of an input that nobody knows: columns do not know each other. */
static void set_identity(qd_tri u) {
  float *to = u.data;
  memset(to, 0, qd_tri_bytes(u.n, QD_F32));
  for (int64_t j = 0; j < u.n; j++) to[qd_tri_index(j, j)] = 1;
}

/* Where no factor was had, a method with outliers rounds on its own grid, and has them all the same. */
static qd_status give_up(qd_run *run, const qd_stats *stats, qd_stage_factor *factor) {
  int32_t *order = factor->order.data;
  qd_sampled sampled;
  factor->failed = true;
  if (!run->job->method->has_outliers) return QD_OK;
  set_identity(factor->u);
  for (int64_t p = 0; p < factor->order.dim[0]; p++) order[p] = (int32_t)p;
  if (run->job->avg_bits == 0) return QD_OK;
  return qd_sample_find(run, factor, stats, qd_budget_share(&run->budget), &sampled);
}

static qd_status settle(qd_run *run, const qd_stats *stats, const verdict *v, qd_stage_factor *factor) {
  factor->damping = v->damping, factor->threshold = v->threshold, factor->failed = v->failed != 0;
  if (!factor->failed) return QD_OK;
  QD_CHECK(run->job->on_failure == QD_FAILURE_RTN, QD_ENUMERIC, "%s: the Hessian has no factor even with damping %g",
           stats->what, factor->damping);
  qd_log_warning("%s: its linears are rounded to nearest: no damping up to %g gave a factor", stats->what, factor->damping);
  return give_up(run, stats, factor);
}

static int rank_of(int owner, int k, const qd_comm *comm) { return (owner + k) % comm->size; }

static qd_status choose_factor(qd_run *run, const ground *g, int owner, qd_stage_factor *factor) {
  qd_comm *comm = run->comm;
  verdict v[QD_N_DAMPINGS] = {{0}};
  int first = (comm->rank - owner + comm->size) % comm->size;
  QD_TRY_ALL(comm, try_candidates(run, g, first, comm->size, factor, v));
  for (int k = 0; k < n_candidates(run->job); k++) QD_TRY(qd_comm_bcast(comm, &v[k], sizeof v[k], rank_of(owner, k, comm)));
  int best = best_of(v, n_candidates(run->job));
  QD_TRY_ALL(comm, settle(run, g->stats, &v[best], factor));
  if (factor->failed) return QD_OK;
  return qd_comm_bcast(comm, factor->u.data, qd_tri_bytes(factor->u.n, QD_F32), rank_of(owner, best, comm));
}

/* ---- the whole ----------------------------------------------------------------------------------------------------------- */

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

static qd_status make_variance(qd_run *run, qd_stage_factor *factor) {
  const qd_linears *l = &factor->linears;
  if (!run->job->method->has_outliers) return QD_OK;
  QD_TRY(qd_tensor_new_2d(&run->stats_arena, QD_F64, l->n, factor->order.dim[0], &factor->variance));
  for (int i = 0; i < l->n; i++)
    QD_TRY(qd_outliers_variance(run->device, l->weight[i]->original, factor->dead.data, qd_tensor_at(factor->variance, i)));
  return QD_OK;
}

static qd_status make_room(qd_run *run, int64_t columns, qd_stage_factor *factor) {
  uint8_t *dead;
  int32_t *order;
  *factor = (qd_stage_factor){
      .linears = factor->linears, .u = {.dtype = QD_F32, .n = columns}, .threshold = run->job->outlier_threshold};
  QD_TRY(qd_arena_new(&run->stats_arena, (size_t)columns, sizeof *dead, &dead));
  QD_TRY(qd_arena_new(&run->stats_arena, (size_t)columns, sizeof *order, &order));
  memset(dead, 0, (size_t)columns);
  factor->dead = qd_tensor_1d(dead, QD_U8, columns);
  factor->order = qd_tensor_1d(order, QD_I32, columns);
  if (!run->job->method->needs_factor) return QD_OK;
  return qd_arena_new(&run->stats_arena, qd_tri_elements(columns), sizeof(float), &factor->u.data);
}

/* What needs no rank to decide: dead columns and their order; room for the factor; what outliers are measured by. */
static qd_status prepare(qd_run *run, const qd_stats *stats, qd_stage_factor *factor, ground *g) {
  *g = (ground){.stats = stats};
  QD_TRY(make_room(run, stats->columns, factor));
  find_dead(stats->h, factor->dead.data);
  mean_diagonal(run, stats->h, factor->dead.data, &g->mean, &g->dead_value);
  QD_TRY(make_order(run, stats->h, g->dead_value, factor));
  return make_variance(run, factor);
}

qd_status qd_factorize(qd_run *run, const qd_block *block, qd_stage stage, const qd_stats *stats, qd_stage_factor *factor) {
  ground g;
  QD_TRY_ALL(run->comm, prepare(run, stats, factor, &g));
  if (!run->job->method->needs_factor) return QD_OK;
  int owner = qd_stage_owner(block->index, stage, run->comm->size);
  QD_TRY(choose_factor(run, &g, owner, factor));
  return form_asymmetry(run, owner, stats, factor);
}

qd_status qd_factorize_here(qd_run *run, const qd_stats *stats, qd_stage_factor *factor) {
  ground g;
  verdict v[QD_N_DAMPINGS] = {{0}};
  if (stats == NULL) {
    QD_TRY(make_room(run, factor->linears.weight[0]->slot.dim[1], factor));
    QD_TRY(make_variance(run, factor));
    return give_up(run, NULL, factor);
  }
  QD_TRY(prepare(run, stats, factor, &g));
  if (!run->job->method->needs_factor) return QD_OK;
  QD_TRY(try_candidates(run, &g, 0, 1, factor, v));
  return settle(run, stats, &v[best_of(v, n_candidates(run->job))], factor);
}
