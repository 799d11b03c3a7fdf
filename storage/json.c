#define _POSIX_C_SOURCE 200809L
#include "storage/json.h"

#include "kernels/base/heap.h"
#include "storage/bytes.h"

#include <jansson.h>
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

enum { MAX_NESTING = 64, INT64_DIGITS = 19, TEXT_SHOWN = 60 };

/* A qd_json is a json_t.  jansson's readers want a non-const pointer and do not write through it. */
static json_t *foreign(const qd_json *value) {
  union {
    const qd_json *in;
    json_t *out;
  } both = {.in = value};
  return both.out;
}

static qd_json *ours(json_t *value) { return (qd_json *)value; }

/* ---- parsing ---- */

typedef struct scan {
  const char *text;
  size_t n;
  int deepest, deepest_line;
  size_t huge; /* whole numbers that int64 cannot hold */
} scan;

static bool is_digit(char c) { return c >= '0' && c <= '9'; }

static size_t string_end(const char *text, size_t n, size_t at) {
  for (at++; at < n && text[at] != '"'; at++)
    if (text[at] == '\\') at++;
  return at < n ? at + 1 : n;
}

static size_t number_end(const char *text, size_t n, size_t at) {
  while (at < n && (is_digit(text[at]) || strchr("+-.eE", text[at]) != NULL) && text[at] != '\0') at++;
  return at;
}

/* `n` characters of a number: whole and outside int64? */
static bool is_huge(const char *number, size_t n) {
  bool negative = n > 0 && number[0] == '-';
  const char *limit = negative ? "9223372036854775808" : "9223372036854775807";
  number += negative, n -= negative;
  if (n < INT64_DIGITS || number[0] == '0') return false;
  for (size_t i = 0; i < n; i++)
    if (!is_digit(number[i])) return false;
  return n > INT64_DIGITS || memcmp(number, limit, INT64_DIGITS) > 0;
}

/* Nesting and huge numbers, without a recursion.  Text that is no JSON makes the counts wrong, and jansson refuses it. */
static void scan_text(scan *s) {
  int depth = 0, line = 1;
  for (size_t i = 0; i < s->n;) {
    char c = s->text[i];
    if (c == '"') {
      i = string_end(s->text, s->n, i);
    } else if (is_digit(c) || c == '-') {
      size_t end = number_end(s->text, s->n, i + 1);
      s->huge += is_huge(s->text + i, end - i);
      i = end;
    } else {
      if (c == '\n') line++;
      if (c == '[' || c == '{') depth++;
      if (c == ']' || c == '}') depth--;
      if (depth > s->deepest) s->deepest = depth, s->deepest_line = line;
      i++;
    }
  }
}

/* jansson refuses whole numbers beyond int64, and Hugging Face's tokenizers say "no limit" by 1000000000000000019884624838656.
 * A copy of the text in which these end in ".0" makes them reals. */
static qd_status widen_huge(const scan *s, char **text, size_t *n) {
  QD_TRY(qd_heap_new(s->n + 2 * s->huge + 1, 1, text));
  size_t out = 0;
  for (size_t i = 0; i < s->n;) {
    char c = s->text[i];
    bool number = is_digit(c) || c == '-';
    size_t end = c == '"' ? string_end(s->text, s->n, i) : number ? number_end(s->text, s->n, i + 1) : i + 1;
    memcpy(*text + out, s->text + i, end - i);
    out += end - i;
    if (number && is_huge(s->text + i, end - i)) {
      memcpy(*text + out, ".0", 2);
      out += 2;
    }
    i = end;
  }
  *n = out;
  return QD_OK;
}

