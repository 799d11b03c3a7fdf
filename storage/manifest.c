#define _POSIX_C_SOURCE 200809L
#include "storage/manifest.h"

#include "kernels/base/heap.h"
#include "storage/bytes.h"
#include "storage/entry.h"
#include "storage/seal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum { MAX_BLOCKS = 1 << 20, MAX_SIDE_FILES = 1 << 10, WHERE_BYTES = 256 };

static const char format[] = "qdist";

/* ---- every document ------------------------------------------------------------------------------------------------------ */

qd_json *qd_document_begin(void) {
  qd_json *json = qd_json_object();
  qd_json_set_text(json, "format", format);
  qd_json_set_integer(json, "format_version", QD_STORE_FORMAT_VERSION);
  return json;
}

qd_status qd_document_check(const qd_json *json, const char *what) {
  const char *name;
  int64_t version;
  QD_TRY(qd_as_corrupt(qd_json_need_text(json, what, "format", &name)));
  QD_CHECK(strcmp(name, format) == 0, QD_ECORRUPT, "%s: the format is \"%.64s\", expected \"%s\"", what, name, format);
  QD_TRY(qd_as_corrupt(qd_json_need_integer(json, what, "format_version", 1, INT64_MAX, &version)));
  QD_CHECK(version <= QD_STORE_FORMAT_VERSION, QD_EUNSUPPORTED,
           "%s has format version %" PRId64 ", this program knows versions up to %d: use a newer program", what, version,
           QD_STORE_FORMAT_VERSION);
  return QD_OK;
}

static qd_status check_file_at(const char *path, const qd_entry_file *file) {
  struct stat facts;
  int error = stat(path, &facts) == 0 ? 0 : errno;
  QD_CHECK(error != ENOENT, QD_ECORRUPT, "%s is missing", path);
  QD_CHECK(error == 0, QD_EIO, "cannot look at %s: %s", path, strerror(error));
  QD_CHECK(S_ISREG(facts.st_mode), QD_ECORRUPT, "%s is not a regular file", path);
  QD_CHECK((uint64_t)facts.st_size == file->bytes, QD_ECORRUPT, "%s has %" PRIu64 " bytes, expected %" PRIu64, path,
           (uint64_t)facts.st_size, file->bytes);
  return QD_OK;
}

