/* Tags and the text between them, as jinja2.parser has them. */
#include <string.h>

#include "storage/jinja_parts.h"

/* Behind the name of a tag: its end. */
static qd_status close_tag(qd_jparser *p) { return qd_jinja_expect(p, QD_JT_END, NULL); }

/* {% NAME %}, the first of these names that is there; `which` its number. */
static qd_status end_of(qd_jparser *p, const char *const *names, int *which) {
  QD_TRY(qd_jinja_expect(p, QD_JT_BLOCK, NULL));
  for (*which = 0; names[*which] != NULL; ++*which)
    if (qd_jinja_take(p, QD_JT_NAME, names[*which])) return QD_OK;
  const qd_jtoken *got = qd_jinja_peek(p);
  QD_FAIL(QD_EBADINPUT, "%s, line %d: %s is expected, not \"%.*s\"", p->what, got->line, names[0], (int)got->text.n,
          got->text.at);
}

static qd_status parse_if(qd_jparser *p, qd_jnode **out) {
  static const char *const ends[] = {"endif", "elif", "else", NULL};
  int end = 1;
  qd_jnode **branch = out;
  while (end == 1) {
    QD_TRY(qd_jinja_node(p, QD_JN_IF, branch));
    QD_TRY(qd_jinja_expression_list(p, &(*branch)->a));
    QD_TRY(close_tag(p));
    QD_TRY(qd_jinja_statements(p, &(*branch)->list));
    QD_TRY(end_of(p, ends, &end));
    branch = &(*branch)->otherwise;
  }
  if (end == 2) {
    QD_TRY(close_tag(p));
    QD_TRY(qd_jinja_statements(p, branch));
    QD_TRY(end_of(p, (const char *const[]){"endif", NULL}, &end));
  }
  return close_tag(p);
}

/* One name, several with commas, or ns.name. */
static qd_status parse_target(qd_jparser *p, qd_jnode **out) {
  do {
    QD_TRY(qd_jinja_node(p, QD_JN_NAME, out));
    (*out)->name = qd_jinja_peek(p)->text;
    QD_TRY(qd_jinja_expect(p, QD_JT_NAME, NULL));
    out = &(*out)->next;
  } while (qd_jinja_take(p, QD_JT_OPERATOR, ","));
  return QD_OK;
}

static qd_status parse_for(qd_jparser *p, qd_jnode **out) {
  int end;
  QD_TRY(qd_jinja_node(p, QD_JN_FOR, out));
  QD_TRY(parse_target(p, &(*out)->target));
  QD_TRY(qd_jinja_expect(p, QD_JT_NAME, "in"));
  QD_TRY(qd_jinja_disjunction(p, &(*out)->a));
  if (qd_jinja_take(p, QD_JT_NAME, "if")) QD_TRY(qd_jinja_disjunction(p, &(*out)->b));
  QD_CHECK(!qd_jinja_take(p, QD_JT_NAME, "recursive"), QD_EUNSUPPORTED, "%s, line %d: recursive loops are not supported",
           p->what, (*out)->line);
  QD_TRY(close_tag(p));
  p->loops++;
  QD_TRY(qd_jinja_statements(p, &(*out)->list));
  p->loops--;
  QD_TRY(end_of(p, (const char *const[]){"endfor", "else", NULL}, &end));
  if (end == 1) {
    QD_TRY(close_tag(p));
    QD_TRY(qd_jinja_statements(p, &(*out)->otherwise));
    QD_TRY(end_of(p, (const char *const[]){"endfor", NULL}, &end));
  }
  return close_tag(p);
}

static qd_status parse_set(qd_jparser *p, qd_jnode **out) {
  int end;
  QD_TRY(qd_jinja_node(p, QD_JN_SET, out));
  qd_jnode *set = *out;
  QD_TRY(parse_target(p, &set->target));
  if (qd_jinja_take(p, QD_JT_OPERATOR, ".")) { /* a member of a namespace */
    qd_jnode *space = set->target;
    QD_TRY(qd_jinja_node(p, QD_JN_MEMBER, &set->target));
    set->target->a = space, set->target->name = qd_jinja_peek(p)->text;
    QD_TRY(qd_jinja_expect(p, QD_JT_NAME, NULL));
  }
  if (qd_jinja_take(p, QD_JT_OPERATOR, "=")) {
    QD_TRY(qd_jinja_expression_list(p, &set->a));
    return close_tag(p);
  }
  QD_CHECK(qd_jinja_peek(p)->kind == QD_JT_END, QD_EUNSUPPORTED, "%s, line %d: filters of a set block are not supported",
           p->what, set->line);
  QD_TRY(close_tag(p));
  QD_TRY(qd_jinja_statements(p, &set->list));
  QD_TRY(end_of(p, (const char *const[]){"endset", NULL}, &end));
  return close_tag(p);
}

