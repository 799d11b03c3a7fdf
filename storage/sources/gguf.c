#include "storage/sources/gguf.h"

#include "kernels/base/heap.h"
#include "storage/entry.h"
#include "storage/sources/gguf_blocks.h"
#include "storage/utf8.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum {
  WINDOW_BYTES = 1 << 16,
  MAX_VALUES = 1 << 16,
  MAX_TEXTS = 1 << 26, /* of an array; each is passed over by itself */
  MAX_KEY_BYTES = 65535, /* gguf.md */
  MAX_NAME_BYTES = 63,   /* GGML_MAX_NAME less the NUL */
  LEAST_VALUE_BYTES = 13, LEAST_TENSOR_BYTES = 32, /* an empty key or name with what follows it */
  USUAL_ALIGNMENT = 32, MAX_ALIGNMENT = 1 << 20
};

static const char *const kind_name[QD_GGUF_KINDS] = {"u8",   "i8",   "u16",   "i16", "u32", "i32", "f32",
                                                     "bool", "text", "array", "u64", "i64", "f64"};
static const size_t kind_bytes[QD_GGUF_KINDS] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

/* ---- the header's bytes, in order ---------------------------------------------------------------------------------------- */

typedef struct cursor {
  qd_bytes      *bytes;
  uint64_t       at, first; /* first: where the window begins */
  size_t         n;
  unsigned char *window;
} cursor;

static qd_status fill_window(cursor *c) {
  uint64_t left = c->bytes->size - c->at;
  c->first = c->at;
  c->n = left < WINDOW_BYTES ? (size_t)left : WINDOW_BYTES;
  QD_TRY(qd_bytes_read(c->bytes, c->at, c->window, c->n));
  return QD_OK;
}

static qd_status skip(cursor *c, uint64_t n, const char *what) {
  QD_CHECK(n <= c->bytes->size - c->at, QD_EBADINPUT,
           "%s: %s of %" PRIu64 " bytes at byte %" PRIu64 " does not fit into the file of %" PRIu64
           ": it is cut off or damaged",
           c->bytes->name, what, n, c->at, c->bytes->size);
  c->at += n;
  return QD_OK;
}

static qd_status take(cursor *c, void *to, size_t n, const char *what) {
  uint64_t begin = c->at;
  QD_TRY(skip(c, n, what));
  if (begin < c->first || begin + n > c->first + c->n) {
    c->at = begin;
    QD_TRY(n <= WINDOW_BYTES ? fill_window(c) : QD_OK);
    c->at = begin + n;
  }
  if (n > WINDOW_BYTES) QD_TRY(qd_bytes_read(c->bytes, begin, to, n));
  else memcpy(to, c->window + (begin - c->first), n);
  return QD_OK;
}

static qd_status take_u32(cursor *c, uint32_t *out, const char *what) { return take(c, out, sizeof *out, what); }
static qd_status take_u64(cursor *c, uint64_t *out, const char *what) { return take(c, out, sizeof *out, what); }

/* A name from the heap. */
static qd_status take_name(cursor *c, const char *what, uint64_t most, char **out) {
  uint64_t n = 0, at = c->at;
  size_t bad;
  QD_TRY(take_u64(c, &n, what));
  QD_CHECK(n > 0 && n <= most, QD_EBADINPUT, "%s: %s at byte %" PRIu64 " has %" PRIu64 " bytes, 1 to %" PRIu64 " are allowed",
           c->bytes->name, what, at, n, most);
  QD_TRY(qd_heap_new((size_t)n + 1, 1, out));
  QD_TRY(take(c, *out, (size_t)n, what));
  QD_CHECK(strlen(*out) == n && qd_utf8_valid(*out, (size_t)n, &bad), QD_EBADINPUT,
           "%s: %s at byte %" PRIu64 " is no UTF-8 text", c->bytes->name, what, at);
  return QD_OK;
}

/* ---- pairs --------------------------------------------------------------------------------------------------------------- */

static qd_status take_kind(cursor *c, const char *key, qd_gguf_kind *out) {
  uint32_t kind;
  QD_TRY(take_u32(c, &kind, "the type of a value"));
  QD_CHECK(kind < QD_GGUF_KINDS, QD_EBADINPUT, "%s: the value of %.200s is of the type %" PRIu32 ", which there is not",
           c->bytes->name, key, kind);
  *out = (qd_gguf_kind)kind;
  return QD_OK;
}

