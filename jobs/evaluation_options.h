/* Options that evaluate and compare share: how perplexity is measured, tasks, memory; and what is said of an evaluation. */
#ifndef QDIST_JOBS_EVALUATION_OPTIONS_H
#define QDIST_JOBS_EVALUATION_OPTIONS_H

#include "jobs/model_options.h"
#include "jobs/text_options.h"
#include "pipeline/evaluate/perplexity.h"

typedef struct qd_evaluation_options {
  qd_evaluation_request request; /* all but the models; complete after the settling */
  qd_text_options       text;
  qd_common_options     common;
  qd_model_options      models; /* for qd_model_locate; close it */
  bool                  json;
} qd_evaluation_options;

extern const struct argp qd_evaluation_argp; /* a child parser; its input is a qd_evaluation_options */

void qd_evaluation_options_begin(qd_evaluation_options *options); /* before parsing */

/* What the options say together; usage error when nothing is to be measured, or they contradict each other. */
void qd_evaluation_options_settle(struct argp_state *state, qd_evaluation_options *options);

/* Members of `out`, which has the model and the reference already; and the same for people. */
void qd_evaluation_set_json(qd_json *out, const qd_evaluation_request *request, const qd_evaluation *result);
void qd_evaluation_print(const qd_evaluation_request *request, const qd_evaluation *result);

#endif
