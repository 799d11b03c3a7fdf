/* The output folder of a quantizing run: whose it is, what is in it, how the run goes on, how it ends. */
#ifndef QDIST_PIPELINE_OUTPUT_H
#define QDIST_PIPELINE_OUTPUT_H

#include "pipeline/stages.h"

typedef struct qd_output {
  qd_store_lock lock;
  bool locked;
  bool finished; /* the job was done before: nothing is changed */
} qd_output;

/* What stands at the output, and whether it would be refused, as far as can be told: before the text is loaded all but the text
 * is compared.  Changes nothing; errors as below.  Without --output nothing is looked at.  Not collective. */
qd_status qd_output_foresee(const qd_run *run, qd_store_state *state) QD_MUST_USE;

/* How many blocks are there, in a row from the first. */
qd_status qd_output_blocks(const qd_run *run, int64_t *blocks) QD_MUST_USE;

/* Lock the folder (made if need be), look what it holds, compare it with this job; open what a killed run left, whose finished
 * files are compared with their digests, and set run->first_block: a block that is damaged is done again, with all behind it.
 * Collective.  QD_EEXIST: another job, a foreign folder, a live job, or --no-resume and not empty; QD_EINVAL:
 * inside the model's folder. */
qd_status qd_output_open(qd_run *run, qd_output *output) QD_MUST_USE;

/* Side files, manifest, away with partial/.  Collective. */
qd_status qd_output_finish(qd_run *run) QD_MUST_USE;

void qd_output_close(qd_output *output);

#endif
