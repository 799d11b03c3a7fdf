#define _POSIX_C_SOURCE 200809L
#include "tests/support/run.h"

#include <criterion/criterion.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#define SHELL(script) (const char *const[]){"sh", "-c", script, NULL}

Test(run, gives_both_outputs_and_the_exit_code) {
  qd_run run = qd_run_command(SHELL("echo out; echo err >&2; exit 7"), NULL, 60.0);
  cr_assert_eq(run.exit_code, 7);
  cr_assert_str_eq(run.out.text, "out\n");
  cr_assert_str_eq(run.err.text, "err\n");
  cr_assert_not(run.timed_out);
  qd_run_close(&run);
}

Test(run, arguments_meet_no_shell) {
  qd_run run = qd_run_command((const char *const[]){"printf", "%s|", "a b", "$HOME", "'*", NULL}, NULL, 60.0);
  cr_assert_str_eq(run.out.text, "a b|$HOME|'*|");
  qd_run_close(&run);
}

Test(run, adds_to_the_environment) {
  setenv("QDIST_TEST_KEPT", "kept", 1);
  setenv("QDIST_TEST_GONE", "gone", 1);
  setenv("QDIST_TEST_NEW", "old", 1);
  const char *const environment[] = {"QDIST_TEST_GONE", "QDIST_TEST_NEW=first", "QDIST_TEST_NEW=second", NULL};
  qd_run run = qd_run_command(SHELL("echo $QDIST_TEST_KEPT,$QDIST_TEST_GONE,$QDIST_TEST_NEW"), environment, 60.0);
  cr_assert_str_eq(run.out.text, "kept,,second\n");
  qd_run_close(&run);
}

Test(run, takes_more_than_a_pipe_holds) {
  qd_run run = qd_run_command(SHELL("yes 1234567 | head -c 800000; yes 1234567 | head -c 800000 >&2"), NULL, 60.0);
  cr_assert_eq(run.out.n, 800000);
  cr_assert_eq(run.err.n, 800000);
  cr_assert_eq(strlen(run.out.text), 800000);
  qd_run_close(&run);
}

Test(run, a_signal_is_told_as_a_shell_does) {
  qd_run run = qd_run_command(SHELL("kill -9 $$"), NULL, 60.0);
  cr_assert_eq(run.exit_code, 128 + SIGKILL);
  qd_run_close(&run);
}

Test(run, what_cannot_start_gives_127) {
  qd_run run = qd_run_command((const char *const[]){"/no/such/program", NULL}, NULL, 60.0);
  cr_assert_eq(run.exit_code, 127);
  cr_assert_str_empty(run.out.text);
  qd_run_close(&run);
}

Test(run, the_limit_ends_the_children_too) {
  qd_run run = qd_run_command(SHELL("trap '' TERM; echo begun; sleep 600; sleep 600"), NULL, 0.5);
  cr_assert(run.timed_out);
  cr_assert_eq(strncmp(run.out.text, "begun\n", 6), 0);
  cr_assert_eq(run.exit_code, 128 + SIGKILL);
  cr_assert(run.out.pipe == -1 && run.err.pipe == -1, "someone of the group lives and holds the pipes");
  qd_run_close(&run);
}

Test(run, waits_for_a_text_and_lets_the_test_interfere) {
  qd_run run = qd_run_start(SHELL("trap 'exit 5' USR1; echo ready; while :; do :; done"), NULL, 60.0);
  cr_assert(qd_run_until(&run, "ready"));
  cr_assert_eq(kill(run.pid, SIGUSR1), 0);
  cr_assert_not(qd_run_until(&run, "never"));
  qd_run_finish(&run);
  cr_assert_eq(run.exit_code, 5);
  qd_run_close(&run);
}

Test(run, starts_ranks) {
  qd_run run = qd_run_ranks(3, SHELL("echo \"<$OMPI_COMM_WORLD_RANK $QDIST_TEST_NEW>\""),
                            (const char *const[]){"QDIST_TEST_NEW=x", NULL}, 60.0);
  cr_assert_eq(run.exit_code, 0, "%s", run.err.text);
  static const char *const lines[] = {"<0 x>", "<1 x>", "<2 x>"};
  for (int i = 0; i < 3; i++) cr_assert(strstr(run.out.text, lines[i]) != NULL, "no %s in %s", lines[i], run.out.text);
  qd_run_close(&run);
}
