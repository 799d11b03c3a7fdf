/* Where --status-file may lie.  It is replaced after each block: not over anything that is no status file of ours. */
#ifndef QDIST_PIPELINE_STATUS_PATH_H
#define QDIST_PIPELINE_STATUS_PATH_H

#include "pipeline/job.h"

/* QD_EEXIST: something else is there.  QD_EINVAL: the place is the model's, or the store's own.  Without --status-file nothing
 * is looked at.  Not collective. */
qd_status qd_status_path_check(const qd_job *job) QD_MUST_USE;

#endif
