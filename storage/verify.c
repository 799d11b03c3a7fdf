#define _POSIX_C_SOURCE 200809L
#include "storage/block_file.h"
#include "storage/entry.h"
#include "storage/journal.h"
#include "storage/listing.h"
#include "storage/manifest.h"
#include "storage/seal.h"

#include "kernels/base/heap.h"
#include "storage/bytes.h"

#include <stdio.h>
#include <string.h>

/* What is found, and how often. */
typedef struct findings {
  const char *folder;
  void (*report)(void *context, const char *text);
  void  *context;
  size_t n;
} findings;

static void note(findings *found, const char *text) {
  found->n++;
  if (found->report != NULL) found->report(found->context, text);
}

/* Damage, and what cannot be read, are findings; without memory the check itself has failed. */
static qd_status note_failure(findings *found, qd_status status) {
  if (status == QD_OK) return QD_OK;
  if (status != QD_ECORRUPT && status != QD_EIO && status != QD_ENOTFOUND) return status;
  note(found, qd_error_text());
  return QD_OK;
}

/* ---- files --------------------------------------------------------------------------------------------------------------- */

static qd_status check_file(findings *found, const qd_entry_file *file) {
  size_t before = found->n;
  QD_TRY(note_failure(found, qd_entry_file_check(found->folder, file)));
  if (found->n > before) return QD_OK;
  return note_failure(found, qd_as_corrupt(qd_entry_file_check_bytes(found->folder, file)));
}

/* The parts that lie in one file of the entry. */
static qd_status check_parts(findings *found, const qd_entry *entry, int file_index, qd_h5_file *file) {
  for (int i = 0; i < entry->n_records; i++) {
    const qd_record *record = &entry->record[i];
    for (int k = 0; k < record->n_parts; k++)
      if (record->part[k].file == file_index) QD_TRY(note_failure(found, qd_block_file_part(file, &record->part[k], NULL)));
  }
  return QD_OK;
}

