/* SIGTERM and SIGUSR1 set a flag that is read between blocks or tokens; a second SIGTERM or SIGINT ends the process at once. */
#ifndef QDIST_WORKERS_INTERRUPT_H
#define QDIST_WORKERS_INTERRUPT_H

#include "workers/comm.h"

void qd_interrupt_install(void);

/* The first SIGINT counts as well: for who reads the flag often. */
void qd_interrupt_install_ctrl_c(void);

bool qd_interrupt_seen(void); /* this rank */

/* Collective: whether any rank saw one. */
qd_status qd_interrupt_agree(qd_comm *comm, bool *stop) QD_MUST_USE;

#endif
