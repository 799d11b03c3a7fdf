#define _POSIX_C_SOURCE 200809L
#include "storage/journal.h"

#include "kernels/base/heap.h"
#include "kernels/ops.h"
#include "storage/atomic.h"
#include "storage/bytes.h"
#include "storage/entry.h"
#include "storage/listing.h"
#include "storage/manifest.h"
#include "storage/seal.h"
#include "storage/source.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { NAME_BYTES = 64 };

static void entry_name(int64_t block, char name[NAME_BYTES]) {
  if (block == QD_REST) snprintf(name, NAME_BYTES, "entry-rest.json");
  else snprintf(name, NAME_BYTES, "entry-%05" PRId64 ".json", block);
}

qd_status qd_journal_write(qd_json *json, const char *folder, const char *name) {
  char *partial = NULL;
  QD_TRY(qd_path_join(folder, QD_STORE_PARTIAL, &partial));
  qd_status status = qd_seal_write(json, partial, partial, name);
  qd_heap_free(partial);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

static qd_status read_checked(const char *path, qd_json **out) {
  QD_TRY(qd_seal_read(path, out));
  qd_status status = qd_document_check(*out, path);
  if (status == QD_OK) return QD_OK;
  qd_json_free(*out);
  *out = NULL;
  return qd_forward(status, __FILE__, __LINE__);
}

qd_status qd_journal_read(const char *folder, const char *name, qd_json **out) {
  char *partial = NULL, *path = NULL;
  QD_TRY(qd_path_join(folder, QD_STORE_PARTIAL, &partial));
  qd_status status = qd_path_join(partial, name, &path);
  if (status == QD_OK) status = read_checked(path, out);
  qd_heap_free(path);
  qd_heap_free(partial);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

/* ---- the job ------------------------------------------------------------------------------------------------------------- */

static qd_status take_job(const qd_json *document, const char *folder, qd_json **job, int64_t *arithmetic_version) {
  const qd_json *found = qd_json_get(document, "job");
  QD_CHECK(qd_json_is_object(found), QD_ECORRUPT, "%s/" QD_STORE_PARTIAL "/" QD_STORE_JOB ": \"job\" is not an object", folder);
  QD_TRY(qd_as_corrupt(qd_json_need_integer(document, QD_STORE_JOB, "arithmetic_version", 1, INT32_MAX, arithmetic_version)));
  *job = qd_json_copy(found);
  return QD_OK;
}

qd_status qd_journal_read_job(const char *folder, qd_json **job, int64_t *arithmetic_version) {
  qd_json *document = NULL;
  *job = NULL;
  *arithmetic_version = 0;
  QD_TRY(qd_journal_read(folder, QD_STORE_JOB, &document));
  qd_status status = take_job(document, folder, job, arithmetic_version);
  qd_json_free(document);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

static qd_status make_partial(const char *folder) {
  char *partial = NULL;
  QD_TRY(qd_path_join(folder, QD_STORE_PARTIAL, &partial));
  qd_status status = qd_folder_make(partial);
  qd_heap_free(partial);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

static qd_status refuse_finished(const char *folder) {
  char *path = NULL;
  QD_TRY(qd_path_join(folder, QD_STORE_MANIFEST, &path));
  bool there = qd_file_exists(path);
  qd_heap_free(path);
  QD_CHECK(!there, QD_EEXIST, "%s holds a finished store; a new one needs another folder", folder);
  return QD_OK;
}

static qd_status write_job(const char *folder, const qd_json *job) {
  qd_json *document = qd_document_begin();
  qd_json_set_integer(document, "arithmetic_version", QD_ARITHMETIC_VERSION);
  qd_json_set(document, "job", qd_json_copy(job));
  qd_status status = qd_journal_write(document, folder, QD_STORE_JOB);
  qd_json_free(document);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

/* The journal's entries belong to the job beside them, so another one must not take its place. */
qd_status qd_store_begin(const char *folder, const qd_json *job) {
  QD_CHECK(qd_json_is_object(job), QD_EINVAL, "the description of a job must be a JSON object");
  QD_TRY(refuse_finished(folder));
  QD_TRY(make_partial(folder));
  qd_json *earlier = NULL;
  int64_t arithmetic_version;
  qd_status status = qd_journal_read_job(folder, &earlier, &arithmetic_version);
  if (status == QD_ENOTFOUND) return write_job(folder, job);
  if (status != QD_OK) return qd_forward(status, __FILE__, __LINE__);
  bool same = qd_json_equal(earlier, job) && arithmetic_version == QD_ARITHMETIC_VERSION;
  qd_json_free(earlier);
  QD_CHECK(same, QD_EEXIST, "%s holds an unfinished store of another job", folder);
  return QD_OK;
}

/* ---- entries ------------------------------------------------------------------------------------------------------------- */

/* What would not be read again must not be noted. */
static qd_status check_entry(const qd_json *json, int64_t block) {
  qd_entry again;
  char name[NAME_BYTES];
  entry_name(block, name);
  QD_TRY(qd_entry_from_json(json, name, &again));
  qd_entry_release(&again);
  return QD_OK;
}

qd_status qd_store_journal(const char *folder, const qd_entry *entry) {
  qd_json *json = NULL;
  QD_TRY(qd_entry_to_json(entry, &json));
  qd_json *document = qd_document_begin();
  qd_json_set(document, "entry", json);
  char name[NAME_BYTES];
  entry_name(entry->block, name);
  qd_status status = check_entry(json, entry->block);
  if (status == QD_OK) status = qd_journal_write(document, folder, name);
  qd_json_free(document);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

static qd_status take_entry(const qd_json *document, const char *folder, const char *name, int64_t block, qd_entry *out) {
  QD_TRY(qd_entry_from_json(qd_json_get(document, "entry"), name, out));
  QD_CHECK(out->block == block, QD_ECORRUPT, "%s/" QD_STORE_PARTIAL "/%s is about block %" PRId64, folder, name, out->block);
  QD_TRY(qd_entry_check_files(folder, out));
  return QD_OK;
}

qd_status qd_journal_read_entry(const char *folder, int64_t block, qd_entry *out) {
  *out = (qd_entry){0};
  char name[NAME_BYTES];
  qd_json *document = NULL;
  entry_name(block, name);
  QD_TRY(qd_journal_read(folder, name, &document));
  qd_status status = take_entry(document, folder, name, block, out);
  qd_json_free(document);
  if (status == QD_OK) return QD_OK;
  qd_entry_release(out);
  return qd_forward(status, __FILE__, __LINE__);
}

/* ---- the end ------------------------------------------------------------------------------------------------------------- */

/* config.json of a model whose head is no longer its embedding. */
static qd_status untie(const char *source_folder, char **text, size_t *n) {
  char *what;
  qd_json *config;
  QD_TRY(qd_side_file_json(source_folder, "config.json", QD_SIDE_FILE_BYTES, &what, &config));
  qd_json_set_bool(config, "tie_word_embeddings", false);
  qd_status status = qd_json_print(config, 2, text);
  if (status == QD_OK) *n = strlen(*text);
  qd_json_free(config);
  qd_heap_free(what);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

static qd_status copy_side_file(const char *folder, const char *source_folder, bool unties, qd_entry_file *file) {
  bool changes = unties && strcmp(file->name, "config.json") == 0;
  char *partial = NULL, *text = NULL;
  size_t n;
  qd_status status;
  QD_TRY_GOTO(status, done, changes ? untie(source_folder, &text, &n)
                                    : qd_side_file_read(source_folder, file->name, QD_SIDE_FILE_BYTES, &text, &n));
  QD_TRY_GOTO(status, done, qd_path_join(folder, QD_STORE_PARTIAL, &partial));
  QD_TRY_GOTO(status, done, qd_atomic_write(folder, partial, file->name, text, n));
  qd_digest_of(text, n, &file->digest);
  file->bytes = n;
done:
  qd_heap_free(partial);
  qd_heap_free(text);
  return status;
}

static qd_status copy_side_files(const char *folder, const char *source_folder, const char *const *names, int n, bool unties,
                                 qd_manifest *manifest) {
  QD_TRY(qd_heap_new((size_t)n, sizeof *manifest->file, &manifest->file));
  for (int i = 0; i < n; i++) {
    qd_entry_file *file = &manifest->file[i];
    QD_CHECK(qd_side_file_name_fits(names[i]), QD_EINVAL, "\"%.64s\" cannot be the name of a side file", names[i]);
    memcpy(file->name, names[i], strlen(names[i]) + 1);
    QD_TRY(copy_side_file(folder, source_folder, unties, file));
    manifest->n_files = i + 1;
  }
  return QD_OK;
}

static qd_status need_entry(const char *folder, int64_t block, qd_entry *out) {
  qd_status status = qd_journal_read_entry(folder, block, out);
  bool missing = status == QD_ENOTFOUND;
  QD_CHECK(!missing || block == QD_REST, QD_ENOTFOUND, "%s cannot be finished: block %" PRId64 " is not done", folder, block);
  QD_CHECK(!missing, QD_ENOTFOUND, "%s cannot be finished: embeddings, norm and head are not stored", folder);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

static qd_status collect_entries(const char *folder, int64_t n_blocks, qd_manifest *manifest) {
  QD_TRY(qd_heap_new((size_t)n_blocks, sizeof *manifest->block, &manifest->block));
  for (int64_t i = 0; i < n_blocks; i++) {
    QD_TRY(need_entry(folder, i, &manifest->block[i]));
    manifest->n_blocks = i + 1;
  }
  QD_TRY(need_entry(folder, QD_REST, &manifest->rest));
  return QD_OK;
}

static bool names_file(const qd_entry *entry, const char *name) {
  for (int i = 0; i < entry->n_files; i++)
    if (strcmp(entry->file[i].name, name) == 0) return true;
  return false;
}

static bool manifest_names(const qd_manifest *manifest, const char *name) {
  for (int64_t i = 0; i < manifest->n_blocks; i++)
    if (names_file(&manifest->block[i], name)) return true;
  return names_file(&manifest->rest, name);
}

static qd_status remove_stray(const char *folder, const char *name) {
  char *path = NULL;
  QD_TRY(qd_path_join(folder, name, &path));
  int error = unlink(path) == 0 ? 0 : errno;
  qd_heap_free(path);
  QD_CHECK(error == 0 || error == ENOENT, QD_EIO, "cannot remove %s/%s: %s", folder, name, strerror(error));
  return QD_OK;
}

/* A killed run may have renamed a block file and not noted it; cut differently the next time, its name is not used again. */
static qd_status remove_strays(const char *folder, const qd_manifest *manifest) {
  qd_listing listing;
  QD_TRY(qd_listing_read(folder, &listing));
  qd_status status = QD_OK;
  for (size_t i = 0; i < listing.n && status == QD_OK; i++)
    if (qd_block_file_name_fits(listing.name[i]) && !manifest_names(manifest, listing.name[i]))
      status = remove_stray(folder, listing.name[i]);
  qd_listing_release(&listing);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

static qd_status remove_partial(const char *folder) {
  char *partial = NULL;
  QD_TRY(qd_path_join(folder, QD_STORE_PARTIAL, &partial));
  qd_status status = qd_folder_remove(partial);
  qd_heap_free(partial);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

/* A manifest that is there was written by an earlier call, as qd_store_begin does not begin over one: clearing up is left. */
qd_status qd_store_finish(const char *folder, const char *source_folder, const char *const *side_files, int n_side_files,
                          int64_t n_blocks, bool unties) {
  qd_manifest manifest;
  qd_status status = qd_manifest_read(folder, &manifest);
  if (status == QD_ENOTFOUND) {
    status = qd_journal_read_job(folder, &manifest.job, &manifest.arithmetic_version);
    if (status == QD_OK) status = collect_entries(folder, n_blocks, &manifest);
    if (status == QD_OK) status = copy_side_files(folder, source_folder, side_files, n_side_files, unties, &manifest);
    if (status == QD_OK) status = qd_manifest_write(&manifest, folder);
  }
  if (status == QD_OK) status = remove_strays(folder, &manifest);
  if (status == QD_OK) status = remove_partial(folder);
  qd_manifest_release(&manifest);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}
