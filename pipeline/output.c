#define _XOPEN_SOURCE 700
#include "pipeline/output.h"

#include "kernels/base/heap.h"
#include "kernels/base/log.h"
#include "pipeline/identity.h"
#include "pipeline/summary.h"
#include "storage/atomic.h"
#include "storage/entry.h"
#include "workers/team.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- where --------------------------------------------------------------------------------------------------------------- */

/* The real path of what exists of `path` (its parent, when it does not exist yet). */
static bool real_path(const char *path, char resolved[PATH_MAX]) {
  char copy[PATH_MAX];
  snprintf(copy, sizeof copy, "%s", path);
  while (realpath(copy, resolved) == NULL) {
    char *slash = strrchr(copy, '/');
    if (slash == NULL) return realpath(".", resolved) != NULL;
    if (slash == copy) slash++;
    *slash = '\0';
  }
  return true;
}

static qd_status refuse_inside_model(const qd_job *job) {
  char model[PATH_MAX], output[PATH_MAX];
  if (!real_path(job->model, model) || !real_path(job->output, output)) return QD_OK;
  size_t n = strlen(model);
  bool inside = strncmp(model, output, n) == 0 && (output[n] == '\0' || output[n] == '/');
  QD_CHECK(!inside, QD_EINVAL, "--output %s lies in the model's folder %s; choose another", job->output, job->model);
  return QD_OK;
}

/* ---- what is there ------------------------------------------------------------------------------------------------------- */

static qd_status lock_folder(const qd_run *run, qd_output *output) {
  char text[256], host[128];
  snprintf(text, sizeof text, "host %s pid %ld job %s\n", qd_host_name(host, sizeof host), (long)getpid(),
           run->job->job_name ? run->job->job_name : "-");
  QD_TRY(qd_folder_make(run->job->output));
  QD_TRY(refuse_inside_model(run->job)); /* once more: "absent/../model/x" leads there only now that absent is made */
  QD_TRY(qd_store_lock_take(run->job->output, text, &output->lock));
  output->locked = true;
  return QD_OK;
}

static qd_status digest_side_file(const qd_run *run, const char *name, qd_digest *digest) {
  char *text;
  size_t n;
  *digest = (qd_digest){""};
  qd_status status = qd_side_file_read(run->job->model, name, QD_SIDE_FILE_BYTES, &text, &n);
  if (status == QD_OK) qd_digest_of(text, n, digest);
  qd_heap_free(text);
  return status == QD_ENOTFOUND ? QD_OK : status;
}

static qd_status describe(const qd_run *run, qd_json **out) {
  qd_digest config, tokenizer;
  QD_TRY(digest_side_file(run, "config.json", &config));
  QD_TRY(digest_side_file(run, "tokenizer.json", &tokenizer));
  *out = qd_job_describe(run->job, &run->model, qd_run_calibrates(run) ? &run->tokens : NULL, &config, &tokenizer);
  return QD_OK;
}

static qd_status refuse_foreign(const qd_job *job, qd_store_state state, const char *what) {
  QD_CHECK(state != QD_STORE_FOREIGN, QD_EEXIST, "%s is no output of qdist (it holds %s); choose another --output", job->output,
           what ? what : "?");
  QD_CHECK(!job->no_resume || state == QD_STORE_FRESH, QD_EEXIST, "%s is not empty and --no-resume is given", job->output);
  return QD_OK;
}

static qd_status begin(const qd_run *run, qd_json *job) {
  qd_digest sample;
  QD_TRY(qd_identity_sample(run->source, &sample));
  qd_json_set_text(job, QD_SAMPLE_KEY, sample.hex);
  QD_TRY(qd_store_begin(run->job->output, job));
  qd_identity_note(run);
  return QD_OK;
}

static qd_status look(const qd_run *run, qd_store_state *state) {
  char *what = NULL;
  QD_TRY(qd_store_look(run->job->output, state, &what));
  qd_status status = refuse_foreign(run->job, *state, what);
  qd_heap_free(what);
  return status;
}

static qd_json *without_dataset(const qd_json *job) {
  const char *key;
  const qd_json *value;
  qd_json *out = qd_json_object();
  for (size_t i = 0; qd_json_member(job, i, &key, &value); i++)
    if (strcmp(key, "dataset") != 0) qd_json_set(out, key, qd_json_copy(value));
  return out;
}

/* Weights are compared later, tensor by tensor, so that the message can name one (identity.c). */
static qd_status same_job(const qd_run *run, qd_json *job, bool with_text) {
  qd_json *stored;
  qd_status found = qd_store_read_job(run->job->output, &stored);
  QD_CHECK(found != QD_ENOTFOUND, QD_ECORRUPT, "%s/partial/job.json is missing", run->job->output);
  QD_TRY(found);
  const qd_json *sample = qd_json_get(stored, QD_SAMPLE_KEY);
  if (sample != NULL) qd_json_set(job, QD_SAMPLE_KEY, qd_json_copy(sample));
  qd_json *was = with_text ? stored : without_dataset(stored), *now = with_text ? job : without_dataset(job);
  qd_status status = qd_job_compare(was, now, run->job->output);
  if (!with_text) qd_json_free(was), qd_json_free(now);
  qd_json_free(stored);
  return status;
}