static qd_status load(const char *text, size_t n, const char *what, qd_json **out) {
  json_error_t error;
  json_t *root = json_loadb(text, n, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
  bool at_a_line = root == NULL && error.line > 0;
  QD_CHECK(n > 0, QD_EBADINPUT, "%s, line 1: empty, no JSON", what);
  QD_CHECK(n < 3 || memcmp(text, "\xef\xbb\xbf", 3) != 0, QD_EBADINPUT,
           "%s, line 1: begins with a byte order mark, which is no JSON", what);
  QD_CHECK(root != NULL || !at_a_line, QD_EBADINPUT, "%s, line %d, column %d: %s", what, error.line, error.column, error.text);
  QD_CHECK(root != NULL, QD_EBADINPUT, "%s: %s", what, error.text);
  *out = ours(root);
  return QD_OK;
}

qd_status qd_json_parse(const char *text, size_t n, const char *what, qd_json **out) {
  *out = NULL;
  scan s = {.text = text, .n = n};
  scan_text(&s);
  QD_CHECK(s.deepest <= MAX_NESTING, QD_EBADINPUT, "%s, line %d: objects and arrays are nested deeper than %d", what,
           s.deepest_line, MAX_NESTING);
  if (s.huge == 0) {
    QD_TRY(load(text, n, what, out));
    return QD_OK;
  }
  char *widened = NULL;
  size_t widened_n = 0;
  QD_TRY(widen_huge(&s, &widened, &widened_n));
  qd_status status = load(widened, widened_n, what, out);
  qd_heap_free(widened);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

qd_status qd_json_read(const char *path, size_t max_bytes, qd_json **out) {
  *out = NULL;
  char *text = NULL;
  size_t n = 0;
  QD_TRY(qd_file_read(path, max_bytes, &text, &n));
  qd_status status = qd_json_parse(text, n, path, out);
  qd_heap_free(text);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

/* ---- members by index ---- */

/* jansson walks an object by iterator only.  Each thread remembers where its last few walks stand, so that going through all
 * members by index costs one step each.  An iterator lives as long as its member; whatever frees members counts `generation`
 * up, which makes all remembered ones void. */
typedef struct cursor {
  const json_t *object;
  size_t index;
  void *iterator;
  unsigned long generation;
} cursor;

enum { CURSORS = 8 };

static atomic_ulong generation = 1;

static void release(json_t *value) {
  atomic_fetch_add(&generation, 1);
  json_decref(value);
}

void qd_json_free(qd_json *root) {
  if (root != NULL) release(foreign(root));
}

/* The thread's cursor of this object, moved to the front; the least recently used one gives way to a new object. */
static cursor *cursor_of(const json_t *object) {
  static _Thread_local cursor kept[CURSORS];
  int i = 0;
  while (i < CURSORS - 1 && kept[i].object != object) i++;
  cursor found = kept[i].object == object ? kept[i] : (cursor){.object = object};
  memmove(kept + 1, kept, (size_t)i * sizeof *kept);
  kept[0] = found;
  return &kept[0];
}

static void *iterator_at(json_t *object, size_t index) {
  cursor *c = cursor_of(object);
  unsigned long now = atomic_load(&generation);
  if (c->generation != now || c->iterator == NULL || c->index > index)
    *c = (cursor){.object = object, .index = 0, .iterator = json_object_iter(object), .generation = now};
  for (; c->index < index && c->iterator != NULL; c->index++) c->iterator = json_object_iter_next(object, c->iterator);
  return c->iterator;
}

bool qd_json_member(const qd_json *object, size_t index, const char **key, const qd_json **value) {
  json_t *inner = foreign(object);
  if (!json_is_object(inner) || index >= json_object_size(inner)) return false;
  void *iterator = iterator_at(inner, index);
  QD_ASSERT(iterator != NULL);
  json_t *found = json_object_iter_value(iterator);
  *key = json_object_iter_key(iterator);
  *value = json_is_null(found) ? NULL : ours(found);
  return true;
}

/* ---- reading ---- */

const qd_json *qd_json_get(const qd_json *object, const char *key) {
  json_t *value = json_object_get(foreign(object), key);
  return json_is_null(value) ? NULL : ours(value);
}

bool qd_json_is_object(const qd_json *value) { return json_is_object(foreign(value)); }
bool qd_json_is_array(const qd_json *value) { return json_is_array(foreign(value)); }
bool qd_json_is_text(const qd_json *value) { return json_is_string(foreign(value)); }
bool qd_json_is_number(const qd_json *value) { return json_is_number(foreign(value)); }
bool qd_json_is_true(const qd_json *value) { return json_is_true(foreign(value)); }
bool qd_json_is_integer(const qd_json *value) { return json_is_integer(foreign(value)); }

size_t qd_json_length(const qd_json *value) {
  json_t *inner = foreign(value);
  return json_is_array(inner) ? json_array_size(inner) : json_object_size(inner);
}

const qd_json *qd_json_at(const qd_json *array, size_t index) {
  json_t *value = json_array_get(foreign(array), index);
  return json_is_null(value) ? NULL : ours(value);
}

const char *qd_json_text(const qd_json *value) { return json_string_value(foreign(value)); }
size_t qd_json_text_bytes(const qd_json *value) { return json_string_length(foreign(value)); }
double qd_json_number(const qd_json *value) { return json_number_value(foreign(value)); }
int64_t qd_json_integer(const qd_json *value) { return (int64_t)json_integer_value(foreign(value)); }

/* "the text "llama"", "the number 1.5", "an array" ...: what was there, for messages. */
typedef struct description {
  char text[128];
} description;

static description describe(const qd_json *value) {
  description d = {"nothing"};
  json_t *inner = foreign(value);
  if (json_is_object(inner)) strcpy(d.text, "an object");
  if (json_is_array(inner)) strcpy(d.text, "an array");
  if (json_is_boolean(inner)) strcpy(d.text, json_is_true(inner) ? "true" : "false");
  if (json_is_real(inner)) snprintf(d.text, sizeof d.text, "%.17g", json_real_value(inner));
  if (json_is_integer(inner)) snprintf(d.text, sizeof d.text, "%" PRId64, (int64_t)json_integer_value(inner));
  if (json_is_string(inner)) {
    bool longer = json_string_length(inner) > TEXT_SHOWN;
    snprintf(d.text, sizeof d.text, "the text \"%.*s%s\"", TEXT_SHOWN, json_string_value(inner), longer ? "..." : "");
  }
  return d;
}

static qd_status find(const qd_json *object, const char *what, const char *key, const qd_json **value) {
  *value = NULL;
  QD_CHECK(qd_json_is_object(object), QD_EBADINPUT, "%s: an object with \"%s\" is expected, found %s", what, key,
           describe(object).text);
  *value = qd_json_get(object, key);
  return QD_OK;
}

/* "from 1 to 8", "of at least 1", or nothing where int64 is the limit. */
static description integer_range(int64_t low, int64_t high) {
  description d = {""};
  if (low > INT64_MIN && high < INT64_MAX)
    snprintf(d.text, sizeof d.text, " from %" PRId64 " to %" PRId64, low, high);
  else if (low > INT64_MIN)
    snprintf(d.text, sizeof d.text, " of at least %" PRId64, low);
  else if (high < INT64_MAX)
    snprintf(d.text, sizeof d.text, " of at most %" PRId64, high);
  return d;
}

qd_status qd_json_need_integer(const qd_json *object, const char *what, const char *key, int64_t low, int64_t high,
                               int64_t *out) {
  const qd_json *value;
  QD_TRY(find(object, what, key, &value));
  QD_CHECK(value != NULL, QD_EBADINPUT, "%s: \"%s\" is missing or null", what, key);
  int64_t number = qd_json_integer(value);
  QD_CHECK(qd_json_is_integer(value) && number >= low && number <= high, QD_EBADINPUT,
           "%s: \"%s\" must be a whole number%s, it is %s", what, key, integer_range(low, high).text, describe(value).text);
  *out = number;
  return QD_OK;
}

qd_status qd_json_take_integer(const qd_json *object, const char *what, const char *key, int64_t low, int64_t high,
                               int64_t otherwise, int64_t *out) {
  const qd_json *value;
  QD_TRY(find(object, what, key, &value));
  *out = otherwise;
  if (value != NULL) QD_TRY(qd_json_need_integer(object, what, key, low, high, out));
  return QD_OK;
}

qd_status qd_json_take_number(const qd_json *object, const char *what, const char *key, double low, double high,
                              double otherwise, double *out) {
  const qd_json *value;
  QD_TRY(find(object, what, key, &value));
  *out = otherwise;
  if (value == NULL) return QD_OK;
  double number = qd_json_number(value);
  QD_CHECK(qd_json_is_number(value) && number >= low && number <= high, QD_EBADINPUT,
           "%s: \"%s\" must be a number from %g to %g, it is %s", what, key, low, high, describe(value).text);
  *out = number;
  return QD_OK;
}

qd_status qd_json_take_bool(const qd_json *object, const char *what, const char *key, bool otherwise, bool *out) {
  const qd_json *value;
  QD_TRY(find(object, what, key, &value));
  *out = otherwise;
  if (value == NULL) return QD_OK;
  json_t *inner = foreign(value);
  QD_CHECK(json_is_boolean(inner), QD_EBADINPUT, "%s: \"%s\" must be true or false, it is %s", what, key, describe(value).text);
  *out = json_is_true(inner);
  return QD_OK;
}

qd_status qd_json_need_text(const qd_json *object, const char *what, const char *key, const char **out) {
  const qd_json *value;
  QD_TRY(find(object, what, key, &value));
  QD_CHECK(value != NULL, QD_EBADINPUT, "%s: \"%s\" is missing or null", what, key);
  QD_CHECK(qd_json_is_text(value), QD_EBADINPUT, "%s: \"%s\" must be a text, it is %s", what, key, describe(value).text);
  const char *text = qd_json_text(value);
  QD_CHECK(strlen(text) == qd_json_text_bytes(value), QD_EBADINPUT, "%s: \"%s\" holds a NUL character", what, key);
  *out = text;
  return QD_OK;
}

/* ---- making ---- */

/* These have no status: the documents made are small, and without memory for them nothing can go on. */
static json_t *made(json_t *value) {
  QD_ASSERT(value != NULL);
  return value;
}

/* Bytes of one UTF-8 character at `text`, 0 if there is none (RFC 3629: no surrogates, no overlong forms, up to U+10FFFF). */
static size_t character_bytes(const unsigned char *text) {
  unsigned char first = text[0], low = 0x80, high = 0xbf;
  if (first < 0x80) return 1;
  size_t n = first >= 0xc2 && first <= 0xdf ? 2 : (first & 0xf0) == 0xe0 ? 3 : first >= 0xf0 && first <= 0xf4 ? 4 : 0;
  if (first == 0xe0) low = 0xa0;
  if (first == 0xed) high = 0x9f;
  if (first == 0xf0) low = 0x90;
  if (first == 0xf4) high = 0x8f;
  for (size_t i = 1; i < n; i++, low = 0x80, high = 0xbf)
    if (text[i] < low || text[i] > high) return 0;
  return n;
}

/* JSON is UTF-8, and a path need not be: U+FFFD stands for each byte that is none. */
static json_t *repaired_text(const char *text) {
  char *clean = NULL;
  size_t out = 0;
  QD_ASSERT(qd_heap_new(3 * strlen(text) + 1, 1, &clean) == QD_OK);
  for (const char *next = text; *next != '\0';) {
    unsigned char window[4] = {0};
    memcpy(window, next, strnlen(next, sizeof window));
    size_t n = character_bytes(window);
    memcpy(clean + out, n > 0 ? next : "\xef\xbf\xbd", n > 0 ? n : 3);
    out += n > 0 ? n : 3;
    next += n > 0 ? n : 1;
  }
  json_t *value = json_string(clean);
  qd_heap_free(clean);
  return value;
}

static json_t *make_text(const char *text) {
  if (text == NULL) return json_null();
  json_t *value = json_string(text);
  return made(value != NULL ? value : repaired_text(text));
}

static json_t *make_number(double value) { return isfinite(value) ? made(json_real(value)) : json_null(); }

static void set(qd_json *object, const char *key, json_t *value) {
  if (json_object_get(foreign(object), key) != NULL) atomic_fetch_add(&generation, 1);
  QD_ASSERT(json_object_set_new(foreign(object), key, value) == 0);
}

static void append(qd_json *array, json_t *value) { QD_ASSERT(json_array_append_new(foreign(array), value) == 0); }

qd_json *qd_json_object(void) { return ours(made(json_object())); }
qd_json *qd_json_array(void) { return ours(made(json_array())); }
qd_json *qd_json_copy(const qd_json *value) { return value == NULL ? NULL : ours(made(json_deep_copy(foreign(value)))); }

static json_t *handed_over(qd_json *value) { return value != NULL ? foreign(value) : json_null(); }

void qd_json_set(qd_json *object, const char *key, qd_json *value) { set(object, key, handed_over(value)); }
void qd_json_set_text(qd_json *object, const char *key, const char *text) { set(object, key, make_text(text)); }
void qd_json_set_integer(qd_json *object, const char *key, int64_t value) { set(object, key, made(json_integer(value))); }
void qd_json_set_number(qd_json *object, const char *key, double value) { set(object, key, make_number(value)); }
void qd_json_set_bool(qd_json *object, const char *key, bool value) { set(object, key, json_boolean(value)); }

void qd_json_append(qd_json *array, qd_json *value) { append(array, handed_over(value)); }
void qd_json_append_integer(qd_json *array, int64_t value) { append(array, made(json_integer(value))); }
void qd_json_append_number(qd_json *array, double value) { append(array, make_number(value)); }
void qd_json_append_text(qd_json *array, const char *text) { append(array, make_text(text)); }

bool qd_json_equal(const qd_json *a, const qd_json *b) { return a == b || json_equal(foreign(a), foreign(b)) != 0; }

/* ---- printing ---- */

typedef struct sink {
  char *text;
  size_t used, capacity;
  qd_status status;
} sink;

static int sink_add(const char *bytes, size_t n, void *data) {
  sink *to = data;
  to->status = qd_heap_grow(&to->text, &to->capacity, to->used + n + 1, 1);
  if (to->status != QD_OK) return -1;
  memcpy(to->text + to->used, bytes, n);
  to->used += n;
  to->text[to->used] = '\0';
  return 0;
}

qd_status qd_json_print(const qd_json *value, int indent, char **text) {
  *text = NULL;
  sink to = {0};
  json_t *inner = value != NULL ? foreign(value) : json_null();
  size_t flags = JSON_ENCODE_ANY | JSON_REAL_PRECISION(17) | JSON_INDENT((size_t)(indent < 0 ? 0 : indent > 31 ? 31 : indent));
  int rc = json_dump_callback(inner, sink_add, &to, flags);
  if (to.status == QD_OK && rc != 0) to.status = qd_fail(QD_ENOMEM, __FILE__, __LINE__, "no memory left to print JSON");
  if (to.status != QD_OK) {
    qd_heap_free(to.text);
    return qd_forward(to.status, __FILE__, __LINE__);
  }
  *text = to.text;
  return QD_OK;
}

const char *qd_json_library_version(void) { return JANSSON_VERSION; }
