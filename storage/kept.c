#define _POSIX_C_SOURCE 200809L
#include "storage/kept.h"

#include "kernels/base/heap.h"
#include "storage/atomic.h"
#include "storage/bytes.h"
#include "storage/entry.h"
#include "storage/journal.h"
#include "storage/listing.h"
#include "storage/manifest.h"
#include "storage/seal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { NAME_BYTES = 96, MOST_PARTS = 1 << 20 };
static const char document_name[] = "activations.json", file_prefix[] = "activations-";

qd_status qd_kept_new(qd_kept *kept, int n_parts) {
  kept->n_parts = n_parts;
  QD_TRY(qd_heap_new((size_t)n_parts, sizeof *kept->part, &kept->part));
  return qd_heap_new((size_t)(kept->streams * kept->sequences), sizeof *kept->digest, &kept->digest);
}

void qd_kept_release(qd_kept *kept) {
  qd_heap_free(kept->part);
  qd_heap_free(kept->digest);
  *kept = (qd_kept){0};
}

size_t qd_kept_sequence_bytes(const qd_kept *kept) {
  return (size_t)kept->tokens * (size_t)kept->hidden * qd_dtype_bytes(kept->dtype);
}

static void file_name(int64_t blocks, int64_t first, const char *ending, char name[NAME_BYTES]) {
  snprintf(name, NAME_BYTES, "%s%05" PRId64 "-%05" PRId64 ".raw%s", file_prefix, blocks, first, ending);
}

static qd_status path_of(const char *folder, const char *name, char **path) {
  char *partial;
  QD_TRY(qd_path_join(folder, QD_STORE_PARTIAL, &partial));
  qd_status status = qd_path_join(partial, name, path);
  qd_heap_free(partial);
  return status;
}

/* ---- writing ------------------------------------------------------------------------------------------------------------- */

qd_status qd_kept_create(const char *folder, const qd_kept *kept, int64_t first, qd_raw_file *out) {
  char name[NAME_BYTES], *path;
  *out = (qd_raw_file){0};
  file_name(kept->blocks, first, ".tmp", name);
  QD_TRY(path_of(folder, name, &path));
  qd_status status = qd_raw_file_create(path, out);
  qd_heap_free(path);
  return status;
}

static qd_status publish(const char *partial, const char *temporary, int64_t blocks, int64_t first) {
  char name[NAME_BYTES];
  file_name(blocks, first, "", name);
  return qd_atomic_publish(temporary, partial, name);
}

qd_status qd_kept_publish(const char *folder, const qd_kept *kept, int64_t first, qd_raw_file *file) {
  char *partial = NULL, *temporary = NULL;
  qd_status status = qd_heap_text(file->path, strlen(file->path), &temporary);
  if (status == QD_OK) status = qd_path_join(folder, QD_STORE_PARTIAL, &partial);
  if (status == QD_OK) status = qd_raw_file_finish(file);
  if (status == QD_OK) status = publish(partial, temporary, kept->blocks, first);
  qd_heap_free(partial);
  qd_heap_free(temporary);
  return status;
}

static qd_json *part_to_json(const qd_kept_part *part) {
  qd_json *json = qd_json_object();
  qd_json_set_integer(json, "first", part->first);
  qd_json_set_integer(json, "sequences", part->n);
  return json;
}

static qd_json *to_json(const qd_kept *kept) {
  qd_json *json = qd_json_object(), *parts = qd_json_array(), *digests = qd_json_array();
  qd_json_set_integer(json, "blocks", kept->blocks);
  qd_json_set_text(json, "dtype", qd_dtype_name(kept->dtype));
  qd_json_set_integer(json, "streams", kept->streams);
  qd_json_set_integer(json, "sequences", kept->sequences);
  qd_json_set_integer(json, "tokens", kept->tokens);
  qd_json_set_integer(json, "hidden", kept->hidden);
  for (int i = 0; i < kept->n_parts; i++) qd_json_append(parts, part_to_json(&kept->part[i]));
  for (int64_t i = 0; i < kept->streams * kept->sequences; i++) qd_json_append_text(digests, kept->digest[i].hex);
  qd_json_set(json, "files", parts);
  qd_json_set(json, "digests", digests);
  return json;
}

static bool is_noted(const qd_kept *kept, const char *name) {
  char noted[NAME_BYTES];
  for (int i = 0; i < kept->n_parts; i++) {
    file_name(kept->blocks, kept->part[i].first, "", noted);
    if (strcmp(name, noted) == 0) return true;
  }
  return false;
}

static qd_status remove_one(const char *folder, const char *name) {
  char *path;
  QD_TRY(path_of(folder, name, &path));
  int rc = unlink(path), error = errno;
  qd_heap_free(path);
  QD_CHECK(rc == 0 || error == ENOENT, QD_EIO, "cannot remove %s/" QD_STORE_PARTIAL "/%s: %s", folder, name, strerror(error));
  return QD_OK;
}

static qd_status remove_others(const char *folder, const qd_kept *kept) {
  char *partial;
  qd_listing listing;
  QD_TRY(qd_path_join(folder, QD_STORE_PARTIAL, &partial));
  qd_status status = qd_listing_read(partial, &listing);
  qd_heap_free(partial);
  QD_TRY(status);
  for (size_t i = 0; status == QD_OK && i < listing.n; i++)
    if (strncmp(listing.name[i], file_prefix, strlen(file_prefix)) == 0 && !is_noted(kept, listing.name[i]))
      status = remove_one(folder, listing.name[i]);
  qd_listing_release(&listing);
  return status;
}