static qd_status pass_text(cursor *c, uint64_t *n) {
  QD_TRY(take_u64(c, n, "the length of a text"));
  return skip(c, *n, "a text");
}

static qd_status pass_array(cursor *c, qd_gguf_value *v) {
  QD_TRY(take_kind(c, v->key, &v->item));
  QD_CHECK(v->item != QD_GGUF_ARRAY, QD_EBADINPUT, "%s: the value of %.200s is an array of arrays, which is not read",
           c->bytes->name, v->key);
  QD_TRY(take_u64(c, &v->n, "the length of an array"));
  size_t each = v->item == QD_GGUF_TEXT ? sizeof(uint64_t) : kind_bytes[v->item];
  QD_CHECK(v->n <= (c->bytes->size - c->at) / each, QD_EBADINPUT,
           "%s: the array %.200s of %" PRIu64 " elements does not fit into the file of %" PRIu64
           " bytes: it is cut off or damaged",
           c->bytes->name, v->key, v->n, c->bytes->size);
  QD_CHECK(v->item != QD_GGUF_TEXT || v->n <= MAX_TEXTS, QD_EBADINPUT,
           "%s: the array %.200s has %" PRIu64 " texts, at most %d are read", c->bytes->name, v->key, v->n, MAX_TEXTS);
  v->at = c->at;
  if (v->item != QD_GGUF_TEXT) QD_TRY(skip(c, v->n * each, "an array"));
  for (uint64_t i = 0, n; v->item == QD_GGUF_TEXT && i < v->n; i++) QD_TRY(pass_text(c, &n));
  v->bytes = c->at - v->at;
  return QD_OK;
}

static qd_status pass_value(cursor *c, qd_gguf_value *v) {
  QD_TRY(take_name(c, "a key", MAX_KEY_BYTES, &v->key));
  QD_TRY(take_kind(c, v->key, &v->kind));
  v->n = 1;
  if (v->kind == QD_GGUF_ARRAY) return pass_array(c, v);
  v->at = c->at + (v->kind == QD_GGUF_TEXT ? sizeof(uint64_t) : 0);
  if (v->kind == QD_GGUF_TEXT) return pass_text(c, &v->bytes);
  v->bytes = kind_bytes[v->kind];
  return skip(c, v->bytes, "a value");
}

/* ---- tensors ------------------------------------------------------------------------------------------------------------- */

static qd_status take_shape(cursor *c, qd_gguf_tensor *t) {
  uint32_t rank;
  int64_t left = INT64_MAX / 8;
  QD_TRY(take_u32(c, &rank, "a tensor's description"));
  QD_CHECK(rank >= 1 && rank <= QD_GGUF_RANK, QD_EBADINPUT, "%s: the tensor %s has %" PRIu32 " dimensions, 1 to %d are allowed",
           c->bytes->name, t->name, rank, QD_GGUF_RANK);
  t->rank = (int)rank;
  for (int i = 0; i < t->rank; i++) {
    uint64_t n;
    QD_TRY(take_u64(c, &n, "a tensor's description"));
    QD_CHECK(n >= 1 && n <= (uint64_t)left, QD_EBADINPUT,
             "%s: dimension %d of the tensor %s is %" PRIu64 ": there is no such tensor on any machine", c->bytes->name, i,
             t->name, n);
    t->dim[i] = (int64_t)n, left /= (int64_t)n;
  }
  return QD_OK;
}

static qd_status measure(const cursor *c, qd_gguf_tensor *t) {
  const qd_gguf_block *block = qd_gguf_block_of(t->type);
  const char *name = qd_gguf_type_name(t->type);
  char number[32];
  snprintf(number, sizeof number, "number %" PRIu32, t->type);
  QD_CHECK(block != NULL, QD_EUNSUPPORTED, "%s: the tensor %s is of the type %s; %s are read", c->bytes->name, t->name,
           name ? name : number, qd_gguf_type_names());
  QD_CHECK(t->dim[0] % block->elements == 0, QD_EBADINPUT,
           "%s: rows of the tensor %s have %" PRId64 " elements, no multiple of a block's %d (%s)", c->bytes->name, t->name,
           t->dim[0], block->elements, name);
  t->bytes = (uint64_t)(t->dim[0] / block->elements) * (uint64_t)block->bytes;
  for (int i = 1; i < t->rank; i++) t->bytes *= (uint64_t)t->dim[i];
  return QD_OK;
}

