/* The options of a quantizing job, which `quantize` runs and `plan` weighs. */
#ifndef QDIST_JOBS_JOB_OPTIONS_H
#define QDIST_JOBS_JOB_OPTIONS_H

#include "jobs/model_options.h"
#include "jobs/spqr_options.h"
#include "jobs/text_options.h"
#include "workers/comm.h"

typedef struct qd_job_options {
  qd_job job;
  qd_common_options common;
  qd_text_options text;
  qd_spqr_options spqr;
  bool bits, group, damp; /* whether they were given */
  qd_model_options models;
  int symmetric, mse, order, sequential, resume, scale; /* -1: not given */
  double gptaq_alpha; /* -1: not given */
  bool report_kl;
  int64_t kl_positions; /* 0: not given */
} qd_job_options;

extern const struct argp qd_job_argp; /* a child parser; its input is a qd_job_options */
qd_job_options qd_job_options_new(void);

/* What was not given, and what contradicts itself (usage error).  writes: --output and calibration text are needed. */
void qd_job_options_settle(struct argp_state *state, qd_job_options *options, bool writes);

/* What --permutation-order calls an order that SpQR has. */
const char *qd_permutation_name(qd_act_order order);

/* Find the model by its name; compile the rules; open the device, whose scratch gets its size from the plan.  Collective.
 * _close: name and rules, after a failure too. */
qd_status qd_job_options_open(qd_job_options *options, qd_comm *comm, qd_device *device) QD_MUST_USE;
void      qd_job_options_close(qd_job_options *options);

#endif
