/* The built program as a person starts it. */
#ifndef QDIST_TESTS_SUPPORT_PROGRAM_H
#define QDIST_TESTS_SUPPORT_PROGRAM_H

#include "tests/support/run.h"

/* The command line behind "qdist", formatted, then split at blanks: no argument may hold one.  n_ranks: 0 without mpirun.
 * Threads, instruction sets and launchers that the environment names are left out, so that only the command line decides. */
qd_run qd_program(int n_ranks, const char *format, ...) __attribute__((format(printf, 2, 3)));
qd_run qd_program_start(int n_ranks, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The same behind another command that starts it ("setpriv --reuid=65534 ..."), without mpirun. */
qd_run qd_program_through(const char *command, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* What the program said last: the last line of its standard error that begins with "qdist"; "" if there is none.  In a static
 * text. */
const char *qd_program_message(const qd_run *run);

#endif