static qd_status take_tensor(cursor *c, qd_gguf_tensor *t) {
  QD_TRY(take_name(c, "a tensor's name", MAX_NAME_BYTES, &t->name));
  QD_TRY(take_shape(c, t));
  QD_TRY(take_u32(c, &t->type, "a tensor's description"));
  QD_TRY(take_u64(c, &t->offset, "a tensor's description"));
  return measure(c, t);
}

/* As ggml has it: one behind the other in the order of the header, each filled up to the alignment. */
static qd_status place_tensors(const qd_gguf *gguf, uint64_t header_bytes) {
  int64_t alignment;
  QD_TRY(qd_gguf_integer(gguf, "general.alignment", 1, MAX_ALIGNMENT, USUAL_ALIGNMENT, &alignment));
  QD_CHECK((alignment & (alignment - 1)) == 0, QD_EBADINPUT, "%s: general.alignment %" PRId64 " is no power of two",
           gguf->bytes->name, alignment);
  uint64_t fill = (uint64_t)alignment - 1, begin = (header_bytes + fill) & ~fill, expected = 0;
  for (size_t i = 0; i < gguf->n_tensors; i++) {
    qd_gguf_tensor *t = &gguf->tensor[i];
    QD_CHECK(t->offset == expected, QD_EBADINPUT,
             "%s: the tensor %s begins at byte %" PRIu64 " of the data, where %" PRIu64
             " is expected: tensors overlap or leave gaps",
             gguf->bytes->name, t->name, t->offset, expected);
    t->offset += begin;
    QD_CHECK(t->offset <= gguf->bytes->size && t->bytes <= gguf->bytes->size - t->offset, QD_EBADINPUT,
             "%s: the tensor %s of %" PRIu64 " bytes at byte %" PRIu64 " does not fit into the file of %" PRIu64
             ": it is cut off or damaged",
             gguf->bytes->name, t->name, t->bytes, t->offset, gguf->bytes->size);
    expected += (t->bytes + fill) & ~fill;
  }
  return QD_OK;
}

/* ---- the whole header ---------------------------------------------------------------------------------------------------- */

static qd_status check_start(cursor *c, uint32_t *version) {
  char magic[4];
  QD_TRY(take(c, magic, sizeof magic, "the mark \"GGUF\""));
  QD_CHECK(memcmp(magic, "GGUF", sizeof magic) == 0, QD_EBADINPUT, "%s does not begin with \"GGUF\": it is no GGUF file",
           c->bytes->name);
  QD_TRY(take_u32(c, version, "the version"));
  QD_CHECK(*version == 0 || (*version & 0xffff) != 0, QD_EUNSUPPORTED,
           "%s is a GGUF file of a big-endian machine, which is not read", c->bytes->name);
  QD_CHECK(*version == 2 || *version == 3, QD_EUNSUPPORTED, "%s is of version %" PRIu32 " of GGUF, 2 and 3 are read",
           c->bytes->name, *version);
  return QD_OK;
}

static qd_status take_count(cursor *c, const char *what, uint64_t each, uint64_t most, size_t *out) {
  uint64_t n;
  QD_TRY(take_u64(c, &n, what));
  QD_CHECK(n <= most && n <= c->bytes->size / each, QD_EBADINPUT,
           "%s: %s is %" PRIu64 ", more than a file of %" PRIu64 " bytes can hold: it is cut off or damaged", c->bytes->name,
           what, n, c->bytes->size);
  *out = (size_t)n;
  return QD_OK;
}

