#define _POSIX_C_SOURCE 200809L
#include "storage/entry.h"

#include "kernels/base/heap.h"
#include "storage/seal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_FILES = 1 << 16, MAX_RECORDS = 1 << 20, WHERE_BYTES = 256 };

static const int64_t most_elements = (int64_t)1 << 48;

/* ---- names --------------------------------------------------------------------------------------------------------------- */

static bool is_word(const char *text) {
  size_t n = strlen(text);
  return n > 0 && strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") == n;
}

static bool is_printable(const char *text) {
  for (const char *c = text; *c != '\0'; c++)
    if ((unsigned char)*c < ' ' || *c == 0x7f) return false;
  return text[0] != '\0';
}

static bool ends_in(const char *text, const char *ending) {
  size_t n = strlen(text), m = strlen(ending);
  return n > m && strcmp(text + n - m, ending) == 0;
}

static bool is_file_name(const char *name) {
  return is_word(name) && name[0] != '.' && strlen(name) < sizeof ((qd_entry_file *)0)->name;
}

bool qd_block_file_name_fits(const char *name) { return is_file_name(name) && ends_in(name, ".h5"); }

bool qd_side_file_name_fits(const char *name) {
  if (!is_file_name(name) || ends_in(name, ".h5") || ends_in(name, ".tmp")) return false;
  return strcmp(name, QD_STORE_MANIFEST) != 0 && strcmp(name, QD_STORE_PARTIAL) != 0 && strcmp(name, QD_STORE_LOCK) != 0;
}

bool qd_dataset_name_fits(const char *name) {
  if (!is_printable(name) || strlen(name) >= sizeof ((qd_stored_part *)0)->dataset) return false;
  for (const char *next = name;; next++) {
    size_t n = strcspn(next, "/");
    if (n == 0 || (n == 1 && next[0] == '.') || (n == 2 && next[0] == '.' && next[1] == '.')) return false;
    next += n;
    if (*next == '\0') return true;
  }
}

