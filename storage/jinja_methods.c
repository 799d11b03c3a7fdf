/* Methods of texts and dicts, as Python has them. */
#include <string.h>

#include "kernels/base/heap.h"
#include "storage/jinja_parts.h"
#include "storage/utf8.h"

typedef struct call {
  qd_jrender *r;
  qd_jtext name;
  const qd_jargs *args;
} call;

static qd_status text_argument(const call *c, int position, qd_jtext *out) {
  qd_jvalue v;
  *out = (qd_jtext){"", 0};
  QD_CHECK(qd_jargs_find(c->args, position, "", &v) && v.kind == QD_J_TEXT, QD_EBADINPUT, "%s, line %d: %.*s takes a text",
           QD_JAT(c->r), (int)c->name.n, c->name.at);
  return *out = v.text, QD_OK;
}

/* ---- stripping ----------------------------------------------------------------------------------------------------------- */

static bool is_among(const char *character, size_t bytes, qd_jtext set) {
  for (size_t i = 0; i < set.n; i += qd_utf8_bytes(set.at[i]))
    if (qd_utf8_bytes(set.at[i]) == bytes && memcmp(set.at + i, character, bytes) == 0) return true;
  return false;
}

static qd_jtext strip_set(qd_jtext text, qd_jtext set, bool left, bool right) {
  while (left && text.n > 0 && is_among(text.at, qd_utf8_bytes(*text.at), set)) {
    size_t bytes = qd_utf8_bytes(*text.at);
    text = (qd_jtext){text.at + bytes, text.n - bytes};
  }
  while (right && text.n > 0) {
    size_t begin = text.n - 1;
    while (begin > 0 && ((unsigned char)text.at[begin] & 0xC0) == 0x80) begin--;
    if (!is_among(text.at + begin, text.n - begin, set)) break;
    text.n = begin;
  }
  return text;
}

static qd_status strip(const call *c, qd_jtext text, qd_jvalue *out) {
  bool left = *c->name.at != 'r', right = *c->name.at != 'l';
  qd_jtext set;
  size_t begin;
  QD_TRY(qd_jinja_spend(c->r, text.n / 16));
  if (c->args->n > 0 && c->args->at[0].kind != QD_J_NONE) {
    QD_TRY(text_argument(c, 0, &set));
    QD_TRY(qd_jinja_spend_search(c->r, text, set)); /* each character of one may be looked for in all of the other */
    return *out = qd_j_text(strip_set(text, set, left, right)), QD_OK;
  }
  size_t n = qd_utf8_strip(text.at, text.n, &begin);
  if (n == 0) return *out = qd_j_text((qd_jtext){"", 0}), QD_OK;
  size_t first = left ? begin : 0, end = right ? begin + n : text.n;
  return *out = qd_j_text((qd_jtext){text.at + first, end - first}), QD_OK;
}

/* ---- finding ------------------------------------------------------------------------------------------------------------- */

static bool begins_with(qd_jtext text, qd_jtext part) { return text.n >= part.n && memcmp(text.at, part.at, part.n) == 0; }

static bool ends_with(qd_jtext text, qd_jtext part) {
  return text.n >= part.n && memcmp(text.at + text.n - part.n, part.at, part.n) == 0;
}

/* Where `part` (not empty) is from byte `from` on; text.n if nowhere. */
static size_t find(qd_jtext text, qd_jtext part, size_t from) {
  for (; from + part.n <= text.n; from++)
    if (memcmp(text.at + from, part.at, part.n) == 0) return from;
  return text.n;
}

static qd_status compare_end(const call *c, qd_jtext text, qd_jvalue *out) {
  bool at_start = *c->name.at == 's', yes = false;
  qd_jvalue given;
  QD_CHECK(c->args->n == 1, QD_EUNSUPPORTED, "%s, line %d: %.*s takes one argument", QD_JAT(c->r), (int)c->name.n, c->name.at);
  given = c->args->at[0];
  qd_jlist one = {&given, 1}, *all = given.kind == QD_J_LIST ? given.list : &one; /* any of a tuple */
  for (size_t i = 0; i < all->n; i++) {
    QD_TRY(qd_j_need_text(c->r, all->at[i], "startswith or endswith"));
    QD_TRY(qd_jinja_spend(c->r, all->at[i].text.n / 64));
    yes = yes || (at_start ? begins_with(text, all->at[i].text) : ends_with(text, all->at[i].text));
  }
  return *out = qd_j_bool(yes), QD_OK;
}

