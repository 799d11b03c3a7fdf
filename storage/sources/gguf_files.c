#include "storage/sources/gguf_files.h"

#include "kernels/base/heap.h"
#include "storage/source_format.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ENDING ".gguf"

enum { MAX_FILES = 99999, NUMBER_BYTES = 15 /* -00001-of-00003 */, SHOWN_NAMES = 4 };

/* NAME-00001-of-00003.gguf: the two numbers and the bytes of NAME. */
static bool is_part(const char *name, int *number, int *count, size_t *stem) {
  size_t n = strlen(name), tail = NUMBER_BYTES + sizeof ENDING - 1;
  int used = 0;
  if (n <= tail) return false;
  *stem = n - tail;
  bool fits = sscanf(name + *stem, "-%5d-of-%5d" ENDING "%n", number, count, &used) == 2 && (size_t)used == tail;
  return fits && *number >= 1 && *count >= 1 && *number <= *count;
}

/* ---- which files --------------------------------------------------------------------------------------------------------- */

static qd_status refuse_several(const char *folder, const qd_names *names) {
  char list[512] = "";
  for (size_t i = 0; i < names->n && i < SHOWN_NAMES; i++)
    snprintf(list + strlen(list), sizeof list - strlen(list), "%s%.100s", i ? ", " : "", names->name[i]);
  QD_FAIL(QD_ENOTFOUND, "%s holds several models (%s%s): name the file instead of the folder", folder, list,
          names->n > SHOWN_NAMES ? " ..." : "");
}

/* The one model of a folder: a file, or the first part of the only set of parts. */
static qd_status choose(const char *folder, const qd_names *names, const char **out) {
  int number, count, first_count = 0;
  size_t stem, first_stem = 0;
  *out = names->name[0];
  bool parts = is_part(*out, &number, &first_count, &first_stem), same = parts || names->n == 1;
  for (size_t i = 1; i < names->n && same; i++)
    same = is_part(names->name[i], &number, &count, &stem) && stem == first_stem && count == first_count &&
           strncmp(names->name[i], *out, stem) == 0;
  return same ? QD_OK : refuse_several(folder, names);
}

static qd_status split_path(const char *path, qd_gguf_files *out, char **name) {
  const char *slash = strrchr(path, '/');
  const char *folder = slash == NULL ? "." : slash == path ? "/" : path;
  QD_TRY(qd_heap_text(folder, folder == path ? (size_t)(slash - path) : 1, &out->folder));
  return qd_heap_text(slash ? slash + 1 : path, strlen(slash ? slash + 1 : path), name);
}

