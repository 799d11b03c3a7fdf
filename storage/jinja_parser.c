/* Expressions, with the precedences of jinja2.parser. */
#include <string.h>

#include "storage/jinja_parts.h"

const qd_jtoken *qd_jinja_peek(const qd_jparser *p) { return &p->tokens->at[p->at]; }

static bool looks_at(const qd_jparser *p, size_t ahead, qd_jtoken_kind kind, const char *word) {
  if (p->at + ahead >= p->tokens->n) return false;
  const qd_jtoken *token = &p->tokens->at[p->at + ahead];
  return token->kind == kind && (word == NULL || qd_jtext_is(token->text, word));
}

bool qd_jinja_take(qd_jparser *p, qd_jtoken_kind kind, const char *word) {
  bool there = looks_at(p, 0, kind, word);
  p->at += there && kind != QD_JT_EOF;
  return there;
}

static bool take(qd_jparser *p, const char *operator) { return qd_jinja_take(p, QD_JT_OPERATOR, operator); }

qd_status qd_jinja_expect(qd_jparser *p, qd_jtoken_kind kind, const char *word) {
  const qd_jtoken *got = qd_jinja_peek(p);
  const char *wanted = word != NULL ? word : kind == QD_JT_NAME ? "a name" : kind == QD_JT_END ? "the end of the tag" : "a tag";
  QD_CHECK(qd_jinja_take(p, kind, word), QD_EBADINPUT, "%s, line %d: %s is expected, not \"%.*s\"", p->what, got->line, wanted,
           (int)(got->text.n < 40 ? got->text.n : 40), got->text.at);
  return QD_OK;
}

qd_status qd_jinja_node(qd_jparser *p, qd_jnode_kind kind, qd_jnode **out) {
  QD_TRY(qd_arena_new(p->arena, 1, sizeof **out, out));
  **out = (qd_jnode){.kind = kind, .line = qd_jinja_peek(p)->line};
  return QD_OK;
}

static qd_status binary(qd_jparser *p, qd_jnode_kind kind, const char *operator, qd_jnode * a, qd_jnode **out) {
  QD_TRY(qd_jinja_node(p, kind, out));
  (*out)->name = (qd_jtext){operator, strlen(operator)};
  (*out)->a = a;
  return QD_OK;
}

/* ---- what stands by itself ----------------------------------------------------------------------------------------------- */

/* Expressions up to the closing bracket, a comma between them. */
static qd_status parse_items(qd_jparser *p, const char *closer, bool pairs, qd_jnode **list) {
  while (!take(p, closer)) {
    QD_TRY(qd_jinja_expression(p, list));
    list = &(*list)->next;
    if (pairs) {
      QD_TRY(qd_jinja_expect(p, QD_JT_OPERATOR, ":"));
      QD_TRY(qd_jinja_expression(p, list));
      list = &(*list)->next;
    }
    if (take(p, ",")) continue;
    QD_TRY(qd_jinja_expect(p, QD_JT_OPERATOR, closer));
    return QD_OK;
  }
  return QD_OK;
}

static qd_status parse_group(qd_jparser *p, qd_jnode **out) { /* (a), or (a, b): a list as good as a tuple */
  qd_jnode *list = NULL;
  size_t first = p->at;
  QD_TRY(parse_items(p, ")", false, &list));
  const qd_jtoken *before = &p->tokens->at[p->at - 2];
  bool comma = p->at - 2 >= first && before->kind == QD_JT_OPERATOR && qd_jtext_is(before->text, ",");
  if (list != NULL && list->next == NULL && !comma) return *out = list, QD_OK;
  QD_TRY(qd_jinja_node(p, QD_JN_LIST, out));
  (*out)->list = list;
  return QD_OK;
}

static qd_status parse_number(qd_jparser *p, const qd_jtoken *token, qd_jnode *node) {
  double value = 0, scale = 1;
  int64_t whole = 0;
  bool fraction = false;
  for (size_t i = 0; i < token->text.n; i++) {
    if (token->text.at[i] == '.') {
      fraction = true;
      continue;
    }
    whole = whole * 10 + (token->text.at[i] - '0');
    if (fraction) scale *= 10;
  }
  QD_CHECK(token->kind == QD_JT_INTEGER || whole < (int64_t)1 << 53, QD_EUNSUPPORTED,
           "%s, line %d: the number %.*s is not supported", p->what, token->line, (int)token->text.n, token->text.at);
  value = (double)whole / scale; /* both exact: rounded once */
  node->value = token->kind == QD_JT_INTEGER ? qd_j_integer(whole) : qd_j_number(value);
  return QD_OK;
}

