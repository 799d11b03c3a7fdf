/* GGUF (ggml): one file, or several parts.  The header is the model's configuration and tokenizer, which are made from it as
 * Hugging Face has them (gguf_model.c, gguf_tokenizer.c); blocks of codes are decoded when they are read, rows of q and k are
 * put back into Hugging Face's order, and stacked experts are one tensor each. */
#include "kernels/base/heap.h"
#include "storage/source_format.h"
#include "storage/sources/gguf_blocks.h"
#include "storage/sources/gguf_files.h"
#include "storage/sources/gguf_model.h"
#include "storage/sources/gguf_tokenizer.h"

#include <stdio.h>
#include <string.h>

/* How a tensor lies in its file. */
typedef struct layout {
  const qd_gguf_block *block;
  int64_t rows, columns; /* a row is what lies in one piece: all of it, unless rows are in another order */
  int64_t heads;         /* 0: in order */
} layout;

typedef struct layouts { /* of a source: qd_source_tensor's layout counts from 0 */
  layout *at;
  size_t  n, capacity;
} layouts;

/* ---- opening ------------------------------------------------------------------------------------------------------------- */

static qd_status add_one(qd_source *source, layouts *all, const qd_gguf_place *place, const qd_gguf_block *block,
                         qd_source_tensor *t) {
  int64_t columns = place->rank == 2 ? place->dim[1] : 1;
  layout *added;
  QD_TRY(qd_heap_grow(&all->at, &all->capacity, all->n + 1, sizeof *all->at));
  added = &all->at[all->n];
  *added = (layout){.block = block, .rows = place->dim[0], .columns = columns, .heads = place->heads};
  if (place->heads == 0) added->rows = 1, added->columns = place->dim[0] * columns;
  t->layout = all->n++;
  t->dtype = block->dtype, t->rank = place->rank;
  t->stored = block->decode != NULL ? block->name : NULL;
  for (int i = 0; i < place->rank; i++) t->dim[i] = place->dim[i];
  t->bytes = (uint64_t)(place->dim[0] * columns) * qd_dtype_bytes(block->dtype);
  QD_TRY(qd_source_add_tensor(source, t));
  return QD_OK;
}

/* A "#" in the name becomes the expert's number. */
static qd_status add_experts(qd_source *source, layouts *all, const qd_gguf_place *place, const qd_gguf_tensor *from,
                             int file) {
  const qd_gguf_block *block = qd_gguf_block_of(from->type);
  uint64_t each = from->bytes / (uint64_t)place->experts;
  const char *mark = strchr(place->name, '#');
  char name[200];
  for (int64_t e = 0; e < place->experts; e++) {
    qd_source_tensor t = {.name = place->name, .file = file, .offset = from->offset + (uint64_t)e * each};
    if (mark != NULL) {
      snprintf(name, sizeof name, "%.*s%" PRId64 "%s", (int)(mark - place->name), place->name, e, mark + 1);
      t.name = name;
    }
    QD_TRY(add_one(source, all, place, block, &t));
  }
  return QD_OK;
}

/* A row of q's 1-D bias is one element: blocks of more cannot be put into another order. */
static qd_status check_order(const qd_gguf *gguf, const qd_gguf_tensor *t, const qd_gguf_place *place) {
  bool fits = place->heads == 0 || place->rank == 2 || qd_gguf_block_of(t->type)->elements == 1;
  QD_CHECK(fits, QD_EBADINPUT, "%s: the tensor %s is a vector of the type %s, F32 is expected", gguf->bytes->name, t->name,
           qd_gguf_type_name(t->type));
  return QD_OK;
}

static qd_status add_tensors(qd_source *source, layouts *all, const qd_gguf_model *model, size_t index, int file) {
  const qd_gguf *gguf = &model->gguf[index];
  qd_gguf_place place;
  for (size_t i = 0; i < gguf->n_tensors; i++) {
    QD_TRY(qd_gguf_place_of(model, &gguf->tensor[i], &place));
    if (place.left_out) continue;
    QD_TRY(check_order(gguf, &gguf->tensor[i], &place));
    QD_TRY(add_experts(source, all, &place, &gguf->tensor[i], file));
  }
  return QD_OK;
}

static qd_status add_files(qd_source *source, const qd_gguf_files *files, const qd_gguf_model *model, layouts *all) {
  for (size_t i = 0; i < files->n; i++) {
    int file;
    QD_TRY(qd_source_add_file(source, files->name[i], &file));
    QD_TRY(add_tensors(source, all, model, i, file));
  }
  return qd_source_seal(source);
}

static const char *const plain_files[] = {"config.json", NULL};
static const char *const all_files[] = {"config.json", "tokenizer.json", "tokenizer_config.json", NULL};

static qd_status open_files(qd_source *source, const qd_gguf_files *files, layouts *all) {
  qd_gguf_model model;
  qd_json *config;
  bool has_tokenizer;
  QD_TRY(qd_gguf_model_of(files->gguf, files->n, &model));
  QD_TRY(qd_gguf_tokenizer_is_there(files->gguf, &has_tokenizer));
  QD_TRY(qd_gguf_config(&model, &config));
  QD_TRY(qd_source_set_made(source, files->folder, config, has_tokenizer ? all_files : plain_files));
  return add_files(source, files, &model, all);
}

