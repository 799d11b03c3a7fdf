/* Templates as a whole: parsed once, rendered for each document. */
#include "storage/jinja.h"

#include <stdio.h>
#include <string.h>

#include "kernels/base/heap.h"
#include "storage/jinja_parts.h"
#include "storage/utf8.h"

enum { SOURCE_LIMIT = 1 << 20, VALUES_LIMIT = 256 << 20, FUEL = 1 << 24 };

struct qd_jinja {
  char what[400];
  qd_arena arena; /* source and tree */
  qd_jnode *root;
};

/* ---- statements ---------------------------------------------------------------------------------------------------------- */

static qd_status push_scope(qd_jrender *r, qd_jscope *parent) {
  qd_jscope *scope;
  QD_TRY(qd_arena_new(&r->arena, 1, sizeof *scope, &scope));
  *scope = (qd_jscope){.parent = parent};
  r->scope = scope;
  return QD_OK;
}

static qd_status assign(qd_jrender *r, const qd_jnode *target, qd_jvalue value) {
  if (target->kind == QD_JN_MEMBER) {
    qd_jvalue space;
    QD_TRY(qd_jinja_eval(r, target->a, &space));
    QD_CHECK(space.kind == QD_J_NAMESPACE, QD_EBADINPUT, "%s, line %d: %.*s is no namespace", QD_JAT(r), (int)target->a->name.n,
             target->a->name.at);
    return qd_j_set(r, space.dict, target->name, value);
  }
  if (target->next == NULL) return qd_j_set(r, &r->scope->names, target->name, value);
  size_t n = 0;
  for (const qd_jnode *name = target; name != NULL; name = name->next) n++;
  QD_CHECK(value.kind == QD_J_LIST && value.list->n == n, QD_EBADINPUT, "%s, line %d: %zu values are expected for %zu names",
           QD_JAT(r), n, n);
  for (size_t i = 0; i < n; i++, target = target->next) QD_TRY(qd_j_set(r, &r->scope->names, target->name, value.list->at[i]));
  return QD_OK;
}

