#include "tests/support/run.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

static void check_ranks(int n_ranks) {
  const char *const argv[] = {QDIST_BINARY_DIR "/tests/mpi_comm", NULL};
  char line[64];
  snprintf(line, sizeof line, "%d ranks agree\n", n_ranks);
  qd_run run = qd_run_ranks(n_ranks, argv, NULL, 60.0);
  cr_assert_eq(run.exit_code, 0, "%s", run.err.text);
  cr_assert_str_eq(run.out.text, line);
  qd_run_close(&run);
}

Test(comm_mpi, moves_any_size_among_1) { check_ranks(1); }
Test(comm_mpi, moves_any_size_among_2) { check_ranks(2); }
Test(comm_mpi, moves_any_size_among_3) { check_ranks(3); }
Test(comm_mpi, moves_any_size_among_4) { check_ranks(4); }
Test(comm_mpi, moves_any_size_among_8) { check_ranks(8); }
