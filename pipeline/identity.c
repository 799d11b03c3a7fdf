#include "pipeline/identity.h"

#include "kernels/base/heap.h"
#include "kernels/base/log.h"

#include <stdio.h>
#include <string.h>

static const char marker[] = "weights-file ";

static const char *base_name(const char *path) {
  const char *slash = strrchr(path, '/');
  return slash ? slash + 1 : path;
}

static void describe(const qd_source *source, size_t index, char *text, size_t size) {
  qd_file_identity id = qd_source_file_identity(source, index);
  snprintf(text, size, "%ssize=%" PRIu64 " inode=%" PRIu64 " mtime=%" PRId64 " ctime=%" PRId64 " name=%s", marker, id.size,
           id.inode, id.mtime_ns, id.ctime_ns, base_name(qd_source_file_path(source, index)));
}

void qd_identity_note(const qd_run *run) {
  char line[512];
  for (size_t i = 0; i < qd_source_files(run->source); i++) {
    describe(run->source, i, line, sizeof line);
    qd_log_file("%s", line);
  }
}

/* Whether the log's last word on each file is what the file is now. */
static bool last_note_equals(const char *log, const char *wanted) {
  const char *name = strstr(wanted, " name="), *last = NULL;
  size_t name_length = strlen(name);
  for (const char *at = strstr(log, marker); at != NULL; at = strstr(at + 1, marker)) {
    size_t length = strcspn(at, "\n");
    if (length > name_length && strncmp(at + length - name_length, name, name_length) == 0) last = at;
  }
  return last != NULL && strcspn(last, "\n") == strlen(wanted) && strncmp(last, wanted, strlen(wanted)) == 0;
}

static qd_status unchanged_by_log(const qd_run *run, bool *unchanged) {
  char path[QD_LOG_PATH_BYTES], line[512], *log;
  size_t n;
  *unchanged = false;
  snprintf(path, sizeof path, "%s/" QD_LOG_NAME, run->job->output);
  if (!qd_file_exists(path)) return QD_OK;
  QD_TRY(qd_file_read(path, (size_t)1 << 30, &log, &n));
  *unchanged = true;
  for (size_t i = 0; i < qd_source_files(run->source); i++) {
    describe(run->source, i, line, sizeof line);
    *unchanged = *unchanged && last_note_equals(log, line);
  }
  qd_heap_free(log);
  return QD_OK;
}

static qd_status digest_again(const qd_run *run, const qd_record *record) {
  const qd_source_tensor *tensor = qd_source_find(run->source, record->name);
  qd_digest now;
  void *data;
  if (tensor == NULL) return QD_OK; /* a statistics record has no tensor */
  QD_TRY(qd_heap_new((size_t)tensor->bytes, 1, &data));
  qd_status status = qd_source_read(run->source, tensor, 0, data, (size_t)tensor->bytes);
  if (status == QD_OK) qd_digest_of(data, (size_t)tensor->bytes, &now);
  qd_heap_free(data);
  QD_TRY(status);
  QD_CHECK(qd_digest_equal(&now, &record->source), QD_EEXIST,
           "%s holds a job on another model: the values of %s in %s have changed (digest %s, was %s)", run->job->output,
           record->name, run->job->model, now.hex, record->source.hex);
  return QD_OK;
}

static qd_status digest_my_part(const qd_run *run) {
  int64_t count = 0;
  for (int64_t b = QD_REST; b < run->stored.n_blocks; b++) {
    if (b == QD_REST && !run->stored.has_rest) continue;
    const qd_entry *entry = qd_feed_entry(&run->stored, b);
    for (int i = 0; i < entry->n_records; i++)
      if (count++ % run->comm->size == run->comm->rank) QD_TRY(digest_again(run, &entry->record[i]));
  }
  return QD_OK;
}

/* ---- what was not read yet ----------------------------------------------------------------------------------------------- */

enum { PIECES = 4, PIECE_BYTES = 16384, SAMPLE_BYTES = PIECES * PIECE_BYTES };

/* Where a piece begins: side by side in a small tensor, the last one at the end of a large one. */
static uint64_t piece_at(uint64_t whole, uint64_t piece) {
  return whole <= SAMPLE_BYTES ? piece * PIECE_BYTES : piece * (whole - PIECE_BYTES) / (PIECES - 1);
}

/* What one tensor adds: its description, then its sample. */
static qd_status sample_tensor(const qd_source *source, const qd_source_tensor *t, unsigned char *bytes, qd_digest *out) {
  int64_t shape[2 + QD_MAX_RANK] = {t->dtype, t->rank};
  size_t n = sizeof shape;
  for (int i = 0; i < t->rank; i++) shape[2 + i] = t->dim[i];
  memcpy(bytes, shape, sizeof shape);
  for (uint64_t piece = 0; piece < PIECES && piece_at(t->bytes, piece) < t->bytes; piece++) {
    uint64_t at = piece_at(t->bytes, piece), left = t->bytes - at;
    size_t length = left < PIECE_BYTES ? (size_t)left : PIECE_BYTES;
    QD_TRY(qd_source_read(source, t, at, bytes + n, length));
    n += length;
  }
  qd_digest_of(bytes, n, out);
  return QD_OK;
}

static qd_status sample_all(const qd_source *source, unsigned char *bytes, qd_digest *digests) {
  for (size_t i = 0; i < qd_source_tensors(source); i++) {
    const qd_source_tensor *t = qd_source_tensor_at(source, i);
    qd_digest_of(t->name, strlen(t->name), &digests[2 * i]);
    QD_TRY(sample_tensor(source, t, bytes, &digests[2 * i + 1]));
  }
  return QD_OK;
}

qd_status qd_identity_sample(const qd_source *source, qd_digest *out) {
  size_t n = 2 * qd_source_tensors(source);
  unsigned char *bytes;
  qd_digest *digests = NULL;
  QD_TRY(qd_heap_new(SAMPLE_BYTES + (2 + QD_MAX_RANK) * sizeof(int64_t), 1, &bytes));
  qd_status status = qd_heap_new(n, sizeof *digests, &digests);
  if (status == QD_OK) status = sample_all(source, bytes, digests);
  if (status == QD_OK) qd_digest_of(digests, n * sizeof *digests, out);
  qd_heap_free(digests);
  qd_heap_free(bytes);
  return status;
}

static qd_status check_sample(const qd_run *run) {
  const char *was = qd_json_text(qd_json_get(run->stored.job, QD_SAMPLE_KEY));
  qd_digest now;
  if (was == NULL) return QD_OK;
  QD_TRY(qd_identity_sample(run->source, &now));
  QD_CHECK(strcmp(was, now.hex) == 0, QD_EEXIST,
           "%s holds a job on another model: weights in %s that are not quantized yet have changed (digest %s, was %s)",
           run->job->output, run->job->model, now.hex, was);
  return QD_OK;
}

qd_status qd_identity_check(qd_run *run) {
  bool unchanged = false;
  QD_TRY_ALL(run->comm, run->comm->rank == 0 ? unchanged_by_log(run, &unchanged) : QD_OK);
  QD_TRY(qd_comm_bcast(run->comm, &unchanged, sizeof unchanged, 0));
  if (unchanged) return QD_OK;
  if (run->comm->rank == 0) qd_log("the model's files are not those noted in the log: digesting what is stored already");
  QD_TRY_ALL(run->comm, digest_my_part(run));
  QD_TRY_ALL(run->comm, run->comm->rank == 0 ? check_sample(run) : QD_OK);
  return QD_OK;
}