qd_status qd_entry_file_check(const char *folder, const qd_entry_file *file) {
  char *path = NULL;
  QD_TRY(qd_path_join(folder, file->name, &path));
  qd_status status = check_file_at(path, file);
  qd_heap_free(path);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

static qd_status check_bytes_at(const char *path, const qd_entry_file *file) {
  qd_digest digest;
  QD_TRY(qd_digest_file(path, &digest));
  QD_CHECK(qd_digest_equal(&digest, &file->digest), QD_ECORRUPT, "%s is damaged: its bytes have the digest %s, expected %s",
           path, digest.hex, file->digest.hex);
  return QD_OK;
}

qd_status qd_entry_file_check_bytes(const char *folder, const qd_entry_file *file) {
  char *path = NULL;
  QD_TRY(qd_path_join(folder, file->name, &path));
  qd_status status = check_bytes_at(path, file);
  qd_heap_free(path);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

qd_status qd_entry_check_files(const char *folder, const qd_entry *entry) {
  for (int i = 0; i < entry->n_files; i++) QD_TRY(qd_entry_file_check(folder, &entry->file[i]));
  return QD_OK;
}

/* ---- writing ------------------------------------------------------------------------------------------------------------- */

static qd_status fill_document(const qd_manifest *manifest, qd_json *json) {
  qd_json *blocks = qd_json_array(), *files = qd_json_array(), *entry;
  qd_json_set_integer(json, "arithmetic_version", manifest->arithmetic_version);
  qd_json_set(json, "job", qd_json_copy(manifest->job));
  qd_json_set(json, "blocks", blocks);
  for (int64_t i = 0; i < manifest->n_blocks; i++) {
    QD_TRY(qd_entry_to_json(&manifest->block[i], &entry));
    qd_json_append(blocks, entry);
  }
  QD_TRY(qd_entry_to_json(&manifest->rest, &entry));
  qd_json_set(json, "rest", entry);
  qd_json_set(json, "files", files);
  for (int i = 0; i < manifest->n_files; i++) qd_json_append(files, qd_entry_file_to_json(&manifest->file[i]));
  return QD_OK;
}

/* What would not be read again must not be written. */
static qd_status check_document(const qd_json *json) {
  qd_manifest again;
  QD_TRY(qd_manifest_from_json(json, QD_STORE_MANIFEST, &again));
  qd_manifest_release(&again);
  return QD_OK;
}

qd_status qd_manifest_write(const qd_manifest *manifest, const char *folder) {
  char *partial = NULL;
  QD_TRY(qd_path_join(folder, QD_STORE_PARTIAL, &partial));
  qd_json *json = qd_document_begin();
  qd_status status = fill_document(manifest, json);
  if (status == QD_OK) status = check_document(json);
  if (status == QD_OK) status = qd_seal_write(json, folder, partial, QD_STORE_MANIFEST);
  qd_json_free(json);
  qd_heap_free(partial);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

/* ---- reading ------------------------------------------------------------------------------------------------------------- */

static qd_status take_blocks(const qd_json *json, const char *what, qd_manifest *out) {
  const qd_json *blocks = qd_json_get(json, "blocks");
  QD_CHECK(qd_json_is_array(blocks), QD_ECORRUPT, "%s: \"blocks\" is missing or not an array", what);
  size_t n = qd_json_length(blocks);
  QD_CHECK(n <= MAX_BLOCKS, QD_ECORRUPT, "%s: %zu blocks, at most %d are possible", what, n, MAX_BLOCKS);
  QD_TRY(qd_heap_new(n, sizeof *out->block, &out->block));
  for (size_t i = 0; i < n; i++) {
    char where[WHERE_BYTES];
    snprintf(where, sizeof where, "%.200s: blocks[%zu]", what, i);
    QD_TRY(qd_entry_from_json(qd_json_at(blocks, i), where, &out->block[i]));
    out->n_blocks = (int64_t)i + 1;
    QD_CHECK(out->block[i].block == (int64_t)i, QD_ECORRUPT, "%s: block %" PRId64 " stands at the place of block %zu", what,
             out->block[i].block, i);
  }
  return QD_OK;
}

static qd_status take_rest(const qd_json *json, const char *what, qd_manifest *out) {
  char where[WHERE_BYTES];
  snprintf(where, sizeof where, "%.200s: rest", what);
  QD_TRY(qd_entry_from_json(qd_json_get(json, "rest"), where, &out->rest));
  QD_CHECK(out->rest.block == QD_REST, QD_ECORRUPT, "%s: block %" PRId64 " stands at the place of the rest", what,
           out->rest.block);
  return QD_OK;
}

static qd_status take_side_files(const qd_json *json, const char *what, qd_manifest *out) {
  const qd_json *files = qd_json_get(json, "files");
  QD_CHECK(qd_json_is_array(files), QD_ECORRUPT, "%s: \"files\" is missing or not an array", what);
  size_t n = qd_json_length(files);
  QD_CHECK(n <= MAX_SIDE_FILES, QD_ECORRUPT, "%s: %zu side files, at most %d are possible", what, n, MAX_SIDE_FILES);
  QD_TRY(qd_heap_new(n, sizeof *out->file, &out->file));
  for (size_t i = 0; i < n; i++) {
    char where[WHERE_BYTES];
    snprintf(where, sizeof where, "%.200s: files[%zu]", what, i);
    QD_TRY(qd_entry_file_from_json(qd_json_at(files, i), where, &out->file[i]));
    QD_CHECK(qd_side_file_name_fits(out->file[i].name), QD_ECORRUPT, "%s: \"%s\" cannot be a side file", where,
             out->file[i].name);
    out->n_files = (int)i + 1;
  }
  return QD_OK;
}

static size_t list_files(const qd_manifest *manifest, const char **names) {
  size_t n = 0;
  for (int64_t b = 0; b <= manifest->n_blocks; b++) {
    const qd_entry *entry = b < manifest->n_blocks ? &manifest->block[b] : &manifest->rest;
    for (int i = 0; i < entry->n_files; i++, n++)
      if (names != NULL) names[n] = entry->file[i].name;
  }
  for (int i = 0; i < manifest->n_files; i++, n++)
    if (names != NULL) names[n] = manifest->file[i].name;
  return n;
}

static qd_status check_unique(const qd_manifest *manifest, const char *what) {
  const char **names = NULL;
  size_t n = list_files(manifest, NULL);
  QD_TRY(qd_heap_new(n, sizeof *names, &names));
  list_files(manifest, names);
  const char *twice = qd_find_twice(names, n);
  qd_heap_free(names);
  QD_CHECK(twice == NULL, QD_ECORRUPT, "%s: the file %s is there twice", what, twice);
  return QD_OK;
}

static qd_status take_manifest(const qd_json *json, const char *what, qd_manifest *out) {
  QD_TRY(qd_document_check(json, what));
  QD_TRY(qd_as_corrupt(qd_json_need_integer(json, what, "arithmetic_version", 1, INT32_MAX, &out->arithmetic_version)));
  const qd_json *job = qd_json_get(json, "job");
  QD_CHECK(qd_json_is_object(job), QD_ECORRUPT, "%s: \"job\" is missing or not an object", what);
  out->job = qd_json_copy(job);
  QD_TRY(take_blocks(json, what, out));
  QD_TRY(take_rest(json, what, out));
  QD_TRY(take_side_files(json, what, out));
  QD_TRY(check_unique(out, what));
  return QD_OK;
}

qd_status qd_manifest_from_json(const qd_json *json, const char *what, qd_manifest *out) {
  *out = (qd_manifest){0};
  qd_status status = take_manifest(json, what, out);
  if (status == QD_OK) return QD_OK;
  qd_manifest_release(out);
  return qd_forward(status, __FILE__, __LINE__);
}

static qd_status read_at(const char *path, qd_manifest *out) {
  qd_json *json = NULL;
  QD_TRY(qd_seal_read(path, &json));
  qd_status status = qd_manifest_from_json(json, path, out);
  qd_json_free(json);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

qd_status qd_manifest_read(const char *folder, qd_manifest *out) {
  *out = (qd_manifest){0};
  char *path = NULL;
  QD_TRY(qd_path_join(folder, QD_STORE_MANIFEST, &path));
  qd_status status = read_at(path, out);
  qd_heap_free(path);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

void qd_manifest_release(qd_manifest *manifest) {
  for (int64_t i = 0; i < manifest->n_blocks; i++) qd_entry_release(&manifest->block[i]);
  qd_entry_release(&manifest->rest);
  qd_heap_free(manifest->block);
  qd_heap_free(manifest->file);
  qd_json_free(manifest->job);
  *manifest = (qd_manifest){0};
}
