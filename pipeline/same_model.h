/* Whether all ranks see the same model: on a cluster a path may lead to another file on each node.  Compared are names, sizes,
 * headers and samples of the values, not where the files lie or when they were written, so that copies on the nodes' disks are
 * fine. What is read afterwards is compared too where nodes read for themselves (feed.h). */
#ifndef QDIST_PIPELINE_SAME_MODEL_H
#define QDIST_PIPELINE_SAME_MODEL_H

#include "storage/source.h"
#include "workers/comm.h"

/* Collective.  QD_EBADINPUT on every rank: names rank, host and the first file that differs from rank 0's. */
qd_status qd_same_model(const qd_source *source, qd_comm *comm) QD_MUST_USE;

/* The same of a finished store, whose manifest has the digests of everything else. */
qd_status qd_same_store(const char *folder, qd_comm *comm) QD_MUST_USE;

#endif
