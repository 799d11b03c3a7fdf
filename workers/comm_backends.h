/* The implementations of comm.h.  Only team.c chooses one; tests open them directly. */
#ifndef QDIST_WORKERS_COMM_BACKENDS_H
#define QDIST_WORKERS_COMM_BACKENDS_H

#include "workers/comm.h"

/* One rank, no MPI.  The communicator is the process's own: closing it does nothing. */
qd_comm *qd_comm_self(void);

/* The environment's QDIST_RANKS_PER_NODE=N takes each N consecutive ranks for a node: for tests on one machine. */
#define QD_RANKS_PER_NODE "QDIST_RANKS_PER_NODE"

/* Starts MPI; closing the communicator ends it.  Messages are cut at piece_bytes, a multiple of 8: QD_COMM_PIECE_BYTES except
 * in tests.  After a failure MPI goes on: end the job, as other ranks may wait for this one. */
qd_status qd_comm_mpi_open(size_t piece_bytes, qd_comm **out) QD_MUST_USE;

bool qd_comm_mpi_running(void);        /* between the start of MPI and its end */
void qd_comm_mpi_abort(int exit_code); /* ends every rank; does not return */

const int *qd_comm_mpi_first_on_node(const qd_comm *comm); /* for each rank the lowest one on its node */

/* The library's own words about itself, cut to `bytes`.  Does not start MPI. */
void qd_comm_mpi_library(char *text, size_t bytes);

#endif