static qd_status parse_name(qd_jparser *p, qd_jtext name, qd_jnode *node) {
  static const struct {
    const char *name;
    qd_jkind kind;
    bool truth;
  } constants[] = {{"true", QD_J_BOOL, true},   {"True", QD_J_BOOL, true},  {"false", QD_J_BOOL, false},
                   {"False", QD_J_BOOL, false}, {"none", QD_J_NONE, false}, {"None", QD_J_NONE, false}};
  static const char *const reserved[] = {"if", "else", "in", "is", "and", "or", "not", NULL};
  for (int i = 0; reserved[i] != NULL; i++)
    QD_CHECK(!qd_jtext_is(name, reserved[i]), QD_EBADINPUT, "%s, line %d: \"%s\" is not expected here", p->what, node->line,
             reserved[i]);
  node->kind = QD_JN_NAME, node->name = name;
  for (size_t i = 0; i < sizeof constants / sizeof *constants; i++)
    if (qd_jtext_is(name, constants[i].name)) {
      node->kind = QD_JN_LITERAL;
      node->value = constants[i].kind == QD_J_NONE ? qd_j_none() : qd_j_bool(constants[i].truth);
    }
  return QD_OK;
}

/* Strings side by side are one. */
static qd_status parse_text(qd_jparser *p, qd_jnode *node) {
  qd_jtext all = qd_jinja_peek(p)->text;
  for (p->at++; looks_at(p, 0, QD_JT_TEXT, NULL); p->at++) {
    qd_jtext more = qd_jinja_peek(p)->text;
    char *joined;
    QD_TRY(qd_arena_new(p->arena, all.n + more.n + 1, 1, &joined));
    memcpy(joined, all.at, all.n);
    memcpy(joined + all.n, more.at, more.n);
    all = (qd_jtext){joined, all.n + more.n};
  }
  node->value = qd_j_text(all);
  return QD_OK;
}

static qd_status parse_primary(qd_jparser *p, qd_jnode **out) {
  const qd_jtoken *token = qd_jinja_peek(p);
  if (take(p, "(")) return parse_group(p, out);
  QD_TRY(qd_jinja_node(p, QD_JN_LITERAL, out));
  if (token->kind == QD_JT_TEXT) return parse_text(p, *out);
  if (qd_jinja_take(p, QD_JT_NAME, NULL)) return parse_name(p, token->text, *out);
  if (qd_jinja_take(p, QD_JT_INTEGER, NULL) || qd_jinja_take(p, QD_JT_FLOAT, NULL)) return parse_number(p, token, *out);
  if (take(p, "[")) return (*out)->kind = QD_JN_LIST, parse_items(p, "]", false, &(*out)->list);
  if (take(p, "{")) return (*out)->kind = QD_JN_DICT, parse_items(p, "}", true, &(*out)->list);
  QD_FAIL(QD_EBADINPUT, "%s, line %d: an expression is expected, not \"%.*s\"", p->what, token->line,
          (int)(token->text.n < 40 ? token->text.n : 40), token->text.at);
}

/* ---- behind it ----------------------------------------------------------------------------------------------------------- */

static qd_status parse_arguments(qd_jparser *p, qd_jnode **list) {
  int n = 0;
  for (bool keywords = false; !take(p, ")"); n++) {
    const qd_jtoken *first = qd_jinja_peek(p);
    QD_CHECK(!looks_at(p, 0, QD_JT_OPERATOR, "*") && !looks_at(p, 0, QD_JT_OPERATOR, "**"), QD_EUNSUPPORTED,
             "%s, line %d: arguments from a list (*) are not supported", p->what, first->line);
    bool keyword = first->kind == QD_JT_NAME && looks_at(p, 1, QD_JT_OPERATOR, "=");
    QD_CHECK(n < QD_JINJA_ARGS && (keyword || !keywords), QD_EBADINPUT,
             "%s, line %d: more than %d arguments, or one by position behind one by name", p->what, first->line, QD_JINJA_ARGS);
    if (keyword) p->at += 2, keywords = true;
    QD_TRY(qd_jinja_expression(p, list));
    qd_jnode *boxed; /* an argument is a node of its own: what it holds may be shared */
    QD_TRY(qd_jinja_node(p, QD_JN_BODY, &boxed));
    boxed->a = *list, boxed->name = keyword ? first->text : (qd_jtext){"", 0};
    *list = boxed, list = &boxed->next;
    if (take(p, ",")) continue;
    QD_TRY(qd_jinja_expect(p, QD_JT_OPERATOR, ")"));
    return QD_OK;
  }
  return QD_OK;
}

