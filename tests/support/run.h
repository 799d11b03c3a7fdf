/* Run a command as a test sees it: arguments and environment in, exit code and both outputs out.  No shell. */
#ifndef QDIST_TESTS_SUPPORT_RUN_H
#define QDIST_TESTS_SUPPORT_RUN_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

typedef struct qd_run_text {
  char  *text; /* ends in NUL; "" when nothing came */
  size_t n, capacity;
  int    pipe; /* -1 once it is closed */
} qd_run_text;

typedef struct qd_run {
  int  exit_code; /* 128 + number when a signal ended it, as a shell has it; 127 when it could not be started */
  bool timed_out; /* the limit was reached; the command and its children were killed */
  qd_run_text out, err;
  pid_t  pid;     /* while it runs: its process group as well */
  double deadline;
} qd_run;

/* argv ends in NULL and is looked up in PATH; `environment`, "NAME=value" or "NAME" to unset, is put over this process's own
 * (NULL: nothing).  Whatever cannot be done here (no memory, no pipe) ends the test. */
qd_run qd_run_command(const char *const *argv, const char *const *environment, double limit_seconds);

/* The same under mpirun with so many ranks, with more ranks than cores allowed and as root. */
qd_run qd_run_ranks(int n_ranks, const char *const *argv, const char *const *environment, double limit_seconds);

/* In steps, for tests that interfere: start, wait until `text` came on either output (false: it ended or timed out without),
 * finish. */
qd_run qd_run_start(const char *const *argv, const char *const *environment, double limit_seconds);
qd_run qd_run_start_ranks(int n_ranks, const char *const *argv, const char *const *environment, double limit_seconds);
bool   qd_run_until(qd_run *run, const char *text);
bool   qd_run_until_lines(qd_run *run, int n); /* on either output */
void   qd_run_finish(qd_run *run); /* sets exit_code */

/* Signals to what runs.  Without mpirun the command is its own only rank. */
int  qd_run_rank_pids(const qd_run *run, pid_t *pids, int most); /* how many there are */
void qd_run_signal_ranks(const qd_run *run, int number);
void qd_run_kill(qd_run *run); /* mpirun and all ranks, as a machine that goes down does; finishes when all have ended */
void qd_run_kill_rank(qd_run *run, int which); /* one rank (none if there are fewer); finishes when all have ended */

void qd_run_close(qd_run *run);

#endif