static qd_status check_twice(const qd_gguf *gguf) {
  size_t most = gguf->n_values > gguf->n_tensors ? gguf->n_values : gguf->n_tensors;
  const char **names, *twice;
  QD_TRY(qd_heap_new(most, sizeof *names, &names));
  for (size_t i = 0; i < gguf->n_values; i++) names[i] = gguf->value[i].key;
  twice = qd_find_twice(names, gguf->n_values);
  bool is_key = twice != NULL;
  for (size_t i = 0; !is_key && i < gguf->n_tensors; i++) names[i] = gguf->tensor[i].name;
  if (!is_key) twice = qd_find_twice(names, gguf->n_tensors);
  qd_heap_free(names);
  QD_CHECK(twice == NULL, QD_EBADINPUT, "%s: the %s %.200s is twice there", gguf->bytes->name, is_key ? "key" : "tensor",
           twice);
  return QD_OK;
}

static qd_status read_all(cursor *c, qd_gguf *out) {
  uint32_t version;
  size_t n_values = 0, n_tensors = 0;
  QD_TRY(check_start(c, &version));
  QD_TRY(take_count(c, "the number of tensors", LEAST_TENSOR_BYTES, UINT64_MAX, &n_tensors));
  QD_TRY(take_count(c, "the number of keys", LEAST_VALUE_BYTES, MAX_VALUES, &n_values));
  QD_TRY(qd_heap_new(n_values, sizeof *out->value, &out->value));
  for (; out->n_values < n_values; out->n_values++) {
    qd_status status = pass_value(c, &out->value[out->n_values]);
    if (status != QD_OK) out->n_values++; /* its key may be there */
    QD_TRY(status);
  }
  QD_TRY(qd_heap_new(n_tensors, sizeof *out->tensor, &out->tensor));
  for (; out->n_tensors < n_tensors; out->n_tensors++) {
    qd_status status = take_tensor(c, &out->tensor[out->n_tensors]);
    if (status != QD_OK) out->n_tensors++;
    QD_TRY(status);
  }
  QD_TRY(check_twice(out));
  return place_tensors(out, c->at);
}

