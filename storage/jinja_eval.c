/* The value of an expression. */
#include <math.h>
#include <string.h>

#include "storage/jinja_parts.h"

bool qd_jargs_find(const qd_jargs *args, int position, const char *keyword, qd_jvalue *out) {
  for (int i = 0, by_position = 0; i < args->n; i++) {
    bool is_it = args->keyword[i].n > 0 ? qd_jtext_is(args->keyword[i], keyword) : by_position++ == position;
    if (is_it) return *out = args->at[i], true;
  }
  return false;
}

qd_status qd_jinja_spend(qd_jrender *r, size_t work) {
  QD_CHECK(work < (size_t)r->fuel, QD_EBADINPUT, "%s, line %d: the template works too long on one document", QD_JAT(r));
  r->fuel -= (int64_t)work;
  return QD_OK;
}

qd_status qd_jinja_spend_search(qd_jrender *r, qd_jtext whole, qd_jtext part) {
  return qd_jinja_spend(r, whole.n / 16 * (1 + part.n / 16));
}

/* ---- names and members --------------------------------------------------------------------------------------------------- */

static qd_status look_up(qd_jrender *r, qd_jtext name, qd_jvalue *out) {
  const qd_jvalue *found = NULL;
  for (const qd_jscope *scope = r->scope; scope != NULL && found == NULL; scope = scope->parent)
    QD_TRY(qd_j_find(r, &scope->names, name, &found));
  *out = found != NULL ? *found : qd_j_undefined(name);
  return QD_OK;
}

static qd_status member_of(qd_jrender *r, qd_jvalue object, qd_jtext name, qd_jvalue *out) {
  QD_CHECK(object.kind != QD_J_UNDEFINED, QD_EBADINPUT, "%s, line %d: \"%.*s\" is asked of \"%.*s\", which is undefined",
           QD_JAT(r), (int)name.n, name.at, (int)object.text.n, object.text.at);
  const qd_jvalue *found = NULL;
  if (object.kind == QD_J_DICT || object.kind == QD_J_NAMESPACE) QD_TRY(qd_j_find(r, object.dict, name, &found));
  *out = found != NULL ? *found : qd_j_undefined(name);
  return QD_OK;
}

static qd_status item_of(qd_jrender *r, qd_jvalue object, qd_jvalue key, qd_jvalue *out) {
  if (key.kind == QD_J_TEXT) return member_of(r, object, key.text, out);
  *out = qd_j_undefined((qd_jtext){"item", 4});
  if (!qd_j_is_whole(key) || (object.kind != QD_J_LIST && object.kind != QD_J_TEXT)) {
    qd_jvalue none;
    return member_of(r, object, (qd_jtext){"item", 4}, &none); /* only an undefined object is wrong */
  }
  if (object.kind == QD_J_TEXT) QD_TRY(qd_jinja_spend(r, object.text.n / 16));
  int64_t n = (int64_t)(object.kind == QD_J_LIST ? object.list->n : qd_j_characters(object.text)), i = qd_j_whole(key);
  if (i < 0) i += n;
  if (i < 0 || i >= n) return QD_OK;
  *out = object.kind == QD_J_LIST ? object.list->at[i] : qd_j_text(qd_j_cut(object.text, (size_t)i, 1));
  return QD_OK;
}

static qd_status eval_bound(qd_jrender *r, const qd_jnode *node, bool *given, int64_t *out) {
  qd_jvalue v = qd_j_none();
  if (node != NULL) QD_TRY(qd_jinja_eval(r, node, &v));
  *given = v.kind != QD_J_NONE;
  QD_CHECK(!*given || qd_j_is_whole(v), QD_EBADINPUT, "%s, line %d: a slice goes from number to number, got %s", QD_JAT(r),
           qd_j_kind_name(v));
  *out = *given ? qd_j_whole(v) : 0;
  return QD_OK;
}

static int64_t clamp(int64_t value, int64_t low, int64_t high) { return value < low ? low : value > high ? high : value; }

