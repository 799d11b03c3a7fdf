#include "pipeline/keep.h"

#include "kernels/base/log.h"

#include <string.h>

enum { MAX_STREAMS = 2 };

/* All that the job has: a resume needs every one. */
static int streams_of(qd_run *run, qd_acts *streams[MAX_STREAMS]) {
  streams[0] = &run->acts.quantized, streams[1] = &run->acts.original;
  return qd_run_keeps_original(run) ? 2 : 1;
}

static qd_kept shape_of(qd_run *run, int64_t blocks) {
  qd_acts *streams[MAX_STREAMS];
  return (qd_kept){.blocks = blocks,
                   .dtype = run->act,
                   .streams = streams_of(run, streams),
                   .sequences = run->tokens.rows,
                   .tokens = run->tokens.sequence_tokens,
                   .hidden = run->model.hidden};
}

/* ---- writing ------------------------------------------------------------------------------------------------------------- */

static qd_status plan_parts(const qd_run *run, qd_kept *kept) {
  int64_t busy = run->tokens.rows < run->comm->size ? run->tokens.rows : run->comm->size;
  QD_TRY(qd_kept_new(kept, (int)busy));
  for (int r = 0; r < (int)busy; r++) {
    qd_range range = qd_partition_even(run->tokens.rows, r, run->comm->size);
    kept->part[r] = (qd_kept_part){range.first, range.n};
  }
  return QD_OK;
}

static qd_status write_stream(const qd_run *run, qd_acts *acts, int64_t stream, const qd_raw_file *file) {
  const qd_kept *kept = &run->kept;
  qd_acts_window window;
  size_t n = qd_kept_sequence_bytes(kept);
  qd_digest *digest = kept->digest + stream * kept->sequences + run->mine.first;
  qd_acts_begin(acts, (qd_acts_use){.reads_h = true});
  for (;;) {
    QD_TRY(qd_acts_next(acts, &window));
    if (window.n == 0) return QD_OK;
    for (int64_t i = 0; i < window.n; i++) {
      int64_t sequence = window.first + i;
      const void *h = qd_tensor_at(window.h, i).data;
      qd_digest_of(h, n, &digest[sequence]);
      QD_TRY(qd_raw_file_write(file, (uint64_t)(stream * run->mine.n + sequence) * n, h, n));
    }
  }
}

static qd_status write_mine(qd_run *run) {
  qd_acts *streams[MAX_STREAMS];
  qd_raw_file file;
  const char *output = run->job->output;
  int n = streams_of(run, streams);
  if (run->mine.n == 0) return QD_OK;
  QD_TRY(qd_kept_create(output, &run->kept, run->mine.first, &file));
  qd_status status = QD_OK;
  for (int s = 0; status == QD_OK && s < n; s++) status = write_stream(run, streams[s], s, &file);
  if (status == QD_OK) status = qd_kept_publish(output, &run->kept, run->mine.first, &file);
  qd_raw_file_close(&file);
  return status;
}

static qd_status gather_digests(qd_run *run) {
  const qd_kept *kept = &run->kept;
  for (int64_t s = 0; s < kept->streams; s++)
    QD_TRY(qd_units_gather(run, kept->digest + s * kept->sequences, sizeof *kept->digest));
  return QD_OK;
}

qd_status qd_keep_write(qd_run *run, int64_t blocks) {
  qd_moment begin = qd_times_begin(run);
  if (!run->job->keep_activations || !qd_run_calibrates(run)) return QD_OK;
  qd_kept_release(&run->kept);
  run->kept = shape_of(run, blocks);
  QD_TRY_ALL(run->comm, plan_parts(run, &run->kept));
  QD_TRY_ALL(run->comm, write_mine(run));
  QD_TRY(gather_digests(run));
  qd_times_end(run, begin, QD_TIME_STORE);
  return QD_OK;
}

qd_status qd_keep_note(qd_run *run, int64_t blocks) {
  if (run->kept.blocks != blocks) return QD_OK;
  QD_TRY_ALL(run->comm, run->comm->rank == 0 ? qd_kept_note(run->job->output, &run->kept) : QD_OK);
  return QD_OK;
}

void qd_keep_close(qd_run *run) { qd_kept_release(&run->kept); }

/* ---- going on ------------------------------------------------------------------------------------------------------------ */

/* blocks: what rank 0's note says; a folder on a network can still show another rank an older one. */
static qd_status check_fit(qd_run *run, const qd_kept *kept, int64_t blocks) {
  qd_kept wanted = shape_of(run, kept->blocks);
  bool same = kept->dtype == wanted.dtype && kept->streams == wanted.streams && kept->sequences == wanted.sequences &&
              kept->tokens == wanted.tokens && kept->hidden == wanted.hidden;
  QD_CHECK(same, QD_ECORRUPT, "they are of another shape or dtype");
  QD_CHECK(kept->blocks == blocks, QD_ECORRUPT,
           "they have passed %" PRId64 " blocks as this rank sees them, %" PRId64 " as rank 0 does", kept->blocks, blocks);
  QD_CHECK(kept->blocks <= run->first_block, QD_ECORRUPT,
           "they have passed %" PRId64 " blocks, of which only %" PRId64 " are there", kept->blocks, run->first_block);
  return QD_OK;
}

static qd_status read_stream(const qd_run *run, const qd_kept *kept, qd_acts *acts, int64_t stream) {
  qd_acts_window window;
  qd_acts_begin(acts, (qd_acts_use){.writes_h = true});
  for (;;) {
    QD_TRY(qd_acts_next(acts, &window));
    if (window.n == 0) return QD_OK;
    for (int64_t i = 0; i < window.n; i++)
      QD_TRY(qd_kept_read_sequence(run->job->output, kept, stream, run->mine.first + window.first + i,
                                   qd_tensor_at(window.h, i).data));
  }
}

static qd_status read_mine(qd_run *run, const qd_kept *kept, int64_t blocks) {
  qd_acts *streams[MAX_STREAMS];
  QD_TRY(check_fit(run, kept, blocks));
  int n = streams_of(run, streams);
  for (int s = 0; s < n; s++) QD_TRY(read_stream(run, kept, streams[s], s));
  return QD_OK;
}

/* *found: whether they are read back, on all ranks alike. */
static qd_status read_all(qd_run *run, qd_kept *kept, qd_status *found) {
  QD_TRY(qd_agree_on(run->comm, qd_kept_read(run->job->output, kept), found));
  if (*found != QD_OK) return QD_OK;
  int64_t blocks = kept->blocks;
  QD_TRY(qd_comm_bcast(run->comm, &blocks, sizeof blocks, 0));
  return qd_agree_on(run->comm, read_mine(run, kept, blocks), found);
}

qd_status qd_keep_restore(qd_run *run) {
  qd_kept kept = {0};
  qd_status found;
  run->passed = 0;
  if (!qd_run_calibrates(run) || run->first_block == 0 || !run->stored.has_rest) return QD_OK;
  qd_status status = read_all(run, &kept, &found);
  if (status == QD_OK && found == QD_OK) {
    run->passed = kept.blocks;
    qd_log("the activations kept after block %" PRId64 " are read back", kept.blocks);
  } else if (status == QD_OK && found != QD_ENOTFOUND) {
    qd_log_warning("the kept activations are not used, the finished blocks give them again: %s", qd_error_text());
  }
  qd_kept_release(&kept);
  return status;
}