/* The text of statements as a value. */
static qd_status capture(qd_jrender *r, const qd_jnode *list, qd_jvalue *out) {
  qd_jbuffer buffer = {0}, *kept = r->out;
  r->out = &buffer;
  qd_status status = qd_jinja_run(r, list);
  r->out = kept;
  if (status == QD_OK) status = qd_j_copy(r, buffer.at, buffer.n, out);
  qd_heap_free(buffer.at);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

qd_status qd_jinja_call_macro(qd_jrender *r, qd_jvalue macro, const qd_jargs *args, qd_jvalue *out) {
  const qd_jnode *node = macro.macro.node;
  qd_jscope *kept = r->scope;
  int position = 0;
  QD_TRY(push_scope(r, macro.macro.scope));
  for (const qd_jnode *p = node->target; p != NULL; p = p->next, position++) {
    char name[128];
    qd_jvalue value = qd_j_undefined(p->name);
    snprintf(name, sizeof name, "%.*s", (int)p->name.n, p->name.at);
    if (!qd_jargs_find(args, position, name, &value) && p->a != NULL) QD_TRY(qd_jinja_eval(r, p->a, &value));
    QD_TRY(qd_j_set(r, &r->scope->names, p->name, value));
  }
  QD_CHECK(args->n <= position, QD_EBADINPUT, "%s, line %d: the macro %.*s takes %d arguments, got %d", QD_JAT(r),
           (int)node->name.n, node->name.at, position, args->n);
  QD_TRY(capture(r, node->list, out));
  r->scope = kept;
  return QD_OK;
}

static qd_status set_member(qd_jrender *r, qd_jdict *dict, const char *name, qd_jvalue value) {
  return qd_j_set(r, dict, (qd_jtext){name, strlen(name)}, value);
}

/* `loop` in item i of the list. */
static qd_status set_loop(qd_jrender *r, const qd_jlist *items, size_t i) {
  qd_jdict *loop;
  int64_t at = (int64_t)i, n = (int64_t)items->n;
  qd_jtext no = {"item", 4};
  QD_TRY(qd_arena_new(&r->arena, 1, sizeof *loop, &loop));
  *loop = (qd_jdict){0};
  QD_TRY(set_member(r, loop, "index", qd_j_integer(at + 1)));
  QD_TRY(set_member(r, loop, "index0", qd_j_integer(at)));
  QD_TRY(set_member(r, loop, "revindex", qd_j_integer(n - at)));
  QD_TRY(set_member(r, loop, "revindex0", qd_j_integer(n - at - 1)));
  QD_TRY(set_member(r, loop, "first", qd_j_bool(i == 0)));
  QD_TRY(set_member(r, loop, "last", qd_j_bool(at + 1 == n)));
  QD_TRY(set_member(r, loop, "length", qd_j_integer(n)));
  QD_TRY(set_member(r, loop, "previtem", i > 0 ? items->at[i - 1] : qd_j_undefined(no)));
  QD_TRY(set_member(r, loop, "nextitem", at + 1 < n ? items->at[i + 1] : qd_j_undefined(no)));
  return set_member(r, &r->scope->names, "loop", (qd_jvalue){.kind = QD_J_NAMESPACE, .dict = loop});
}

/* Those items that the loop's own "if" lets through. */
static qd_status filter_items(qd_jrender *r, const qd_jnode *node, qd_jlist *items) {
  qd_jvalue kept, yes;
  qd_jscope *outer = r->scope;
  QD_TRY(qd_j_list(r, items->n, &kept));
  kept.list->n = 0;
  for (size_t i = 0; i < items->n; i++) {
    QD_TRY(push_scope(r, outer));
    QD_TRY(assign(r, node->target, items->at[i]));
    QD_TRY(qd_jinja_eval(r, node->b, &yes));
    if (qd_j_truth(yes)) kept.list->at[kept.list->n++] = items->at[i];
  }
  r->scope = outer;
  *items = *kept.list;
  return QD_OK;
}

static qd_status run_for(qd_jrender *r, const qd_jnode *node) {
  qd_jvalue value;
  qd_jlist items;
  qd_jscope *outer = r->scope;
  QD_TRY(qd_jinja_eval(r, node->a, &value));
  QD_TRY(qd_j_items(r, value, &items));
  if (node->b != NULL) QD_TRY(filter_items(r, node, &items));
  if (items.n == 0) return qd_jinja_run(r, node->otherwise);
  for (size_t i = 0; i < items.n && r->control != QD_J_BREAK; i++) {
    QD_TRY(push_scope(r, outer));
    QD_TRY(set_loop(r, &items, i));
    QD_TRY(assign(r, node->target, items.at[i]));
    QD_TRY(qd_jinja_run(r, node->list));
    if (r->control == QD_J_CONTINUE) r->control = QD_J_GO;
  }
  r->control = QD_J_GO;
  r->scope = outer;
  return QD_OK;
}

/* An elif is an if alone in the branch before it, and so is an else that holds nothing but an if. */
static qd_status run_if(qd_jrender *r, const qd_jnode *node) {
  qd_jvalue value;
  for (;;) {
    QD_TRY(qd_jinja_eval(r, node->a, &value));
    if (qd_j_truth(value)) return qd_jinja_run(r, node->list);
    node = node->otherwise;
    if (node == NULL || node->kind != QD_JN_IF || node->next != NULL) return qd_jinja_run(r, node);
  }
}

static qd_status run_set(qd_jrender *r, const qd_jnode *node) {
  qd_jvalue value;
  if (node->a != NULL)
    QD_TRY(qd_jinja_eval(r, node->a, &value));
  else
    QD_TRY(capture(r, node->list, &value));
  return assign(r, node->target, value);
}

static qd_status run_one(qd_jrender *r, const qd_jnode *node) {
  qd_jvalue value;
  r->line = node->line;
  QD_TRY(qd_jinja_spend(r, 1));
  switch (node->kind) {
    case QD_JN_DATA: return qd_jinja_put(r, r->out, node->name);
    case QD_JN_PRINT: QD_TRY(qd_jinja_eval(r, node->a, &value)); return qd_j_print(r, r->out, value);
    case QD_JN_IF: return run_if(r, node);
    case QD_JN_FOR: return run_for(r, node);
    case QD_JN_SET: return run_set(r, node);
    case QD_JN_BODY: return qd_jinja_run(r, node->list);
    case QD_JN_BREAK: r->control = QD_J_BREAK; return QD_OK;
    case QD_JN_CONTINUE: r->control = QD_J_CONTINUE; return QD_OK;
    default: break;
  }
  value = (qd_jvalue){.kind = QD_J_MACRO, .macro = {node, r->scope}};
  return qd_j_set(r, &r->scope->names, node->name, value);
}

qd_status qd_jinja_run(qd_jrender *r, const qd_jnode *list) {
  QD_CHECK(r->depth < 4 * QD_JINJA_DEPTH, QD_EBADINPUT, "%s, line %d: macros call each other too deeply", QD_JAT(r));
  r->depth++;
  for (; list != NULL && r->control == QD_J_GO; list = list->next) QD_TRY(run_one(r, list));
  r->depth--;
  return QD_OK;
}

/* ---- open and render ----------------------------------------------------------------------------------------------------- */

/* As jinja2 takes a template: every line end is \n, and one at the very end goes. */
static qd_status take_source(qd_jinja *jinja, const char *text, size_t n, qd_jtext *out) {
  char *to;
  size_t used = 0;
  QD_TRY(qd_arena_new(&jinja->arena, n + 1, 1, &to));
  for (size_t i = 0; i < n; i++) {
    if (text[i] == '\r' && i + 1 < n && text[i + 1] == '\n') continue;
    to[used++] = text[i] == '\r' ? '\n' : text[i];
  }
  if (used > 0 && to[used - 1] == '\n') used--;
  *out = (qd_jtext){to, used};
  return QD_OK;
}

static qd_status parse(qd_jinja *jinja, const char *text, size_t n) {
  qd_jtext source;
  qd_jtokens tokens = {0};
  QD_TRY(qd_arena_open(&jinja->arena, "template", (size_t)SOURCE_LIMIT * 512));
  QD_TRY(take_source(jinja, text, n, &source));
  qd_status status = qd_jinja_lex(source, jinja->what, &jinja->arena, &tokens);
  qd_jparser parser = {.what = jinja->what, .tokens = &tokens, .arena = &jinja->arena};
  if (status == QD_OK) status = qd_jinja_template(&parser, &jinja->root);
  qd_heap_free(tokens.at);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

qd_status qd_jinja_open(const char *text, size_t n, const char *what, qd_jinja **out) {
  size_t bad;
  *out = NULL;
  QD_CHECK(n <= SOURCE_LIMIT, QD_EBADINPUT, "%s: a template of %zu bytes, expected %d at most", what, n, SOURCE_LIMIT);
  QD_CHECK(qd_utf8_valid(text, n, &bad), QD_EBADINPUT, "%s: not UTF-8: byte 0x%02X at offset %zu", what,
           (unsigned char)text[bad], bad);
  qd_jinja *jinja;
  QD_TRY(qd_heap_new(1, sizeof *jinja, &jinja));
  snprintf(jinja->what, sizeof jinja->what, "%s", what);
  qd_status status = parse(jinja, text, n);
  if (status == QD_OK) return *out = jinja, QD_OK;
  qd_jinja_close(jinja);
  return qd_forward(status, __FILE__, __LINE__);
}

void qd_jinja_close(qd_jinja *jinja) {
  if (jinja == NULL) return;
  qd_arena_close(&jinja->arena);
  qd_heap_free(jinja);
}

static qd_status render(qd_jrender *r, const qd_jinja *jinja, const qd_json *variables) {
  qd_jvalue globals;
  QD_TRY(qd_j_from_json(r, variables, &globals));
  QD_TRY(push_scope(r, NULL));
  if (globals.kind == QD_J_DICT) r->scope->names = *globals.dict;
  QD_TRY(push_scope(r, r->scope));
  QD_TRY(qd_jinja_run(r, jinja->root));
  return qd_heap_grow(&r->out->at, &r->out->capacity, r->out->n + 1, 1); /* never NULL */
}

qd_status qd_jinja_render(const qd_jinja *jinja, const qd_json *variables, char **text, size_t *n) {
  qd_jbuffer out = {0};
  qd_jrender r = {.what = jinja->what, .out = &out, .fuel = FUEL};
  *text = NULL, *n = 0;
  QD_TRY(qd_arena_open(&r.arena, "values of a template", VALUES_LIMIT));
  qd_status status = render(&r, jinja, variables);
  qd_arena_close(&r.arena);
  if (status != QD_OK) {
    qd_heap_free(out.at);
    return qd_forward(status, __FILE__, __LINE__);
  }
  out.at[out.n] = '\0';
  *text = out.at, *n = out.n;
  return QD_OK;
}
