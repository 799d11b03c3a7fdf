/* Filters and tests, as jinja2.filters and jinja2.tests have them; tojson as transformers has it. */
#include <string.h>

#include "kernels/base/heap.h"
#include "storage/jinja_parts.h"

typedef qd_status (*filter_function)(qd_jrender *r, qd_jvalue value, const qd_jargs *args, qd_jvalue *out);

/* What a function puts into a buffer, as a value. */
static qd_status take_buffer(qd_jrender *r, qd_status status, qd_jbuffer *buffer, qd_jvalue *out) {
  if (status == QD_OK) status = qd_j_copy(r, buffer->at, buffer->n, out);
  qd_heap_free(buffer->at);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

static qd_status to_text(qd_jrender *r, qd_jvalue v, const qd_jargs *args, qd_jvalue *out) {
  (void)args;
  qd_jbuffer buffer = {0};
  if (v.kind == QD_J_TEXT) return *out = v, QD_OK;
  return take_buffer(r, qd_j_print(r, &buffer, v), &buffer, out);
}

static qd_status to_json(qd_jrender *r, qd_jvalue v, const qd_jargs *args, qd_jvalue *out) {
  qd_jbuffer buffer = {0};
  qd_jvalue given;
  int indent = -1;
  for (int i = 0; i < args->n; i++)
    QD_CHECK(args->keyword[i].n == 0 || qd_jtext_is(args->keyword[i], "indent") ||
                 (qd_jtext_is(args->keyword[i], "ensure_ascii") && !qd_j_truth(args->at[i])),
             QD_EUNSUPPORTED, "%s, line %d: tojson's \"%.*s\" is not supported", QD_JAT(r), (int)args->keyword[i].n,
             args->keyword[i].at);
  qd_jargs named = *args; /* transformers' first argument by position is another one */
  for (int i = 0; i < named.n; i++)
    QD_CHECK(named.keyword[i].n > 0, QD_EUNSUPPORTED, "%s, line %d: tojson takes its arguments by name", QD_JAT(r));
  if (qd_jargs_find(&named, 0, "indent", &given) && given.kind != QD_J_NONE) {
    QD_CHECK(given.kind == QD_J_INTEGER && given.integer >= 0 && given.integer <= 16, QD_EBADINPUT,
             "%s, line %d: tojson's indent is a number from 0 to 16", QD_JAT(r));
    indent = (int)given.integer;
  }
  return take_buffer(r, qd_j_json(r, &buffer, v, indent, 0), &buffer, out);
}

static qd_status to_length(qd_jrender *r, qd_jvalue v, const qd_jargs *args, qd_jvalue *out) {
  (void)args;
  QD_CHECK(v.kind <= QD_J_UNDEFINED || (v.kind >= QD_J_TEXT && v.kind <= QD_J_DICT), QD_EBADINPUT,
           "%s, line %d: a %s has no length", QD_JAT(r), qd_j_kind_name(v));
  size_t n = v.kind == QD_J_TEXT   ? qd_j_characters(v.text)
             : v.kind == QD_J_LIST ? v.list->n
             : v.kind == QD_J_DICT ? v.dict->n
                                   : 0;
  *out = qd_j_integer((int64_t)n);
  return qd_jinja_spend(r, v.kind == QD_J_TEXT ? v.text.n / 16 : 0);
}

static qd_status or_default(qd_jrender *r, qd_jvalue v, const qd_jargs *args, qd_jvalue *out) {
  (void)r;
  qd_jvalue other = qd_j_text((qd_jtext){"", 0}), also_false = qd_j_bool(false);
  qd_jargs_find(args, 0, "default_value", &other);
  qd_jargs_find(args, 1, "boolean", &also_false);
  bool missing = v.kind == QD_J_UNDEFINED || (qd_j_truth(also_false) && !qd_j_truth(v));
  return *out = missing ? other : v, QD_OK;
}

/* str(value).strip() */
static qd_status trim(qd_jrender *r, qd_jvalue v, const qd_jargs *args, qd_jvalue *out) {
  QD_TRY(to_text(r, v, args, &v));
  return qd_jinja_method(r, (qd_jtext){"strip", 5}, v, args, out);
}

/* Filters that are methods of texts. */
static qd_status by_method(qd_jrender *r, const char *method, qd_jvalue v, const qd_jargs *args, qd_jvalue *out) {
  QD_TRY(to_text(r, v, args, &v));
  return qd_jinja_method(r, (qd_jtext){method, strlen(method)}, v, args, out);
}
static qd_status lower(qd_jrender *r, qd_jvalue v, const qd_jargs *args, qd_jvalue *out) {
  return by_method(r, "lower", v, args, out);
}
static qd_status upper(qd_jrender *r, qd_jvalue v, const qd_jargs *args, qd_jvalue *out) {
  return by_method(r, "upper", v, args, out);
}
static qd_status capitalize(qd_jrender *r, qd_jvalue v, const qd_jargs *args, qd_jvalue *out) {
  return by_method(r, "capitalize", v, args, out);
}
static qd_status replace(qd_jrender *r, qd_jvalue v, const qd_jargs *args, qd_jvalue *out) {
  return by_method(r, "replace", v, args, out);
}

static qd_status to_list(qd_jrender *r, qd_jvalue v, const qd_jargs *args, qd_jvalue *out) {
  (void)args;
  qd_jlist items;
  QD_TRY(qd_j_items(r, v, &items));
  QD_TRY(qd_j_list(r, items.n, out));
  for (size_t i = 0; i < items.n; i++) out->list->at[i] = items.at[i];
  return QD_OK;
}

static qd_status first(qd_jrender *r, qd_jvalue v, const qd_jargs *args, qd_jvalue *out) {
  (void)args;
  qd_jlist items;
  QD_TRY(qd_j_items(r, v, &items));
  *out = items.n > 0 ? items.at[0] : qd_j_undefined((qd_jtext){"first", 5});
  return QD_OK;
}

static qd_status last(qd_jrender *r, qd_jvalue v, const qd_jargs *args, qd_jvalue *out) {
  (void)args;
  qd_jlist items;
  QD_TRY(qd_j_items(r, v, &items));
  *out = items.n > 0 ? items.at[items.n - 1] : qd_j_undefined((qd_jtext){"last", 4});
  return QD_OK;
}

static qd_status reverse(qd_jrender *r, qd_jvalue v, const qd_jargs *args, qd_jvalue *out) {
  QD_CHECK(v.kind == QD_J_LIST, QD_EUNSUPPORTED, "%s, line %d: reverse of a %s is not supported", QD_JAT(r), qd_j_kind_name(v));
  QD_TRY(to_list(r, v, args, out));
  size_t n = out->list->n;
  for (size_t i = 0; i < n / 2; i++) {
    qd_jvalue kept = out->list->at[i];
    out->list->at[i] = out->list->at[n - 1 - i], out->list->at[n - 1 - i] = kept;
  }
  return QD_OK;
}

static qd_status join_into(qd_jrender *r, qd_jbuffer *to, const qd_jlist *items, qd_jtext between) {
  for (size_t i = 0; i < items->n; i++) {
    if (i > 0) QD_TRY(qd_jinja_put(r, to, between));
    QD_TRY(qd_j_print(r, to, items->at[i]));
  }
  return QD_OK;
}

static qd_status join(qd_jrender *r, qd_jvalue v, const qd_jargs *args, qd_jvalue *out) {
  qd_jlist items;
  qd_jbuffer buffer = {0};
  qd_jvalue between = qd_j_text((qd_jtext){"", 0}), attribute;
  qd_jargs_find(args, 0, "d", &between);
  QD_CHECK(!qd_jargs_find(args, 1, "attribute", &attribute), QD_EUNSUPPORTED, "%s, line %d: join's attribute is not supported",
           QD_JAT(r));
  QD_TRY(qd_j_need_text(r, between, "join"));
  QD_TRY(qd_j_items(r, v, &items));
  return take_buffer(r, join_into(r, &buffer, &items, between.text), &buffer, out);
}

static qd_status to_integer(qd_jrender *r, qd_jvalue v, const qd_jargs *args, qd_jvalue *out) {
  (void)args;
  QD_CHECK(qd_j_is_whole(v), QD_EUNSUPPORTED, "%s, line %d: int of a %s is not supported", QD_JAT(r), qd_j_kind_name(v));
  return *out = qd_j_integer(qd_j_whole(v)), QD_OK;
}

static qd_status items(qd_jrender *r, qd_jvalue v, const qd_jargs *args, qd_jvalue *out) {
  if (v.kind == QD_J_UNDEFINED) return qd_j_list(r, 0, out);
  return qd_jinja_method(r, (qd_jtext){"items", 5}, v, args, out);
}

/* The member `name` of an item, dots between members. */
static qd_status attribute_of(qd_jrender *r, qd_jvalue item, qd_jvalue name, qd_jvalue *out) {
  QD_TRY(qd_j_need_text(r, name, "an attribute"));
  QD_CHECK(memchr(name.text.at, '.', name.text.n) == NULL, QD_EUNSUPPORTED,
           "%s, line %d: attributes of attributes are not supported", QD_JAT(r));
  const qd_jvalue *found = NULL;
  if (item.kind == QD_J_DICT) QD_TRY(qd_j_find(r, item.dict, name.text, &found));
  return *out = found != NULL ? *found : qd_j_undefined(name.text), QD_OK;
}

typedef struct selection {
  bool by_attribute, wants;
} selection;

/* select and its kin: those items (or whose attribute) a test says yes to; without a test, those that are true. */
static qd_status select_items(qd_jrender *r, qd_jvalue v, const qd_jargs *args, selection s, qd_jvalue *out) {
  qd_jlist all;
  qd_jargs rest = {0};
  size_t n = 0;
  int test = s.by_attribute ? 1 : 0;
  QD_CHECK(args->n >= test, QD_EBADINPUT, "%s, line %d: the name of an attribute is expected", QD_JAT(r));
  for (int i = test + 1; i < args->n; i++) rest.at[rest.n] = args->at[i], rest.keyword[rest.n++] = args->keyword[i];
  if (args->n > test) QD_TRY(qd_j_need_text(r, args->at[test], "the name of a test"));
  QD_TRY(qd_j_items(r, v, &all));
  QD_TRY(qd_j_list(r, all.n, out));
  for (size_t i = 0; i < all.n; i++) {
    qd_jvalue tested = all.at[i];
    if (s.by_attribute) QD_TRY(attribute_of(r, all.at[i], args->at[0], &tested));
    bool yes = qd_j_truth(tested);
    if (args->n > test) QD_TRY(qd_jinja_test(r, args->at[test].text, tested, &rest, &yes));
    if (yes == s.wants) out->list->at[n++] = all.at[i];
  }
  out->list->n = n;
  return QD_OK;
}

static qd_status select_true(qd_jrender *r, qd_jvalue v, const qd_jargs *args, qd_jvalue *out) {
  return select_items(r, v, args, (selection){.wants = true}, out);
}
static qd_status reject(qd_jrender *r, qd_jvalue v, const qd_jargs *args, qd_jvalue *out) {
  return select_items(r, v, args, (selection){.wants = false}, out);
}
static qd_status selectattr(qd_jrender *r, qd_jvalue v, const qd_jargs *args, qd_jvalue *out) {
  return select_items(r, v, args, (selection){.by_attribute = true, .wants = true}, out);
}
static qd_status rejectattr(qd_jrender *r, qd_jvalue v, const qd_jargs *args, qd_jvalue *out) {
  return select_items(r, v, args, (selection){.by_attribute = true}, out);
}

/* map("filter", ...) or map(attribute="name"). */
static qd_status map(qd_jrender *r, qd_jvalue v, const qd_jargs *args, qd_jvalue *out) {
  qd_jlist all;
  qd_jvalue attribute = qd_j_none();
  qd_jargs rest = {0};
  bool by_attribute = args->n > 0 && args->keyword[0].n > 0;
  QD_CHECK(args->n > 0 && (!by_attribute || (args->n == 1 && qd_jargs_find(args, -1, "attribute", &attribute))),
           QD_EUNSUPPORTED, "%s, line %d: map takes a filter's name or attribute=", QD_JAT(r));
  if (!by_attribute) QD_TRY(qd_j_need_text(r, args->at[0], "map"));
  for (int i = 1; i < args->n; i++) rest.at[rest.n] = args->at[i], rest.keyword[rest.n++] = args->keyword[i];
  QD_TRY(qd_j_items(r, v, &all));
  QD_TRY(qd_j_list(r, all.n, out));
  for (size_t i = 0; i < all.n; i++) {
    if (by_attribute)
      QD_TRY(attribute_of(r, all.at[i], attribute, &out->list->at[i]));
    else
      QD_TRY(qd_jinja_filter(r, args->at[0].text, all.at[i], &rest, &out->list->at[i]));
  }
  return QD_OK;
}

qd_status qd_jinja_filter(qd_jrender *r, qd_jtext name, qd_jvalue value, const qd_jargs *args, qd_jvalue *out) {
  static const struct {
    const char *name;
    filter_function function;
  } filters[] = {{"trim", trim},
                 {"tojson", to_json},
                 {"length", to_length},
                 {"count", to_length},
                 {"default", or_default},
                 {"d", or_default},
                 {"string", to_text},
                 {"safe", to_text},
                 {"lower", lower},
                 {"upper", upper},
                 {"capitalize", capitalize},
                 {"replace", replace},
                 {"list", to_list},
                 {"first", first},
                 {"last", last},
                 {"reverse", reverse},
                 {"join", join},
                 {"int", to_integer},
                 {"items", items},
                 {"select", select_true},
                 {"reject", reject},
                 {"selectattr", selectattr},
                 {"rejectattr", rejectattr},
                 {"map", map}};
  QD_CHECK(r->depth < 4 * QD_JINJA_DEPTH, QD_EBADINPUT, "%s, line %d: nested deeper than %d", QD_JAT(r), 4 * QD_JINJA_DEPTH);
  r->depth++; /* map can name map */
  for (size_t i = 0; i < sizeof filters / sizeof *filters; i++)
    if (qd_jtext_is(name, filters[i].name)) {
      QD_TRY(filters[i].function(r, value, args, out));
      r->depth--;
      return QD_OK;
    }
  QD_FAIL(QD_EUNSUPPORTED, "%s, line %d: the filter \"%.*s\" is not supported", QD_JAT(r), (int)(name.n < 40 ? name.n : 40),
          name.at);
}

/* ---- tests --------------------------------------------------------------------------------------------------------------- */

static qd_status compare(qd_jrender *r, qd_jvalue value, const qd_jargs *args, bool wants, bool *out) {
  QD_CHECK(args->n == 1, QD_EBADINPUT, "%s, line %d: a test for equality takes one value", QD_JAT(r));
  QD_TRY(qd_j_equal(r, value, args->at[0], out));
  *out = *out == wants;
  return QD_OK;
}

static qd_status divides(qd_jrender *r, qd_jvalue value, int64_t divisor, int64_t rest, bool *out) {
  QD_CHECK(qd_j_is_whole(value) && divisor != 0, QD_EBADINPUT, "%s, line %d: a whole number is expected, got %s", QD_JAT(r),
           qd_j_kind_name(value));
  *out = (qd_j_whole(value) % divisor != 0) == (rest != 0);
  return QD_OK;
}

/* Tests of what a value is, none of which has an argument. */
static bool test_kind(qd_jtext name, qd_jvalue v, bool *out) {
  const struct {
    const char *name;
    bool yes;
  } tests[] = {{"defined", v.kind != QD_J_UNDEFINED},
               {"undefined", v.kind == QD_J_UNDEFINED},
               {"none", v.kind == QD_J_NONE},
               {"string", v.kind == QD_J_TEXT},
               {"mapping", v.kind == QD_J_DICT},
               {"iterable", v.kind == QD_J_TEXT || v.kind == QD_J_LIST || v.kind == QD_J_DICT || v.kind == QD_J_UNDEFINED},
               {"sequence", v.kind == QD_J_TEXT || v.kind == QD_J_LIST || v.kind == QD_J_DICT || v.kind == QD_J_UNDEFINED},
               {"number", qd_j_is_number(v)},
               {"integer", v.kind == QD_J_INTEGER},
               {"float", v.kind == QD_J_FLOAT},
               {"boolean", v.kind == QD_J_BOOL},
               {"true", v.kind == QD_J_BOOL && v.truth},
               {"false", v.kind == QD_J_BOOL && !v.truth}};
  for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
    if (qd_jtext_is(name, tests[i].name)) return *out = tests[i].yes, true;
  return false;
}

qd_status qd_jinja_test(qd_jrender *r, qd_jtext name, qd_jvalue value, const qd_jargs *args, bool *out) {
  if (test_kind(name, value, out)) return QD_OK;
  if (qd_jtext_is(name, "equalto") || qd_jtext_is(name, "eq")) return compare(r, value, args, true, out);
  if (qd_jtext_is(name, "ne")) return compare(r, value, args, false, out);
  if (qd_jtext_is(name, "odd")) return divides(r, value, 2, 1, out);
  if (qd_jtext_is(name, "even")) return divides(r, value, 2, 0, out);
  if (qd_jtext_is(name, "divisibleby") && args->n == 1 && qd_j_is_whole(args->at[0]))
    return divides(r, value, qd_j_whole(args->at[0]), 0, out);
  if (qd_jtext_is(name, "in") && args->n == 1) {
    qd_jlist all;
    *out = false;
    QD_CHECK(args->at[0].kind == QD_J_LIST, QD_EUNSUPPORTED, "%s, line %d: the test \"in\" of a %s is not supported", QD_JAT(r),
             qd_j_kind_name(args->at[0]));
    QD_TRY(qd_j_items(r, args->at[0], &all));
    for (size_t i = 0; !*out && i < all.n; i++) QD_TRY(qd_j_equal(r, value, all.at[i], out));
    return QD_OK;
  }
  QD_FAIL(QD_EUNSUPPORTED, "%s, line %d: the test \"%.*s\" is not supported", QD_JAT(r), (int)(name.n < 40 ? name.n : 40),
          name.at);
}
