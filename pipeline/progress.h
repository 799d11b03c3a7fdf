/* What a person sees of a running job: a line a block with an estimate of the end, a status file, the last lines; and when to
 * stop. */
#ifndef QDIST_PIPELINE_PROGRESS_H
#define QDIST_PIPELINE_PROGRESS_H

#include "pipeline/stages.h"

/* Collective (the status file is the coordinator's, its failure everyone's). */
qd_status qd_progress_begin(qd_run *run) QD_MUST_USE;
qd_status qd_progress_block(qd_run *run, int64_t block, double seconds,
                            double loss) QD_MUST_USE; /* on disk and in the journal */
double    qd_progress_loss(const qd_block *block); /* its linears' losses added */
qd_status qd_progress_end(qd_run *run) QD_MUST_USE;

/* The output is finished already.  Collective. */
qd_status qd_progress_nothing_to_do(qd_run *run) QD_MUST_USE;

/* The thread's error into the status file; returns `why`, with that error.  Not collective. */
qd_status qd_progress_failed(const qd_run *run, qd_status why) QD_MUST_USE;

/* QD_ESTOPPED on every rank when a signal came, or when the next block would pass --stop-after; else QD_OK.  Not after the last
 * block. */
qd_status qd_progress_stop(qd_run *run, int64_t block, double block_seconds) QD_MUST_USE;

#endif
