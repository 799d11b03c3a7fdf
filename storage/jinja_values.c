/* Values as Python has them: truth, equality, text, JSON. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/heap.h"
#include "storage/jinja_parts.h"
#include "storage/utf8.h"

enum { OUTPUT_LIMIT = 64 << 20 };

const char *qd_j_kind_name(qd_jvalue value) {
  static const char *const names[] = {"undefined", "None", "bool", "int", "float", "str", "list", "dict", "namespace", "macro"};
  return names[value.kind];
}

bool qd_j_truth(qd_jvalue v) {
  switch (v.kind) {
    case QD_J_UNDEFINED:
    case QD_J_NONE: return false;
    case QD_J_BOOL: return v.truth;
    case QD_J_INTEGER: return v.integer != 0;
    case QD_J_FLOAT: return v.number != 0;
    case QD_J_TEXT: return v.text.n > 0;
    case QD_J_LIST: return v.list->n > 0;
    case QD_J_DICT: return v.dict->n > 0;
    case QD_J_NAMESPACE:
    case QD_J_MACRO: break;
  }
  return true;
}

static bool same_text(qd_jtext a, qd_jtext b) { return a.n == b.n && (a.n == 0 || memcmp(a.at, b.at, a.n) == 0); }

static qd_status equal_lists(qd_jrender *r, const qd_jlist *a, const qd_jlist *b, bool *out) {
  *out = a->n == b->n;
  for (size_t i = 0; *out && i < a->n; i++) QD_TRY(qd_j_equal(r, a->at[i], b->at[i], out));
  return QD_OK;
}

static qd_status equal_dicts(qd_jrender *r, const qd_jdict *a, const qd_jdict *b, bool *out) {
  *out = a->n == b->n;
  for (size_t i = 0; *out && i < a->n; i++) {
    const qd_jvalue *other;
    QD_TRY(qd_j_find(r, b, a->at[i].key, &other));
    *out = other != NULL;
    if (*out) QD_TRY(qd_j_equal(r, a->at[i].value, *other, out));
  }
  return QD_OK;
}

/* Containers come from JSON (64 deep at most) or from literals; depth is counted all the same. */
qd_status qd_j_equal(qd_jrender *r, qd_jvalue a, qd_jvalue b, bool *out) {
  QD_CHECK(r->depth < 4 * QD_JINJA_DEPTH, QD_EBADINPUT, "%s, line %d: values are nested too deeply", QD_JAT(r));
  QD_TRY(qd_jinja_spend(r, 1));
  *out = false;
  if (qd_j_is_number(a) && qd_j_is_number(b)) {
    *out = qd_j_is_whole(a) && qd_j_is_whole(b) ? qd_j_whole(a) == qd_j_whole(b) : qd_j_real(a) == qd_j_real(b);
    return QD_OK;
  }
  if (a.kind != b.kind) return QD_OK;
  r->depth++;
  qd_status status = QD_OK;
  if (a.kind == QD_J_TEXT)
    *out = same_text(a.text, b.text);
  else if (a.kind == QD_J_LIST)
    status = equal_lists(r, a.list, b.list, out);
  else if (a.kind == QD_J_DICT)
    status = equal_dicts(r, a.dict, b.dict, out);
  else
    *out = a.kind == QD_J_UNDEFINED || a.kind == QD_J_NONE || (a.kind == QD_J_NAMESPACE && a.dict == b.dict);
  r->depth--;
  return status == QD_OK && a.kind == QD_J_TEXT ? qd_jinja_spend(r, a.text.n / 16) : status;
}

/* ---- making -------------------------------------------------------------------------------------------------------------- */

static qd_status new_memory(qd_jrender *r, size_t n, size_t size, void *out) {
  QD_TRY(qd_jinja_spend(r, n * size / 64));
  if (qd_arena_new(&r->arena, n > 0 ? n : 1, size, out) == QD_OK) return QD_OK;
  QD_FAIL(QD_EBADINPUT, "%s, line %d: the template makes more than %zu bytes of values", QD_JAT(r), r->arena.capacity_bytes);
}

