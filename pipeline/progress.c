#include "pipeline/progress.h"

#include "kernels/base/heap.h"
#include "kernels/base/log.h"
#include "storage/atomic.h"
#include "workers/interrupt.h"

#include <stdio.h>
#include <string.h>

static void span_text(double seconds, char *text, size_t size) {
  int64_t s = (int64_t)(seconds + 0.5);
  if (s >= 3600) snprintf(text, size, "%" PRId64 ":%02" PRId64 ":%02" PRId64, s / 3600, s / 60 % 60, s % 60);
  else snprintf(text, size, "%" PRId64 ":%02" PRId64, s / 60, s % 60);
}

/* times: of all ranks; NULL: not yet. */
static qd_status write_status(const qd_run *run, const char *state, int64_t done, double left, const qd_times *times) {
  const char *path = run->job->status_file, *slash;
  char folder[4096], *text;
  if (path == NULL || run->comm->rank != 0) return QD_OK;
  qd_json *status = qd_json_object();
  qd_json_set_text(status, "state", state);
  qd_json_set_integer(status, "blocks_done", done);
  qd_json_set_integer(status, "blocks", run->model.n_blocks);
  qd_json_set_integer(status, "ranks", run->comm->size);
  qd_json_set_number(status, "seconds", qd_seconds() - run->started);
  qd_json_set_number(status, "seconds_left", left);
  qd_json_set_text(status, "output", run->job->output);
  if (times != NULL) qd_json_set(status, "seconds_of_ranks", qd_times_json(times, run->comm->size));
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
  QD_TRY_ALL(run->comm, write_status(run, "running", run->first_block, 0, NULL));
  return QD_OK;
}

double qd_progress_loss(const qd_block *block) {
  double loss = 0;
  for (int i = 0; i < block->n; i++) loss += block->weight[i].result.loss;
  return loss;
}

qd_status qd_progress_block(qd_run *run, int64_t block, double seconds, double loss) {
  double spent = qd_seconds() - run->started;
  int64_t done = block + 1, left = run->model.n_blocks - done;
  double left_seconds = spent / (double)(done - run->first_block) * (double)left;
  char spent_text[32], left_text[32];
  span_text(spent, spent_text, sizeof spent_text);
  span_text(left_seconds, left_text, sizeof left_text);
  qd_log("block %" PRId64 "/%" PRId64 " done in %.2f s, loss %.5g; %s spent, about %s left", done, run->model.n_blocks, seconds,
         loss, spent_text, left_text);
  QD_TRY_ALL(run->comm, write_status(run, "running", done, left_seconds, NULL));
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
    status = qd_agree(run->comm, write_status(run, "finished", run->model.n_blocks, 0, all));
  }
  qd_heap_free(all);
  return status;
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
  QD_TRY_ALL(run->comm, write_status(run, "stopped", block + 1, 0, NULL));
  return qd_agree(run->comm, qd_fail(QD_ESTOPPED, __FILE__, __LINE__,
                                     "stopped after block %" PRId64 " of %" PRId64 " (%s): the same command goes on", block + 1,
                                     run->model.n_blocks, signalled ? "a signal came" : "--stop-after"));
}