static qd_status parse_subscript(qd_jparser *p, qd_jnode *node) {
  qd_jnode **bound[] = {&node->b, &node->c, &node->d};
  node->kind = QD_JN_ITEM;
  if (!looks_at(p, 0, QD_JT_OPERATOR, ":")) QD_TRY(qd_jinja_expression(p, &node->b));
  for (int i = 1; i < 3 && take(p, ":"); i++) {
    node->kind = QD_JN_SLICE;
    if (!looks_at(p, 0, QD_JT_OPERATOR, ":") && !looks_at(p, 0, QD_JT_OPERATOR, "]")) QD_TRY(qd_jinja_expression(p, bound[i]));
  }
  return qd_jinja_expect(p, QD_JT_OPERATOR, "]");
}

static qd_status parse_postfix(qd_jparser *p, qd_jnode **node) {
  for (;;) {
    const char *operator= take(p, ".") ? "." : take(p, "[") ? "[" : take(p, "(") ? "(" : NULL;
    if (operator== NULL) return QD_OK;
    QD_TRY(binary(p, *operator== '(' ? QD_JN_CALL : QD_JN_MEMBER, operator, * node, node));
    if (*operator== '(')
      QD_TRY(parse_arguments(p, &(*node)->list));
    else if (*operator== '[')
      QD_TRY(parse_subscript(p, *node));
    else {
      (*node)->name = qd_jinja_peek(p)->text;
      QD_TRY(qd_jinja_expect(p, QD_JT_NAME, NULL));
    }
  }
}

static bool begins_argument(const qd_jparser *p) {
  const qd_jtoken *t = qd_jinja_peek(p);
  if (t->kind == QD_JT_OPERATOR) return qd_jtext_is(t->text, "[") || qd_jtext_is(t->text, "{");
  if (t->kind == QD_JT_NAME)
    return !qd_jtext_is(t->text, "else") && !qd_jtext_is(t->text, "or") && !qd_jtext_is(t->text, "and") &&
           !qd_jtext_is(t->text, "is") && !qd_jtext_is(t->text, "if") && !qd_jtext_is(t->text, "in") &&
           !qd_jtext_is(t->text, "not");
  return t->kind == QD_JT_TEXT || t->kind == QD_JT_INTEGER || t->kind == QD_JT_FLOAT;
}

/* a is [not] test, with an argument in brackets or without. */
static qd_status parse_test(qd_jparser *p, qd_jnode **node) {
  bool negated = qd_jinja_take(p, QD_JT_NAME, "not");
  QD_TRY(binary(p, QD_JN_TEST, "", *node, node));
  qd_jnode *test = *node, *argument;
  test->name = qd_jinja_peek(p)->text;
  QD_TRY(qd_jinja_expect(p, QD_JT_NAME, NULL));
  if (take(p, "("))
    QD_TRY(parse_arguments(p, &test->list));
  else if (begins_argument(p)) {
    QD_TRY(parse_primary(p, &argument));
    QD_TRY(parse_postfix(p, &argument));
    QD_TRY(binary(p, QD_JN_BODY, "", argument, &test->list));
  }
  return negated ? binary(p, QD_JN_NOT, "", test, node) : QD_OK;
}

static qd_status parse_filters(qd_jparser *p, qd_jnode **node) {
  for (;;) {
    if (qd_jinja_take(p, QD_JT_NAME, "is")) {
      QD_TRY(parse_test(p, node));
      continue;
    }
    if (!take(p, "|")) return QD_OK;
    QD_TRY(binary(p, QD_JN_FILTER, "", *node, node));
    (*node)->name = qd_jinja_peek(p)->text;
    QD_TRY(qd_jinja_expect(p, QD_JT_NAME, NULL));
    if (take(p, "(")) QD_TRY(parse_arguments(p, &(*node)->list));
  }
}

/* ---- operators ----------------------------------------------------------------------------------------------------------- */

static qd_status parse_unary(qd_jparser *p, bool with_filters, qd_jnode **out) {
  QD_CHECK(++p->depth <= QD_JINJA_DEPTH, QD_EBADINPUT, "%s, line %d: nested deeper than %d", p->what, qd_jinja_peek(p)->line,
           QD_JINJA_DEPTH);
  const char *sign = take(p, "-") ? "-" : take(p, "+") ? "+" : NULL;
  if (sign != NULL) {
    qd_jnode *inner;
    QD_TRY(parse_unary(p, false, &inner));
    QD_TRY(binary(p, *sign == '-' ? QD_JN_NEGATIVE : QD_JN_POSITIVE, sign, inner, out));
  } else {
    QD_TRY(parse_primary(p, out));
  }
  QD_TRY(parse_postfix(p, out));
  if (with_filters) QD_TRY(parse_filters(p, out));
  p->depth--;
  QD_CHECK(!looks_at(p, 0, QD_JT_OPERATOR, "**"), QD_EUNSUPPORTED, "%s, line %d: the operator ** is not supported", p->what,
           qd_jinja_peek(p)->line);
  return QD_OK;
}