qd_status qd_j_list(qd_jrender *r, size_t n, qd_jvalue *out) {
  qd_jlist *list;
  QD_TRY(new_memory(r, 1, sizeof *list, &list));
  QD_TRY(new_memory(r, n, sizeof *list->at, &list->at));
  list->n = n;
  for (size_t i = 0; i < n; i++) list->at[i] = qd_j_undefined((qd_jtext){"", 0});
  *out = (qd_jvalue){.kind = QD_J_LIST, .list = list};
  return QD_OK;
}

qd_status qd_j_pair(qd_jrender *r, qd_jvalue a, qd_jvalue b, qd_jvalue *out) {
  QD_TRY(qd_j_list(r, 2, out));
  out->list->at[0] = a, out->list->at[1] = b;
  return QD_OK;
}

qd_status qd_j_copy(qd_jrender *r, const char *at, size_t n, qd_jvalue *out) {
  char *copy;
  QD_TRY(new_memory(r, n, 1, &copy));
  if (n > 0) memcpy(copy, at, n);
  *out = qd_j_text((qd_jtext){copy, n});
  return QD_OK;
}

static qd_jvalue *find(const qd_jdict *dict, qd_jtext key) {
  for (size_t i = 0; i < dict->n; i++)
    if (same_text(dict->at[i].key, key)) return &dict->at[i].value;
  return NULL;
}

qd_status qd_j_find(qd_jrender *r, const qd_jdict *dict, qd_jtext key, const qd_jvalue **out) {
  QD_TRY(qd_jinja_spend(r, (dict->n + key.n) / 16));
  return *out = find(dict, key), QD_OK;
}

qd_status qd_j_set(qd_jrender *r, qd_jdict *dict, qd_jtext key, qd_jvalue value) {
  QD_TRY(qd_jinja_spend(r, dict->n + key.n / 16));
  qd_jvalue *there = find(dict, key);
  if (there != NULL) return *there = value, QD_OK;
  if (dict->n == dict->capacity) {
    qd_jpair *wider;
    size_t capacity = dict->capacity > 0 ? 2 * dict->capacity : 8;
    QD_TRY(new_memory(r, capacity, sizeof *wider, &wider));
    if (dict->n > 0) memcpy(wider, dict->at, dict->n * sizeof *wider);
    dict->at = wider, dict->capacity = capacity;
  }
  dict->at[dict->n++] = (qd_jpair){key, value};
  return QD_OK;
}

static qd_status from_array(qd_jrender *r, const qd_json *json, qd_jvalue *out) {
  QD_TRY(qd_j_list(r, qd_json_length(json), out));
  for (size_t i = 0; i < out->list->n; i++) QD_TRY(qd_j_from_json(r, qd_json_at(json, i), &out->list->at[i]));
  return QD_OK;
}

static qd_status from_object(qd_jrender *r, const qd_json *json, qd_jvalue *out) {
  const char *key;
  const qd_json *member;
  qd_jdict *dict;
  QD_TRY(new_memory(r, 1, sizeof *dict, &dict));
  *dict = (qd_jdict){0};
  *out = (qd_jvalue){.kind = QD_J_DICT, .dict = dict};
  for (size_t i = 0; qd_json_member(json, i, &key, &member); i++) {
    qd_jvalue name, value;
    QD_TRY(qd_j_copy(r, key, strlen(key), &name));
    QD_TRY(qd_j_from_json(r, member, &value));
    QD_TRY(qd_j_set(r, dict, name.text, value));
  }
  return QD_OK;
}

/* As deep as the document is: 64 at most. */
qd_status qd_j_from_json(qd_jrender *r, const qd_json *json, qd_jvalue *out) {
  QD_TRY(qd_jinja_spend(r, 1));
  if (qd_json_is_text(json)) return qd_j_copy(r, qd_json_text(json), qd_json_text_bytes(json), out);
  if (qd_json_is_array(json)) return from_array(r, json, out);
  if (qd_json_is_object(json)) return from_object(r, json, out);
  *out = json == NULL               ? qd_j_none()
         : qd_json_is_integer(json) ? qd_j_integer(qd_json_integer(json))
         : qd_json_is_number(json)  ? qd_j_number(qd_json_number(json))
                                    : qd_j_bool(qd_json_is_true(json));
  return QD_OK;
}

