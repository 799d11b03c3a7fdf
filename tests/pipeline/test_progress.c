#define _POSIX_C_SOURCE 200809L
#include "pipeline/progress.h"

#include "tests/pipeline/job_support.h"
#include "workers/interrupt.h"

#include <math.h>
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
  const char *time = qd_json_text(qd_json_get(status, "time"));
  cr_expect(strlen(time) == 20 && time[10] == 'T' && time[19] == 'Z', "%s", time);
  cr_expect_eq(qd_json_get(status, "message") != NULL, strcmp(state, "failed") == 0);
  qd_json_free(status);
}

/* NAN: null. */
static double seconds_left(void) {
  qd_json *status;
  MUST(qd_json_read(job.status_file, 1 << 20, &status));
  const qd_json *left = qd_json_get(status, "seconds_left");
  double seconds = left != NULL ? qd_json_number(left) : NAN;
  qd_json_free(status);
  return seconds;
}

Test(progress, the_loss_of_a_block_is_that_of_its_linears_added) {
  qd_weight weights[3] = {{.result = {.loss = 0.5}}, {.result = {.loss = 0.25}}, {.result = {.loss = 9}}};
  qd_block block = {.n = 2, .weight = weights};
  cr_expect_eq(qd_progress_loss(&block), 0.75);
}

Test(progress, status_file_follows_the_job) {
  MUST(qd_progress_begin(&run));
  expect_status("running", 0);
  cr_expect(isnan(seconds_left()), "nothing is known yet");
  for (int64_t block = 0; block < 5; block++) {
    MUST(qd_progress_block(&run, block, 0.5, 4));
    expect_status("running", block + 1);
    cr_expect_eq(seconds_left() > 0, block < 4);
  }
  MUST(qd_progress_end(&run));
  expect_status("finished", 5);
  cr_expect_eq(seconds_left(), 0);
  qd_json *status;
  MUST(qd_json_read(job.status_file, 1 << 20, &status));
  cr_expect_eq(qd_json_length(qd_json_get(status, "seconds_of_ranks")), 1);
  qd_json_free(status);
}

/* 3 blocks of a resumed run took as long as is left for 1. */
Test(progress, estimates_from_the_blocks_of_this_run) {
  run.first_block = 1;
  run.started = qd_seconds() - 300;
  MUST(qd_progress_block(&run, 3, 100, 4));
  double left = seconds_left();
  cr_expect(left >= 100 && left < 110, "%g", left);
}

Test(progress, a_finished_output_is_told) {
  run.blocks_done = 5;
  MUST(qd_progress_nothing_to_do(&run));
  expect_status("finished", 5);
  cr_expect_eq(seconds_left(), 0);
}

Test(progress, a_failure_is_told_with_its_message) {
  run.blocks_done = 1;
  cr_expect_eq(qd_progress_failed(&run, qd_fail(QD_ENUMERIC, __FILE__, __LINE__, "row 3 is odd")), QD_ENUMERIC);
  cr_expect_str_eq(qd_error_text(), "row 3 is odd");
  expect_status("failed", 1);
  cr_expect(isnan(seconds_left()));
  qd_json *status;
  MUST(qd_json_read(job.status_file, 1 << 20, &status));
  cr_expect_str_eq(qd_json_text(qd_json_get(status, "message")), "row 3 is odd");
  qd_json_free(status);
  job.status_file = qd_temporary_path(&folder, "no such folder/status.json");
  cr_expect_eq(qd_progress_failed(&run, qd_fail(QD_ENUMERIC, __FILE__, __LINE__, "row 4 is odd")), QD_ENUMERIC);
  cr_expect_str_eq(qd_error_text(), "row 4 is odd");
}

Test(progress, needs_no_status_file) {
  job.status_file = NULL;
  MUST(qd_progress_block(&run, 1, 0.5, 4));
  MUST(qd_progress_end(&run));
}

Test(progress, a_status_file_that_cannot_be_written_is_a_failure) {
  job.status_file = qd_temporary_path(&folder, "no such folder/status.json");
  cr_expect_eq(qd_progress_block(&run, 1, 0.5, 4), QD_EIO);
  cr_expect(strstr(qd_error_text(), "no such folder") != NULL, "%s", qd_error_text());
}

Test(progress, stops_before_the_block_that_would_be_too_late) {
  run.started = qd_seconds() - 100, run.blocks_done = 2;
  MUST(qd_progress_stop(&run, 1, 1e6)); /* no limit */
  job.stop_after_seconds = 1000;
  MUST(qd_progress_stop(&run, 1, 800));
  cr_expect_eq(qd_progress_stop(&run, 1, 950), QD_ESTOPPED);
  cr_expect_not_null(strstr(qd_error_text(), "stopped with 2 of 5 blocks on disk (--stop-after)"), "%s", qd_error_text());
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
  run.blocks_done = 3;
  cr_expect_eq(qd_progress_stop(&run, 2, 1), QD_ESTOPPED);
  cr_expect(strstr(qd_error_text(), "a signal") != NULL, "%s", qd_error_text());
  expect_status("stopped", 3);
}
