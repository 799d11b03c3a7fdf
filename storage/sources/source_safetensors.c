/* Hugging Face's safetensors (https://github.com/huggingface/safetensors#format):
 *
 *   8 bytes   L, unsigned, little-endian
 *   L bytes   JSON: {"NAME": {"dtype": "F16", "shape": [2, 3], "data_offsets": [BEGIN, END]}, ..., "__metadata__": {...}}
 *   the rest  the elements, row-major, little-endian; offsets count from here
 *
 * The tensors cover the rest without gaps or overlaps.  A model is model.safetensors, or the shards that
 * model.safetensors.index.json names: {"weight_map": {"NAME": "SHARD", ...}}.  Header and index are hostile until checked. */
#include "kernels/base/heap.h"
#include "storage/source_format.h"

#include <stdlib.h>
#include <string.h>

#define SINGLE_FILE "model.safetensors"
#define INDEX_FILE "model.safetensors.index.json"

enum { LENGTH_BYTES = 8, HEADER_MAX_BYTES = 100000000, INDEX_MAX_BYTES = 100000000 };

/* ---- one header ---- */

typedef struct extent {
  uint64_t begin, end; /* within the data */
  const char *name;
} extent;

typedef struct header {
  const char *path;
  int file;
  uint64_t data_offset, data_bytes;
  extent *extent;
  size_t n, capacity;
} header;

static uint64_t little_endian(const unsigned char *bytes) {
  uint64_t value = 0;
  for (int i = LENGTH_BYTES - 1; i >= 0; i--) value = value << 8 | bytes[i];
  return value;
}

/* A clone without `git lfs pull` leaves small texts in place of the weights. */
static qd_status refuse_pointer(qd_bytes *bytes) {
  static const char pointer[] = "version https://git-lfs";
  char start[sizeof pointer - 1];
  if (bytes->size < sizeof start) return QD_OK;
  QD_TRY(qd_bytes_read(bytes, 0, start, sizeof start));
  QD_CHECK(memcmp(start, pointer, sizeof start) != 0, QD_EBADINPUT,
           "%s is a Git LFS pointer, not the weights themselves: fetch them with \"git lfs pull\"", bytes->name);
  return QD_OK;
}

static qd_status read_length(qd_bytes *bytes, uint64_t *length) {
  unsigned char start[LENGTH_BYTES];
  QD_CHECK(bytes->size >= LENGTH_BYTES, QD_EBADINPUT, "%s has %" PRIu64 " bytes, too few for a safetensors file", bytes->name,
           bytes->size);
  QD_TRY(refuse_pointer(bytes));
  QD_TRY(qd_bytes_read(bytes, 0, start, sizeof start));
  *length = little_endian(start);
  QD_CHECK(*length <= bytes->size - LENGTH_BYTES, QD_EBADINPUT,
           "%s: a header of %" PRIu64 " bytes does not fit into the file of %" PRIu64 ": it is cut off or no safetensors file",
           bytes->name, *length, bytes->size);
  QD_CHECK(*length <= HEADER_MAX_BYTES, QD_EBADINPUT, "%s: the header has %" PRIu64 " bytes, at most %d are allowed",
           bytes->name, *length, HEADER_MAX_BYTES);
  return QD_OK;
}

static qd_status parse_text(qd_bytes *bytes, char *text, size_t n, qd_json **out) {
  char *what = NULL;
  QD_TRY(qd_bytes_read(bytes, LENGTH_BYTES, text, n));
  QD_TRY(qd_heap_new(strlen(bytes->name) + sizeof ": header", 1, &what));
  strcat(strcpy(what, bytes->name), ": header");
  qd_status status = qd_json_parse(text, n, what, out);
  qd_heap_free(what);
  QD_TRY(status);
  QD_CHECK(qd_json_is_object(*out), QD_EBADINPUT, "%s: the header is not a JSON object", bytes->name);
  return QD_OK;
}

