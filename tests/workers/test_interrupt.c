#define _POSIX_C_SOURCE 200809L
#include "tests/support/run.h"
#include "workers/comm_backends.h"
#include "workers/interrupt.h"

#include <criterion/criterion.h>
#include <signal.h>

static void check_first(int signal_number) {
  bool stop = true;
  qd_interrupt_install();
  cr_assert_not(qd_interrupt_seen());
  cr_assert_eq(qd_interrupt_agree(qd_comm_self(), &stop), QD_OK);
  cr_assert_not(stop);
  raise(signal_number);
  cr_assert(qd_interrupt_seen());
  cr_assert_eq(qd_interrupt_agree(qd_comm_self(), &stop), QD_OK);
  cr_assert(stop);
}

Test(interrupt, first_sigterm_is_noted) { check_first(SIGTERM); }
Test(interrupt, sigusr1_is_noted) { check_first(SIGUSR1); }

Test(interrupt, sigusr1_may_come_again) {
  check_first(SIGUSR1);
  raise(SIGUSR1);
  raise(SIGTERM);
  cr_assert(qd_interrupt_seen());
}

Test(interrupt, second_sigterm_ends_the_process, .signal = SIGTERM) {
  check_first(SIGTERM);
  raise(SIGTERM);
}

Test(interrupt, sigint_ends_the_process, .signal = SIGINT) {
  qd_interrupt_install();
  raise(SIGINT);
}

static void check_ranks(int n_ranks) {
  const char *const argv[] = {QDIST_BINARY_DIR "/tests/mpi_team", "interrupt", NULL};
  qd_run run = qd_run_ranks(n_ranks, argv, NULL, 60.0);
  cr_assert_eq(run.exit_code, 0, "%s", run.err.text);
  qd_run_close(&run);
}

Test(interrupt, one_ranks_signal_is_everyones) { check_ranks(3); }
