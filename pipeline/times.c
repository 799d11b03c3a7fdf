#include "pipeline/times.h"

#include "kernels/base/heap.h"
#include "kernels/base/log.h"
#include "pipeline/stages.h"
#include "workers/team.h"

#include <stdio.h>
#include <string.h>

static const char *const names[] = {
#define QD_TIME_NAME(code, name) name,
    QD_TIME_LIST(QD_TIME_NAME)
#undef QD_TIME_NAME
};

const char *qd_time_name(qd_time time) { return names[time]; }

/* ---- measuring ----------------------------------------------------------------------------------------------------------- */

void qd_times_start(qd_run *run) {
  run->comm->clock = qd_team_node(run->comm)->clock = (qd_comm_clock){.n = 0};
  run->times = (qd_times){.total = 0};
  run->started = qd_seconds();
}

/* Of activations what is there already is in the times: they are closed before the end. */
static double waited_for_threads(const qd_run *run) {
  return run->times.seconds[QD_TIME_THREADS] + qd_acts_wait_seconds(&run->acts.quantized) +
         qd_acts_wait_seconds(&run->acts.original) + run->writer.wait_seconds +
         (run->feed.stream ? qd_stream_wait_seconds(run->feed.stream) : 0);
}

/* Where blocks are shared within a node (--readers node), the node's communicator has a clock of its own. */
static const qd_comm_clock *node_clock(const qd_run *run) {
  static const qd_comm_clock none;
  const qd_comm *node = qd_team_node(run->comm);
  return node != run->comm ? &node->clock : &none;
}

/* What is counted elsewhere than where it happens. */
static double apart(const qd_run *run) {
  return run->comm->clock.inside_seconds + node_clock(run)->inside_seconds + waited_for_threads(run);
}

/* CPU time is what a rank spends without what it spends in waiting for messages. */
static double own_cpu(const qd_run *run) {
  return qd_cpu_seconds() - run->comm->clock.inside_cpu_seconds - node_clock(run)->inside_cpu_seconds;
}

qd_moment qd_times_begin(const qd_run *run) {
  return (qd_moment){.at = qd_seconds(), .apart = apart(run), .cpu = own_cpu(run)};
}

void qd_times_end(qd_run *run, qd_moment begin, qd_time what) {
  QD_ASSERT((int)what < QD_N_WORK_TIMES);
  run->times.seconds[what] += qd_seconds() - begin.at - (apart(run) - begin.apart);
  run->times.cpu[what] += own_cpu(run) - begin.cpu;
}

static void complete(const qd_run *run, qd_times *times) {
  const qd_comm_clock *clock = &run->comm->clock, *node = node_clock(run);
  double known = 0;
  *times = run->times;
  times->total = qd_seconds() - run->started;
  times->seconds[QD_TIME_STREAM] = clock->copy_seconds[QD_COMM_STREAM] + node->copy_seconds[QD_COMM_STREAM];
  times->seconds[QD_TIME_EXCHANGE] = clock->copy_seconds[QD_COMM_WORK];
  times->seconds[QD_TIME_IDLE] = clock->wait_seconds + node->wait_seconds;
  double most = clock->work_cpu_seconds + clock->uneven_seconds;
  times->uneven = clock->uneven_seconds, times->uneven_share = most > 0 ? clock->uneven_seconds / most : 0;
  times->seconds[QD_TIME_THREADS] = waited_for_threads(run);
  times->seconds[QD_TIME_READ] = run->feed.stream ? qd_stream_read_seconds(run->feed.stream) : 0;
  for (qd_time t = 0; t < QD_TIME_OTHER; t++) known += times->seconds[t];
  times->seconds[QD_TIME_OTHER] = times->total - known;
}

qd_status qd_times_gather(qd_run *run, qd_times *all) {
  qd_times mine;
  size_t *bytes;
  QD_TRY(qd_comm_settle(qd_team_node(run->comm)));
  QD_TRY(qd_comm_settle(run->comm));
  complete(run, &mine);
  QD_TRY_ALL(run->comm, qd_heap_new((size_t)run->comm->size, sizeof *bytes, &bytes));
  for (int r = 0; r < run->comm->size; r++) bytes[r] = sizeof mine;
  qd_status status = qd_comm_allgatherv(run->comm, &mine, sizeof mine, all, bytes);
  qd_heap_free(bytes);
  return status;
}

