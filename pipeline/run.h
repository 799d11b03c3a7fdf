/* The quantizing job: the loop over blocks.  The file to read first is run.c. */
#ifndef QDIST_PIPELINE_RUN_H
#define QDIST_PIPELINE_RUN_H

#include "kernels/device.h"
#include "pipeline/job.h"
#include "workers/comm.h"

/* Quantize as the job says.  Collective; the same status on every rank.  An unfinished output of the same job is gone on with;
 * a finished one is left as it is (QD_OK).  QD_ESTOPPED: stopped cleanly after a block, on a signal or --stop-after; QD_EEXIST:
 * the output holds something else. */
qd_status qd_run_quantize(const qd_job *job, qd_comm *comm, qd_device *device) QD_MUST_USE;

#endif