/* Python's slices, backwards as well. */
static qd_status slice_of(qd_jrender *r, const qd_jnode *node, qd_jvalue object, qd_jvalue *out) {
  bool has_first, has_end, has_step;
  int64_t first, end, step;
  qd_jlist items;
  QD_CHECK(object.kind == QD_J_LIST || object.kind == QD_J_TEXT, QD_EBADINPUT, "%s, line %d: a %s has no slices", QD_JAT(r),
           qd_j_kind_name(object));
  QD_TRY(eval_bound(r, node->b, &has_first, &first));
  QD_TRY(eval_bound(r, node->c, &has_end, &end));
  QD_TRY(eval_bound(r, node->d, &has_step, &step));
  if (!has_step) step = 1;
  QD_CHECK(step == 1 || step == -1, QD_EUNSUPPORTED, "%s, line %d: slices with steps other than 1 and -1 are not supported",
           QD_JAT(r));
  bool back = step < 0;
  QD_CHECK(!back || object.kind == QD_J_LIST, QD_EUNSUPPORTED, "%s, line %d: a text backwards is not supported", QD_JAT(r));
  if (object.kind == QD_J_TEXT) QD_TRY(qd_jinja_spend(r, object.text.n / 16));
  int64_t n = (int64_t)(object.kind == QD_J_LIST ? object.list->n : qd_j_characters(object.text));
  int64_t low = back ? -1 : 0, high = back ? n - 1 : n;
  first = !has_first ? (back ? high : low) : clamp(first < 0 ? first + n : first, low, high);
  end = !has_end ? (back ? low : high) : clamp(end < 0 ? end + n : end, low, high);
  int64_t length = back ? first - end : end - first;
  if (length < 0) length = 0;
  if (object.kind == QD_J_TEXT) return *out = qd_j_text(qd_j_cut(object.text, (size_t)first, (size_t)length)), QD_OK;
  QD_TRY(qd_j_items(r, object, &items));
  QD_TRY(qd_j_list(r, (size_t)length, out));
  for (int64_t i = 0; i < length; i++) out->list->at[i] = items.at[first + step * i];
  return QD_OK;
}

/* ---- operators ----------------------------------------------------------------------------------------------------------- */

static qd_status join(qd_jrender *r, qd_jvalue a, qd_jvalue b, qd_jvalue *out) {
  char *at;
  size_t n = a.text.n + b.text.n;
  QD_TRY(qd_jinja_spend(r, n / 64));
  QD_CHECK(qd_arena_new(&r->arena, n + 1, 1, &at) == QD_OK, QD_EBADINPUT,
           "%s, line %d: the template makes more than %zu bytes of values", QD_JAT(r), r->arena.capacity_bytes);
  if (a.text.n > 0) memcpy(at, a.text.at, a.text.n);
  if (b.text.n > 0) memcpy(at + a.text.n, b.text.at, b.text.n);
  *out = qd_j_text((qd_jtext){at, n});
  return QD_OK;
}

static qd_status as_text(qd_jrender *r, qd_jvalue *v) {
  if (v->kind == QD_J_TEXT) return QD_OK;
  return qd_jinja_filter(r, (qd_jtext){"string", 6}, *v, &(qd_jargs){0}, v);
}

static qd_status join_lists(qd_jrender *r, const qd_jlist *a, const qd_jlist *b, qd_jvalue *out) {
  QD_TRY(qd_j_list(r, a->n + b->n, out));
  for (size_t i = 0; i < a->n; i++) out->list->at[i] = a->at[i];
  for (size_t i = 0; i < b->n; i++) out->list->at[a->n + i] = b->at[i];
  return QD_OK;
}

static int64_t floor_divide(int64_t a, int64_t b) { return a / b - (a % b != 0 && (a % b < 0) != (b < 0)); }

