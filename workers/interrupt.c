#define _POSIX_C_SOURCE 200809L
#include "workers/interrupt.h"

#include <signal.h>

static volatile sig_atomic_t seen;

static void on_signal(int number) {
  (void)number;
  seen = 1;
}

/* SIGTERM's handler is good for one signal only: the next one meets the default action.  SIGINT keeps it from the start:
 * mpirun turns the first Ctrl-C into the end of all its ranks anyway. */
void qd_interrupt_install(void) {
  struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
  sigemptyset(&action.sa_mask);
  sigaction(SIGUSR1, &action, NULL);
  action.sa_flags |= (int)SA_RESETHAND;
  sigaction(SIGTERM, &action, NULL);
}

void qd_interrupt_install_ctrl_c(void) {
  struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART | (int)SA_RESETHAND};
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, NULL);
}

bool qd_interrupt_seen(void) { return seen != 0; }

qd_status qd_interrupt_agree(qd_comm *comm, bool *stop) {
  int64_t n_seen = qd_interrupt_seen();
  QD_TRY(qd_comm_reduce_i64(comm, &n_seen, 1, 0));
  QD_TRY(qd_comm_bcast(comm, &n_seen, sizeof n_seen, 0));
  *stop = n_seen > 0;
  return QD_OK;
}
