/* What a job tells of itself when it is done: where each rank's time went. */
#include <criterion/criterion.h>

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "storage/json.h"
#include "tests/support/llama_maker.h"
#include "tests/support/program.h"
#include "tests/support/temporary_folder.h"

static qd_temporary_folder folder;
static char model[QD_TEMPORARY_PATH_BYTES], text[QD_TEMPORARY_PATH_BYTES], output[QD_TEMPORARY_PATH_BYTES],
    status_file[QD_TEMPORARY_PATH_BYTES];

static void open_folder(void) {
  static const qd_made_llama widths = {
      .dtype = QD_BF16, .blocks = 3, .hidden = 256, .ffn = 512, .heads = 4, .kv_heads = 2, .vocabulary = 300, .positions = 64};
  qd_temporary_folder_open(&folder);
  snprintf(model, sizeof model, "%s", qd_temporary_make_folder(&folder, "model"));
  snprintf(text, sizeof text, "%s", qd_temporary_path(&folder, "text.i32"));
  snprintf(output, sizeof output, "%s", qd_temporary_path(&folder, "out"));
  snprintf(status_file, sizeof status_file, "%s", qd_temporary_path(&folder, "status.json"));
  qd_make_llama(model, &widths);
  qd_make_ids(text, 4 * 32, 300, 1);
}
static void close_folder(void) { qd_temporary_folder_close(&folder); }
TestSuite(job_log, .init = open_folder, .fini = close_folder);

static double seconds_of(const qd_json *rank, const char *name) {
  const qd_json *value = qd_json_get(rank, name);
  cr_assert_not_null(value, "no \"%s\"", name);
  return qd_json_number(value);
}

static void expect_rank(const qd_json *rank, int number, int ranks) {
  static const char *const columns[] = {"prepare", "calibrate", "factor",  "loop", "advance", "store",
                                        "stream",  "exchange",  "threads", "idle", "other"};
  double sum = 0, total = seconds_of(rank, "total"), idle = seconds_of(rank, "idle");
  for (int i = 0; i < 11; i++) sum += seconds_of(rank, columns[i]);
  cr_expect(fabs(sum - total) < 1e-6, "rank %d: %g, not %g", number, sum, total);
  cr_expect(total > 0 && seconds_of(rank, "other") > 0);
  cr_expect(seconds_of(rank, "calibrate") > 0 && seconds_of(rank, "loop") > 0 && seconds_of(rank, "advance") > 0);
  cr_expect(idle >= 0 && idle < total && (ranks > 1 || idle == 0));
  cr_expect(fabs(seconds_of(rank, "idle_share") - idle / total) < 1e-9);
  cr_expect(seconds_of(rank, "uneven_share") >= 0 && seconds_of(rank, "uneven_share") < 1);
  cr_expect_gt(seconds_of(qd_json_get(rank, "cpu"), "advance"), 0);
  cr_expect_eq(seconds_of(rank, "read") > 0, number == 0, "the coordinator reads");
  cr_expect_geq(seconds_of(rank, "compress"), 0);
  if (number == 0) cr_expect(seconds_of(rank, "compress") > 0 && seconds_of(rank, "write") > 0);
}

static void expect_log(const char *said, int ranks) {
  char path[QD_TEMPORARY_PATH_BYTES + 16], line[4096];
  int rows = 0, heads = 0;
  snprintf(path, sizeof path, "%s/qdist.log", output);
  FILE *file = fopen(path, "r");
  cr_assert_not_null(file);
  while (fgets(line, sizeof line, file) != NULL) {
    heads += strstr(line, "Z seconds ") != NULL && strstr(line, "idle share") != NULL;
    rows += strstr(line, "Z rank ") != NULL && strstr(line, " %\n") != NULL;
  }
  fclose(file);
  cr_expect_eq(heads, 1);
  cr_expect_eq(rows, ranks);
  cr_expect_not_null(strstr(said, "\ntime: calibrate "), "%s", said);
  cr_expect_null(strstr(said, "\nrank "), "the table is for the log: %s", said);
  cr_expect_eq(strstr(said, "idle ") != NULL, ranks > 1, "%s", said);
}

static void expect_times(int n_ranks) {
  qd_json *status;
  int ranks = n_ranks > 0 ? n_ranks : 1;
  qd_run run = qd_program(n_ranks, "quantize -m %s -d %s -o %s --nsamples 4 --seqlen 32 --status-file %s", model, text, output,
                          status_file);
  cr_assert_eq(run.exit_code, 0, "%s", run.err.text);
  expect_log(run.err.text, ranks);
  qd_run_close(&run);
  cr_assert_eq(qd_json_read(status_file, 1 << 20, &status), QD_OK);
  const qd_json *all = qd_json_get(status, "seconds_of_ranks");
  cr_assert_not_null(all);
  cr_assert_eq(qd_json_length(all), (size_t)ranks);
  for (int r = 0; r < ranks; r++) expect_rank(qd_json_at(all, (size_t)r), r, ranks);
  qd_json_free(status);
}

Test(job_log, tells_where_the_time_of_one_rank_went) { expect_times(0); }
Test(job_log, tells_where_the_time_of_three_ranks_went) { expect_times(3); }

/* The status file of a job with these options more, on three ranks. */
static void expect_state(const char *more, int exit_code, const char *state, const char *message) {
  qd_json *status;
  qd_run run = qd_program(3, "quantize -m %s -d %s -o %s --nsamples 4 --seqlen 32 --status-file %s %s", model, text, output,
                          status_file, more);
  cr_assert_eq(run.exit_code, exit_code, "%s: %s", more, run.err.text);
  qd_run_close(&run);
  cr_assert_eq(qd_json_read(status_file, 1 << 20, &status), QD_OK);
  cr_expect_str_eq(qd_json_text(qd_json_get(status, "state")), state);
  const char *told = qd_json_text(qd_json_get(status, "message"));
  cr_expect((told != NULL) == (message != NULL), "%s", told);
  if (told != NULL && message != NULL) cr_expect_not_null(strstr(told, message), "%s", told);
  qd_json_free(status);
}

Test(job_log, the_status_file_tells_how_a_job_ended) {
  expect_state("--dataset /nowhere.i32", 1, "failed", "cannot open /nowhere.i32");
  expect_state("--stop-after 0.000001s", 75, "stopped", NULL);
  expect_state("", 0, "finished", NULL);
  expect_state("", 0, "finished", NULL); /* nothing to do */
}