/* Whole numbers stay below 2^53, so that sums and products are seen to fit before they are formed. */
static qd_status whole_arithmetic(qd_jrender *r, char operator, int64_t a, int64_t b, qd_jvalue *out) {
  const double limit = 0x1p53;
  double size = operator== '*' ? fabs((double)a) * fabs((double)b) : fabs((double)a) + fabs((double)b);
  QD_CHECK(size < limit, QD_EUNSUPPORTED, "%s, line %d: whole numbers beyond 2^53 are not supported", QD_JAT(r));
  QD_CHECK(operator== '+' || operator== '-' || operator== '*' || b != 0, QD_EBADINPUT, "%s, line %d: division by zero",
           QD_JAT(r));
  if (operator== '+')
    *out = qd_j_integer(a + b);
  else if (operator== '-')
    *out = qd_j_integer(a - b);
  else if (operator== '*')
    *out = qd_j_integer(a * b);
  else if (operator== '%')
    *out = qd_j_integer(a - b * floor_divide(a, b));
  else
    *out = qd_j_integer(floor_divide(a, b));
  return QD_OK;
}

static qd_status real_arithmetic(qd_jrender *r, char operator, double a, double b, qd_jvalue *out) {
  QD_CHECK(operator== '+' || operator== '-' || operator== '*' ||(operator== '/' && b != 0), QD_EBADINPUT,
           "%s, line %d: division by zero, or // and %% of floats", QD_JAT(r));
  *out = qd_j_number(operator== '+' ? a + b : operator== '-' ? a - b : operator== '*' ? a * b : a / b);
  return QD_OK;
}

static qd_status arithmetic(qd_jrender *r, qd_jtext operator, qd_jvalue a, qd_jvalue b, qd_jvalue *out) {
  char o = operator.n == 2 ? '|' : * operator.at; /* | stands for // */
  if (o == '+' && a.kind == QD_J_TEXT && b.kind == QD_J_TEXT) return join(r, a, b, out);
  if (o == '+' && a.kind == QD_J_LIST && b.kind == QD_J_LIST) return join_lists(r, a.list, b.list, out);
  QD_CHECK(!(a.kind == QD_J_TEXT && (o == '%' || o == '*')), QD_EUNSUPPORTED,
           "%s, line %d: the operator %c of texts is not supported", QD_JAT(r), o);
  QD_CHECK(qd_j_is_number(a) && qd_j_is_number(b), QD_EBADINPUT, "%s, line %d: %.*s of %s and %s", QD_JAT(r),
           (int)operator.n, operator.at, qd_j_kind_name(a), qd_j_kind_name(b));
  if (o != '/' && qd_j_is_whole(a) && qd_j_is_whole(b)) return whole_arithmetic(r, o, qd_j_whole(a), qd_j_whole(b), out);
  return real_arithmetic(r, o, qd_j_real(a), qd_j_real(b), out);
}

static bool contains_text(qd_jtext whole, qd_jtext part) {
  for (size_t i = 0; i + part.n <= whole.n; i++)
    if (part.n == 0 || memcmp(whole.at + i, part.at, part.n) == 0) return true;
  return false;
}

static qd_status is_in(qd_jrender *r, qd_jvalue part, qd_jvalue whole, bool *out) {
  qd_jlist items;
  *out = false;
  if (whole.kind == QD_J_TEXT) {
    QD_TRY(qd_j_need_text(r, part, "\"in\" a text"));
    QD_TRY(qd_jinja_spend_search(r, whole.text, part.text));
    *out = contains_text(whole.text, part.text);
    return QD_OK;
  }
  if (whole.kind == QD_J_DICT) {
    const qd_jvalue *found = NULL;
    if (part.kind == QD_J_TEXT) QD_TRY(qd_j_find(r, whole.dict, part.text, &found));
    return *out = found != NULL, QD_OK;
  }
  QD_TRY(qd_j_items(r, whole, &items));
  for (size_t i = 0; !*out && i < items.n; i++) QD_TRY(qd_j_equal(r, part, items.at[i], out));
  return QD_OK;
}

