#include "pipeline/plan_statistics.h"

#include "kernels/scratch.h"
#include "pipeline/plan_parts.h"
#include "pipeline/stages.h"

/* Some block's turn makes this rank the owner of the stage's factor (calibrate.c, factorize.c). */
static bool owns(const qd_plan_request *r, int rank, qd_stage stage) {
  if (stage == QD_STAGE_HEAD) return qd_stage_owner(QD_REST, stage, r->ranks) == rank;
  for (int64_t b = 0; b < r->model->n_blocks && b < r->ranks; b++)
    if (qd_stage_owner(b, stage, r->ranks) == rank) return true;
  return false;
}

/* The diagonal and the Hessian; on the owner the cross sum as well. */
static size_t kept_statistics(const qd_plan_request *r, int64_t columns, bool owner) {
  size_t bytes = qd_arena_cost((size_t)columns, sizeof(double)) + qd_arena_cost(qd_tri_elements(columns), sizeof(float));
  if (owner && qd_job_is_asymmetric(r->job)) bytes += qd_arena_cost((size_t)(columns * columns), sizeof(float));
  return bytes;
}

/* Diagonals of all units, then the exact sum; then the same of the cross sum, a panel of it. */
static size_t sum_bytes(const qd_plan_request *r, int64_t columns) {
  size_t grid = qd_arena_cost((size_t)columns, sizeof(int32_t));
  size_t units =
      qd_arena_cost((size_t)(r->sequences * columns), sizeof(double)) + qd_arena_cost((size_t)(3 * columns), sizeof(double));
  size_t most = qd_larger(units, qd_arena_cost(qd_tri_elements(columns), sizeof(int64_t)));
  if (qd_job_is_asymmetric(r->job)) {
    size_t panel = qd_arena_cost((size_t)(qd_calibrate_panel(columns) * columns), sizeof(int64_t));
    size_t cross = qd_larger(units + qd_arena_cost((size_t)(r->tokens * columns), sizeof(float)), panel);
    most = qd_larger(most, grid + qd_arena_cost((size_t)columns, sizeof(double)) + cross);
  }
  return grid + most;
}

/* Dead columns and order; the factor, and beside it what it is made with and, of several dampings, the best so far and the one
 * that is tried.  With these every rank makes one. */
static size_t factor_bytes(const qd_plan_request *r, int64_t columns, bool owner) {
  const qd_job *job = r->job;
  size_t bytes = qd_arena_cost((size_t)columns, 1) + qd_arena_cost((size_t)columns, sizeof(int32_t));
  if (!job->method->needs_factor) return bytes;
  size_t triangle = qd_arena_cost(qd_tri_elements(columns), sizeof(float));
  size_t work = qd_arena_cost(qd_tri_elements(columns), sizeof(double)) + qd_arena_cost((size_t)columns, sizeof(double));
  if (job->method->has_outliers) bytes += qd_arena_cost((size_t)(QD_N_LINEARS * columns), sizeof(double)); /* variances */
  size_t making = owner || job->damp_auto ? work + (job->damp_auto ? triangle : 0) : 0;
  return bytes + triangle + qd_larger(making, qd_job_is_asymmetric(job) ? triangle : 0); /* P follows the work */
}

/* An expert's: its Hessian, and beside it the sum of its units or the factor; all tokens' Hessian may stand in for it.  GPTAQ
 * does not correct experts. */
static size_t expert_bytes(const qd_plan_request *r, qd_stage stage) {
  int64_t columns = qd_decoder_mid_columns(r->model, stage);
  qd_job plain = *r->job;
  plain.gptaq = false;
  qd_plan_request all = *r, units = *r;
  all.job = units.job = &plain;
  units.sequences = (r->sequences * r->tokens + QD_EXPERT_UNIT - 1) / QD_EXPERT_UNIT;
  bool shared = stage == QD_STAGE_EXPERT_GATE_UP && r->job->moe_fallback == QD_MOE_SHARED && r->job->method->needs_factor;
  size_t own = qd_arena_cost(qd_tri_elements(columns), sizeof(float)) +
               qd_larger(sum_bytes(&units, columns), factor_bytes(&units, columns, true));
  return shared ? kept_statistics(&all, columns, false) + qd_larger(own, sum_bytes(&all, columns)) : own;
}

/* One stage at a time; without true-sequential the Hessians of all stages but the experts', then one factor after the other. */
static size_t block_statistics(const qd_plan_request *r, int64_t block, int rank) {
  size_t kept = 0, most = 0, factors = 0;
  QD_FOR_STAGES(stage, r->model, block) {
    int64_t columns = qd_decoder_mid_columns(r->model, stage);
    bool owner = owns(r, rank, stage);
    size_t factor = factor_bytes(r, columns, owner), here = kept_statistics(r, columns, owner);
    if (qd_stage_is_routed(stage)) {
      most = qd_larger(most, kept + expert_bytes(r, stage));
    } else if (r->job->true_sequential) {
      most = qd_larger(most, here + qd_larger(sum_bytes(r, columns), factor));
    } else {
      kept += here;
      most = qd_larger(most, kept + sum_bytes(r, columns));
      factors = qd_larger(factors, factor);
    }
  }
  return qd_larger(most, kept + factors);
}

size_t qd_plan_statistics(const qd_plan_request *r, int rank) {
  size_t most = 0;
  bool seen[2] = {false, false};
  for (int64_t block = 0; r->sequences > 0 && block < r->model->n_blocks; block++) {
    bool sparse = qd_model_is_sparse(r->model, block);
    if (!seen[sparse]) most = qd_larger(most, block_statistics(r, block, rank));
    seen[sparse] = true;
  }
  bool head = r->sequences > 0 && qd_job_quantizes(r->job, QD_HEAD, r->model);
  return head ? qd_larger(most, block_statistics(r, QD_REST, rank)) : most;
}

size_t qd_plan_statistics_scratch(const qd_plan_request *r) {
  size_t most = 0;
  for (qd_stage stage = 0; r->sequences > 0 && stage < QD_N_STAGES; stage++) {
    int64_t columns = qd_decoder_mid_columns(r->model, stage);
    most = qd_larger(most, qd_larger(qd_scratch_hessian(r->device, columns), qd_arena_cost((size_t)columns, sizeof(double))));
    if (r->job->method->needs_factor) most = qd_larger(most, qd_scratch_factor(r->device, columns));
    if (!qd_job_is_asymmetric(r->job)) continue;
    most = qd_larger(
        most, qd_larger(qd_scratch_cross(r->device, columns, r->tokens, r->act), qd_scratch_asymmetry(r->device, columns)));
  }
  return most;
}