double qd_times_idle(const qd_times *times) { return times->total > 0 ? times->seconds[QD_TIME_IDLE] / times->total : 0; }

/* ---- telling ------------------------------------------------------------------------------------------------------------- */

enum { LINE_BYTES = 512 };

static void table_head(char line[LINE_BYTES]) {
  int n = snprintf(line, LINE_BYTES, "seconds  %9s", "total");
  for (qd_time t = 0; t < QD_N_TIMES; t++) n += snprintf(line + n, (size_t)(LINE_BYTES - n), " %9s", names[t]);
  snprintf(line + n, (size_t)(LINE_BYTES - n), "  idle share  uneven");
}

static void table_row(const qd_times *times, int rank, char line[LINE_BYTES]) {
  int n = snprintf(line, LINE_BYTES, "rank %-4d%9.3f", rank, times->total);
  for (qd_time t = 0; t < QD_N_TIMES; t++) n += snprintf(line + n, (size_t)(LINE_BYTES - n), " %9.3f", times->seconds[t]);
  snprintf(line + n, (size_t)(LINE_BYTES - n), " %8.1f %% %6.1f %%", 100 * qd_times_idle(times), 100 * times->uneven_share);
}

static void cpu_row(const qd_times *times, int rank, char line[LINE_BYTES]) {
  double total = 0;
  for (int t = 0; t < QD_N_WORK_TIMES; t++) total += times->cpu[t];
  int n = snprintf(line, LINE_BYTES, "cpu  %-4d%9.3f", rank, total);
  for (int t = 0; t < QD_N_WORK_TIMES; t++) n += snprintf(line + n, (size_t)(LINE_BYTES - n), " %9.3f", times->cpu[t]);
}

/* Shares of the ranks' time together, those that a person would ask for. */
static void tell_total(const qd_times *all, int ranks) {
  static const qd_time told[] = {QD_TIME_CALIBRATE, QD_TIME_FACTOR, QD_TIME_LOOP, QD_TIME_ADVANCE, QD_TIME_IDLE};
  enum { N_TOLD = (int)(sizeof told / sizeof told[0]) };
  char line[LINE_BYTES];
  double total = 0, rest = 100;
  int n = 0;
  for (int r = 0; r < ranks; r++) total += all[r].total;
  for (int i = 0; i < N_TOLD; i++) {
    double sum = 0;
    for (int r = 0; r < ranks; r++) sum += all[r].seconds[told[i]];
    double share = total > 0 ? 100 * sum / total : 0;
    rest -= share;
    if (told[i] != QD_TIME_IDLE || ranks > 1)
      n += snprintf(line + n, (size_t)(LINE_BYTES - n), "%s %.1f %%, ", names[told[i]], share);
  }
  qd_log("time: %sother %.1f %%", line, rest);
}

void qd_times_log(const qd_times *all, int ranks) {
  char line[LINE_BYTES];
  table_head(line);
  qd_log_file("%s", line);
  for (int r = 0; r < ranks; r++) {
    table_row(&all[r], r, line);
    qd_log_file("%s", line);
  }
  for (int r = 0; r < ranks; r++) {
    cpu_row(&all[r], r, line);
    qd_log_file("%s", line);
  }
  tell_total(all, ranks);
}

qd_json *qd_times_json(const qd_times *all, int ranks) {
  qd_json *out = qd_json_array();
  for (int r = 0; r < ranks; r++) {
    qd_json *rank = qd_json_object(), *cpu = qd_json_object();
    qd_json_set_number(rank, "total", all[r].total);
    for (qd_time t = 0; t < QD_N_TIMES; t++)
      qd_json_set_number(rank, names[t] + (names[t][0] == '+'), all[r].seconds[t]);
    qd_json_set_number(rank, "idle_share", qd_times_idle(&all[r]));
    qd_json_set_number(rank, "uneven_share", all[r].uneven_share);
    for (int t = 0; t < QD_N_WORK_TIMES; t++) qd_json_set_number(cpu, names[t], all[r].cpu[t]);
    qd_json_set(rank, "cpu", cpu);
    qd_json_append(out, rank);
  }
  return out;
}