static qd_status remove_end(const call *c, qd_jtext text, qd_jvalue *out) {
  qd_jtext part;
  QD_TRY(text_argument(c, 0, &part));
  QD_TRY(qd_jinja_spend(c->r, part.n / 64));
  bool prefix = qd_jtext_is(c->name, "removeprefix");
  if (part.n > 0 && (prefix ? begins_with(text, part) : ends_with(text, part)))
    text = (qd_jtext){text.at + (prefix ? part.n : 0), text.n - part.n};
  return *out = qd_j_text(text), QD_OK;
}

static qd_status where(const call *c, qd_jtext text, qd_jvalue *out) {
  qd_jtext part;
  QD_TRY(text_argument(c, 0, &part));
  QD_CHECK(c->args->n == 1, QD_EUNSUPPORTED, "%s, line %d: find with a range is not supported", QD_JAT(c->r));
  QD_TRY(qd_jinja_spend_search(c->r, text, part));
  size_t at = find(text, part, 0);
  bool found = at < text.n || part.n == 0;
  *out = qd_j_integer(found ? (int64_t)qd_j_characters((qd_jtext){text.at, part.n == 0 ? 0 : at}) : -1);
  return QD_OK;
}

/* ---- cutting and putting together ---------------------------------------------------------------------------------------- */

/* At a text; at white space without one. */
static qd_status split(const call *c, qd_jtext text, qd_jvalue *out) {
  qd_jtext part;
  qd_jvalue most = qd_j_integer(-1);
  QD_CHECK(c->args->n > 0 && c->args->at[0].kind == QD_J_TEXT, QD_EUNSUPPORTED,
           "%s, line %d: split without a text to split at is not supported", QD_JAT(c->r));
  QD_TRY(text_argument(c, 0, &part));
  qd_jargs_find(c->args, 1, "maxsplit", &most);
  QD_CHECK(part.n > 0 && most.kind == QD_J_INTEGER, QD_EBADINPUT, "%s, line %d: split at an empty text, or not so often",
           QD_JAT(c->r));
  QD_TRY(qd_jinja_spend_search(c->r, text, part));
  size_t cuts = 0, limit = most.integer < 0 ? SIZE_MAX : (size_t)most.integer, begin = 0;
  for (size_t at = find(text, part, 0); at < text.n && cuts < limit; at = find(text, part, at + part.n)) cuts++;
  QD_TRY(qd_j_list(c->r, cuts + 1, out));
  for (size_t i = 0; i <= cuts; i++) {
    size_t end = i < cuts ? find(text, part, begin) : text.n;
    out->list->at[i] = qd_j_text((qd_jtext){text.at + begin, end - begin});
    begin = end + part.n;
  }
  return QD_OK;
}

static qd_status replace_into(const call *c, qd_jtext text, const qd_jtext part[2], int64_t most, qd_jbuffer *to) {
  for (size_t begin = 0;;) {
    size_t at = most != 0 ? find(text, part[0], begin) : text.n;
    QD_TRY(qd_jinja_put(c->r, to, (qd_jtext){text.at + begin, at - begin}));
    if (at == text.n) return QD_OK;
    QD_TRY(qd_jinja_put(c->r, to, part[1]));
    begin = at + part[0].n, most--;
  }
}