static qd_status order(qd_jrender *r, qd_jtext operator, qd_jvalue a, qd_jvalue b, bool *out) {
  int less = 0, more = 0;
  if (qd_j_is_number(a) && qd_j_is_number(b)) {
    less = qd_j_real(a)<qd_j_real(b), more = qd_j_real(a)> qd_j_real(b);
  } else {
    QD_CHECK(a.kind == QD_J_TEXT && b.kind == QD_J_TEXT, QD_EBADINPUT, "%s, line %d: %.*s of %s and %s", QD_JAT(r),
             (int)operator.n, operator.at, qd_j_kind_name(a), qd_j_kind_name(b));
    size_t n = a.text.n < b.text.n ? a.text.n : b.text.n;
    QD_TRY(qd_jinja_spend(r, n / 64));
    int first = n > 0 ? memcmp(a.text.at, b.text.at, n) : 0; /* UTF-8 sorts as code points do */
    less = first != 0 ? first < 0 : a.text.n < b.text.n, more = first != 0 ? first > 0 : a.text.n > b.text.n;
  }
  bool or_equal = operator.n == 2;
  *out = *operator.at == '<' ? (or_equal ? !more : less) : (or_equal ? !less : more);
  return QD_OK;
}

static qd_status eval_binary(qd_jrender *r, const qd_jnode *node, qd_jvalue *out) {
  qd_jvalue a, b;
  bool yes;
  qd_jtext operator= node->name;
  QD_TRY(qd_jinja_eval(r, node->a, &a));
  QD_TRY(qd_jinja_eval(r, node->b, &b));
  if (qd_jtext_is(operator, "~")) {
    QD_TRY(as_text(r, &a));
    QD_TRY(as_text(r, &b));
    return join(r, a, b, out);
  }
  bool equality = qd_jtext_is(operator, "==") || qd_jtext_is(operator, "!=");
  if (equality)
    QD_TRY(qd_j_equal(r, a, b, &yes));
  else if (qd_jtext_is(operator, "in"))
    QD_TRY(is_in(r, a, b, &yes));
  else if (*operator.at == '<' || * operator.at == '>')
    QD_TRY(order(r, operator, a, b, &yes));
  else
    return arithmetic(r, operator, a, b, out);
  *out = qd_j_bool(equality && *operator.at == '!' ? !yes : yes);
  return QD_OK;
}

/* ---- calls --------------------------------------------------------------------------------------------------------------- */

static qd_status eval_arguments(qd_jrender *r, const qd_jnode *list, qd_jargs *out) {
  out->n = 0;
  for (; list != NULL; list = list->next, out->n++) {
    out->keyword[out->n] = list->name;
    QD_TRY(qd_jinja_eval(r, list->a, &out->at[out->n]));
  }
  return QD_OK;
}

static qd_status make_namespace(qd_jrender *r, const qd_jargs *args, qd_jvalue *out) {
  qd_jdict *dict;
  QD_TRY(qd_arena_new(&r->arena, 1, sizeof *dict, &dict));
  *dict = (qd_jdict){0};
  *out = (qd_jvalue){.kind = QD_J_NAMESPACE, .dict = dict};
  for (int i = 0; i < args->n; i++) {
    QD_CHECK(args->keyword[i].n > 0, QD_EUNSUPPORTED, "%s, line %d: a namespace of something else is not supported", QD_JAT(r));
    QD_TRY(qd_j_set(r, dict, args->keyword[i], args->at[i]));
  }
  return QD_OK;
}

