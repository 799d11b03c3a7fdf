#define _POSIX_C_SOURCE 200809L
#include "storage/source.h"

#include "kernels/base/heap.h"
#include "storage/source_format.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { CONFIG_MAX_BYTES = 16 << 20 };

typedef struct weight_file {
  char *path;
  qd_bytes bytes;
  qd_file_identity identity;
} weight_file;

struct qd_source {
  char *path, *folder, *config_name;
  const qd_source_format *format;
  void *state; /* the format's */
  qd_json *config;
  weight_file *file;
  size_t n_files, file_capacity;
  qd_source_tensor *tensor;
  size_t n_tensors, tensor_capacity;
  char **name; /* owns the tensors' names */
  size_t n_names, name_capacity;
  const char **side_file;
  size_t n_side_files;
};

static const qd_source_format *const formats[] = {
#define QD_SOURCE(x) &qd_source_##x,
#include "storage/sources.def"
#undef QD_SOURCE
};

static const char *const side_files[] = {
    "config.json",     "generation_config.json",  "tokenizer.json",    "tokenizer_config.json",
    "tokenizer.model", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "merges.txt",      "chat_template.jinja",     "chat_template.json"};
enum { N_SIDE_FILES = sizeof side_files / sizeof *side_files };

/* ---- names in a folder ---- */

static bool ends_in(const char *text, const char *ending) {
  size_t n = strlen(text), m = strlen(ending);
  return n >= m && strcmp(text + n - m, ending) == 0;
}

