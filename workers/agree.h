/* Turn one rank's failure into everyone's, with its message. */
#ifndef QDIST_WORKERS_AGREE_H
#define QDIST_WORKERS_AGREE_H

#include "workers/comm.h"

/* Collective.  QD_OK if every rank passes QD_OK; else the status of the lowest failing rank, on every rank, with that rank's
 * error text and trace set in this thread ("rank 3: ..." unless it is the coordinator's or everyone's). */
qd_status qd_agree(qd_comm *comm, qd_status mine) QD_MUST_USE;

/* The same, where a failure is not the end but the caller's to decide: *agreed is what every rank gets of it, with the text of
 * the lowest failing rank.  Returns QD_OK unless the agreeing itself fails.  Collective. */
qd_status qd_agree_on(qd_comm *comm, qd_status mine, qd_status *agreed) QD_MUST_USE;

/* Whether qd_agree ever returned a failure in this process: then every rank knows, and is on its way out. */
bool qd_agree_failed(void);

#define QD_TRY_ALL(comm, call) QD_TRY(qd_agree((comm), (call)))

#endif