static qd_status look_into(const char *path, qd_gguf_files *out, char **name) {
  qd_names names;
  const char *chosen = NULL;
  QD_TRY(qd_heap_text(path, strlen(path), &out->folder));
  QD_TRY(qd_names_list(path, ENDING, &names));
  qd_status status = names.n > 0 ? choose(path, &names, &chosen)
                                 : qd_fail(QD_ENOTFOUND, __FILE__, __LINE__, "%s holds no GGUF file", path);
  if (status == QD_OK) status = qd_heap_text(chosen, strlen(chosen), name);
  qd_names_release(&names);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

static bool is_gguf_name(const char *path) {
  size_t n = strlen(path);
  return n > sizeof ENDING - 1 && strcmp(path + n - (sizeof ENDING - 1), ENDING) == 0;
}

qd_status qd_gguf_files_recognise(const char *path, bool *found) {
  qd_names names = {0};
  *found = !qd_folder_exists(path) && is_gguf_name(path) && qd_file_exists(path);
  if (*found || !qd_folder_exists(path)) return QD_OK;
  QD_TRY(qd_names_list(path, ENDING, &names));
  *found = names.n > 0;
  qd_names_release(&names);
  return QD_OK;
}

/* ---- opening them -------------------------------------------------------------------------------------------------------- */

static qd_status name_all(qd_gguf_files *files, const char *first) {
  int number, count;
  size_t stem, size = strlen(first) + 1;
  bool parts = is_part(first, &number, &count, &stem);
  QD_CHECK(!parts || number == 1, QD_ENOTFOUND, "%s/%s is part %d of %d: name the first one", files->folder, first, number,
           count);
  files->n = parts ? (size_t)count : 1;
  QD_TRY(qd_heap_new(files->n, sizeof *files->name, &files->name));
  QD_TRY(qd_heap_new(files->n, sizeof *files->bytes, &files->bytes));
  QD_TRY(qd_heap_new(files->n, sizeof *files->gguf, &files->gguf));
  for (size_t i = 0; i < files->n; i++) {
    QD_TRY(qd_heap_new(size, 1, &files->name[i]));
    if (parts) snprintf(files->name[i], size, "%.*s-%05zu-of-%05d" ENDING, (int)stem, first, i + 1, count);
    else memcpy(files->name[i], first, size);
  }
  return QD_OK;
}

static qd_status open_one(qd_gguf_files *files, size_t i) {
  char *path;
  QD_TRY(qd_path_join(files->folder, files->name[i], &path));
  qd_status status = qd_bytes_open_file(path, &files->bytes[i]);
  if (status == QD_ENOTFOUND && files->n > 1)
    status = qd_fail(QD_ENOTFOUND, __FILE__, __LINE__, "%s is missing: part %zu of %zu of the model", path, i + 1, files->n);
  if (status == QD_OK) status = qd_gguf_read(&files->bytes[i], &files->gguf[i]);
  qd_heap_free(path);
  files->n_open = i + 1;
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

/* What a file says of itself must be what its name says. */
static qd_status check_part(const qd_gguf_files *files, size_t i) {
  const qd_gguf *gguf = &files->gguf[i];
  int64_t number, count, usual = (int64_t)files->n;
  QD_TRY(qd_gguf_integer(gguf, "split.count", 0, MAX_FILES, 0, &count));
  QD_TRY(qd_gguf_integer(gguf, "split.no", 0, MAX_FILES, 0, &number));
  if (count == 0) count = 1;
  QD_CHECK(count == usual && number == (int64_t)i, QD_EBADINPUT,
           "%s says that it is part %" PRId64 " of %" PRId64 ", its name says %zu of %zu", gguf->bytes->name, number + 1, count,
           i + 1, files->n);
  return QD_OK;
}

static qd_status check_total(const qd_gguf_files *files) {
  int64_t promised, found = 0;
  for (size_t i = 0; i < files->n; i++) found += (int64_t)files->gguf[i].n_tensors;
  QD_TRY(qd_gguf_integer(&files->gguf[0], "split.tensors.count", 0, INT32_MAX, found, &promised));
  QD_CHECK(promised == found, QD_EBADINPUT, "%s promises %" PRId64 " tensors in all parts, there are %" PRId64,
           files->gguf[0].bytes->name, promised, found);
  return QD_OK;
}

static qd_status open_all(const char *path, qd_gguf_files *out) {
  char *first = NULL;
  qd_status status = qd_folder_exists(path) ? look_into(path, out, &first) : split_path(path, out, &first);
  if (status == QD_OK) status = name_all(out, first);
  qd_heap_free(first);
  QD_TRY(status);
  for (size_t i = 0; i < out->n; i++) QD_TRY(open_one(out, i));
  for (size_t i = 0; i < out->n; i++) QD_TRY(check_part(out, i));
  return check_total(out);
}

qd_status qd_gguf_files_open(const char *path, qd_gguf_files *out) {
  *out = (qd_gguf_files){0};
  QD_TRY(open_all(path, out));
  return QD_OK;
}

void qd_gguf_files_close(qd_gguf_files *files) {
  for (size_t i = 0; i < files->n_open; i++) {
    qd_gguf_release(&files->gguf[i]);
    qd_bytes_close(&files->bytes[i]);
  }
  for (size_t i = 0; i < files->n && files->name != NULL; i++) qd_heap_free(files->name[i]);
  qd_heap_free(files->name);
  qd_heap_free(files->bytes);
  qd_heap_free(files->gguf);
  qd_heap_free(files->folder);
  *files = (qd_gguf_files){0};
}
