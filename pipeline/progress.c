#include "pipeline/progress.h"

#include "kernels/base/heap.h"
#include "kernels/base/log.h"
#include "pipeline/status_path.h"
#include "storage/atomic.h"
#include "workers/interrupt.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static void span_text(double seconds, char *text, size_t size) {
  int64_t s = (int64_t)(seconds + 0.5);
  if (s >= 3600) snprintf(text, size, "%" PRId64 ":%02" PRId64 ":%02" PRId64, s / 3600, s / 60 % 60, s % 60);
  else snprintf(text, size, "%" PRId64 ":%02" PRId64, s / 60, s % 60);
}

/* What the status file says beside what the run knows. */
typedef struct standing {
  const char     *state;
  double          left;    /* seconds; NAN: not known */
  const char     *message; /* of a failure; else NULL */
  const qd_times *times;   /* of all ranks; NULL: not yet */
} standing;

static qd_json *describe(const qd_run *run, standing s) {
  char now[QD_TIME_TEXT_BYTES];
  qd_json *status = qd_json_object();
  qd_time_text(now);
  qd_json_set_text(status, "state", s.state);
  qd_json_set_text(status, "time", now);
  if (s.message != NULL) qd_json_set_text(status, "message", s.message);
  qd_json_set_integer(status, "blocks_done", run->blocks_done);
  qd_json_set_integer(status, "blocks", run->model.n_blocks);
  qd_json_set_integer(status, "ranks", run->comm->size);
  qd_json_set_number(status, "seconds", qd_seconds() - run->started);
  qd_json_set_number(status, "seconds_left", s.left);
  qd_json_set_text(status, "output", run->job->output);
  if (s.times != NULL) qd_json_set(status, "seconds_of_ranks", qd_times_json(s.times, run->comm->size));
  return status;
}

static qd_status write_status(const qd_run *run, standing s) {
  const char *path = run->job->status_file, *slash;
  char folder[4096], *text;
  if (path == NULL || run->comm->rank != 0) return QD_OK;
  QD_TRY(qd_status_path_check(run->job));
  qd_json *status = describe(run, s);
  qd_status result = qd_json_print(status, 2, &text);
  qd_json_free(status);
  QD_TRY(result);
  slash = strrchr(path, '/');
  snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - path) + 1 : 1, slash ? path : ".");
  result = qd_atomic_write(folder, folder, slash ? slash + 1 : path, text, strlen(text));
  qd_heap_free(text);
  return result;
}

/* Before any work: a status file that cannot be written is told at once, not after the first block. */
qd_status qd_progress_begin(qd_run *run) {
  QD_TRY_ALL(run->comm, write_status(run, (standing){.state = "running", .left = NAN}));
  return QD_OK;
}

double qd_progress_loss(const qd_block *block) {
  double loss = 0;
  for (int i = 0; i < block->n; i++) loss += block->weight[i].result.loss;
  return loss;
}

qd_status qd_progress_block(qd_run *run, int64_t block, double seconds, double loss) {
  double spent = qd_seconds() - run->started;
  int64_t done = run->blocks_done = block + 1, left = run->model.n_blocks - done;
  double left_seconds = spent / (double)(done - run->first_block) * (double)left;
  char spent_text[32], left_text[32];
  span_text(spent, spent_text, sizeof spent_text);
  span_text(left_seconds, left_text, sizeof left_text);
  qd_log("%" PRId64 " of %" PRId64 " blocks on disk; block %" PRId64 " in %.2f s, loss %.5g; %s spent, about %s left", done,
         run->model.n_blocks, block, seconds, loss, spent_text, left_text);
  QD_TRY_ALL(run->comm, write_status(run, (standing){.state = "running", .left = left_seconds}));
  return QD_OK;
}

qd_status qd_progress_end(qd_run *run) {
  qd_log("wrote %s in %.2f s on %d rank%s", run->job->output, qd_seconds() - run->started, run->comm->size,
         run->comm->size == 1 ? "" : "s");
  qd_times *all;
  QD_TRY_ALL(run->comm, qd_heap_new((size_t)run->comm->size, sizeof *all, &all));
  qd_status status = qd_times_gather(run, all);
  if (status == QD_OK) {
    qd_times_log(all, run->comm->size);
    status = qd_agree(run->comm, write_status(run, (standing){.state = "finished", .times = all}));
  }
  qd_heap_free(all);
  return status;
}

qd_status qd_progress_nothing_to_do(qd_run *run) {
  QD_TRY_ALL(run->comm, write_status(run, (standing){.state = "finished"}));
  return QD_OK;
}

/* The failure itself is what is told in the end, whatever becomes of the file. */
qd_status qd_progress_failed(const qd_run *run, qd_status why) {
  char message[4096];
  snprintf(message, sizeof message, "%s", qd_error_text());
  qd_status status = write_status(run, (standing){.state = "failed", .left = NAN, .message = message});
  return status == QD_OK ? why : qd_fail(why, __FILE__, __LINE__, "%s", message);
}

static bool out_of_time(const qd_run *run, double block_seconds) {
  double limit = run->job->stop_after_seconds;
  return limit > 0 && qd_seconds() - run->started + block_seconds > limit;
}

qd_status qd_progress_stop(qd_run *run, int64_t block, double block_seconds) {
  bool signalled, late = run->comm->rank == 0 && out_of_time(run, block_seconds);
  QD_TRY(qd_interrupt_agree(run->comm, &signalled));
  QD_TRY(qd_comm_bcast(run->comm, &late, sizeof late, 0));
  if (block + 1 == run->model.n_blocks || (!signalled && !late)) return QD_OK;
  QD_TRY(qd_write_wait(run));
  QD_TRY_ALL(run->comm, write_status(run, (standing){.state = "stopped", .left = NAN}));
  return qd_agree(run->comm, qd_fail(QD_ESTOPPED, __FILE__, __LINE__,
                                     "stopped with %" PRId64 " of %" PRId64 " blocks on disk (%s): the same command goes on",
                                     block + 1, run->model.n_blocks, signalled ? "a signal came" : "--stop-after"));
}
