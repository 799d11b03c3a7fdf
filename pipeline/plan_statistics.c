#include "pipeline/plan_statistics.h"

#include "kernels/scratch.h"
#include "pipeline/stages.h"

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

/* Some block's turn makes this rank the owner of the stage's factor (calibrate.c, factorize.c). */
static bool owns(const qd_plan_request *r, int rank, qd_stage stage) {
  for (int64_t b = 0; b < r->model->n_blocks && b < r->ranks; b++)
    if ((b * QD_N_STAGES + (int64_t)stage) % r->ranks == rank) return true;
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
  size_t most = larger(units, qd_arena_cost(qd_tri_elements(columns), sizeof(int64_t)));
  if (qd_job_is_asymmetric(r->job)) {
    size_t panel = qd_arena_cost((size_t)(qd_calibrate_panel(columns) * columns), sizeof(int64_t));
    size_t cross = larger(units + qd_arena_cost((size_t)(r->tokens * columns), sizeof(float)), panel);
    most = larger(most, grid + qd_arena_cost((size_t)columns, sizeof(double)) + cross);
  }
  return grid + most;
}

static size_t factor_bytes(const qd_plan_request *r, int64_t columns, bool owner) {
  size_t bytes = qd_arena_cost((size_t)columns, 1) + qd_arena_cost((size_t)columns, sizeof(int32_t));
  if (!r->job->method->needs_factor) return bytes;
  size_t triangle = qd_arena_cost(qd_tri_elements(columns), sizeof(float));
  size_t work = qd_arena_cost(qd_tri_elements(columns), sizeof(double)) + qd_arena_cost((size_t)columns, sizeof(double));
  return bytes + triangle + larger(owner ? work : 0, qd_job_is_asymmetric(r->job) ? triangle : 0); /* P follows the work */
}

/* One stage at a time; without true-sequential all stages' Hessians, then one factor after the other. */
size_t qd_plan_statistics(const qd_plan_request *r, int rank) {
  size_t kept = 0, most = 0, factors = 0;
  if (r->sequences == 0) return 0;
  for (qd_stage stage = 0; stage < QD_N_STAGES; stage++) {
    int64_t columns = qd_decoder_mid_columns(r->model, stage);
    bool owner = owns(r, rank, stage);
    size_t factor = factor_bytes(r, columns, owner), here = kept_statistics(r, columns, owner);
    if (r->job->true_sequential) {
      most = larger(most, here + larger(sum_bytes(r, columns), factor));
    } else {
      kept += here;
      most = larger(most, kept + sum_bytes(r, columns));
      factors = larger(factors, factor);
    }
  }
  return larger(most, kept + factors);
}

size_t qd_plan_statistics_scratch(const qd_plan_request *r) {
  size_t most = 0;
  for (qd_stage stage = 0; r->sequences > 0 && stage < QD_N_STAGES; stage++) {
    int64_t columns = qd_decoder_mid_columns(r->model, stage);
    most = larger(most, larger(qd_scratch_hessian(r->device, columns), qd_arena_cost((size_t)columns, sizeof(double))));
    if (r->job->method->needs_factor) most = larger(most, qd_scratch_factor(r->device, columns));
    if (!qd_job_is_asymmetric(r->job)) continue;
    most =
        larger(most, larger(qd_scratch_cross(r->device, columns, r->tokens, r->act), qd_scratch_asymmetry(r->device, columns)));
  }
  return most;
}