static qd_status make_range(qd_jrender *r, const qd_jargs *args, qd_jvalue *out) {
  enum { LONGEST = 1000000 };
  int64_t bound[3] = {0, 0, 1};
  for (int i = 0; i < args->n; i++)
    QD_CHECK(i < 3 && qd_j_is_whole(args->at[i]) && args->keyword[i].n == 0, QD_EBADINPUT,
             "%s, line %d: range takes one to three whole numbers", QD_JAT(r));
  for (int i = 0; i < args->n; i++) bound[args->n == 1 ? 1 : i] = qd_j_whole(args->at[i]);
  const int64_t far = (int64_t)1 << 53;
  bool fine = args->n > 0 && bound[2] != 0 && bound[0] > -far && bound[0] < far && bound[1] > -far && bound[1] < far &&
              bound[2] > -far && bound[2] < far;
  int64_t span = fine ? (bound[2] > 0 ? bound[1] - bound[0] : bound[0] - bound[1]) : 0,
          step = bound[2] < 0 ? -bound[2] : bound[2];
  int64_t n = span > 0 ? (span - 1) / (fine ? step : 1) + 1 : 0;
  QD_CHECK(fine && n <= LONGEST, QD_EBADINPUT, "%s, line %d: range gives more than %d numbers", QD_JAT(r), LONGEST);
  QD_TRY(qd_j_list(r, (size_t)n, out));
  for (int64_t i = 0; i < n; i++) out->list->at[i] = qd_j_integer(bound[0] + i * bound[2]);
  return QD_OK;
}

/* What the environment itself has. */
static qd_status call_function(qd_jrender *r, qd_jtext name, const qd_jargs *args, qd_jvalue *out) {
  if (qd_jtext_is(name, "raise_exception")) {
    qd_jtext text = args->n > 0 && args->at[0].kind == QD_J_TEXT ? args->at[0].text : (qd_jtext){"no reason is given", 18};
    QD_FAIL(QD_EBADINPUT, "%s, line %d: the template refuses the messages: %.*s", QD_JAT(r), (int)(text.n < 400 ? text.n : 400),
            text.at);
  }
  if (qd_jtext_is(name, "namespace")) return make_namespace(r, args, out);
  if (qd_jtext_is(name, "range")) return make_range(r, args, out);
  QD_CHECK(!qd_jtext_is(name, "strftime_now"), QD_EUNSUPPORTED,
           "%s, line %d: strftime_now is not supported: a text that depends on the day cannot be had twice", QD_JAT(r));
  QD_FAIL(QD_EUNSUPPORTED, "%s, line %d: the function \"%.*s\" is not supported", QD_JAT(r), (int)(name.n < 40 ? name.n : 40),
          name.at);
}

static qd_status eval_call(qd_jrender *r, const qd_jnode *node, qd_jvalue *out) {
  qd_jargs args;
  qd_jvalue callee;
  const qd_jnode *who = node->a;
  if (who->kind == QD_JN_MEMBER) {
    QD_TRY(qd_jinja_eval(r, who->a, &callee));
    QD_TRY(eval_arguments(r, node->list, &args));
    return qd_jinja_method(r, who->name, callee, &args, out);
  }
  QD_TRY(qd_jinja_eval(r, who, &callee));
  QD_TRY(eval_arguments(r, node->list, &args));
  r->line = node->line;
  if (callee.kind == QD_J_MACRO) return qd_jinja_call_macro(r, callee, &args, out);
  QD_CHECK(callee.kind == QD_J_UNDEFINED && who->kind == QD_JN_NAME, QD_EBADINPUT, "%s, line %d: a %s cannot be called",
           QD_JAT(r), qd_j_kind_name(callee));
  return call_function(r, who->name, &args, out);
}

static qd_status eval_filter(qd_jrender *r, const qd_jnode *node, qd_jvalue *out) {
  qd_jargs args;
  qd_jvalue value;
  bool yes;
  QD_TRY(qd_jinja_eval(r, node->a, &value));
  QD_TRY(eval_arguments(r, node->list, &args));
  r->line = node->line;
  if (node->kind == QD_JN_FILTER) return qd_jinja_filter(r, node->name, value, &args, out);
  QD_TRY(qd_jinja_test(r, node->name, value, &args, &yes));
  *out = qd_j_bool(yes);
  return QD_OK;
}

/* ---- all of them --------------------------------------------------------------------------------------------------------- */

static qd_status eval_list(qd_jrender *r, const qd_jnode *node, qd_jvalue *out) {
  size_t n = 0;
  for (const qd_jnode *item = node->list; item != NULL; item = item->next) n++;
  QD_TRY(qd_j_list(r, n, out));
  qd_jvalue *to = out->list->at;
  for (const qd_jnode *item = node->list; item != NULL; item = item->next, to++) QD_TRY(qd_jinja_eval(r, item, to));
  return QD_OK;
}

