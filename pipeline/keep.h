/* --keep-activations: the residual streams as they stand between blocks, kept in the output until the job is finished, so that
 * a resume reads them back instead of running all calibration sequences through the finished blocks once more.  Results are the
 * same either way, so it is no part of the job's identity; what is kept is read by any resume, at any number of ranks. */
#ifndef QDIST_PIPELINE_KEEP_H
#define QDIST_PIPELINE_KEEP_H

#include "pipeline/stages.h"

/* h as it stands after so many blocks, each rank its sequences, to the disk; what was kept before stays the good one.  Nothing
 * without --keep-activations.  Collective. */
qd_status qd_keep_write(qd_run *run, int64_t blocks) QD_MUST_USE;

/* The journal has so many blocks: what was written for them is the good one now.  Collective. */
qd_status qd_keep_note(qd_run *run, int64_t blocks) QD_MUST_USE;

/* Read back what a killed run kept: h stands after run->passed blocks; 0: nothing was kept, or what was is damaged or of no
 * use, which the log tells.  Collective. */
qd_status qd_keep_restore(qd_run *run) QD_MUST_USE;

void qd_keep_close(qd_run *run);

#endif
