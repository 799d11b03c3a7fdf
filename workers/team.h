/* Start-up and shutdown of the ranks. */
#ifndef QDIST_WORKERS_TEAM_H
#define QDIST_WORKERS_TEAM_H

#include "workers/comm.h"

/* MPI when this process was started by mpirun or srun (their environment says so), else one rank without MPI.
 * Errors between ranks end the job (Open MPI 4 has no way to go on). */
qd_status qd_team_open(qd_comm **out) QD_MUST_USE;

/* After success, or a failure that all agreed on: orderly end.  Otherwise, when ranks may wait for this one, abort is true and
 * the job is ended with `exit_code`.  comm may be NULL where qd_team_open failed. */
void qd_team_close(qd_comm *comm, bool abort, int exit_code);

/* Nodes: the ranks that share this rank's memory, as a communicator in ascending order (closed with comm; comm itself for
 * self); their number; for each rank of comm the lowest one on its node; how many nodes there are. */
qd_comm   *qd_team_node(qd_comm *comm);
int        qd_team_ranks_on_node(const qd_comm *comm);
const int *qd_team_first_on_node(const qd_comm *comm);
int        qd_team_nodes(const qd_comm *comm);

const char *qd_host_name(char *text, size_t size); /* of this machine; "?" if it has none */
const char *qd_team_library(void);               /* "Open MPI 4.1.4", for --version */

#endif