/* ---- text ---------------------------------------------------------------------------------------------------------------- */

qd_status qd_jinja_put(qd_jrender *r, qd_jbuffer *to, qd_jtext text) {
  QD_CHECK(text.n <= OUTPUT_LIMIT - to->n, QD_EBADINPUT, "%s, line %d: the text is longer than %d bytes", QD_JAT(r),
           OUTPUT_LIMIT);
  QD_TRY(qd_jinja_spend(r, text.n / 64));
  QD_TRY(qd_heap_grow(&to->at, &to->capacity, to->n + text.n + 1, 1));
  if (text.n > 0) memcpy(to->at + to->n, text.at, text.n);
  to->n += text.n;
  return QD_OK;
}

static qd_status put(qd_jrender *r, qd_jbuffer *to, const char *text) {
  return qd_jinja_put(r, to, (qd_jtext){text, strlen(text)});
}

/* Python's repr(): the fewest digits that give the number back, with an exponent below 1e-4 and from 1e16 on. */
static void write_float(double x, char out[48]) {
  char digits[40];
  int precision = 0;
  do snprintf(digits, sizeof digits, "%.*e", precision, x);
  while (strtod(digits, NULL) != x && precision++ < 17);
  const char *e = strchr(digits, 'e');
  int exponent = e != NULL ? (int)strtol(e + 1, NULL, 10) : 0;
  if (e == NULL || exponent < -4 || exponent >= 16) {
    snprintf(out, 48, "%s", digits);
    return;
  }
  snprintf(out, 48, "%.*f", precision > exponent ? precision - exponent : 1, x);
}

static qd_status put_number(qd_jrender *r, qd_jbuffer *to, qd_jvalue v) {
  char text[48];
  if (v.kind == QD_J_FLOAT)
    write_float(v.number, text);
  else
    snprintf(text, sizeof text, "%" PRId64, v.integer);
  return put(r, to, text);
}

qd_status qd_j_print(qd_jrender *r, qd_jbuffer *to, qd_jvalue v) {
  switch (v.kind) {
    case QD_J_UNDEFINED: return QD_OK;
    case QD_J_NONE: return put(r, to, "None");
    case QD_J_BOOL: return put(r, to, v.truth ? "True" : "False");
    case QD_J_INTEGER:
    case QD_J_FLOAT: return put_number(r, to, v);
    case QD_J_TEXT: return qd_jinja_put(r, to, v.text);
    default: break;
  }
  QD_FAIL(QD_EUNSUPPORTED, "%s, line %d: a %s as text is not supported (tojson is)", QD_JAT(r), qd_j_kind_name(v));
}

/* ---- JSON ---------------------------------------------------------------------------------------------------------------- */

static qd_status put_line(qd_jrender *r, qd_jbuffer *to, int indent, int level) {
  if (indent < 0) return QD_OK;
  QD_TRY(put(r, to, "\n"));
  for (int i = 0; i < indent * level; i++) QD_TRY(put(r, to, " "));
  return QD_OK;
}

/* As json.dumps(ensure_ascii=False) does. */
static qd_status put_quoted(qd_jrender *r, qd_jbuffer *to, qd_jtext text) {
  static const char letters[] = "\"\\\n\r\t\f\b", *const escapes[] = {"\\\"", "\\\\", "\\n", "\\r", "\\t", "\\f", "\\b"};
  QD_TRY(put(r, to, "\""));
  for (size_t i = 0, begin = 0; i <= text.n; i++) {
    unsigned char c = i < text.n ? (unsigned char)text.at[i] : 0;
    if (i < text.n && c >= 0x20 && c != '"' && c != '\\') continue;
    QD_TRY(qd_jinja_put(r, to, (qd_jtext){text.at + begin, i - begin}));
    begin = i + 1;
    if (i == text.n) break;
    char code[8];
    const char *letter = c != 0 ? strchr(letters, c) : NULL;
    snprintf(code, sizeof code, "\\u%04x", c);
    QD_TRY(put(r, to, letter != NULL ? escapes[letter - letters] : code));
  }
  return put(r, to, "\"");
}

