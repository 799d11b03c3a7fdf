#define _POSIX_C_SOURCE 200809L
#include "pipeline/progress.h"

#include "tests/pipeline/job_support.h"
#include "workers/interrupt.h"

#include <signal.h>

static qd_temporary_folder folder;
static qd_job job;
static qd_run run;

static void open_fixture(void) {
  qd_temporary_folder_open(&folder);
  job = (qd_job){.output = "OUT", .status_file = qd_temporary_path(&folder, "status.json")};
  run = (qd_run){.job = &job, .comm = open_team(), .model = {.n_blocks = 5}, .started = qd_seconds()};
}

static void close_fixture(void) {
  qd_team_close(run.comm, false, 0);
  qd_temporary_folder_close(&folder);
}

TestSuite(progress, .init = open_fixture, .fini = close_fixture);

static void expect_status(const char *state, int64_t done) {
  qd_json *status;
  MUST(qd_json_read(job.status_file, 1 << 20, &status));
  cr_expect_str_eq(qd_json_text(qd_json_get(status, "state")), state);
  cr_expect_eq(qd_json_integer(qd_json_get(status, "blocks_done")), done);
  cr_expect_eq(qd_json_integer(qd_json_get(status, "blocks")), 5);
  cr_expect_eq(qd_json_integer(qd_json_get(status, "ranks")), 1);
  cr_expect_str_eq(qd_json_text(qd_json_get(status, "output")), "OUT");
  cr_expect_geq(qd_json_number(qd_json_get(status, "seconds")), 0);
  qd_json_free(status);
}

Test(progress, status_file_follows_the_job) {
  MUST(qd_progress_block(&run, 1, 0.5, qd_progress_loss(&run)));
  expect_status("running", 2);
  MUST(qd_progress_end(&run));
  expect_status("finished", 5);
  qd_json *status;
  MUST(qd_json_read(job.status_file, 1 << 20, &status));
  cr_expect_eq(qd_json_length(qd_json_get(status, "seconds_of_ranks")), 1);
  qd_json_free(status);
}

/* 3 blocks of a resumed run took as long as is left for 1. */
Test(progress, estimates_from_the_blocks_of_this_run) {
  qd_json *status;
  run.first_block = 1;
  run.started = qd_seconds() - 300;
  MUST(qd_progress_block(&run, 3, 100, qd_progress_loss(&run)));
  MUST(qd_json_read(job.status_file, 1 << 20, &status));
  double left = qd_json_number(qd_json_get(status, "seconds_left"));
  cr_expect(left >= 100 && left < 110, "%g", left);
  qd_json_free(status);
}

Test(progress, needs_no_status_file) {
  job.status_file = NULL;
  MUST(qd_progress_block(&run, 1, 0.5, qd_progress_loss(&run)));
  MUST(qd_progress_end(&run));
}

Test(progress, a_status_file_that_cannot_be_written_is_a_failure) {
  job.status_file = qd_temporary_path(&folder, "no such folder/status.json");
  cr_expect_eq(qd_progress_block(&run, 1, 0.5, qd_progress_loss(&run)), QD_EIO);
  cr_expect(strstr(qd_error_text(), "no such folder") != NULL, "%s", qd_error_text());
}

Test(progress, stops_before_the_block_that_would_be_too_late) {
  run.started = qd_seconds() - 100;
  MUST(qd_progress_stop(&run, 1, 1e6)); /* no limit */
  job.stop_after_seconds = 1000;
  MUST(qd_progress_stop(&run, 1, 800));
  cr_expect_eq(qd_progress_stop(&run, 1, 950), QD_ESTOPPED);
  cr_expect(strstr(qd_error_text(), "block 2 of 5") != NULL && strstr(qd_error_text(), "--stop-after") != NULL, "%s",
            qd_error_text());
  expect_status("stopped", 2);
  MUST(qd_progress_stop(&run, 4, 950)); /* the last block is done: nothing to stop */
  job.stop_after_seconds = 50;
  cr_expect_eq(qd_progress_stop(&run, 1, 0), QD_ESTOPPED);
}

Test(progress, stops_on_a_signal) {
  qd_interrupt_install();
  MUST(qd_progress_stop(&run, 1, 1));
  cr_assert_eq(raise(SIGUSR1), 0);
  MUST(qd_progress_stop(&run, 4, 1));
  cr_expect_eq(qd_progress_stop(&run, 2, 1), QD_ESTOPPED);
  cr_expect(strstr(qd_error_text(), "a signal") != NULL, "%s", qd_error_text());
  expect_status("stopped", 3);
}