/* The job as a file beside the log: a person's way to do it again; nothing is read from it. */
static qd_status write_configuration(const qd_run *run) {
  const qd_job *job = run->job;
  char *text;
  qd_job_settled settled = {.sequence_tokens = qd_run_calibrates(run) ? run->tokens.sequence_tokens : 0,
                            .arithmetic = qd_compute_arithmetic(job->compute, run->model.dtype)};
  if (job->configuration == NULL) return QD_OK;
  QD_TRY(job->configuration(job, &settled, &text));
  char *partial = NULL;
  qd_status status = qd_path_join(job->output, QD_STORE_PARTIAL, &partial);
  if (status == QD_OK) status = qd_atomic_write(job->output, partial, QD_JOB_FILE, text, strlen(text));
  qd_heap_free(partial);
  qd_heap_free(text);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

static qd_status compare_job(const qd_run *run, bool with_text) {
  qd_json *job;
  QD_TRY(describe(run, &job));
  qd_status status = same_job(run, job, with_text);
  qd_json_free(job);
  return status;
}

qd_status qd_output_foresee(const qd_run *run, qd_store_state *state) {
  *state = QD_STORE_FRESH;
  if (run->job->output == NULL) return QD_OK;
  QD_TRY(refuse_inside_model(run->job));
  QD_TRY(look(run, state));
  return *state == QD_STORE_FRESH ? QD_OK : compare_job(run, qd_run_calibrates(run));
}

qd_status qd_output_blocks(const qd_run *run, int64_t *blocks) {
  qd_store stored;
  QD_TRY(qd_store_open(run->job->output, true, &stored));
  *blocks = stored.n_blocks;
  qd_store_close(&stored);
  return QD_OK;
}

/* A finished store may lie where nothing can be written, so that it cannot be locked either; where it can, the lock that a
 * killed job left goes with ours. */
static qd_status is_finished_job(const qd_run *run, qd_output *output, qd_store_state *state) {
  QD_TRY(look(run, state));
  if (*state != QD_STORE_FINISHED) return QD_OK;
  qd_status status = compare_job(run, true), locked = status == QD_OK ? lock_folder(run, output) : QD_OK;
  return locked == QD_OK ? status : QD_OK;
}

/* Rank 0's part: everything that may refuse the job before anything is changed but the lock and the log. */
static qd_status open_on_coordinator(qd_run *run, qd_output *output, qd_store_state *state) {
  char path[QD_LOG_PATH_BYTES];
  qd_json *job = NULL;
  QD_TRY(refuse_inside_model(run->job));
  QD_TRY(is_finished_job(run, output, state));
  if (*state == QD_STORE_FINISHED) return QD_OK;
  QD_TRY(lock_folder(run, output));
  QD_TRY(describe(run, &job));
  snprintf(path, sizeof path, "%s/" QD_LOG_NAME, run->job->output);
  qd_status status = look(run, state); /* again: another job may have gone on meanwhile */
  if (status == QD_OK && *state != QD_STORE_FRESH) status = same_job(run, job, true);
  if (status == QD_OK && *state != QD_STORE_FINISHED) status = qd_log_open(path);
  if (status == QD_OK && *state == QD_STORE_FRESH) status = begin(run, job);
  if (status == QD_OK && *state != QD_STORE_FINISHED) status = write_configuration(run);
  qd_json_free(job);
  return status;
}

/* ---- whether the finished files are as they were written ----------------------------------------------------------------- */

/* What this rank finds in those files of `block` that are its to read: each is read by one rank, as each is written by one. */
static qd_status check_my_files(const qd_run *run, int64_t block, double *bytes) {
  const qd_entry *entry = qd_feed_entry(&run->stored, block);
  for (int f = 0; f < entry->n_files; f++) {
    *bytes += (double)entry->file[f].bytes;
    if ((block + 1 + f) % run->comm->size == run->comm->rank) QD_TRY(qd_store_check_file(&run->stored, &entry->file[f]));
  }
  return QD_OK;
}

/* What some rank found wrong is done again by all, and so is what only some ranks see (a folder on a network). */
static qd_status settle(qd_run *run, int64_t block, qd_status mine, bool *whole) {
  qd_status agreed;
  QD_TRY(qd_agree_on(run->comm, mine, &agreed));
  *whole = agreed == QD_OK;
  if (*whole) return QD_OK;
  bool redo = !run->stored.finished && (agreed == QD_ECORRUPT || agreed == QD_ENOTFOUND);
  if (!redo) return qd_agree(run->comm, agreed);
  qd_store_give_up(&run->stored, block, agreed == QD_ECORRUPT ? qd_error_text() : NULL);
  return QD_OK;
}

/* All ranks read at the same time, then agree block by block: a block rests on those before it. */
static qd_status check_stored(qd_run *run, double *bytes) {
  int64_t b = 0;
  bool whole;
  qd_status mine = run->stored.has_rest ? check_my_files(run, QD_REST, bytes) : QD_ENOTFOUND;
  QD_TRY(settle(run, QD_REST, mine, &whole));
  for (mine = QD_OK; mine == QD_OK && b < run->stored.n_blocks; b += mine == QD_OK)
    mine = check_my_files(run, b, bytes);
  if (mine == QD_OK) mine = QD_ENOTFOUND; /* of the first block that is not there */
  whole = true;
  for (int64_t i = 0; whole && i < run->model.n_blocks; i++) QD_TRY(settle(run, i, i == b ? mine : QD_OK, &whole));
  return QD_OK;
}

enum { LONG_SECONDS = 2 };

static qd_status check_and_tell(qd_run *run) {
  double bytes = 0, start = qd_seconds();
  char size[32];
  QD_TRY(check_stored(run, &bytes));
  double seconds = qd_seconds() - start;
  qd_size_text(bytes, size, sizeof size);
  (seconds < LONG_SECONDS ? qd_log_file : qd_log)("the finished files were read and compared: %s in %.1f s", size, seconds);
  return QD_OK;
}

/* ---- going on ------------------------------------------------------------------------------------------------------------ */

static qd_status open_stored(qd_run *run) {
  QD_TRY(qd_store_open(run->job->output, true, &run->stored));
  return qd_feed_check_store(&run->stored, &run->stored_model);
}

static bool head_is_stored(const qd_run *run) {
  return run->stored.has_rest && qd_record_is_quantized(qd_feed_record(&run->stored.rest, QD_HEAD, -1));
}

qd_status qd_output_open(qd_run *run, qd_output *output) {
  qd_store_state state = QD_STORE_FRESH;
  run->head_left = qd_job_quantizes(run->job, QD_HEAD, &run->model);
  QD_TRY_ALL(run->comm, run->comm->rank == 0 ? open_on_coordinator(run, output, &state) : QD_OK);
  QD_TRY(qd_comm_bcast(run->comm, &state, sizeof state, 0));
  if (state == QD_STORE_FRESH) return QD_OK;
  QD_TRY_ALL(run->comm, open_stored(run));
  QD_TRY(qd_identity_check(run));
  if (run->comm->rank == 0) qd_identity_note(run);
  if (state != QD_STORE_FINISHED) QD_TRY(check_and_tell(run));
  run->first_block = run->blocks_done = run->stored.n_blocks;
  run->head_left = run->head_left && !head_is_stored(run);
  output->finished = state == QD_STORE_FINISHED;
  if (output->finished) qd_log("%s is finished already: nothing to do", run->job->output);
  else
    qd_log("going on with %s: %" PRId64 " of %" PRId64 " blocks are there", run->job->output, run->first_block,
           run->model.n_blocks);
  return QD_OK;
}

/* What is copied beside the blocks must be what they were made with. */
static qd_status refuse_changed(const qd_run *run) {
  qd_status status = compare_job(run, true);
  QD_CHECK(status != QD_EEXIST, QD_EEXIST,
           "config.json or tokenizer.json in %s changed while the job ran: put back what was there and run the same command "
           "again",
           run->job->model);
  return status;
}

/* What the weights cost, by the formula and on disk. */
static qd_status log_bits(const qd_run *run) {
  qd_store store;
  qd_summary summary;
  QD_TRY(qd_store_open(run->job->output, false, &store));
  qd_summary_of_store(&store, &summary);
  qd_store_close(&store);
  qd_log("%.4f bits a weight over %" PRId64 " quantized weights (%.4f by the bytes stored), mean relative error %.4g",
         summary.bits_per_weight, summary.quantized_weights, summary.bits_stored, summary.mean_relative_error);
  return QD_OK;
}

static qd_status finish_on_coordinator(const qd_run *run) {
  const char *names[32];
  int n = 0;
  QD_TRY(refuse_changed(run));
  while (n < 32 && qd_source_side_file(run->source, (size_t)n) != NULL)
    names[n] = qd_source_side_file(run->source, (size_t)n), n++;
  QD_TRY(qd_store_finish(run->job->output, run->job->model, names, n, run->model.n_blocks,
                         qd_job_unties(run->job, &run->model)));
  return log_bits(run);
}

qd_status qd_output_finish(qd_run *run) {
  QD_TRY_ALL(run->comm, run->comm->rank == 0 ? finish_on_coordinator(run) : QD_OK);
  return QD_OK;
}

void qd_output_close(qd_output *output) {
  if (output->locked) qd_store_lock_release(&output->lock);
  qd_log_close();
  *output = (qd_output){0};
}