static qd_status parse_macro(qd_jparser *p, qd_jnode **out) {
  int end, n = 0, loops = p->loops;
  QD_TRY(qd_jinja_node(p, QD_JN_MACRO, out));
  qd_jnode **parameter = &(*out)->target;
  (*out)->name = qd_jinja_peek(p)->text;
  QD_TRY(qd_jinja_expect(p, QD_JT_NAME, NULL));
  QD_TRY(qd_jinja_expect(p, QD_JT_OPERATOR, "("));
  for (; !qd_jinja_take(p, QD_JT_OPERATOR, ")"); n++) {
    if (n > 0) QD_TRY(qd_jinja_expect(p, QD_JT_OPERATOR, ","));
    QD_TRY(qd_jinja_node(p, QD_JN_NAME, parameter));
    QD_CHECK(n < QD_JINJA_ARGS, QD_EBADINPUT, "%s, line %d: more than %d parameters", p->what, (*out)->line, QD_JINJA_ARGS);
    (*parameter)->name = qd_jinja_peek(p)->text;
    QD_TRY(qd_jinja_expect(p, QD_JT_NAME, NULL));
    if (qd_jinja_take(p, QD_JT_OPERATOR, "=")) QD_TRY(qd_jinja_expression(p, &(*parameter)->a));
    parameter = &(*parameter)->next;
  }
  QD_TRY(close_tag(p));
  p->loops = 0;
  QD_TRY(qd_jinja_statements(p, &(*out)->list));
  p->loops = loops;
  QD_TRY(end_of(p, (const char *const[]){"endmacro", NULL}, &end));
  return close_tag(p);
}

/* What an assistant says, marked for training: nothing to the text. */
static qd_status parse_generation(qd_jparser *p, qd_jnode **out) {
  int end;
  QD_TRY(qd_jinja_node(p, QD_JN_BODY, out));
  QD_TRY(close_tag(p));
  QD_TRY(qd_jinja_statements(p, &(*out)->list));
  QD_TRY(end_of(p, (const char *const[]){"endgeneration", NULL}, &end));
  return close_tag(p);
}

static qd_status parse_jump(qd_jparser *p, qd_jnode_kind kind, qd_jnode **out) {
  QD_TRY(qd_jinja_node(p, kind, out));
  QD_CHECK(p->loops > 0, QD_EBADINPUT, "%s, line %d: break or continue outside of a loop", p->what, (*out)->line);
  return close_tag(p);
}

static qd_status parse_block(qd_jparser *p, qd_jnode **out) {
  if (qd_jinja_take(p, QD_JT_NAME, "if")) return parse_if(p, out);
  if (qd_jinja_take(p, QD_JT_NAME, "for")) return parse_for(p, out);
  if (qd_jinja_take(p, QD_JT_NAME, "set")) return parse_set(p, out);
  if (qd_jinja_take(p, QD_JT_NAME, "macro")) return parse_macro(p, out);
  if (qd_jinja_take(p, QD_JT_NAME, "generation")) return parse_generation(p, out);
  if (qd_jinja_take(p, QD_JT_NAME, "break")) return parse_jump(p, QD_JN_BREAK, out);
  if (qd_jinja_take(p, QD_JT_NAME, "continue")) return parse_jump(p, QD_JN_CONTINUE, out);
  const qd_jtoken *got = qd_jinja_peek(p);
  QD_TRY(qd_jinja_expect(p, QD_JT_NAME, NULL));
  QD_FAIL(QD_EUNSUPPORTED, "%s, line %d: the tag \"%.*s\" is not supported", p->what, got->line,
          (int)(got->text.n < 40 ? got->text.n : 40), got->text.at);
}

/* Whether a tag belongs to who is around it. */
static bool ends_here(const qd_jparser *p) {
  static const char *const names[] = {"endif", "elif", "else", "endfor", "endset", "endmacro", "endgeneration", NULL};
  const qd_jtoken *token = qd_jinja_peek(p);
  if (token->kind != QD_JT_BLOCK) return token->kind == QD_JT_EOF;
  for (int i = 0; names[i] != NULL; i++)
    if (qd_jtext_is(token[1].text, names[i])) return true;
  return false;
}

static qd_status parse_statement(qd_jparser *p, qd_jnode **out) {
  const qd_jtoken *token = qd_jinja_peek(p);
  if (qd_jinja_take(p, QD_JT_BLOCK, NULL)) return parse_block(p, out);
  QD_TRY(qd_jinja_node(p, QD_JN_DATA, out));
  (*out)->name = token->text;
  if (qd_jinja_take(p, QD_JT_DATA, NULL)) return QD_OK;
  p->at++; /* {{ */
  (*out)->kind = QD_JN_PRINT;
  QD_TRY(qd_jinja_expression_list(p, &(*out)->a));
  return close_tag(p);
}

qd_status qd_jinja_statements(qd_jparser *p, qd_jnode **out) {
  QD_CHECK(++p->depth <= QD_JINJA_DEPTH, QD_EBADINPUT, "%s, line %d: nested deeper than %d", p->what, qd_jinja_peek(p)->line,
           QD_JINJA_DEPTH);
  for (*out = NULL; !ends_here(p); out = &(*out)->next) QD_TRY(parse_statement(p, out));
  p->depth--;
  return QD_OK;
}

qd_status qd_jinja_template(qd_jparser *p, qd_jnode **out) {
  QD_TRY(qd_jinja_statements(p, out));
  const qd_jtoken *got = qd_jinja_peek(p);
  QD_CHECK(got->kind == QD_JT_EOF, QD_EBADINPUT, "%s, line %d: \"%.*s\" ends nothing", p->what, got->line, (int)got[1].text.n,
           got[1].text.at);
  return QD_OK;
}
