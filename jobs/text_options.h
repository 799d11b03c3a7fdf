/* Options that quantize and evaluate share: the text, the arithmetic, and who reads the model. */
#ifndef QDIST_JOBS_TEXT_OPTIONS_H
#define QDIST_JOBS_TEXT_OPTIONS_H

#include "jobs/options.h"
#include "pipeline/job.h"

typedef struct qd_text_options {
  const char *dataset;         /* the first one's file */
  qd_text_share text[QD_MAX_TEXTS];
  int         n_texts;
  int64_t     sequence_tokens; /* 0: 2048, or the model's positions if they are fewer */
  int64_t     seed;
  qd_add_bos  bos;
  bool        pack;
  qd_compute  compute;
  qd_compute  reference_compute; /* what --compute-dtype says, whatever the arithmetic; settled */
  qd_readers  readers;
  int         arithmetic; /* a qd_arithmetic; -1: not given */
} qd_text_options;

extern const struct argp qd_text_argp; /* a child parser; its input is a qd_text_options */
extern const struct argp qd_computing_argp; /* its part without the text: arithmetic and readers; the same input */
extern const qd_text_options qd_text_defaults;

/* --arithmetic and --compute-dtype against each other; usage error when they contradict. */
void qd_text_options_settle(struct argp_state *state, qd_text_options *options);

#endif