qd_status qd_kept_note(const char *folder, const qd_kept *kept) {
  qd_json *document = qd_document_begin();
  qd_json_set(document, "activations", to_json(kept));
  qd_status status = qd_journal_write(document, folder, document_name);
  qd_json_free(document);
  QD_TRY(status);
  return remove_others(folder, kept);
}

/* ---- reading ------------------------------------------------------------------------------------------------------------- */

static qd_status take_numbers(const qd_json *json, qd_kept *out) {
  const char *dtype;
  QD_TRY(qd_json_need_integer(json, document_name, "blocks", 1, INT32_MAX, &out->blocks));
  QD_TRY(qd_json_need_text(json, document_name, "dtype", &dtype));
  QD_TRY(qd_json_need_integer(json, document_name, "streams", 1, 8, &out->streams));
  QD_TRY(qd_json_need_integer(json, document_name, "sequences", 1, INT32_MAX, &out->sequences));
  QD_TRY(qd_json_need_integer(json, document_name, "tokens", 1, 1 << 24, &out->tokens));
  QD_TRY(qd_json_need_integer(json, document_name, "hidden", 1, 1 << 24, &out->hidden));
  QD_CHECK(qd_dtype_find(dtype, &out->dtype), QD_ECORRUPT, "%s: the dtype %.32s is unknown", document_name, dtype);
  return QD_OK;
}

/* Every sequence in one file, in order. */
static qd_status take_parts(const qd_json *files, qd_kept *out) {
  int64_t next = 0;
  for (int i = 0; i < out->n_parts; i++) {
    const qd_json *file = qd_json_at(files, (size_t)i);
    QD_CHECK(qd_json_is_object(file), QD_ECORRUPT, "%s: file %d is no object", document_name, i);
    QD_TRY(qd_json_need_integer(file, document_name, "first", next, next, &out->part[i].first));
    QD_TRY(qd_json_need_integer(file, document_name, "sequences", 1, out->sequences - next, &out->part[i].n));
    next += out->part[i].n;
  }
  QD_CHECK(next == out->sequences, QD_ECORRUPT, "%s: the files have %" PRId64 " sequences of %" PRId64, document_name, next,
           out->sequences);
  return QD_OK;
}

static qd_status take_digests(const qd_json *digests, qd_kept *out) {
  for (int64_t i = 0; i < out->streams * out->sequences; i++) {
    const qd_json *digest = qd_json_at(digests, (size_t)i);
    bool fits = qd_json_is_text(digest) && strlen(qd_json_text(digest)) == QD_DIGEST_DIGITS;
    QD_CHECK(fits, QD_ECORRUPT, "%s: digest %" PRId64 " is none", document_name, i);
    memcpy(out->digest[i].hex, qd_json_text(digest), QD_DIGEST_DIGITS + 1);
  }
  return QD_OK;
}

static qd_status from_json(const qd_json *json, qd_kept *out) {
  QD_CHECK(qd_json_is_object(json), QD_ECORRUPT, "%s: \"activations\" is no object", document_name);
  QD_TRY(qd_as_corrupt(take_numbers(json, out)));
  const qd_json *files = qd_json_get(json, "files"), *digests = qd_json_get(json, "digests");
  bool fits = qd_json_is_array(files) && qd_json_length(files) <= MOST_PARTS && qd_json_is_array(digests) &&
              qd_json_length(digests) == (size_t)(out->streams * out->sequences);
  QD_CHECK(fits, QD_ECORRUPT, "%s: the lists of files and digests do not fit the number of sequences", document_name);
  QD_TRY(qd_kept_new(out, (int)qd_json_length(files)));
  QD_TRY(qd_as_corrupt(take_parts(files, out)));
  return take_digests(digests, out);
}

qd_status qd_kept_read(const char *folder, qd_kept *out) {
  qd_json *document;
  *out = (qd_kept){0};
  QD_TRY(qd_journal_read(folder, document_name, &document));
  qd_status status = from_json(qd_json_get(document, "activations"), out);
  qd_json_free(document);
  if (status != QD_OK) qd_kept_release(out);
  return status;
}

static qd_status read_at(const char *path, uint64_t offset, void *to, size_t n) {
  qd_bytes bytes;
  QD_TRY(qd_bytes_open_file(path, &bytes));
  qd_status status = qd_bytes_read(&bytes, offset, to, n);
  qd_bytes_close(&bytes);
  return status;
}

qd_status qd_kept_read_sequence(const char *folder, const qd_kept *kept, int64_t stream, int64_t sequence, void *to) {
  const qd_kept_part *part = kept->part;
  char name[NAME_BYTES], *path;
  size_t n = qd_kept_sequence_bytes(kept);
  qd_digest found = {""};
  while (sequence >= part->first + part->n) part++;
  file_name(kept->blocks, part->first, "", name);
  QD_TRY(path_of(folder, name, &path));
  qd_status status = read_at(path, (uint64_t)(stream * part->n + sequence - part->first) * n, to, n);
  if (status == QD_OK) qd_digest_of(to, n, &found);
  bool same = qd_digest_equal(&found, &kept->digest[stream * kept->sequences + sequence]);
  qd_heap_free(path);
  QD_CHECK(status != QD_ENOTFOUND && status != QD_EBADINPUT, QD_ECORRUPT, "%s", qd_error_text());
  QD_TRY(status);
  QD_CHECK(same, QD_ECORRUPT, "%s/" QD_STORE_PARTIAL "/%s is damaged: sequence %" PRId64 " has another digest", folder, name,
           sequence);
  return QD_OK;
}