static int compare_names(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

const char *qd_find_twice(const char **names, size_t n) {
  if (n < 2) return NULL;
  qsort(names, n, sizeof *names, compare_names);
  for (size_t i = 1; i < n; i++)
    if (strcmp(names[i - 1], names[i]) == 0) return names[i];
  return NULL;
}

/* ---- to JSON ------------------------------------------------------------------------------------------------------------- */

static qd_json *shape_to_json(int rank, const int64_t *dim) {
  qd_json *json = qd_json_array();
  for (int i = 0; i < rank; i++) qd_json_append_integer(json, dim[i]);
  return json;
}

qd_json *qd_entry_file_to_json(const qd_entry_file *file) {
  qd_json *json = qd_json_object();
  qd_json_set_text(json, "name", file->name);
  qd_json_set_integer(json, "bytes", (int64_t)file->bytes);
  qd_json_set_text(json, "digest", file->digest.hex);
  return json;
}

static qd_json *part_to_json(const qd_stored_part *part) {
  qd_json *json = qd_json_object();
  qd_json_set_text(json, "name", part->name);
  qd_json_set_text(json, "dtype", qd_dtype_name(part->dtype));
  qd_json_set(json, "shape", shape_to_json(part->rank, part->dim));
  qd_json_set_integer(json, "file", part->file);
  qd_json_set_text(json, "dataset", part->dataset);
  qd_json_set_text(json, "digest", part->digest.hex);
  return json;
}

static qd_json *record_to_json(const qd_record *record) {
  QD_ASSERT(record->n_parts >= 0 && record->n_parts <= QD_MAX_PARTS);
  qd_json *json = qd_json_object(), *parts = qd_json_array();
  qd_json_set_text(json, "name", record->name);
  qd_json_set_text(json, "role", record->role);
  if (record->expert >= 0) qd_json_set_integer(json, "expert", record->expert);
  qd_json_set_text(json, "scheme", record->scheme);
  qd_json_set_text(json, "dtype", qd_dtype_name(record->dtype));
  qd_json_set(json, "shape", shape_to_json(record->rank, record->dim));
  if (record->source.hex[0] != '\0') qd_json_set_text(json, "source", record->source.hex);
  for (int i = 0; i < record->n_parts; i++) qd_json_append(parts, part_to_json(&record->part[i]));
  qd_json_set(json, "parts", parts);
  qd_json_set(json, "facts", record->facts != NULL ? qd_json_copy(record->facts) : qd_json_object());
  return json;
}

qd_status qd_entry_to_json(const qd_entry *entry, qd_json **out) {
  qd_json *json = qd_json_object(), *files = qd_json_array(), *records = qd_json_array();
  qd_json_set_integer(json, "block", entry->block);
  for (int i = 0; i < entry->n_files; i++) qd_json_append(files, qd_entry_file_to_json(&entry->file[i]));
  for (int i = 0; i < entry->n_records; i++) qd_json_append(records, record_to_json(&entry->record[i]));
  qd_json_set(json, "files", files);
  qd_json_set(json, "records", records);
  if (entry->facts != NULL) qd_json_set(json, "facts", qd_json_copy(entry->facts));
  *out = json;
  return QD_OK;
}

/* ---- from JSON ----------------------------------------------------------------------------------------------------------- */

/* Where in the document: "manifest.json: blocks[3].records[5]". */
typedef struct where {
  char text[WHERE_BYTES];
} where;

static where inside(const char *what, const char *member, size_t index) {
  where w;
  snprintf(w.text, sizeof w.text, "%.200s.%s[%zu]", what, member, index);
  return w;
}

/* A text of less than `capacity` bytes, of the given form. */
static qd_status take_text(const qd_json *json, const char *what, const char *key, bool fits(const char *), size_t capacity,
                           char *to) {
  const char *text;
  QD_TRY(qd_as_corrupt(qd_json_need_text(json, what, key, &text)));
  QD_CHECK(strlen(text) < capacity && fits(text), QD_ECORRUPT, "%s: \"%s\" is no proper name: \"%.64s\"", what, key, text);
  memcpy(to, text, strlen(text) + 1);
  return QD_OK;
}

static qd_status take_digest(const qd_json *json, const char *what, const char *key, qd_digest *out) {
  const char *text;
  QD_TRY(qd_as_corrupt(qd_json_need_text(json, what, key, &text)));
  QD_CHECK(strlen(text) == QD_DIGEST_DIGITS && strspn(text, "0123456789abcdef") == QD_DIGEST_DIGITS, QD_ECORRUPT,
           "%s: \"%s\" is no digest: \"%.64s\"", what, key, text);
  memcpy(out->hex, text, QD_DIGEST_DIGITS + 1);
  return QD_OK;
}

static qd_status take_dtype(const qd_json *json, const char *what, qd_dtype *out) {
  const char *text;
  QD_TRY(qd_as_corrupt(qd_json_need_text(json, what, "dtype", &text)));
  QD_CHECK(qd_dtype_find(text, out), QD_ECORRUPT, "%s: \"%.32s\" is no data type of the store", what, text);
  return QD_OK;
}

static qd_status need_array(const qd_json *json, const char *what, const char *key, size_t most, const qd_json **out) {
  QD_CHECK(qd_json_is_object(json), QD_ECORRUPT, "%s is not an object", what);
  *out = qd_json_get(json, key);
  QD_CHECK(qd_json_is_array(*out), QD_ECORRUPT, "%s: \"%s\" is missing or not an array", what, key);
  QD_CHECK(qd_json_length(*out) <= most, QD_ECORRUPT, "%s: \"%s\" has %zu members, at most %zu are possible", what, key,
           qd_json_length(*out), most);
  return QD_OK;
}

static qd_status take_shape(const qd_json *json, const char *what, int least_rank, int *rank, int64_t *dim) {
  const qd_json *shape;
  QD_TRY(need_array(json, what, "shape", QD_MAX_RANK, &shape));
  *rank = (int)qd_json_length(shape);
  QD_CHECK(*rank >= least_rank, QD_ECORRUPT, "%s: the shape has no dimensions", what);
  int64_t left = most_elements;
  for (int i = 0; i < *rank; i++) {
    const qd_json *value = qd_json_at(shape, (size_t)i);
    dim[i] = qd_json_integer(value);
    QD_CHECK(qd_json_is_integer(value) && dim[i] >= 0 && dim[i] <= left, QD_ECORRUPT,
             "%s: dimension %d of the shape is no whole number, negative or too large", what, i);
    if (dim[i] > 0) left /= dim[i];
  }
  return QD_OK;
}

qd_status qd_entry_file_from_json(const qd_json *json, const char *what, qd_entry_file *out) {
  *out = (qd_entry_file){.bytes = 0};
  int64_t bytes;
  QD_TRY(take_text(json, what, "name", is_file_name, sizeof out->name, out->name));
  QD_TRY(qd_as_corrupt(qd_json_need_integer(json, what, "bytes", 0, INT64_MAX, &bytes)));
  QD_TRY(take_digest(json, what, "digest", &out->digest));
  out->bytes = (uint64_t)bytes;
  return QD_OK;
}

static qd_status take_files(const qd_json *json, const char *what, qd_entry *out) {
  const qd_json *files;
  QD_TRY(need_array(json, what, "files", MAX_FILES, &files));
  size_t n = qd_json_length(files);
  QD_TRY(qd_heap_new(n, sizeof *out->file, &out->file));
  for (size_t i = 0; i < n; i++) {
    where w = inside(what, "files", i);
    QD_TRY(qd_entry_file_from_json(qd_json_at(files, i), w.text, &out->file[i]));
    QD_CHECK(qd_block_file_name_fits(out->file[i].name), QD_ECORRUPT, "%s: \"%s\" does not end in .h5", w.text,
             out->file[i].name);
    out->n_files = (int)i + 1;
  }
  return QD_OK;
}

static qd_status take_part(const qd_json *json, const char *what, int n_files, qd_stored_part *out) {
  int64_t file;
  QD_TRY(take_text(json, what, "name", is_word, sizeof out->name, out->name));
  QD_TRY(take_dtype(json, what, &out->dtype));
  QD_TRY(take_shape(json, what, 1, &out->rank, out->dim));
  QD_TRY(qd_as_corrupt(qd_json_need_integer(json, what, "file", 0, (int64_t)n_files - 1, &file)));
  QD_TRY(take_text(json, what, "dataset", qd_dataset_name_fits, sizeof out->dataset, out->dataset));
  QD_TRY(take_digest(json, what, "digest", &out->digest));
  out->file = (int)file;
  return QD_OK;
}

static qd_status take_parts(const qd_json *json, const char *what, int n_files, qd_record *out) {
  const qd_json *parts;
  const char *names[QD_MAX_PARTS];
  QD_TRY(need_array(json, what, "parts", QD_MAX_PARTS, &parts));
  out->n_parts = (int)qd_json_length(parts);
  for (int i = 0; i < out->n_parts; i++) {
    where w = inside(what, "parts", (size_t)i);
    QD_TRY(take_part(qd_json_at(parts, (size_t)i), w.text, n_files, &out->part[i]));
    names[i] = out->part[i].name;
  }
  const char *twice = qd_find_twice(names, (size_t)out->n_parts);
  QD_CHECK(twice == NULL, QD_ECORRUPT, "%s: the part \"%s\" is there twice", what, twice);
  return QD_OK;
}

static qd_status take_record(const qd_json *json, const char *what, int n_files, qd_record *out) {
  int64_t expert;
  QD_TRY(take_text(json, what, "name", is_printable, sizeof out->name, out->name));
  QD_TRY(take_text(json, what, "role", is_word, sizeof out->role, out->role));
  QD_TRY(qd_as_corrupt(qd_json_take_integer(json, what, "expert", 0, INT32_MAX, -1, &expert)));
  out->expert = (int)expert;
  QD_TRY(take_text(json, what, "scheme", is_word, sizeof out->scheme, out->scheme));
  QD_TRY(take_dtype(json, what, &out->dtype));
  QD_TRY(take_shape(json, what, 0, &out->rank, out->dim));
  if (qd_json_get(json, "source") != NULL) QD_TRY(take_digest(json, what, "source", &out->source));
  QD_TRY(take_parts(json, what, n_files, out));
  const qd_json *facts = qd_json_get(json, "facts");
  QD_CHECK(qd_json_is_object(facts), QD_ECORRUPT, "%s: \"facts\" is missing or not an object", what);
  out->facts = qd_json_copy(facts);
  return QD_OK;
}

static qd_status take_records(const qd_json *json, const char *what, qd_entry *out) {
  const qd_json *records;
  QD_TRY(need_array(json, what, "records", MAX_RECORDS, &records));
  size_t n = qd_json_length(records);
  QD_TRY(qd_heap_new(n, sizeof *out->record, &out->record));
  for (size_t i = 0; i < n; i++) {
    where w = inside(what, "records", i);
    QD_TRY(take_record(qd_json_at(records, i), w.text, out->n_files, &out->record[i]));
    out->n_records = (int)i + 1;
  }
  return QD_OK;
}

static qd_status check_names(const qd_entry *entry, const char *what, const char **names) {
  for (int i = 0; i < entry->n_files; i++) names[i] = entry->file[i].name;
  const char *twice = qd_find_twice(names, (size_t)entry->n_files);
  QD_CHECK(twice == NULL, QD_ECORRUPT, "%s: the file %s is there twice", what, twice);
  for (int i = 0; i < entry->n_records; i++) names[i] = entry->record[i].name;
  twice = qd_find_twice(names, (size_t)entry->n_records);
  QD_CHECK(twice == NULL, QD_ECORRUPT, "%s: the record \"%s\" is there twice", what, twice);
  return QD_OK;
}

static qd_status check_unique(const qd_entry *entry, const char *what) {
  const char **names = NULL;
  size_t n = (size_t)(entry->n_files > entry->n_records ? entry->n_files : entry->n_records);
  QD_TRY(qd_heap_new(n, sizeof *names, &names));
  qd_status status = check_names(entry, what, names);
  qd_heap_free(names);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

static qd_status take_entry(const qd_json *json, const char *what, qd_entry *out) {
  QD_TRY(qd_as_corrupt(qd_json_need_integer(json, what, "block", QD_REST, INT32_MAX, &out->block)));
  QD_TRY(take_files(json, what, out));
  QD_TRY(take_records(json, what, out));
  QD_TRY(check_unique(out, what));
  const qd_json *facts = qd_json_get(json, "facts");
  QD_CHECK(facts == NULL || qd_json_is_object(facts), QD_ECORRUPT, "%s: \"facts\" is not an object", what);
  if (facts != NULL) out->facts = qd_json_copy(facts);
  return QD_OK;
}

qd_status qd_entry_from_json(const qd_json *json, const char *what, qd_entry *out) {
  *out = (qd_entry){0};
  qd_status status = take_entry(json, what, out);
  if (status == QD_OK) return QD_OK;
  qd_entry_release(out);
  return qd_forward(status, __FILE__, __LINE__);
}

void qd_entry_release(qd_entry *entry) {
  for (int i = 0; i < entry->n_records; i++) qd_json_free(entry->record[i].facts);
  qd_json_free(entry->facts);
  qd_heap_free(entry->record);
  qd_heap_free(entry->file);
  *entry = (qd_entry){0};
}