/* From left to right; sums bind weaker than ~, and that weaker than products. */
static qd_status parse_arithmetic(qd_jparser *p, int level, qd_jnode **out) {
  static const char *const operators[3][5] = {{"+", "-", NULL}, {"~", NULL}, {"*", "//", "/", "%", NULL}};
  if (level == 3) return parse_unary(p, true, out);
  QD_TRY(parse_arithmetic(p, level + 1, out));
  for (const char *const *o = operators[level]; *o != NULL;) {
    if (!take(p, *o)) {
      o++;
      continue;
    }
    QD_TRY(binary(p, QD_JN_BINARY, *o, *out, out));
    QD_TRY(parse_arithmetic(p, level + 1, &(*out)->b));
    o = operators[level];
  }
  return QD_OK;
}

static const char *take_comparison(qd_jparser *p, bool *negated) {
  static const char *const operators[] = {"==", "!=", "<=", ">=", "<", ">", NULL};
  *negated = looks_at(p, 0, QD_JT_NAME, "not") && looks_at(p, 1, QD_JT_NAME, "in");
  if (*negated) return p->at += 2, "in";
  if (qd_jinja_take(p, QD_JT_NAME, "in")) return "in";
  for (int i = 0; operators[i] != NULL; i++)
    if (take(p, operators[i])) return operators[i];
  return NULL;
}

static qd_status parse_comparison(qd_jparser *p, qd_jnode **out) {
  bool negated, again;
  QD_TRY(parse_arithmetic(p, 0, out));
  const char *operator= take_comparison(p, &negated);
  if (operator== NULL) return QD_OK;
  QD_TRY(binary(p, QD_JN_BINARY, operator, * out, out));
  QD_TRY(parse_arithmetic(p, 0, &(*out)->b));
  if (negated) QD_TRY(binary(p, QD_JN_NOT, "", *out, out));
  QD_CHECK(take_comparison(p, &again) == NULL, QD_EUNSUPPORTED,
           "%s, line %d: comparisons in a chain (a < b < c) are not supported", p->what, (*out)->line);
  return QD_OK;
}

static qd_status parse_not(qd_jparser *p, qd_jnode **out) {
  if (!qd_jinja_take(p, QD_JT_NAME, "not")) return parse_comparison(p, out);
  QD_CHECK(++p->depth <= QD_JINJA_DEPTH, QD_EBADINPUT, "%s, line %d: nested deeper than %d", p->what, qd_jinja_peek(p)->line,
           QD_JINJA_DEPTH);
  qd_jnode *inner;
  QD_TRY(parse_not(p, &inner));
  p->depth--;
  return binary(p, QD_JN_NOT, "", inner, out);
}

static qd_status parse_and(qd_jparser *p, qd_jnode **out) {
  QD_TRY(parse_not(p, out));
  while (qd_jinja_take(p, QD_JT_NAME, "and")) {
    QD_TRY(binary(p, QD_JN_AND, "", *out, out));
    QD_TRY(parse_not(p, &(*out)->b));
  }
  return QD_OK;
}

qd_status qd_jinja_disjunction(qd_jparser *p, qd_jnode **out) {
  QD_TRY(parse_and(p, out));
  while (qd_jinja_take(p, QD_JT_NAME, "or")) {
    QD_TRY(binary(p, QD_JN_OR, "", *out, out));
    QD_TRY(parse_and(p, &(*out)->b));
  }
  return QD_OK;
}

qd_status qd_jinja_expression(qd_jparser *p, qd_jnode **out) {
  QD_CHECK(++p->depth <= QD_JINJA_DEPTH, QD_EBADINPUT, "%s, line %d: nested deeper than %d", p->what, qd_jinja_peek(p)->line,
           QD_JINJA_DEPTH);
  QD_TRY(qd_jinja_disjunction(p, out));
  while (qd_jinja_take(p, QD_JT_NAME, "if")) {
    QD_TRY(binary(p, QD_JN_CHOICE, "", *out, out));
    QD_TRY(qd_jinja_disjunction(p, &(*out)->b));
    if (qd_jinja_take(p, QD_JT_NAME, "else")) QD_TRY(qd_jinja_expression(p, &(*out)->c));
  }
  p->depth--;
  return QD_OK;
}

qd_status qd_jinja_expression_list(qd_jparser *p, qd_jnode **out) {
  QD_TRY(qd_jinja_expression(p, out));
  if (!looks_at(p, 0, QD_JT_OPERATOR, ",")) return QD_OK;
  qd_jnode *list;
  QD_TRY(qd_jinja_node(p, QD_JN_LIST, &list));
  list->list = *out, *out = list;
  for (qd_jnode **last = &list->list->next; take(p, ",") && !looks_at(p, 0, QD_JT_END, NULL); last = &(*last)->next)
    QD_TRY(qd_jinja_expression(p, last));
  return QD_OK;
}
