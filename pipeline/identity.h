/* Is the original model still the one that a store was begun with?  Weight files whose size, inode and times equal those noted
 * in the log are taken as unchanged; otherwise every tensor that is in the store already is digested again, over ranks, and
 * what was not read yet is known again by a sample. */
#ifndef QDIST_PIPELINE_IDENTITY_H
#define QDIST_PIPELINE_IDENTITY_H

#include "pipeline/stages.h"

enum { QD_LOG_PATH_BYTES = 4096 };
#define QD_LOG_NAME "qdist.log"
#define QD_SAMPLE_KEY "weights_digest" /* of the job's description */

/* Note the weight files in the log (rank 0). */
void qd_identity_note(const qd_run *run);

/* One digest of all tensors of the model, whatever files they are in: name, dtype and shape of each, and of its bytes up to 64
 * KiB (four pieces from the first to the last, or all there are).  A model that was trained on, merged or converted differs
 * everywhere; the whole of a large one is not worth reading twice. */
qd_status qd_identity_sample(const qd_source *source, qd_digest *out) QD_MUST_USE;

/* Collective.  QD_EEXIST names the tensor that changed, or says that one changed that is not quantized yet. */
qd_status qd_identity_check(qd_run *run) QD_MUST_USE;

#endif