static qd_status eval_dict(qd_jrender *r, const qd_jnode *node, qd_jvalue *out) {
  qd_jvalue key, value;
  QD_TRY(make_namespace(r, &(qd_jargs){0}, out));
  out->kind = QD_J_DICT;
  for (const qd_jnode *item = node->list; item != NULL; item = item->next->next) {
    QD_TRY(qd_jinja_eval(r, item, &key));
    QD_TRY(qd_j_need_text(r, key, "a key"));
    QD_TRY(qd_jinja_eval(r, item->next, &value));
    QD_TRY(qd_j_set(r, out->dict, key.text, value));
  }
  return QD_OK;
}

static qd_status eval_choice(qd_jrender *r, const qd_jnode *node, qd_jvalue *out) {
  QD_TRY(qd_jinja_eval(r, node->b, out));
  if (qd_j_truth(*out)) return qd_jinja_eval(r, node->a, out);
  if (node->c != NULL) return qd_jinja_eval(r, node->c, out);
  *out = qd_j_undefined((qd_jtext){"", 0});
  return QD_OK;
}

static qd_status eval_sign(qd_jrender *r, const qd_jnode *node, qd_jvalue *out) {
  QD_CHECK(qd_j_is_number(*out), QD_EBADINPUT, "%s, line %d: the sign of a %s", QD_JAT(r), qd_j_kind_name(*out));
  bool negative = node->kind == QD_JN_NEGATIVE;
  if (out->kind == QD_J_FLOAT)
    *out = qd_j_number(negative ? -out->number : out->number);
  else
    *out = qd_j_integer(negative ? -qd_j_whole(*out) : qd_j_whole(*out));
  return QD_OK;
}

static qd_status eval_node(qd_jrender *r, const qd_jnode *node, qd_jvalue *out) {
  qd_jvalue key;
  switch (node->kind) {
    case QD_JN_LITERAL: return *out = node->value, QD_OK;
    case QD_JN_NAME: return look_up(r, node->name, out);
    case QD_JN_LIST: return eval_list(r, node, out);
    case QD_JN_DICT: return eval_dict(r, node, out);
    case QD_JN_CALL: return eval_call(r, node, out);
    case QD_JN_FILTER:
    case QD_JN_TEST: return eval_filter(r, node, out);
    case QD_JN_BINARY: return eval_binary(r, node, out);
    case QD_JN_CHOICE: return eval_choice(r, node, out);
    default: break;
  }
  QD_TRY(qd_jinja_eval(r, node->a, out));
  switch (node->kind) {
    case QD_JN_MEMBER: return member_of(r, *out, node->name, out);
    case QD_JN_ITEM: QD_TRY(qd_jinja_eval(r, node->b, &key)); return item_of(r, *out, key, out);
    case QD_JN_SLICE: return slice_of(r, node, *out, out);
    case QD_JN_NOT: return *out = qd_j_bool(!qd_j_truth(*out)), QD_OK;
    case QD_JN_AND: return qd_j_truth(*out) ? qd_jinja_eval(r, node->b, out) : QD_OK;
    case QD_JN_OR: return qd_j_truth(*out) ? QD_OK : qd_jinja_eval(r, node->b, out);
    default: return eval_sign(r, node, out);
  }
}

/* A chain such as a + b + c ... is as deep as it is long. */
qd_status qd_jinja_eval(qd_jrender *r, const qd_jnode *node, qd_jvalue *out) {
  r->line = node->line;
  QD_CHECK(r->depth < 4 * QD_JINJA_DEPTH, QD_EBADINPUT, "%s, line %d: nested deeper than %d", QD_JAT(r), 4 * QD_JINJA_DEPTH);
  QD_TRY(qd_jinja_spend(r, 1));
  r->depth++;
  qd_status status = eval_node(r, node, out);
  r->depth--;
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}
