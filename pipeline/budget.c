#include "pipeline/budget.h"

#include "pipeline/record.h"

#include <string.h>

/* Down from 8 bits in groups of 16: each costs less than the one before.  A bit of code is worth more than what it costs in
 * outliers, and so are smaller groups (docs/methods.md has the measurements). */
static const int64_t groups[] = {16, 32, 64, 128};
enum { N_GROUPS = 4, N_SETTINGS = (QD_MAX_BITS - QD_MIN_BITS + 1) * N_GROUPS };

static const double outlier_bits = 32; /* value and column */

static double floor_of(qd_scheme scheme) { return qd_scheme_formula_bits(scheme, 0); }

/* What a person gave stays, whatever goes with it. */
static qd_scheme setting_at(int i, qd_scheme given) {
  if (given.bits == 0) given.bits = QD_MAX_BITS - i / N_GROUPS;
  if (given.group_size == 0) given.group_size = groups[i % N_GROUPS];
  return given;
}

bool qd_budget_choose(qd_scheme *scheme, double avg_bits, double *low, double *high) {
  qd_scheme wanted = *scheme, best = *scheme;
  bool found = false;
  *low = 1e9, *high = 0;
  for (int i = 0; i < N_SETTINGS; i++) {
    qd_scheme s = setting_at(i, wanted);
    double least = floor_of(s), most = least + outlier_bits * QD_MOST_WANTED_OUTLIERS;
    *low = least < *low ? least : *low, *high = most > *high ? most : *high;
    if (found || avg_bits < least) continue;
    best = s, found = true;
  }
  *scheme = best;
  return found && avg_bits <= *high;
}

/* ---- the whole job ------------------------------------------------------------------------------------------------------- */

static void add_weights(qd_budget *budget, int64_t weights, qd_scheme scheme, double *floor_bits) {
  budget->weights += weights;
  *floor_bits += (double)weights * floor_of(scheme);
}

static void add_linear(qd_budget *budget, const qd_job *job, const qd_slot *slot, double *floor_bits) {
  qd_scheme scheme;
  if (qd_role_is_linear(slot->role) && qd_fate_is_quantized(qd_job_scheme(job, slot->name, slot->dim[1], &scheme)))
    add_weights(budget, slot->dim[0] * slot->dim[1], scheme, floor_bits);
}

/* The last one of all. */
static void add_head(qd_budget *budget, const qd_job *job, const qd_model *model, double *floor_bits) {
  qd_scheme scheme;
  if (qd_fate_is_quantized(qd_job_rest_scheme(job, QD_HEAD, model->hidden, &scheme)))
    add_weights(budget, model->vocabulary * model->hidden, scheme, floor_bits);
}

qd_status qd_budget_open(qd_budget *budget, const qd_job *job, const qd_model *model) {
  double floor_bits = 0;
  qd_slot slot;
  *budget = (qd_budget){0};
  if (job->avg_bits == 0) return QD_OK;
  for (int64_t block = 0; block < model->n_blocks; block++)
    for (int i = 0; i < qd_model_n_slots(model, block); i++) {
      qd_model_slot(model, block, i, &slot);
      add_linear(budget, job, &slot, &floor_bits);
    }
  add_head(budget, job, model, &floor_bits);
  double weights = (double)budget->weights, low = floor_bits / weights, high = low + outlier_bits * QD_MOST_WANTED_OUTLIERS;
  QD_CHECK(job->avg_bits >= low && job->avg_bits <= high, QD_EINVAL,
           "--avg-bits %g cannot be reached with these bits and groups: %.4f (no outlier) to %.4f can", job->avg_bits, low,
           high);
  budget->outliers = (job->avg_bits * weights - floor_bits) / outlier_bits;
  return QD_OK;
}

double qd_budget_share(const qd_budget *budget) {
  double left = budget->outliers - (double)budget->spent_outliers, weights = (double)(budget->weights - budget->done_weights);
  double share = weights > 0 ? left / weights : 0;
  return share < 0 ? 0 : share > QD_MOST_WANTED_OUTLIERS ? QD_MOST_WANTED_OUTLIERS : share;
}

void qd_budget_spend(qd_budget *budget, int64_t outliers, int64_t weights) {
  budget->spent_outliers += outliers;
  budget->done_weights += weights;
}

void qd_budget_resume(qd_budget *budget, const qd_store *store) {
  for (int64_t b = 0; b < store->n_blocks; b++)
    for (int i = 0; i < store->block[b].n_records; i++) {
      const qd_record *record = &store->block[b].record[i];
      if (qd_record_is_quantized(record))
        qd_budget_spend(budget, qd_record_outliers(record), record->dim[0] * record->dim[1]);
    }
}
