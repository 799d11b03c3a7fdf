#define _POSIX_C_SOURCE 200809L
#include "storage/block_file.h"
#include "storage/entry.h"
#include "storage/journal.h"
#include "storage/listing.h"
#include "storage/manifest.h"
#include "storage/seal.h"

#include "kernels/base/heap.h"
#include "kernels/base/log.h"
#include "kernels/ops.h"
#include "storage/bytes.h"

#include <string.h>

enum { HEAD_BYTES = 256 };

/* ---- what a folder is ---------------------------------------------------------------------------------------------------- */

/* A document of the store, by its first member; a damaged one counts, so that it is reported as such and not as foreign. */
static qd_status is_ours(const char *path, bool *ours) {
  char head[HEAD_BYTES + 1] = "";
  qd_bytes bytes;
  *ours = false;
  qd_status status = qd_bytes_open_file(path, &bytes);
  if (status == QD_ENOTFOUND) return QD_OK;
  if (status != QD_OK) return qd_forward(status, __FILE__, __LINE__);
  status = qd_bytes_read(&bytes, 0, head, bytes.size < HEAD_BYTES ? (size_t)bytes.size : HEAD_BYTES);
  *ours = strstr(head, "\"format\": \"qdist\"") != NULL;
  qd_bytes_close(&bytes);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

static qd_status is_ours_in(const char *folder, const char *name, bool *ours) {
  char *path = NULL;
  QD_TRY(qd_path_join(folder, name, &path));
  qd_status status = is_ours(path, ours);
  qd_heap_free(path);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

/* partial/ of a job that was killed before it had noted itself: temporaries and nothing else. */
static qd_status is_empty_partial(const char *folder, bool *empty) {
  char *partial = NULL;
  qd_listing listing;
  *empty = false;
  QD_TRY(qd_path_join(folder, QD_STORE_PARTIAL, &partial));
  qd_status status = qd_listing_read(partial, &listing);
  qd_heap_free(partial);
  if (status == QD_EEXIST) return QD_OK;
  if (status != QD_OK) return qd_forward(status, __FILE__, __LINE__);
  *empty = true;
  for (size_t i = 0; i < listing.n; i++) {
    size_t n = strlen(listing.name[i]);
    if (n < 4 || strcmp(listing.name[i] + n - 4, ".tmp") != 0) *empty = false;
  }
  qd_listing_release(&listing);
  return QD_OK;
}

static qd_status look_for_foreign(const char *folder, const qd_listing *listing, qd_store_state *state, char **what) {
  *state = QD_STORE_FRESH;
  for (size_t i = 0; i < listing->n; i++) {
    const char *name = listing->name[i];
    bool fine = qd_is_beside_store(name);
    if (strcmp(name, QD_STORE_PARTIAL) == 0) QD_TRY(is_empty_partial(folder, &fine));
    if (fine) continue;
    QD_TRY(qd_heap_text(name, strlen(name), what));
    *state = QD_STORE_FOREIGN;
    return QD_OK;
  }
  return QD_OK;
}

/* Beside partial/ such a file is of a job whose note is damaged or gone. */
static bool has_block_file(const qd_listing *listing) {
  for (size_t i = 0; i < listing->n; i++)
    if (qd_block_file_name_fits(listing->name[i])) return true;
  return false;
}

static qd_status look_at(const char *folder, const qd_listing *listing, qd_store_state *state, char **what) {
  bool finished = false, unfinished = false;
  bool partial = qd_listing_has(listing, QD_STORE_PARTIAL);
  if (qd_listing_has(listing, QD_STORE_MANIFEST)) QD_TRY(is_ours_in(folder, QD_STORE_MANIFEST, &finished));
  else if (partial) QD_TRY(is_ours_in(folder, QD_STORE_PARTIAL "/" QD_STORE_JOB, &unfinished));
  if (finished) *state = partial ? QD_STORE_UNFINISHED : QD_STORE_FINISHED;
  else if (unfinished || (partial && has_block_file(listing))) *state = QD_STORE_UNFINISHED;
  else QD_TRY(look_for_foreign(folder, listing, state, what));
  return QD_OK;
}

qd_status qd_store_look(const char *folder, qd_store_state *state, char **what) {
  qd_listing listing;
  *what = NULL;
  *state = QD_STORE_FRESH;
  qd_status status = qd_listing_read(folder, &listing);
  if (status == QD_ENOTFOUND) return QD_OK;
  if (status == QD_OK) status = look_at(folder, &listing, state, what);
  qd_listing_release(&listing);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

/* ---- opening ------------------------------------------------------------------------------------------------------------- */

/* Of block files the names and sizes: their bytes are checked when they are read.  Side files are small, and what config.json
 * and tokenizer.json say decides what comes out. */
static qd_status check_all_files(const char *folder, const qd_manifest *manifest) {
  for (int64_t i = 0; i < manifest->n_blocks; i++) QD_TRY(qd_entry_check_files(folder, &manifest->block[i]));
  QD_TRY(qd_entry_check_files(folder, &manifest->rest));
  for (int i = 0; i < manifest->n_files; i++) {
    QD_TRY(qd_entry_file_check(folder, &manifest->file[i]));
    QD_TRY(qd_entry_file_check_bytes(folder, &manifest->file[i]));
  }
  return QD_OK;
}

static qd_status open_finished(const char *folder, qd_store *out) {
  qd_manifest manifest;
  QD_TRY(qd_manifest_read(folder, &manifest));
  qd_status status = check_all_files(folder, &manifest);
  if (status == QD_OK) {
    out->finished = out->has_rest = true;
    out->job = manifest.job, manifest.job = NULL;
    out->block = manifest.block, manifest.block = NULL;
    out->n_blocks = manifest.n_blocks, manifest.n_blocks = 0;
    out->rest = manifest.rest, manifest.rest = (qd_entry){0};
  }
  qd_manifest_release(&manifest);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

static void warn_of_damage(const char *what) {
  qd_log_warning("this part of an unfinished store is done again: %s", what);
}

/* A block that was not noted, or whose note or files are damaged, is not done. */
static qd_status take_entry(const char *folder, int64_t block, qd_entry *out, bool *done) {
  qd_status status = qd_journal_read_entry(folder, block, out);
  if (status == QD_ECORRUPT) warn_of_damage(qd_error_text());
  *done = status == QD_OK;
  if (status == QD_OK || status == QD_ENOTFOUND || status == QD_ECORRUPT) return QD_OK;
  return qd_forward(status, __FILE__, __LINE__);
}

static qd_status read_unfinished_job(const char *folder, qd_json **job) {
  int64_t arithmetic_version;
  QD_TRY(qd_journal_read_job(folder, job, &arithmetic_version));
  if (arithmetic_version == QD_ARITHMETIC_VERSION) return QD_OK;
  qd_json_free(*job);
  *job = NULL;
  QD_FAIL(QD_EUNSUPPORTED, "%s was begun with arithmetic version %" PRId64 ", this program has version %d", folder,
          arithmetic_version, QD_ARITHMETIC_VERSION);
}

qd_status qd_store_read_job(const char *folder, qd_json **job) {
  qd_manifest manifest;
  *job = NULL;
  qd_status status = qd_manifest_read(folder, &manifest);
  if (status == QD_OK) *job = manifest.job, manifest.job = NULL;
  qd_manifest_release(&manifest);
  if (status == QD_ENOTFOUND) status = read_unfinished_job(folder, job);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

static qd_status open_unfinished(const char *folder, qd_store *out) {
  QD_TRY(read_unfinished_job(folder, &out->job));
  size_t capacity = 0;
  for (bool done = true; done;) {
    QD_TRY(qd_heap_grow(&out->block, &capacity, (size_t)out->n_blocks + 1, sizeof *out->block));
    QD_TRY(take_entry(folder, out->n_blocks, &out->block[out->n_blocks], &done));
    out->n_blocks += done;
  }
  QD_TRY(take_entry(folder, QD_REST, &out->rest, &out->has_rest));
  return QD_OK;
}

static qd_status open_store(const char *folder, bool allow_unfinished, qd_store *out) {
  QD_TRY(qd_heap_text(folder, strlen(folder), &out->folder));
  qd_status status = open_finished(folder, out);
  if (status != QD_ENOTFOUND) return status;
  if (allow_unfinished) {
    status = open_unfinished(folder, out);
    QD_CHECK(status != QD_ENOTFOUND, QD_ENOTFOUND, "there is no store in %s", folder);
    return status;
  }
  bool unfinished;
  QD_TRY(is_ours_in(folder, QD_STORE_PARTIAL "/" QD_STORE_JOB, &unfinished));
  QD_CHECK(unfinished, QD_ENOTFOUND, "there is no store in %s", folder);
  QD_FAIL(QD_ENOTFOUND, "the store in %s is not finished: run its job again", folder);
}

qd_status qd_store_open(const char *folder, bool allow_unfinished, qd_store *out) {
  *out = (qd_store){0};
  qd_status status = open_store(folder, allow_unfinished, out);
  if (status == QD_OK) return QD_OK;
  qd_store_close(out);
  return qd_forward(status, __FILE__, __LINE__);
}

void qd_store_close(qd_store *store) {
  for (int64_t i = 0; i < store->n_blocks; i++) qd_entry_release(&store->block[i]);
  qd_entry_release(&store->rest);
  qd_heap_free(store->block);
  qd_json_free(store->job);
  qd_heap_free(store->folder);
  *store = (qd_store){0};
}

qd_status qd_store_check_file(const qd_store *store, const qd_entry_file *file) {
  QD_TRY(qd_entry_file_check(store->folder, file));
  return qd_as_corrupt(qd_entry_file_check_bytes(store->folder, file));
}

void qd_store_give_up(qd_store *store, int64_t block, const char *why) {
  QD_ASSERT(!store->finished);
  if (why != NULL) warn_of_damage(why);
  if (block == QD_REST) qd_entry_release(&store->rest), store->has_rest = false;
  else
    while (store->n_blocks > block) qd_entry_release(&store->block[--store->n_blocks]);
}

qd_status qd_store_read_part(const qd_store *store, const qd_entry *entry, const qd_stored_part *part, void *to) {
  QD_ASSERT(part->file >= 0 && part->file < entry->n_files && to != NULL);
  char *path = NULL;
  QD_TRY(qd_path_join(store->folder, entry->file[part->file].name, &path));
  qd_status status = qd_block_file_read(path, part, to);
  qd_heap_free(path);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}
