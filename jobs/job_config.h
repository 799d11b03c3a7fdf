/* The complete job as a configuration: what was given, and what was not as it was settled. */
#ifndef QDIST_JOBS_JOB_CONFIG_H
#define QDIST_JOBS_JOB_CONFIG_H

#include "pipeline/job.h"

/* A qd_job's `configuration`; the text from the heap. */
qd_status qd_job_config_print(const qd_job *job, const qd_job_settled *settled, char **text) QD_MUST_USE;

#endif