static int by_text(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static qd_status collect_names(DIR *folder, const char *path, const char *ending, qd_names *out) {
  for (struct dirent *entry; (errno = 0, entry = readdir(folder)) != NULL;) {
    if (entry->d_name[0] == '.' || !ends_in(entry->d_name, ending)) continue;
    QD_TRY(qd_heap_grow(&out->name, &out->capacity, out->n + 1, sizeof *out->name));
    QD_TRY(qd_heap_text(entry->d_name, strlen(entry->d_name), &out->name[out->n]));
    out->n++;
  }
  QD_CHECK(errno == 0, QD_EIO, "cannot read the folder %s: %s", path, strerror(errno));
  return QD_OK;
}

qd_status qd_names_list(const char *folder, const char *ending, qd_names *out) {
  *out = (qd_names){0};
  DIR *open_folder = opendir(folder);
  QD_CHECK(open_folder != NULL, QD_EIO, "cannot read the folder %s: %s", folder, strerror(errno));
  qd_status status = collect_names(open_folder, folder, ending, out);
  closedir(open_folder);
  if (status != QD_OK) {
    qd_names_release(out);
    return qd_forward(status, __FILE__, __LINE__);
  }
  if (out->n > 0) qsort(out->name, out->n, sizeof *out->name, by_text);
  return QD_OK;
}

void qd_names_release(qd_names *names) {
  for (size_t i = 0; i < names->n; i++) qd_heap_free(names->name[i]);
  qd_heap_free(names->name);
  *names = (qd_names){0};
}

/* ---- filling, for the formats ---- */

static qd_status open_weight_file(const char *folder, const char *name, weight_file *out) {
  QD_TRY(qd_path_join(folder, name, &out->path));
  QD_TRY(qd_bytes_open_file(out->path, &out->bytes));
  QD_TRY(qd_file_identify(out->path, &out->identity));
  return QD_OK;
}

qd_status qd_source_add_file(qd_source *source, const char *name, int *file) {
  QD_TRY(qd_heap_grow(&source->file, &source->file_capacity, source->n_files + 1, sizeof *source->file));
  weight_file *added = &source->file[source->n_files];
  *added = (weight_file){0};
  *file = (int)source->n_files++;
  QD_TRY(open_weight_file(source->folder, name, added));
  return QD_OK;
}

qd_bytes *qd_source_file_bytes(qd_source *source, int file) { return &source->file[file].bytes; }

qd_status qd_source_add_tensor(qd_source *source, const qd_source_tensor *tensor) {
  QD_TRY(qd_heap_grow(&source->tensor, &source->tensor_capacity, source->n_tensors + 1, sizeof *source->tensor));
  QD_TRY(qd_heap_grow(&source->name, &source->name_capacity, source->n_names + 1, sizeof *source->name));
  char *name;
  QD_TRY(qd_heap_text(tensor->name, strlen(tensor->name), &name));
  source->name[source->n_names++] = name;
  qd_source_tensor *added = &source->tensor[source->n_tensors++];
  *added = *tensor;
  added->name = name;
  return QD_OK;
}

static int by_name(const void *a, const void *b) {
  const qd_source_tensor *left = a, *right = b;
  int order = strcmp(left->name, right->name);
  return order != 0 ? order : (left->file > right->file) - (left->file < right->file);
}

qd_status qd_source_seal(qd_source *source) {
  if (source->n_tensors > 0) qsort(source->tensor, source->n_tensors, sizeof *source->tensor, by_name);
  for (size_t i = 1; i < source->n_tensors; i++) {
    const qd_source_tensor *a = &source->tensor[i - 1], *b = &source->tensor[i];
    QD_CHECK(strcmp(a->name, b->name) != 0, QD_EBADINPUT, "the tensor %.200s is twice there: in %s and in %s", a->name,
             source->file[a->file].path, source->file[b->file].path);
  }
  return QD_OK;
}

/* ---- opening ---- */

static qd_status check_path(const char *path, bool *is_folder) {
  struct stat facts;
  bool there = stat(path, &facts) == 0;
  bool absent = !there && (errno == ENOENT || errno == ENOTDIR);
  QD_CHECK(!absent, QD_ENOTFOUND,
           "there is no folder %s: a model is a folder on this machine with config.json and *.safetensors, or a GGUF file",
           path);
  QD_CHECK(there, QD_EIO, "cannot look at the folder %s: %s", path, strerror(errno));
  *is_folder = S_ISDIR(facts.st_mode);
  return QD_OK;
}

static qd_status read_config(const char *folder, qd_json **config) {
  char *path = NULL;
  QD_TRY(qd_path_join(folder, "config.json", &path));
  qd_status status = qd_json_read(path, CONFIG_MAX_BYTES, config);
  if (status == QD_ENOTFOUND)
    status = qd_fail(QD_ENOTFOUND, __FILE__, __LINE__, "%s has no config.json: it is no Hugging Face model", folder);
  if (status == QD_OK && !qd_json_is_object(*config))
    status = qd_fail(QD_EBADINPUT, __FILE__, __LINE__, "%s is not a JSON object", path);
  qd_heap_free(path);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

static qd_status find_side_files(qd_source *source) {
  QD_TRY(qd_heap_new(N_SIDE_FILES, sizeof *source->side_file, &source->side_file));
  for (size_t i = 0; i < N_SIDE_FILES; i++) {
    char *path = NULL;
    QD_TRY(qd_path_join(source->path, side_files[i], &path));
    if (qd_file_exists(path)) source->side_file[source->n_side_files++] = side_files[i];
    qd_heap_free(path);
  }
  return QD_OK;
}

/* Weights that no format reads, told by name.  *found: the first one, from the heap, or NULL. */
static qd_status find_foreign(const char *folder, const char *const *endings, size_t n, char **found) {
  *found = NULL;
  for (size_t i = 0; i < n && *found == NULL; i++) {
    qd_names names;
    QD_TRY(qd_names_list(folder, endings[i], &names));
    qd_status status = names.n > 0 ? qd_heap_text(names.name[0], strlen(names.name[0]), found) : QD_OK;
    qd_names_release(&names);
    QD_TRY(status);
  }
  return QD_OK;
}

/* 'folder' as a shell takes it; a quote within becomes '\''. */
static void quote(const char *folder, char *text, size_t size) {
  size_t n = 0;
  text[n++] = '\'';
  for (; *folder != '\0' && n + 6 < size; folder++) {
    if (*folder == '\'') n += (size_t)snprintf(text + n, size - n, "'\\''");
    else text[n++] = *folder;
  }
  text[n++] = '\'';
  text[n] = '\0';
}

static qd_status refuse_pytorch(const char *folder, const char *name) {
  char quoted[2048];
  quote(folder, quoted, sizeof quoted);
  QD_FAIL(QD_EUNSUPPORTED,
          "%s holds PyTorch weights (%s), which only Python can read; convert them with: python -c \"import sys; "
          "from transformers import AutoModelForCausalLM; p = sys.argv[1]; AutoModelForCausalLM.from_pretrained(p, "
          "torch_dtype='auto')"
          ".save_pretrained(p, safe_serialization=True)\" %s",
          folder, name, quoted);
}

static qd_status refuse_other(const char *folder, const char *name) {
  QD_FAIL(QD_EUNSUPPORTED, "%s holds %s, a format that is not read: safetensors weights are wanted", folder, name);
}

static qd_status refuse_folder(const char *folder) {
  static const char *const pytorch[] = {".bin", ".pt", ".pth"};
  static const char *const other[] = {".ggml", ".h5", ".msgpack", ".npz", ".onnx", ".safetensors.tmp"};
  char *found;
  QD_TRY(find_foreign(folder, pytorch, sizeof pytorch / sizeof *pytorch, &found));
  qd_status status = found != NULL ? refuse_pytorch(folder, found) : QD_OK;
  qd_heap_free(found);
  QD_TRY(status);
  QD_TRY(find_foreign(folder, other, sizeof other / sizeof *other, &found));
  status = found != NULL ? refuse_other(folder, found) : QD_OK;
  qd_heap_free(found);
  QD_TRY(status);
  QD_FAIL(QD_ENOTFOUND, "%s holds no weights: model.safetensors is wanted, or model.safetensors.index.json with its shards",
          folder);
}

qd_status qd_source_format_of(const char *path, const qd_source_format **out) {
  *out = NULL;
  for (size_t i = 0; i < sizeof formats / sizeof *formats && *out == NULL; i++) {
    bool found = false;
    QD_TRY(formats[i]->recognise(path, &found));
    if (found) *out = formats[i];
  }
  return QD_OK;
}

void qd_source_set_state(qd_source *source, void *state) { source->state = state; }

static qd_status set_places(qd_source *source, const char *folder, const char *config) {
  QD_TRY(qd_heap_text(folder, strlen(folder), &source->folder));
  return qd_heap_text(config, strlen(config), &source->config_name);
}

qd_status qd_source_set_made(qd_source *source, const char *folder, qd_json *config, const char *const *names) {
  source->config = config;
  QD_TRY(set_places(source, folder, source->path));
  QD_TRY(qd_heap_new(N_SIDE_FILES, sizeof *source->side_file, &source->side_file));
  while (names[source->n_side_files] != NULL) {
    source->side_file[source->n_side_files] = names[source->n_side_files];
    source->n_side_files++;
  }
  return QD_OK;
}

/* With config.json before anything else: without it a folder is no model, whatever it holds. */
static qd_status open_folder(qd_source *source) {
  char *config = NULL;
  QD_TRY(read_config(source->path, &source->config));
  QD_TRY(qd_path_join(source->path, "config.json", &config));
  qd_status status = set_places(source, source->path, config);
  qd_heap_free(config);
  QD_TRY(status);
  QD_TRY(find_side_files(source));
  return source->format != NULL ? source->format->open(source) : refuse_folder(source->path);
}

static qd_status open_all(const char *path, qd_source *source) {
  bool is_folder = false;
  QD_TRY(qd_heap_text(path, strlen(path), &source->path));
  QD_TRY(check_path(path, &is_folder));
  QD_TRY(qd_source_format_of(path, &source->format));
  bool made = source->format != NULL && source->format->make_side_file != NULL;
  QD_CHECK(made || is_folder, QD_ENOTFOUND,
           "%s is a file: a model is a folder with config.json and *.safetensors, or a file that ends in .gguf", path);
  QD_TRY(made ? source->format->open(source) : open_folder(source));
  QD_CHECK(source->n_tensors > 0, QD_ENOTFOUND, "%s: the %s files hold no tensors", source->path, source->format->name);
  return QD_OK;
}

qd_status qd_source_open(const char *path, qd_source **out) {
  *out = NULL;
  qd_source *source;
  QD_TRY(qd_heap_new(1, sizeof *source, &source));
  qd_status status = open_all(path, source);
  if (status != QD_OK) {
    qd_source_close(source);
    return qd_forward(status, __FILE__, __LINE__);
  }
  *out = source;
  return QD_OK;
}

void qd_source_close(qd_source *source) {
  if (source == NULL) return;
  for (size_t i = 0; i < source->n_files; i++) {
    qd_bytes_close(&source->file[i].bytes);
    qd_heap_free(source->file[i].path);
  }
  for (size_t i = 0; i < source->n_names; i++) qd_heap_free(source->name[i]);
  qd_heap_free(source->name);
  qd_heap_free(source->file);
  qd_heap_free(source->tensor);
  qd_heap_free(source->side_file);
  qd_json_free(source->config);
  if (source->state != NULL) source->format->close_state(source->state);
  qd_heap_free(source->config_name);
  qd_heap_free(source->folder);
  qd_heap_free(source->path);
  qd_heap_free(source);
}

/* ---- asking ---- */

const char *qd_source_path(const qd_source *source) { return source->path; }
const char *qd_source_format_name(const qd_source *source) { return source->format->name; }
const qd_json *qd_source_config(const qd_source *source) { return source->config; }
const char *qd_source_config_name(const qd_source *source) { return source->config_name; }
size_t qd_source_tensors(const qd_source *source) { return source->n_tensors; }
size_t qd_source_files(const qd_source *source) { return source->n_files; }

const qd_source_tensor *qd_source_tensor_at(const qd_source *source, size_t index) {
  QD_ASSERT(index < source->n_tensors);
  return &source->tensor[index];
}

const qd_source_tensor *qd_source_find(const qd_source *source, const char *name) {
  size_t low = 0, high = source->n_tensors;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    int order = strcmp(name, source->tensor[middle].name);
    if (order == 0) return &source->tensor[middle];
    if (order < 0)
      high = middle;
    else
      low = middle + 1;
  }
  return NULL;
}

qd_status qd_source_read(const qd_source *source, const qd_source_tensor *tensor, uint64_t offset, void *to, size_t n) {
  QD_CHECK(offset <= tensor->bytes && n <= tensor->bytes - offset, QD_EINVAL,
           "%zu bytes from byte %" PRIu64 " of the tensor %.200s are wanted, it has %" PRIu64, n, offset, tensor->name,
           tensor->bytes);
  qd_bytes *file = &source->file[tensor->file].bytes;
  if (source->format->read != NULL) QD_TRY(source->format->read(file, source->state, tensor, offset, to, n));
  else QD_TRY(qd_bytes_read(file, tensor->offset + offset, to, n));
  return QD_OK;
}

const char *qd_source_file_path(const qd_source *source, size_t index) {
  QD_ASSERT(index < source->n_files);
  return source->file[index].path;
}

qd_file_identity qd_source_file_identity(const qd_source *source, size_t index) {
  QD_ASSERT(index < source->n_files);
  return source->file[index].identity;
}

const char *qd_source_side_file(const qd_source *source, size_t index) {
  return index < source->n_side_files ? source->side_file[index] : NULL;
}

/* ---- side files ---- */

qd_status qd_side_file_read(const char *path, const char *name, size_t max_bytes, char **text, size_t *n) {
  const qd_source_format *format;
  char *file = NULL;
  *text = NULL, *n = 0;
  QD_TRY(qd_source_format_of(path, &format));
  if (format != NULL && format->make_side_file != NULL) {
    QD_TRY(format->make_side_file(path, name, text));
    *n = strlen(*text);
    return QD_OK;
  }
  QD_TRY(qd_path_join(path, name, &file));
  qd_status status = qd_file_read(file, max_bytes, text, n);
  qd_heap_free(file);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

qd_status qd_side_file_json(const char *path, const char *name, size_t max_bytes, char **what, qd_json **out) {
  char *text = NULL;
  size_t n;
  *what = NULL, *out = NULL;
  qd_status status = qd_side_file_read(path, name, max_bytes, &text, &n);
  if (status == QD_OK) status = qd_path_join(path, name, what);
  if (status == QD_OK) status = qd_json_parse(text, n, *what, out);
  qd_heap_free(text);
  if (status == QD_OK) return QD_OK;
  qd_heap_free(*what);
  *what = NULL;
  return qd_forward(status, __FILE__, __LINE__);
}
