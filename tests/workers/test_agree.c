#include "tests/support/run.h"
#include "workers/agree.h"
#include "workers/comm_backends.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

static qd_status fails(void) { QD_FAIL(QD_EIO, "file 0 is gone"); }

Test(agree, one_rank_keeps_its_own_words) {
  qd_comm *comm = qd_comm_self();
  cr_assert_eq(qd_agree(comm, QD_OK), QD_OK);
  cr_assert_not(qd_agree_failed());
  qd_status status = fails();
  char trace[1024];
  snprintf(trace, sizeof trace, "%s", qd_error_trace());
  cr_assert_eq(qd_agree(comm, status), QD_EIO);
  cr_assert_str_eq(qd_error_text(), "file 0 is gone");
  cr_assert_str_eq(qd_error_trace(), trace);
  cr_assert_eq(qd_agree(comm, QD_OK), QD_OK);
  cr_assert(qd_agree_failed());
}

static qd_status no_sum(qd_comm *comm, int64_t *data, size_t n, int root) {
  (void)comm, (void)data, (void)n, (void)root;
  return QD_ECOMM;
}

Test(agree, a_failure_that_could_not_be_told_is_not_everyones) {
  static const qd_comm_ops ops = {.reduce_i64 = no_sum};
  qd_comm broken = {.ops = &ops, .rank = 1, .size = 3, .name = "broken"};
  cr_assert_eq(qd_agree(&broken, fails()), QD_ECOMM);
  cr_assert_not(qd_agree_failed());
}

/* Every rank must write "<rank STATUS|text|trace>", with so many places of mpi_agree.c, where it happened, in the trace. */
static void check(int n_ranks, const char *which, const char *failing, const char *expected, int n_places) {
  const char *const argv[] = {QDIST_BINARY_DIR "/tests/mpi_agree", which, failing, NULL};
  qd_run run = qd_run_ranks(n_ranks, argv, NULL, 60.0);
  cr_assert_eq(run.exit_code, 0, "%s", run.err.text);
  for (int r = 0; r < n_ranks; r++) {
    char begin[300];
    snprintf(begin, sizeof begin, "<%d %s|", r, expected);
    const char *line = strstr(run.out.text, begin);
    cr_assert_not_null(line, "no %s in %s", begin, run.out.text);
    const char *end = strchr(line, '>');
    int n = 0;
    for (line = strstr(line, "mpi_agree.c:"); line != NULL && line < end; line = strstr(line + 1, "mpi_agree.c:")) n++;
    cr_assert_eq(n, n_places, "%d places in the trace of %s", n, run.out.text);
  }
  qd_run_close(&run);
}

Test(agree, all_well_among_1) { check(1, "none", "0", "QD_OK|", 0); }
Test(agree, all_well_among_3) { check(3, "none", "0", "QD_OK|", 0); }
Test(agree, one_failure_is_everyones) { check(4, "one", "3", "QD_EIO|rank 3: file 3 is gone", 2); }
Test(agree, the_coordinators_failure_needs_no_rank) { check(2, "one", "0", "QD_EIO|file 0 is gone", 2); }
Test(agree, the_lowest_of_several_speaks) { check(4, "two", "1", "QD_EIO|rank 1: file 1 is gone", 2); }
Test(agree, the_lowest_of_all_speaks_where_they_differ) { check(3, "each", "0", "QD_EIO|file 0 is gone", 1); }
Test(agree, what_all_say_needs_no_rank) { check(3, "all", "0", "QD_ENUMERIC|pivot 3 is not positive", 1); }
Test(agree, a_status_without_words_gets_the_general_ones) {
  check(2, "silent", "1", "QD_EDTYPE|rank 1: data type does not fit", 0);
}
Test(agree, works_among_8) { check(8, "one", "5", "QD_EIO|rank 5: file 5 is gone", 2); }