static qd_status open_model(qd_source *source) {
  qd_gguf_files files;
  layouts *all;
  QD_TRY(qd_heap_new(1, sizeof *all, &all));
  qd_source_set_state(source, all); /* which closes it */
  qd_status status = qd_gguf_files_open(qd_source_path(source), &files);
  if (status == QD_OK) status = open_files(source, &files, all);
  qd_gguf_files_close(&files);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

static void close_state(void *state) {
  layouts *all = state;
  qd_heap_free(all->at);
  qd_heap_free(all);
}

/* ---- reading ------------------------------------------------------------------------------------------------------------- */

enum { CHUNK_ELEMENTS = 1 << 16 }; /* a multiple of each block's */

typedef struct reading {
  qd_bytes      *bytes;
  const layout  *from;
  uint64_t       offset;   /* of the tensor in its file */
  size_t         size;     /* of an element as it is read */
  unsigned char *packed;   /* of one chunk */
  float         *decoded;
} reading;

/* convert_hf_to_gguf.py writes row j d/2 + i of a head of d rows (j 0 or 1) as its row 2 i + j. */
static int64_t stored_row(const layout *l, int64_t row) {
  if (l->heads == 0) return row;
  int64_t d = l->rows / l->heads, within = row % d;
  return row - within + 2 * (within % (d / 2)) + within / (d / 2);
}

/* Bytes [first, first + n) of a row, in whole blocks that fit into the chunk. */
static qd_status read_chunk(const reading *r, int64_t row, uint64_t first, size_t n, unsigned char *to) {
  const qd_gguf_block *b = r->from->block;
  size_t block_bytes = r->size * (size_t)b->elements;
  uint64_t begin = first / block_bytes, end = (first + n + block_bytes - 1) / block_bytes;
  uint64_t at = (uint64_t)stored_row(r->from, row) * (uint64_t)(r->from->columns / b->elements) + begin;
  QD_TRY(qd_bytes_read(r->bytes, r->offset + at * (uint64_t)b->bytes, r->packed, (size_t)(end - begin) * (size_t)b->bytes));
  const void *from = r->packed;
  if (b->decode != NULL) b->decode(r->packed, (size_t)(end - begin), r->decoded), from = r->decoded;
  memcpy(to, (const unsigned char *)from + (first - begin * block_bytes), n);
  return QD_OK;
}

/* By chunks that begin with a block, but for the first one of a row. */
static qd_status read_rows(const reading *r, uint64_t offset, unsigned char *to, size_t n) {
  uint64_t row_bytes = (uint64_t)r->from->columns * r->size, block_bytes = (uint64_t)r->from->block->elements * r->size;
  while (n > 0) {
    uint64_t within = offset % row_bytes, now = CHUNK_ELEMENTS * r->size - within % block_bytes;
    now = now < row_bytes - within ? now : row_bytes - within;
    now = now < n ? now : n;
    QD_TRY(read_chunk(r, (int64_t)(offset / row_bytes), within, (size_t)now, to));
    offset += now, to += now, n -= (size_t)now;
  }
  return QD_OK;
}

/* Nothing but the file's own bytes. */
static bool is_plain(const layout *l) { return l->heads == 0 && l->block->decode == NULL; }

static qd_status read_decoded(reading *r, uint64_t offset, void *to, size_t n) {
  QD_TRY(qd_heap_new(CHUNK_ELEMENTS, sizeof *r->decoded, &r->decoded));
  qd_status status = qd_heap_new(CHUNK_ELEMENTS, r->size, &r->packed);
  if (status == QD_OK) status = read_rows(r, offset, to, n);
  qd_heap_free(r->packed);
  qd_heap_free(r->decoded);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

static qd_status read_tensor(qd_bytes *bytes, const void *state, const qd_source_tensor *t, uint64_t offset, void *to,
                             size_t n) {
  const layout *l = &((const layouts *)state)->at[t->layout];
  reading r = {.bytes = bytes, .from = l, .offset = t->offset, .size = qd_dtype_bytes(t->dtype)};
  if (is_plain(l)) QD_TRY(qd_bytes_read(bytes, t->offset + offset, to, n));
  else QD_TRY(read_decoded(&r, offset, to, n));
  return QD_OK;
}

/* ---- side files ---------------------------------------------------------------------------------------------------------- */

static qd_status make_json(const qd_gguf_files *files, const char *name, qd_json **out) {
  qd_gguf_model model;
  bool there;
  *out = NULL;
  if (strcmp(name, "config.json") == 0) {
    QD_TRY(qd_gguf_model_of(files->gguf, files->n, &model));
    return qd_gguf_config(&model, out);
  }
  QD_TRY(qd_gguf_tokenizer_is_there(files->gguf, &there));
  QD_CHECK(there, QD_ENOTFOUND, "%s holds no vocabulary", files->gguf->bytes->name);
  if (strcmp(name, "tokenizer.json") == 0) return qd_gguf_tokenizer(files->gguf, out);
  if (strcmp(name, "tokenizer_config.json") == 0) return qd_gguf_tokenizer_config(files->gguf, out);
  QD_FAIL(QD_ENOTFOUND, "%s says nothing of a %.80s", files->gguf->bytes->name, name);
}

static qd_status make_side_file(const char *path, const char *name, char **text) {
  qd_gguf_files files;
  qd_json *document = NULL;
  qd_status status = qd_gguf_files_open(path, &files);
  if (status == QD_OK) status = make_json(&files, name, &document);
  if (status == QD_OK) status = qd_json_print(document, 1, text);
  qd_json_free(document);
  qd_gguf_files_close(&files);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

const qd_source_format qd_source_gguf = {.name = "GGUF",
                                         .recognise = qd_gguf_files_recognise,
                                         .open = open_model,
                                         .read = read_tensor,
                                         .close_state = close_state,
                                         .make_side_file = make_side_file};
