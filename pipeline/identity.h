/* Is the original model still the one that a store was begun with?  Weight files whose size, inode and times equal those noted
 * in the log are taken as unchanged; otherwise every tensor that is in the store already is digested again, over ranks. */
#ifndef QDIST_PIPELINE_IDENTITY_H
#define QDIST_PIPELINE_IDENTITY_H

#include "pipeline/stages.h"

enum { QD_LOG_PATH_BYTES = 4096 };
#define QD_LOG_NAME "qdist.log"

/* Note the weight files in the log (rank 0). */
void qd_identity_note(const qd_run *run);

/* Collective.  QD_EEXIST names the tensor that changed. */
qd_status qd_identity_check(qd_run *run) QD_MUST_USE;

#endif
