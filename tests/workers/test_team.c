#define _POSIX_C_SOURCE 200809L
#include "tests/support/run.h"
#include "workers/comm_backends.h"
#include "workers/team.h"

#include <criterion/criterion.h>
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#define NO_LAUNCHER "OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"
static const char *const by_itself[] = {NO_LAUNCHER, NULL};

static qd_run run_team(int n_ranks, const char *what) {
  const char *const argv[] = {QDIST_BINARY_DIR "/tests/mpi_team", what, NULL};
  return n_ranks > 0 ? qd_run_ranks(n_ranks, argv, NULL, 60.0) : qd_run_command(argv, by_itself, 60.0);
}

Test(team, without_a_launcher_mpi_does_not_start) {
  qd_run run = run_team(0, "describe");
  cr_assert_eq(run.exit_code, 0, "%s", run.err.text);
  cr_assert_str_eq(run.out.text, "<0 of 1 by self, 1 on this node>\n");
  qd_run_close(&run);
}

Test(team, ranks_of_a_node_have_a_communicator_of_their_own) {
  const char *const argv[] = {QDIST_BINARY_DIR "/tests/mpi_team", "nodes", NULL}, *const environment[] = {
                                                                                      QD_RANKS_PER_NODE "=2", NULL};
  qd_run run = qd_run_ranks(5, argv, environment, 60.0);
  cr_assert_eq(run.exit_code, 0, "%s", run.err.text);
  qd_run_close(&run);
}

Test(team, one_rank_is_a_node_of_its_own) {
  qd_comm *comm = qd_comm_self();
  cr_expect_eq(qd_team_node(comm), comm);
  cr_expect_eq(qd_team_nodes(comm), 1);
  cr_expect_eq(qd_team_first_on_node(comm)[0], 0);
  char host[4];
  cr_expect(strlen(qd_host_name(host, sizeof host)) < sizeof host);
}

static void check_ranks(int n_ranks) {
  qd_run run = run_team(n_ranks, "describe");
  cr_assert_eq(run.exit_code, 0, "%s", run.err.text);
  for (int r = 0; r < n_ranks; r++) {
    char line[80];
    snprintf(line, sizeof line, "<%d of %d by mpi, %d on this node>", r, n_ranks, n_ranks);
    cr_assert(strstr(run.out.text, line) != NULL, "no %s in %s", line, run.out.text);
  }
  qd_run_close(&run);
}

Test(team, mpirun_of_1) { check_ranks(1); }
Test(team, mpirun_of_3) { check_ranks(3); }

Test(team, an_agreed_end_keeps_the_exit_code) {
  qd_run run = run_team(2, "exit");
  cr_assert_eq(run.exit_code, 75);
  qd_run_close(&run);
}

Test(team, a_rank_that_leaves_alone_ends_the_job) {
  qd_run run = run_team(3, "abort");
  cr_assert_not(run.timed_out);
  cr_assert_eq(run.exit_code, 3);
  qd_run_close(&run);
}

Test(team, abort_of_the_only_rank_is_an_orderly_end) {
  qd_run run = run_team(1, "abort");
  cr_assert_eq(run.exit_code, 3);
  cr_assert(strstr(run.err.text, "MPI_ABORT") == NULL, "%s", run.err.text);
  qd_run_close(&run);
}

Test(team, a_killed_rank_ends_the_job) {
  qd_run run = run_team(4, "die");
  cr_assert_not(run.timed_out);
  cr_assert_eq(run.exit_code, 137, "%d: %s", run.exit_code, run.err.text);
  qd_run_close(&run);
}

/* Each of these processes would take itself for the only one and write the same store. */
static void check_refused(const char *variable) {
  const char *const argv[] = {QDIST_BINARY_DIR "/tests/mpi_team", "describe", NULL};
  const char *const environment[] = {NO_LAUNCHER, variable, NULL};
  qd_run run = qd_run_command(argv, environment, 60.0);
  cr_assert_eq(run.exit_code, 1);
  cr_assert_str_empty(run.out.text);
  cr_assert(strstr(run.err.text, "the launcher started 4 processes, but each sees 1") != NULL, "%s", run.err.text);
  qd_run_close(&run);
}

Test(team, srun_without_pmi_is_refused) { check_refused("SLURM_STEP_NUM_TASKS=4"); }
Test(team, the_mpirun_of_another_mpi_is_refused) { check_refused("PMI_SIZE=4"); }

Test(team, names_the_library) {
  const char *name = qd_team_library();
  size_t n = strlen(name);
  cr_assert(n > 3 && isdigit((unsigned char)name[n - 1]), "%s", name);
  cr_assert(strchr(name, ',') == NULL && strchr(name, '\t') == NULL && strchr(name, '\n') == NULL);
  cr_assert_eq(strcmp(name, qd_team_library()), 0);
  cr_assert_not(qd_comm_mpi_running());
}
