/* Bits that a job may spend on outliers, so that --avg-bits is met at its end: the bits of all weights that are to be
 * quantized, less what codes and statistics take (the formula of SpQR, arXiv:2306.03078: 32 bits an outlier).  Before each
 * stage, or each expert, the threshold is chosen anew so that its share of outliers is what is left for each weight that is
 * left: so whatever one stage spends beside the mark, those after it make good, and nothing is done twice.  What was spent is
 * read from the records of finished blocks: a resumed job goes on with the same numbers. */
#ifndef QDIST_PIPELINE_BUDGET_H
#define QDIST_PIPELINE_BUDGET_H

#include "pipeline/job.h"
#include "storage/store.h"

/* The share of outliers that a budget may ask for at most: half of what memory is planned for (outliers.h). */
#define QD_MOST_WANTED_OUTLIERS 0.125

typedef struct qd_budget {
  double  outliers;         /* of the whole job */
  int64_t weights;          /* that the job quantizes */
  int64_t spent_outliers, done_weights;
} qd_budget;

/* Bits and groups for an average, where a person left them open (bits or group_size 0): of a small table the first setting that
 * the average pays for without an outlier, from 8 bits in groups of 16 down to 2 bits in groups of 128; for groups that it
 * does not have, of 8 bits down to 2.  False: none; *low and
 * *high are the averages that can be had. */
bool qd_budget_choose(qd_scheme *scheme, double avg_bits, double *low, double *high);

/* For the job's rules and the model's shapes; QD_EINVAL tells the range that can be had.  Nothing without avg_bits. */
qd_status qd_budget_open(qd_budget *budget, const qd_job *job, const qd_model *model) QD_MUST_USE;

/* The share of outliers that is wanted of the weights to come. */
double qd_budget_share(const qd_budget *budget);

void qd_budget_spend(qd_budget *budget, int64_t outliers, int64_t weights);

/* What the finished blocks of a store have spent. */
void qd_budget_resume(qd_budget *budget, const qd_store *store);

#endif
