#include "pipeline/times.h"

#include "pipeline/stages.h"
#include "tests/pipeline/job_support.h"

#include <math.h>

static qd_comm comm;
static qd_run run;

static void open_fixture(void) {
  comm = *open_team();
  run = (qd_run){.comm = &comm, .started = qd_seconds() - 10};
}
TestSuite(times, .init = open_fixture);

static void work(double seconds) {
  for (double start = qd_seconds(); qd_seconds() - start < seconds;) continue;
}

Test(times, work_is_timed_without_messages_and_waiting) {
  qd_moment begin = qd_times_begin(&run);
  work(0.004);
  comm.clock.inside_seconds += 0.001, run.writer.wait_seconds += 0.002;
  comm.clock.inside_cpu_seconds += 1000;
  double before = qd_seconds() - begin.at;
  qd_times_end(&run, begin, QD_TIME_LOOP);
  cr_expect_geq(run.times.seconds[QD_TIME_LOOP], before - 0.003 - 1e-9);
  cr_expect_leq(run.times.seconds[QD_TIME_LOOP], qd_seconds() - begin.at - 0.003);
  cr_expect_geq(before, 0.004);
  cr_expect(run.times.cpu[QD_TIME_LOOP] < -999 && run.times.cpu[QD_TIME_LOOP] > -1000 - 1e-6, "%g",
            run.times.cpu[QD_TIME_LOOP]);
  double once = run.times.seconds[QD_TIME_LOOP];
  begin = qd_times_begin(&run);
  work(0.001);
  qd_times_end(&run, begin, QD_TIME_LOOP);
  cr_expect_geq(run.times.seconds[QD_TIME_LOOP], once + 0.001);
}

Test(times, what_was_before_the_start_is_forgotten) {
  qd_times all;
  comm.clock.n = 7, comm.clock.wait_seconds = comm.clock.copy_seconds[QD_COMM_WORK] = comm.clock.inside_seconds = 5;
  run.times.seconds[QD_TIME_LOOP] = 5;
  qd_times_start(&run);
  MUST(qd_times_gather(&run, &all));
  cr_expect(all.total < 5 && all.seconds[QD_TIME_OTHER] >= 0 && all.seconds[QD_TIME_OTHER] == all.total);
  cr_expect_eq(qd_times_idle(&all), 0);
}

Test(times, columns_add_up_to_the_total) {
  qd_times all;
  double sum = 0;
  run.times.seconds[QD_TIME_CALIBRATE] = 2, run.times.seconds[QD_TIME_FACTOR] = 1;
  run.times.seconds[QD_TIME_COMPRESS] = 100;
  comm.clock.wait_seconds = 2.5, comm.clock.copy_seconds[QD_COMM_STREAM] = 0.5, comm.clock.copy_seconds[QD_COMM_WORK] = 0.25;
  run.writer.wait_seconds = 1.5;
  comm.clock.work_cpu_seconds = 3, comm.clock.uneven_seconds = 1;
  MUST(qd_times_gather(&run, &all));
  for (qd_time t = 0; t <= QD_TIME_OTHER; t++) sum += all.seconds[t];
  cr_expect(fabs(sum - all.total) < 1e-9);
  cr_expect(all.total >= 10 && all.total < 60);
  cr_expect(fabs(all.seconds[QD_TIME_OTHER] - (all.total - 7.75)) < 1e-9);
  cr_expect_eq(all.seconds[QD_TIME_STREAM], 0.5);
  cr_expect_eq(all.seconds[QD_TIME_EXCHANGE], 0.25);
  cr_expect_eq(all.seconds[QD_TIME_THREADS], 1.5);
  cr_expect_eq(all.seconds[QD_TIME_COMPRESS], 100);
  cr_expect(fabs(qd_times_idle(&all) - 2.5 / all.total) < 1e-12);
  cr_expect(all.uneven == 1 && all.uneven_share == 0.25);
}

static qd_times two_ranks[2] = {
    {.total = 4, .seconds = {[QD_TIME_LOOP] = 3, [QD_TIME_IDLE] = 1}, .cpu = {[QD_TIME_LOOP] = 2.5}},
    {.total = 4, .seconds = {[QD_TIME_LOOP] = 1, [QD_TIME_IDLE] = 2, [QD_TIME_READ] = 7}, .uneven = 1, .uneven_share = 0.25}};

Test(times, machines_get_every_rank) {
  qd_json *json = qd_times_json(two_ranks, 2);
  cr_assert_eq(qd_json_length(json), 2);
  cr_expect_eq(qd_json_number(qd_json_get(qd_json_at(json, 0), "loop")), 3);
  cr_expect_eq(qd_json_number(qd_json_get(qd_json_at(json, 1), "read")), 7);
  cr_expect_eq(qd_json_number(qd_json_get(qd_json_at(json, 1), "total")), 4);
  cr_expect_eq(qd_json_number(qd_json_get(qd_json_at(json, 1), "idle_share")), 0.5);
  cr_expect_eq(qd_json_number(qd_json_get(qd_json_at(json, 1), "uneven_share")), 0.25);
  cr_expect_eq(qd_json_number(qd_json_get(qd_json_get(qd_json_at(json, 0), "cpu"), "loop")), 2.5);
  qd_json_free(json);
}

Test(times, people_get_a_row_a_rank) {
  qd_temporary_folder folder;
  char text[4096] = "";
  qd_temporary_folder_open(&folder);
  const char *path = qd_temporary_path(&folder, "log");
  MUST(qd_log_open(path));
  qd_times_log(two_ranks, 2);
  qd_log_close();
  FILE *file = fopen(path, "r");
  cr_assert_not_null(file);
  cr_assert_gt(fread(text, 1, sizeof text - 1, file), 0);
  fclose(file);
  const char *head = strstr(text, "seconds "), *first = strstr(text, "rank 0 "), *second = strstr(text, "rank 1 ");
  cr_assert(head != NULL && first != NULL && second != NULL, "%s", text);
  cr_expect_eq(strcspn(first, "\n"), strcspn(second, "\n"));
  cr_expect_not_null(strstr(second, "50.0 %   25.0 %\n"), "%s", text);
  cr_expect_not_null(strstr(text, "cpu  0       2.500 "), "%s", text);
  cr_expect_not_null(strstr(text, "cpu  1       0.000 "), "%s", text);
  cr_expect_not_null(strstr(text, "time: calibrate 0.0 %, factor 0.0 %, loop 50.0 %, advance 0.0 %, idle 37.5 %, other 12.5 %"),
                     "%s", text);
  qd_temporary_folder_close(&folder);
}