static qd_status put_items(qd_jrender *r, qd_jbuffer *to, qd_jvalue v, int indent, int level) {
  bool is_list = v.kind == QD_J_LIST;
  size_t n = is_list ? v.list->n : v.dict->n;
  QD_TRY(put(r, to, is_list ? "[" : "{"));
  for (size_t i = 0; i < n; i++) {
    if (i > 0) QD_TRY(put(r, to, indent < 0 ? ", " : ","));
    QD_TRY(put_line(r, to, indent, level + 1));
    if (!is_list) {
      QD_TRY(put_quoted(r, to, v.dict->at[i].key));
      QD_TRY(put(r, to, ": "));
    }
    QD_TRY(qd_j_json(r, to, is_list ? v.list->at[i] : v.dict->at[i].value, indent, level + 1));
  }
  if (n > 0) QD_TRY(put_line(r, to, indent, level));
  return put(r, to, is_list ? "]" : "}");
}

qd_status qd_j_json(qd_jrender *r, qd_jbuffer *to, qd_jvalue v, int indent, int level) {
  QD_CHECK(level <= QD_JINJA_DEPTH, QD_EBADINPUT, "%s, line %d: values are nested too deeply", QD_JAT(r));
  QD_TRY(qd_jinja_spend(r, 1));
  switch (v.kind) {
    case QD_J_NONE: return put(r, to, "null");
    case QD_J_BOOL: return put(r, to, v.truth ? "true" : "false");
    case QD_J_INTEGER:
    case QD_J_FLOAT: return put_number(r, to, v);
    case QD_J_TEXT: return put_quoted(r, to, v.text);
    case QD_J_LIST:
    case QD_J_DICT: return put_items(r, to, v, indent, level);
    default: break;
  }
  QD_FAIL(QD_EBADINPUT, "%s, line %d: a value that is %s has no JSON", QD_JAT(r), qd_j_kind_name(v));
}

/* ---- parts --------------------------------------------------------------------------------------------------------------- */

qd_status qd_j_need_text(qd_jrender *r, qd_jvalue value, const char *who) {
  QD_CHECK(value.kind == QD_J_TEXT, QD_EBADINPUT, "%s, line %d: %s takes a text, got %s", QD_JAT(r), who,
           qd_j_kind_name(value));
  return QD_OK;
}

size_t qd_j_characters(qd_jtext text) {
  size_t n = 0;
  for (size_t i = 0; i < text.n; i++) n += ((unsigned char)text.at[i] & 0xC0) != 0x80;
  return n;
}

qd_jtext qd_j_cut(qd_jtext text, size_t first, size_t n) {
  size_t begin = 0, end;
  for (; first > 0 && begin < text.n; first--) begin += qd_utf8_bytes(text.at[begin]);
  for (end = begin; n > 0 && end < text.n; n--) end += qd_utf8_bytes(text.at[end]);
  return (qd_jtext){text.at + begin, end - begin};
}

static qd_status items_of_text(qd_jrender *r, qd_jtext text, qd_jlist *out) {
  qd_jvalue list;
  size_t at = 0;
  QD_TRY(qd_j_list(r, qd_j_characters(text), &list));
  for (size_t i = 0; i < list.list->n; i++) {
    size_t bytes = qd_utf8_bytes(text.at[at]);
    list.list->at[i] = qd_j_text((qd_jtext){text.at + at, bytes});
    at += bytes;
  }
  *out = *list.list;
  return QD_OK;
}

qd_status qd_j_items(qd_jrender *r, qd_jvalue value, qd_jlist *out) {
  qd_jvalue list;
  *out = (qd_jlist){0};
  if (value.kind == QD_J_UNDEFINED) return QD_OK;
  if (value.kind == QD_J_LIST) return *out = *value.list, QD_OK;
  if (value.kind == QD_J_TEXT) return items_of_text(r, value.text, out);
  QD_CHECK(value.kind == QD_J_DICT, QD_EBADINPUT, "%s, line %d: a loop goes over a list, got %s", QD_JAT(r),
           qd_j_kind_name(value));
  QD_TRY(qd_j_list(r, value.dict->n, &list));
  for (size_t i = 0; i < value.dict->n; i++) list.list->at[i] = qd_j_text(value.dict->at[i].key);
  *out = *list.list;
  return QD_OK;
}