/* *out may be set on failure too; the caller frees it. */
static qd_status read_json(qd_bytes *bytes, header *h, qd_json **out) {
  uint64_t length = 0;
  char *text = NULL;
  QD_TRY(read_length(bytes, &length));
  h->data_offset = LENGTH_BYTES + length;
  h->data_bytes = bytes->size - h->data_offset;
  QD_TRY(qd_heap_new((size_t)length, 1, &text));
  qd_status status = parse_text(bytes, text, (size_t)length, out);
  qd_heap_free(text);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

static qd_status read_dtype(const header *h, const qd_json *value, qd_source_tensor *out) {
  const char *name = qd_json_text(qd_json_get(value, "dtype"));
  QD_CHECK(name != NULL, QD_EBADINPUT, "%s: the tensor %.200s has no dtype", h->path, out->name);
  bool known = qd_dtype_find(name, &out->dtype) && (out->dtype == QD_F32 || out->dtype == QD_F16 || out->dtype == QD_BF16);
  QD_CHECK(known, QD_EUNSUPPORTED, "%s: the tensor %.200s is of type %.40s; F32, F16 and BF16 are read", h->path, out->name,
           name);
  return QD_OK;
}

/* A dimension of 0 counts as 1 towards the limit, so that strides fit into int64 as well. */
static qd_status read_shape(const header *h, const qd_json *value, qd_source_tensor *out) {
  const qd_json *shape = qd_json_get(value, "shape");
  QD_CHECK(qd_json_is_array(shape), QD_EBADINPUT, "%s: the tensor %.200s has no shape", h->path, out->name);
  size_t rank = qd_json_length(shape);
  QD_CHECK(rank <= QD_MAX_RANK, QD_EUNSUPPORTED, "%s: the tensor %.200s has %zu dimensions, at most %d are read", h->path,
           out->name, rank, QD_MAX_RANK);
  int64_t limit = INT64_MAX / (int64_t)qd_dtype_bytes(out->dtype);
  out->rank = (int)rank;
  out->bytes = qd_dtype_bytes(out->dtype);
  for (size_t i = 0; i < rank; i++) {
    const qd_json *dimension = qd_json_at(shape, i);
    int64_t n = qd_json_integer(dimension);
    QD_CHECK(qd_json_is_integer(dimension) && n >= 0, QD_EBADINPUT,
             "%s: dimension %zu in the shape of the tensor %.200s is not a whole number of at least 0", h->path, i, out->name);
    QD_CHECK(n <= limit, QD_EBADINPUT, "%s: the tensor %.200s is larger than any machine's memory", h->path, out->name);
    limit /= n > 0 ? n : 1;
    out->dim[i] = n;
    out->bytes *= (uint64_t)n;
  }
  return QD_OK;
}

static qd_status read_offset(const header *h, const qd_json *offsets, size_t index, const char *name, uint64_t *out) {
  const qd_json *offset = qd_json_at(offsets, index);
  int64_t value = qd_json_integer(offset);
  QD_CHECK(qd_json_is_integer(offset) && value >= 0, QD_EBADINPUT,
           "%s: data_offsets of the tensor %.200s are not whole numbers of at least 0", h->path, name);
  *out = (uint64_t)value;
  return QD_OK;
}

static qd_status read_extent(const header *h, const qd_json *value, const qd_source_tensor *t, extent *out) {
  const qd_json *offsets = qd_json_get(value, "data_offsets");
  QD_CHECK(qd_json_is_array(offsets) && qd_json_length(offsets) == 2, QD_EBADINPUT,
           "%s: data_offsets of the tensor %.200s are not two numbers", h->path, t->name);
  QD_TRY(read_offset(h, offsets, 0, t->name, &out->begin));
  QD_TRY(read_offset(h, offsets, 1, t->name, &out->end));
  QD_CHECK(out->begin <= out->end, QD_EBADINPUT,
           "%s: the tensor %.200s begins at byte %" PRIu64 " of the data and ends before, at %" PRIu64, h->path, t->name,
           out->begin, out->end);
  QD_CHECK(out->end <= h->data_bytes, QD_EBADINPUT,
           "%s: the tensor %.200s ends at byte %" PRIu64 " of the data, there are %" PRIu64 ": the file is cut off or damaged",
           h->path, t->name, out->end, h->data_bytes);
  QD_CHECK(out->end - out->begin == t->bytes, QD_EBADINPUT,
           "%s: the tensor %.200s takes %" PRIu64 " bytes by its shape and dtype, %" PRIu64 " by its data_offsets", h->path,
           t->name, t->bytes, out->end - out->begin);
  return QD_OK;
}

static qd_status add_tensor(qd_source *source, header *h, const char *name, const qd_json *value) {
  qd_source_tensor tensor = {.name = name, .file = h->file};
  QD_CHECK(qd_json_is_object(value), QD_EBADINPUT, "%s: the header's entry of the tensor %.200s is not an object", h->path,
           name);
  QD_TRY(read_dtype(h, value, &tensor));
  QD_TRY(read_shape(h, value, &tensor));
  QD_TRY(qd_heap_grow(&h->extent, &h->capacity, h->n + 1, sizeof *h->extent));
  extent *at = &h->extent[h->n++];
  at->name = name;
  QD_TRY(read_extent(h, value, &tensor, at));
  tensor.offset = h->data_offset + at->begin;
  QD_TRY(qd_source_add_tensor(source, &tensor));
  return QD_OK;
}

static int by_place(const void *a, const void *b) {
  const extent *left = a, *right = b;
  if (left->begin != right->begin) return left->begin < right->begin ? -1 : 1;
  return (left->end > right->end) - (left->end < right->end);
}

static qd_status check_cover(header *h) {
  uint64_t covered = 0;
  if (h->n > 0) qsort(h->extent, h->n, sizeof *h->extent, by_place);
  for (size_t i = 0; i < h->n; i++) {
    const extent *at = &h->extent[i];
    QD_CHECK(at->begin >= covered, QD_EBADINPUT, "%s: the tensors %.200s and %.200s overlap", h->path,
             h->extent[i > 0 ? i - 1 : 0].name, at->name);
    QD_CHECK(at->begin == covered, QD_EBADINPUT,
             "%s: bytes %" PRIu64 " to %" PRIu64 " of the data, before the tensor %.200s, belong to no tensor", h->path,
             covered, at->begin, at->name);
    covered = at->end;
  }
  QD_CHECK(covered == h->data_bytes, QD_EBADINPUT, "%s: the last %" PRIu64 " bytes belong to no tensor", h->path,
           h->data_bytes - covered);
  return QD_OK;
}

static qd_status add_tensors(qd_source *source, header *h, const qd_json *root) {
  const char *name;
  const qd_json *value;
  for (size_t i = 0; qd_json_member(root, i, &name, &value); i++)
    if (strcmp(name, "__metadata__") != 0) QD_TRY(add_tensor(source, h, name, value));
  QD_TRY(check_cover(h));
  return QD_OK;
}

static qd_status add_file(qd_source *source, const char *name) {
  header h = {0};
  QD_TRY(qd_source_add_file(source, name, &h.file));
  qd_json *root = NULL;
  h.path = qd_source_file_path(source, (size_t)h.file);
  qd_status status = read_json(qd_source_file_bytes(source, h.file), &h, &root);
  if (status == QD_OK) status = add_tensors(source, &h, root);
  qd_heap_free(h.extent);
  qd_json_free(root);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

/* ---- shards ---- */

typedef struct shards {
  const char *index_path, *folder;
  const char **name; /* each once, ascending; the texts are the index's */
  size_t n;
} shards;

static bool is_plain(const char *name, size_t n) {
  return n > 0 && strlen(name) == n && strchr(name, '/') == NULL && strstr(name, "..") == NULL;
}

static qd_status check_shard_name(const shards *s, const char *tensor, const qd_json *value, const char **name) {
  *name = qd_json_text(value);
  QD_CHECK(*name != NULL, QD_EBADINPUT, "%s: the shard of the tensor %.200s is not a text", s->index_path, tensor);
  QD_CHECK(is_plain(*name, qd_json_text_bytes(value)), QD_EBADINPUT,
           "%s: \"%.200s\", the shard of the tensor %.200s, is not a plain file name", s->index_path, *name, tensor);
  return QD_OK;
}

static int by_text(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

static qd_status collect_shards(shards *s, const qd_json *map) {
  const char *tensor;
  const qd_json *value;
  QD_TRY(qd_heap_new(qd_json_length(map), sizeof *s->name, &s->name));
  size_t n = 0;
  for (; qd_json_member(map, n, &tensor, &value); n++) QD_TRY(check_shard_name(s, tensor, value, &s->name[n]));
  if (n > 0) qsort(s->name, n, sizeof *s->name, by_text);
  for (size_t i = 0; i < n; i++)
    if (s->n == 0 || strcmp(s->name[s->n - 1], s->name[i]) != 0) s->name[s->n++] = s->name[i];
  return QD_OK;
}

/* All of them before the first is opened: a download that is not through should be told at once, with how much is missing. */
static qd_status check_present(const shards *s) {
  size_t missing = 0;
  const char *first = NULL;
  for (size_t i = 0; i < s->n; i++) {
    char *path = NULL;
    QD_TRY(qd_path_join(s->folder, s->name[i], &path));
    bool there = qd_file_exists(path);
    qd_heap_free(path);
    if (there) continue;
    if (first == NULL) first = s->name[i];
    missing++;
  }
  QD_CHECK(missing == 0, QD_ENOTFOUND, "%s names the shard %.200s, which is not in its folder (%zu of %zu shards are missing)",
           s->index_path, first, missing, s->n);
  return QD_OK;
}

static qd_status check_promises(const qd_source *source, const shards *s, const qd_json *map) {
  const char *name;
  const qd_json *value;
  for (size_t i = 0; qd_json_member(map, i, &name, &value); i++) {
    const qd_source_tensor *tensor = qd_source_find(source, name);
    const char *promised = qd_json_text(value);
    QD_CHECK(tensor != NULL, QD_EBADINPUT, "%s promises the tensor %.200s in the shard %.200s, which lacks it", s->index_path,
             name, promised);
    const char *found = strrchr(qd_source_file_path(source, (size_t)tensor->file), '/') + 1;
    QD_CHECK(strcmp(found, promised) == 0, QD_EBADINPUT, "%s promises the tensor %.200s in the shard %.200s, it is in %.200s",
             s->index_path, name, promised, found);
  }
  return QD_OK;
}

static qd_status open_shards(qd_source *source, shards *s, const qd_json *index) {
  const qd_json *map = qd_json_get(index, "weight_map");
  QD_CHECK(qd_json_is_object(map), QD_EBADINPUT, "%s has no object \"weight_map\"", s->index_path);
  QD_TRY(collect_shards(s, map));
  QD_TRY(check_present(s));
  for (size_t i = 0; i < s->n; i++) QD_TRY(add_file(source, s->name[i]));
  QD_TRY(qd_source_seal(source));
  QD_TRY(check_promises(source, s, map));
  return QD_OK;
}

static qd_status open_index(qd_source *source, const char *index_path) {
  shards s = {.index_path = index_path, .folder = qd_source_path(source)};
  qd_json *index = NULL;
  QD_TRY(qd_json_read(index_path, INDEX_MAX_BYTES, &index));
  qd_status status = open_shards(source, &s, index);
  qd_heap_free(s.name);
  qd_json_free(index);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

/* ---- the folder ---- */

static bool holds(const qd_names *names, const char *name) {
  for (size_t i = 0; i < names->n; i++)
    if (strcmp(names->name[i], name) == 0) return true;
  return false;
}

static qd_status has_index(const char *folder, char **index_path, bool *found) {
  QD_TRY(qd_path_join(folder, INDEX_FILE, index_path));
  *found = qd_file_exists(*index_path);
  return QD_OK;
}

static qd_status recognise(const char *folder, bool *found) {
  char *index_path = NULL;
  qd_names names;
  *found = false;
  if (!qd_folder_exists(folder)) return QD_OK;
  QD_TRY(has_index(folder, &index_path, found));
  qd_heap_free(index_path);
  QD_TRY(qd_names_list(folder, ".safetensors", &names));
  if (names.n > 0) *found = true;
  qd_names_release(&names);
  return QD_OK;
}

/* As transformers does, model.safetensors goes before an index. */
static qd_status open_found(qd_source *source, const qd_names *names, const char *index_path, bool indexed) {
  const char *folder = qd_source_path(source);
  bool single = holds(names, SINGLE_FILE);
  if (indexed && !single) {
    QD_TRY(open_index(source, index_path));
    return QD_OK;
  }
  QD_CHECK(single || names->n == 1, QD_ENOTFOUND, "%s holds %zu safetensors files and no " INDEX_FILE " that says which to use",
           folder, names->n);
  QD_TRY(add_file(source, single ? SINGLE_FILE : names->name[0]));
  QD_TRY(qd_source_seal(source));
  return QD_OK;
}

static qd_status open_folder(qd_source *source) {
  char *index_path = NULL;
  bool indexed = false;
  qd_names names;
  QD_TRY(qd_names_list(qd_source_path(source), ".safetensors", &names));
  qd_status status = has_index(qd_source_path(source), &index_path, &indexed);
  if (status == QD_OK) status = open_found(source, &names, index_path, indexed);
  qd_heap_free(index_path);
  qd_names_release(&names);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

const qd_source_format qd_source_safetensors = {.name = "safetensors", .recognise = recognise, .open = open_folder};
