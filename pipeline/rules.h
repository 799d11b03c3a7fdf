/* Do the job's --ignore and --override fit the model?  A pattern with a typo would quantize what should have been kept. */
#ifndef QDIST_PIPELINE_RULES_H
#define QDIST_PIPELINE_RULES_H

#include "pipeline/job.h"

/* QD_EINVAL names the pattern, the model and some of its linears: an --ignore that finds no tensor at all (one that is never
 * quantized, lm_head say, may be named, as other tools want it), an --override that finds no linear; or no linear is left. */
qd_status qd_rules_check(const qd_job *job, const qd_model *model) QD_MUST_USE;

#endif