static qd_status replace(const call *c, qd_jtext text, qd_jvalue *out) {
  qd_jtext part[2];
  qd_jbuffer buffer = {0};
  qd_jvalue most = qd_j_integer(-1);
  QD_TRY(text_argument(c, 0, &part[0]));
  QD_TRY(text_argument(c, 1, &part[1]));
  qd_jargs_find(c->args, 2, "count", &most);
  QD_CHECK(part[0].n > 0 && most.kind == QD_J_INTEGER, QD_EUNSUPPORTED,
           "%s, line %d: replace of an empty text is not supported", QD_JAT(c->r));
  QD_TRY(qd_jinja_spend_search(c->r, text, part[0]));
  qd_status status = replace_into(c, text, part, most.integer, &buffer);
  if (status == QD_OK) status = qd_j_copy(c->r, buffer.at, buffer.n, out);
  qd_heap_free(buffer.at);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

static qd_status change_case(const call *c, qd_jtext text, qd_jvalue *out) {
  QD_TRY(qd_j_copy(c->r, text.at, text.n, out));
  char *to = (char *)(uintptr_t)out->text.at; /* the copy is ours */
  bool up = qd_jtext_is(c->name, "upper"), title = qd_jtext_is(c->name, "title"), letter_before = false;
  for (size_t i = 0; i < text.n; i++) {
    QD_CHECK((unsigned char)to[i] < 0x80, QD_EUNSUPPORTED, "%s, line %d: %.*s of letters beyond ASCII is not supported",
             QD_JAT(c->r), (int)c->name.n, c->name.at);
    bool is_letter = (to[i] | 32) >= 'a' && (to[i] | 32) <= 'z';
    bool big = up || (title && !letter_before) || (qd_jtext_is(c->name, "capitalize") && i == 0);
    if (is_letter) to[i] = (char)(big ? to[i] & ~32 : to[i] | 32);
    letter_before = is_letter;
  }
  return QD_OK;
}

static qd_status join(const call *c, qd_jtext text, qd_jvalue *out) {
  QD_CHECK(c->args->n == 1, QD_EBADINPUT, "%s, line %d: join takes a list", QD_JAT(c->r));
  qd_jargs between = {.at = {qd_j_text(text)}, .n = 1};
  return qd_jinja_filter(c->r, c->name, c->args->at[0], &between, out);
}

static qd_status text_method(const call *c, qd_jtext text, qd_jvalue *out) {
  static const struct {
    const char *name;
    qd_status (*function)(const call *, qd_jtext, qd_jvalue *);
  } methods[] = {{"strip", strip},
                 {"lstrip", strip},
                 {"rstrip", strip},
                 {"startswith", compare_end},
                 {"endswith", compare_end},
                 {"split", split},
                 {"replace", replace},
                 {"upper", change_case},
                 {"lower", change_case},
                 {"title", change_case},
                 {"capitalize", change_case},
                 {"removeprefix", remove_end},
                 {"removesuffix", remove_end},
                 {"find", where},
                 {"join", join}};
  for (size_t i = 0; i < sizeof methods / sizeof *methods; i++)
    if (qd_jtext_is(c->name, methods[i].name)) return methods[i].function(c, text, out);
  QD_FAIL(QD_EUNSUPPORTED, "%s, line %d: the method \"%.*s\" of a str is not supported", QD_JAT(c->r),
          (int)(c->name.n < 40 ? c->name.n : 40), c->name.at);
}

/* ---- dicts --------------------------------------------------------------------------------------------------------------- */

static qd_status dict_list(const call *c, const qd_jdict *dict, qd_jvalue *out) {
  bool keys = *c->name.at == 'k', values = *c->name.at == 'v';
  QD_TRY(qd_j_list(c->r, dict->n, out));
  for (size_t i = 0; i < dict->n; i++) {
    qd_jvalue *to = &out->list->at[i], key = qd_j_text(dict->at[i].key);
    if (keys)
      *to = key;
    else if (values)
      *to = dict->at[i].value;
    else
      QD_TRY(qd_j_pair(c->r, key, dict->at[i].value, to));
  }
  return QD_OK;
}

static qd_status dict_get(const call *c, const qd_jdict *dict, qd_jvalue *out) {
  qd_jtext key;
  QD_TRY(text_argument(c, 0, &key));
  const qd_jvalue *found;
  QD_TRY(qd_j_find(c->r, dict, key, &found));
  *out = qd_j_none();
  if (found != NULL)
    *out = *found;
  else
    qd_jargs_find(c->args, 1, "default", out);
  return QD_OK;
}

qd_status qd_jinja_method(qd_jrender *r, qd_jtext name, qd_jvalue value, const qd_jargs *args, qd_jvalue *out) {
  call c = {.r = r, .name = name, .args = args};
  if (value.kind == QD_J_TEXT) return text_method(&c, value.text, out);
  if (value.kind == QD_J_DICT && qd_jtext_is(name, "get")) return dict_get(&c, value.dict, out);
  if (value.kind == QD_J_DICT && (qd_jtext_is(name, "items") || qd_jtext_is(name, "keys") || qd_jtext_is(name, "values")))
    return dict_list(&c, value.dict, out);
  QD_CHECK(value.kind != QD_J_UNDEFINED, QD_EBADINPUT, "%s, line %d: \"%.*s\" is asked of \"%.*s\", which is undefined",
           QD_JAT(r), (int)name.n, name.at, (int)value.text.n, value.text.at);
  QD_FAIL(QD_EUNSUPPORTED, "%s, line %d: the method \"%.*s\" of a %s is not supported", QD_JAT(r),
          (int)(name.n < 40 ? name.n : 40), name.at, qd_j_kind_name(value));
}