qd_status qd_gguf_read(qd_bytes *bytes, qd_gguf *out) {
  *out = (qd_gguf){.bytes = bytes};
  cursor c = {.bytes = bytes};
  QD_TRY(qd_heap_new(WINDOW_BYTES, 1, &c.window));
  qd_status status = read_all(&c, out);
  qd_heap_free(c.window);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

void qd_gguf_release(qd_gguf *gguf) {
  for (size_t i = 0; i < gguf->n_values; i++) qd_heap_free(gguf->value[i].key);
  for (size_t i = 0; i < gguf->n_tensors; i++) qd_heap_free(gguf->tensor[i].name);
  qd_heap_free(gguf->value);
  qd_heap_free(gguf->tensor);
  *gguf = (qd_gguf){0};
}

/* ---- asking -------------------------------------------------------------------------------------------------------------- */

const qd_gguf_value *qd_gguf_find(const qd_gguf *gguf, const char *key) {
  for (size_t i = 0; i < gguf->n_values; i++)
    if (strcmp(gguf->value[i].key, key) == 0) return &gguf->value[i];
  return NULL;
}

const qd_gguf_tensor *qd_gguf_find_tensor(const qd_gguf *gguf, const char *name) {
  for (size_t i = 0; i < gguf->n_tensors; i++)
    if (strcmp(gguf->tensor[i].name, name) == 0) return &gguf->tensor[i];
  return NULL;
}

static qd_status refuse_kind(const qd_gguf *gguf, const qd_gguf_value *v, const char *wanted) {
  QD_FAIL(QD_EBADINPUT, "%s: the value of %.200s is of the type %s, %s is expected", gguf->bytes->name, v->key,
          kind_name[v->kind], wanted);
}

typedef union scalar {
  uint8_t u8; int8_t i8; uint16_t u16; int16_t i16; uint32_t u32; int32_t i32; float f32; uint64_t u64; int64_t i64; double f64;
} scalar;

static qd_status read_scalar(const qd_gguf *gguf, const qd_gguf_value *v, scalar *out) {
  *out = (scalar){.u64 = 0};
  return qd_bytes_read(gguf->bytes, v->at, out, (size_t)v->bytes);
}

/* What does not fit becomes INT64_MAX, which no caller allows. */
static bool whole(qd_gguf_kind kind, scalar s, int64_t *out) {
  switch (kind) {
    case QD_GGUF_U8: *out = s.u8; return true;
    case QD_GGUF_I8: *out = s.i8; return true;
    case QD_GGUF_U16: *out = s.u16; return true;
    case QD_GGUF_I16: *out = s.i16; return true;
    case QD_GGUF_U32: *out = s.u32; return true;
    case QD_GGUF_I32: *out = s.i32; return true;
    case QD_GGUF_U64: *out = s.u64 > INT64_MAX ? INT64_MAX : (int64_t)s.u64; return true;
    case QD_GGUF_I64: *out = s.i64; return true;
    default: return false;
  }
}

qd_status qd_gguf_integer(const qd_gguf *gguf, const char *key, int64_t low, int64_t high, int64_t otherwise, int64_t *out) {
  const qd_gguf_value *v = qd_gguf_find(gguf, key);
  scalar s;
  *out = otherwise;
  if (v == NULL) return QD_OK;
  if (v->kind == QD_GGUF_TEXT || v->kind == QD_GGUF_ARRAY) return refuse_kind(gguf, v, "a whole number");
  QD_TRY(read_scalar(gguf, v, &s));
  if (!whole(v->kind, s, out)) return refuse_kind(gguf, v, "a whole number");
  QD_CHECK(*out >= low && *out <= high, QD_EBADINPUT, "%s: %s is %" PRId64 ", %" PRId64 " to %" PRId64 " is expected",
           gguf->bytes->name, key, *out, low, high);
  return QD_OK;
}

/* The shortest decimal that fp32 rounds to the same number: what the configuration said that the file was made from. */
static double as_written(float value) {
  char text[32];
  double wide = (double)value;
  for (int digits = 6; digits <= 9; digits++) {
    snprintf(text, sizeof text, "%.*g", digits, wide);
    double shorter;
    if (sscanf(text, "%lf", &shorter) == 1 && (float)shorter == value) return shorter;
  }
  return wide;
}

qd_status qd_gguf_number(const qd_gguf *gguf, const char *key, double otherwise, double *out) {
  const qd_gguf_value *v = qd_gguf_find(gguf, key);
  scalar s;
  *out = otherwise;
  if (v == NULL) return QD_OK;
  if (v->kind != QD_GGUF_F32 && v->kind != QD_GGUF_F64) return refuse_kind(gguf, v, "a number");
  QD_TRY(read_scalar(gguf, v, &s));
  *out = v->kind == QD_GGUF_F32 ? as_written(s.f32) : s.f64;
  QD_CHECK(isfinite(*out), QD_EBADINPUT, "%s: %s is NaN or infinite", gguf->bytes->name, key);
  return QD_OK;
}

qd_status qd_gguf_bool(const qd_gguf *gguf, const char *key, bool otherwise, bool *out) {
  const qd_gguf_value *v = qd_gguf_find(gguf, key);
  scalar s;
  *out = otherwise;
  if (v == NULL) return QD_OK;
  if (v->kind != QD_GGUF_BOOL) return refuse_kind(gguf, v, "true or false");
  QD_TRY(read_scalar(gguf, v, &s));
  *out = s.u8 != 0;
  return QD_OK;
}

static qd_status check_text(const qd_gguf *gguf, const char *key, const char *text, size_t n) {
  size_t bad;
  QD_CHECK(strlen(text) == n && qd_utf8_valid(text, n, &bad), QD_EBADINPUT, "%s: a text of %.200s is no UTF-8 text",
           gguf->bytes->name, key);
  return QD_OK;
}

qd_status qd_gguf_text(const qd_gguf *gguf, const char *key, char **out) {
  const qd_gguf_value *v = qd_gguf_find(gguf, key);
  *out = NULL;
  if (v == NULL) return QD_OK;
  if (v->kind != QD_GGUF_TEXT) return refuse_kind(gguf, v, "a text");
  QD_TRY(qd_heap_new((size_t)v->bytes + 1, 1, out));
  qd_status status = qd_bytes_read(gguf->bytes, v->at, *out, (size_t)v->bytes);
  if (status == QD_OK) status = check_text(gguf, key, *out, (size_t)v->bytes);
  if (status == QD_OK) return QD_OK;
  qd_heap_free(*out);
  *out = NULL;
  return qd_forward(status, __FILE__, __LINE__);
}

/* ---- arrays -------------------------------------------------------------------------------------------------------------- */

static qd_status find_array(const qd_gguf *gguf, const char *key, qd_gguf_kind item, const qd_gguf_value **out) {
  *out = qd_gguf_find(gguf, key);
  if (*out == NULL) return QD_OK;
  bool fits = (*out)->kind == QD_GGUF_ARRAY && (*out)->item == item;
  QD_CHECK(fits, QD_EBADINPUT, "%s: the value of %.200s is no array of the type %s", gguf->bytes->name, key, kind_name[item]);
  return QD_OK;
}

/* Where a text ends a NUL takes the place of the next one's length, which is known by then. */
static qd_status part_texts(const qd_gguf *gguf, const qd_gguf_value *v, qd_gguf_texts *out) {
  char *at = out->all, *end = at + v->bytes;
  uint64_t next = 0;
  for (size_t i = 0; i < out->n; i++) {
    if (i == 0) memcpy(&next, at, sizeof next);
    at += sizeof next;
    QD_CHECK(next <= (uint64_t)(end - at) && (i + 1 == out->n || (uint64_t)(end - at) - next >= sizeof next), QD_EBADINPUT,
             "%s changed while it was read", gguf->bytes->name);
    out->text[i] = at, out->bytes[i] = (size_t)next;
    at += next;
    if (i + 1 < out->n) memcpy(&next, at, sizeof next);
    *at = '\0';
    QD_TRY(check_text(gguf, v->key, out->text[i], out->bytes[i]));
  }
  return QD_OK;
}

qd_status qd_gguf_read_texts(const qd_gguf *gguf, const char *key, qd_gguf_texts *out) {
  const qd_gguf_value *v;
  *out = (qd_gguf_texts){0};
  QD_TRY(find_array(gguf, key, QD_GGUF_TEXT, &v));
  if (v == NULL || v->n == 0) return QD_OK;
  out->n = (size_t)v->n;
  qd_status status = qd_heap_new((size_t)v->bytes + 1, 1, &out->all);
  if (status == QD_OK) status = qd_heap_new(out->n, sizeof *out->text, &out->text);
  if (status == QD_OK) status = qd_heap_new(out->n, sizeof *out->bytes, &out->bytes);
  if (status == QD_OK) status = qd_bytes_read(gguf->bytes, v->at, out->all, (size_t)v->bytes);
  if (status == QD_OK) status = part_texts(gguf, v, out);
  if (status == QD_OK) return QD_OK;
  qd_gguf_texts_release(out);
  return qd_forward(status, __FILE__, __LINE__);
}

void qd_gguf_texts_release(qd_gguf_texts *texts) {
  qd_heap_free(texts->all);
  qd_heap_free(texts->text);
  qd_heap_free(texts->bytes);
  *texts = (qd_gguf_texts){0};
}

static qd_status read_array(const qd_gguf *gguf, const char *key, qd_gguf_kind item, void **out, size_t *n) {
  const qd_gguf_value *v;
  *out = NULL, *n = 0;
  QD_TRY(find_array(gguf, key, item, &v));
  if (v == NULL) return QD_OK;
  QD_TRY(qd_heap_new((size_t)v->n, kind_bytes[item], out));
  qd_status status = qd_bytes_read(gguf->bytes, v->at, *out, (size_t)v->bytes);
  if (status == QD_OK) {
    *n = (size_t)v->n;
    return QD_OK;
  }
  qd_heap_free(*out);
  *out = NULL;
  return qd_forward(status, __FILE__, __LINE__);
}

qd_status qd_gguf_read_floats(const qd_gguf *gguf, const char *key, float **out, size_t *n) {
  void *data;
  QD_TRY(read_array(gguf, key, QD_GGUF_F32, &data, n));
  *out = data;
  return QD_OK;
}

qd_status qd_gguf_read_ints(const qd_gguf *gguf, const char *key, int32_t **out, size_t *n) {
  void *data;
  QD_TRY(read_array(gguf, key, QD_GGUF_I32, &data, n));
  *out = data;
  return QD_OK;
}
