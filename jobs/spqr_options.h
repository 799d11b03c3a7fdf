/* The options of --method spqr. */
#ifndef QDIST_JOBS_SPQR_OPTIONS_H
#define QDIST_JOBS_SPQR_OPTIONS_H

#include "jobs/options.h"
#include "pipeline/job.h"

typedef struct qd_spqr_options {
  const char *given;                 /* one of these options, for who has another method; NULL: none */
  int     preset;                    /* -1: not given */
  double  avg_bits, threshold;       /* -1: not given */
  bool    simplified, round_zero;
  int     scale_bits, zero_bits;     /* -1: not given */
  int64_t stat_group;                /* 0: not given */
} qd_spqr_options;

extern const struct argp qd_spqr_argp; /* a child parser; its input is a qd_spqr_options */
extern const qd_spqr_options qd_spqr_defaults;

/* What of the job was given by options that other methods have as well. */
typedef struct qd_spqr_shared {
  bool bits, group, order, damp;
} qd_spqr_shared;

/* The job's settings of a method with outliers: those of the preset, then what was given.  Of other methods only whether one of
 * these options was given, which is a usage error, as is what contradicts itself. */
void qd_spqr_options_settle(struct argp_state *state, const qd_spqr_options *options, qd_spqr_shared given, qd_job *job);

#endif