/* A damaged file is opened nevertheless, to say which datasets are damaged. */
static qd_status check_block_file(findings *found, const qd_entry *entry, int file_index, const char *path) {
  qd_h5_file file;
  QD_TRY(check_file(found, &entry->file[file_index]));
  if (!qd_file_exists(path)) return QD_OK;
  qd_status status = qd_block_file_open(path, &file);
  if (status != QD_OK) return note_failure(found, status);
  status = check_parts(found, entry, file_index, &file);
  qd_h5_close(&file);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

static qd_status check_entry(findings *found, const qd_entry *entry) {
  for (int i = 0; i < entry->n_files; i++) {
    char *path = NULL;
    QD_TRY(qd_path_join(found->folder, entry->file[i].name, &path));
    qd_status status = check_block_file(found, entry, i, path);
    qd_heap_free(path);
    if (status != QD_OK) return qd_forward(status, __FILE__, __LINE__);
  }
  return QD_OK;
}

/* ---- what should not be there -------------------------------------------------------------------------------------------- */

static bool is_listed(const qd_manifest *manifest, const char *name) {
  for (int64_t b = 0; b <= manifest->n_blocks; b++) {
    const qd_entry *entry = b < manifest->n_blocks ? &manifest->block[b] : &manifest->rest;
    for (int i = 0; i < entry->n_files; i++)
      if (strcmp(entry->file[i].name, name) == 0) return true;
  }
  for (int i = 0; i < manifest->n_files; i++)
    if (strcmp(manifest->file[i].name, name) == 0) return true;
  return strcmp(name, QD_STORE_MANIFEST) == 0;
}

static qd_status note_unlisted(findings *found, const char *name) {
  char *path = NULL;
  QD_TRY(qd_path_join(found->folder, name, &path));
  qd_status status = qd_fail(QD_ECORRUPT, __FILE__, __LINE__, "%s is not listed in the manifest", path);
  qd_heap_free(path);
  return note_failure(found, status);
}

static qd_status check_listing(findings *found, const qd_listing *listing, const qd_manifest *manifest) {
  for (size_t i = 0; i < listing->n; i++)
    if (!qd_is_beside_store(listing->name[i]) && !is_listed(manifest, listing->name[i]))
      QD_TRY(note_unlisted(found, listing->name[i]));
  return QD_OK;
}

/* ---- the whole ----------------------------------------------------------------------------------------------------------- */

static qd_status check_contents(findings *found, const qd_listing *listing, const qd_manifest *manifest) {
  for (int64_t i = 0; i < manifest->n_blocks; i++) QD_TRY(check_entry(found, &manifest->block[i]));
  QD_TRY(check_entry(found, &manifest->rest));
  for (int i = 0; i < manifest->n_files; i++) QD_TRY(check_file(found, &manifest->file[i]));
  QD_TRY(check_listing(found, listing, manifest));
  return QD_OK;
}

/* A manifest whose digest is wrong may still be read, and then tells what else is damaged. */
static qd_status read_unsealed(const char *folder, qd_manifest *out) {
  char *path = NULL;
  qd_json *json = NULL;
  QD_TRY(qd_path_join(folder, QD_STORE_MANIFEST, &path));
  qd_status status = qd_as_corrupt(qd_json_read(path, QD_SEALED_BYTES, &json));
  if (status == QD_OK) status = qd_manifest_from_json(json, path, out);
  qd_json_free(json);
  qd_heap_free(path);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

static qd_status check_store(findings *found, const qd_listing *listing) {
  qd_manifest manifest;
  qd_status status = qd_manifest_read(found->folder, &manifest);
  if (status == QD_ECORRUPT || status == QD_EIO) { /* no file at all, too */
    note(found, qd_error_text());
    if (read_unsealed(found->folder, &manifest) != QD_OK) return QD_OK;
    status = QD_OK;
  }
  if (status == QD_OK) status = check_contents(found, listing, &manifest);
  qd_manifest_release(&manifest);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

/* ---- of an unfinished store what is there -------------------------------------------------------------------------------- */

/* *noted: the journal has the block; what is noted and not whole is a finding. */
static qd_status check_noted(findings *found, int64_t block, bool *noted) {
  qd_entry entry;
  qd_status status = qd_journal_read_entry(found->folder, block, &entry);
  *noted = status != QD_ENOTFOUND;
  if (!*noted) return QD_OK;
  if (status != QD_OK) return note_failure(found, status);
  status = check_entry(found, &entry);
  qd_entry_release(&entry);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

/* " of 32": blocks of the model, where the job's description says it. */
static void of_how_many(const qd_json *job, char *text, size_t size) {
  const qd_json *blocks = qd_json_get(qd_json_get(job, "model"), "blocks");
  if (qd_json_is_integer(blocks)) snprintf(text, size, " of %" PRId64, qd_json_integer(blocks));
  else snprintf(text, size, "%s", "");
}

static qd_status check_unfinished(findings *found) {
  qd_json *job;
  int64_t arithmetic_version, n_blocks = 0;
  char of[32];
  bool noted;
  qd_status status = qd_journal_read_job(found->folder, &job, &arithmetic_version);
  QD_CHECK(status != QD_ENOTFOUND, QD_ENOTFOUND, "there is no store in %s", found->folder);
  QD_TRY(status);
  of_how_many(job, of, sizeof of);
  qd_json_free(job);
  QD_TRY(check_noted(found, QD_REST, &noted));
  do QD_TRY(check_noted(found, n_blocks, &noted));
  while (noted && ++n_blocks);
  QD_CHECK(found->n == 0, QD_ECORRUPT,
           "the store in %s is not finished, and damaged: %zu finding%s; its job, run again, redoes what is damaged",
           found->folder, found->n, found->n == 1 ? "" : "s");
  QD_FAIL(QD_ENOTFOUND, "the store in %s is not finished: %" PRId64 "%s blocks are there, all whole; run its job again",
          found->folder, n_blocks, of);
}

static qd_status check_folder(findings *found, const qd_listing *listing) {
  if (qd_listing_has(listing, QD_STORE_MANIFEST)) return check_store(found, listing);
  if (qd_listing_has(listing, QD_STORE_PARTIAL)) return check_unfinished(found);
  size_t n_block_files = 0;
  for (size_t i = 0; i < listing->n; i++) n_block_files += qd_block_file_name_fits(listing->name[i]);
  QD_CHECK(n_block_files > 0, QD_ENOTFOUND, "there is no store in %s", found->folder);
  return note_failure(found, qd_fail(QD_ECORRUPT, __FILE__, __LINE__, "%s/" QD_STORE_MANIFEST " is missing", found->folder));
}

qd_status qd_store_verify(const char *folder, void (*report)(void *context, const char *text), void *context) {
  findings found = {.folder = folder, .report = report, .context = context};
  qd_listing listing;
  QD_TRY(qd_listing_read(folder, &listing));
  qd_status status = check_folder(&found, &listing);
  qd_listing_release(&listing);
  if (status != QD_OK) return qd_forward(status, __FILE__, __LINE__);
  QD_CHECK(found.n == 0, QD_ECORRUPT, "the store in %s is damaged: %zu finding%s", folder, found.n, found.n == 1 ? "" : "s");
  return QD_OK;
}
