/* The inside of jinja.h: tokens (jinja_lexer.c), the tree (jinja_parser.c, jinja_statements.c), values (jinja_values.c), and
 * what computes with them (jinja_eval.c, jinja_filters.c, jinja_methods.c, jinja_run.c). */
#ifndef QDIST_STORAGE_JINJA_PARTS_H
#define QDIST_STORAGE_JINJA_PARTS_H

#include "kernels/base/arena.h"
#include "storage/jinja.h"

enum { QD_JINJA_DEPTH = 100, QD_JINJA_ARGS = 8 };

typedef struct qd_jtext {
  const char *at;
  size_t n;
} qd_jtext;

static inline bool qd_jtext_is(qd_jtext text, const char *word) {
  size_t i = 0;
  while (i < text.n && word[i] != '\0' && text.at[i] == word[i]) i++;
  return i == text.n && word[i] == '\0';
}

/* ---- tokens -------------------------------------------------------------------------------------------------------------- */

typedef enum qd_jtoken_kind {
  QD_JT_DATA,     /* text between tags                              */
  QD_JT_VARIABLE, /* {{                                             */
  QD_JT_BLOCK,    /* {%                                             */
  QD_JT_END,      /* }} or %}                                       */
  QD_JT_NAME,
  QD_JT_TEXT, /* a string, escapes resolved                     */
  QD_JT_INTEGER,
  QD_JT_FLOAT,
  QD_JT_OPERATOR,
  QD_JT_EOF
} qd_jtoken_kind;

typedef struct qd_jtoken {
  qd_jtoken_kind kind;
  int line;
  qd_jtext text;
} qd_jtoken;

typedef struct qd_jtokens {
  qd_jtoken *at;
  size_t n, capacity;
} qd_jtokens;

/* Texts lie in the arena. */
qd_status qd_jinja_lex(qd_jtext source, const char *what, qd_arena *arena, qd_jtokens *out) QD_MUST_USE;

/* ---- the tree ------------------------------------------------------------------------------------------------------------ */

typedef enum qd_jnode_kind {
  /* expressions */
  QD_JN_LITERAL,  /* value                                            */
  QD_JN_NAME,     /* name                                             */
  QD_JN_LIST,     /* list                                             */
  QD_JN_DICT,     /* list: key, value, key, value ...                 */
  QD_JN_MEMBER,   /* a.name                                           */
  QD_JN_ITEM,     /* a[b]                                             */
  QD_JN_SLICE,    /* a[b:c:d]                                         */
  QD_JN_CALL,     /* a(list)                                          */
  QD_JN_FILTER,   /* a | name(list)                                   */
  QD_JN_TEST,     /* a is name(list)                                  */
  QD_JN_NOT,      /* not a                                            */
  QD_JN_NEGATIVE, /* -a                                               */
  QD_JN_POSITIVE, /* +a                                               */
  QD_JN_AND,
  QD_JN_OR,
  QD_JN_BINARY, /* a name b: + - * / // % ~ == != < <= > >= in      */
  QD_JN_CHOICE, /* a if b else c                                    */
  /* statements */
  QD_JN_DATA,  /* name: text as it stands                          */
  QD_JN_PRINT, /* a                                                */
  QD_JN_IF,    /* if a: list, else: otherwise                      */
  QD_JN_FOR,   /* for target in a [if b]: list, else: otherwise    */
  QD_JN_SET,   /* target = a, or the text of list where a is NULL  */
  QD_JN_MACRO, /* name(target, with defaults in their a): list     */
  QD_JN_BODY,  /* list (generation)                                */
  QD_JN_BREAK,
  QD_JN_CONTINUE
} qd_jnode_kind;

typedef struct qd_jnode qd_jnode;
typedef struct qd_jscope qd_jscope;
typedef struct qd_jlist qd_jlist;
typedef struct qd_jdict qd_jdict;

typedef enum qd_jkind {
  QD_J_UNDEFINED, /* text: the name that has no value */
  QD_J_NONE,
  QD_J_BOOL,
  QD_J_INTEGER,
  QD_J_FLOAT,
  QD_J_TEXT,
  QD_J_LIST,
  QD_J_DICT,
  QD_J_NAMESPACE, /* dict */
  QD_J_MACRO
} qd_jkind;

typedef struct qd_jvalue {
  qd_jkind kind;
  union {
    bool truth;
    int64_t integer;
    double number;
    qd_jtext text;
    qd_jlist *list;
    qd_jdict *dict;
    struct {
      const qd_jnode *node;
      qd_jscope *scope;
    } macro;
  };
} qd_jvalue;

struct qd_jlist {
  qd_jvalue *at;
  size_t n;
};

typedef struct qd_jpair {
  qd_jtext key;
  qd_jvalue value;
} qd_jpair;

struct qd_jdict { /* in the order of insertion */
  qd_jpair *at;
  size_t n, capacity;
};

struct qd_jnode {
  qd_jnode_kind kind;
  int line;
  qd_jtext name; /* of an argument: the keyword */
  qd_jvalue value;
  qd_jnode *a, *b, *c, *d, *list, *otherwise, *target, *next;
};

typedef struct qd_jparser {
  const char *what;
  const qd_jtokens *tokens;
  size_t at;
  int depth, loops;
  qd_arena *arena;
} qd_jparser;

qd_status qd_jinja_expression(qd_jparser *p, qd_jnode **out) QD_MUST_USE;      /* with "a if b else c" */
qd_status qd_jinja_expression_list(qd_jparser *p, qd_jnode **out) QD_MUST_USE; /* "a, b" is a list */
qd_status qd_jinja_disjunction(qd_jparser *p, qd_jnode **out) QD_MUST_USE;     /* without */
qd_status qd_jinja_statements(qd_jparser *p, qd_jnode **out) QD_MUST_USE;      /* up to a tag that ends them */
qd_status qd_jinja_template(qd_jparser *p, qd_jnode **out) QD_MUST_USE;        /* up to the end */
qd_status qd_jinja_node(qd_jparser *p, qd_jnode_kind kind, qd_jnode **out) QD_MUST_USE;
const qd_jtoken *qd_jinja_peek(const qd_jparser *p);
bool qd_jinja_take(qd_jparser *p, qd_jtoken_kind kind, const char *word); /* and step on */
qd_status qd_jinja_expect(qd_jparser *p, qd_jtoken_kind kind, const char *word) QD_MUST_USE;

/* ---- rendering ----------------------------------------------------------------------------------------------------------- */

struct qd_jscope {
  qd_jdict names;
  qd_jscope *parent;
};

typedef struct qd_jbuffer {
  char *at;
  size_t n, capacity;
} qd_jbuffer;

typedef struct qd_jrender {
  const char *what;
  qd_arena arena; /* values */
  qd_jscope *scope;
  qd_jbuffer *out;
  int64_t fuel; /* work that is left */
  int depth, line;
  enum { QD_J_GO, QD_J_BREAK, QD_J_CONTINUE } control;
} qd_jrender;

#define QD_JAT(r) (r)->what, (r)->line

typedef struct qd_jargs {
  qd_jvalue at[QD_JINJA_ARGS];
  qd_jtext keyword[QD_JINJA_ARGS]; /* n 0: by position */
  int n;
} qd_jargs;

/* The argument at a position or by its keyword; false: not given. */
bool qd_jargs_find(const qd_jargs *args, int position, const char *keyword, qd_jvalue *out);

qd_status qd_jinja_spend(qd_jrender *r, size_t work) QD_MUST_USE; /* QD_EBADINPUT when there is none left */
qd_status qd_jinja_spend_search(qd_jrender *r, qd_jtext whole, qd_jtext part) QD_MUST_USE; /* at its slowest */
qd_status qd_jinja_eval(qd_jrender *r, const qd_jnode *node, qd_jvalue *out) QD_MUST_USE;
qd_status qd_jinja_run(qd_jrender *r, const qd_jnode *list) QD_MUST_USE;
qd_status qd_jinja_call_macro(qd_jrender *r, qd_jvalue macro, const qd_jargs *args, qd_jvalue *out) QD_MUST_USE;
qd_status qd_jinja_filter(qd_jrender *r, qd_jtext name, qd_jvalue value, const qd_jargs *args, qd_jvalue *out) QD_MUST_USE;
qd_status qd_jinja_test(qd_jrender *r, qd_jtext name, qd_jvalue value, const qd_jargs *args, bool *out) QD_MUST_USE;
qd_status qd_jinja_method(qd_jrender *r, qd_jtext name, qd_jvalue value, const qd_jargs *args, qd_jvalue *out) QD_MUST_USE;
qd_status qd_jinja_put(qd_jrender *r, qd_jbuffer *to, qd_jtext text) QD_MUST_USE;

/* values */
static inline qd_jvalue qd_j_none(void) { return (qd_jvalue){.kind = QD_J_NONE}; }
static inline qd_jvalue qd_j_bool(bool b) { return (qd_jvalue){.kind = QD_J_BOOL, .truth = b}; }
static inline qd_jvalue qd_j_integer(int64_t i) { return (qd_jvalue){.kind = QD_J_INTEGER, .integer = i}; }
static inline qd_jvalue qd_j_number(double x) { return (qd_jvalue){.kind = QD_J_FLOAT, .number = x}; }
static inline qd_jvalue qd_j_text(qd_jtext text) { return (qd_jvalue){.kind = QD_J_TEXT, .text = text}; }
static inline qd_jvalue qd_j_undefined(qd_jtext name) { return (qd_jvalue){.kind = QD_J_UNDEFINED, .text = name}; }
static inline bool qd_j_is_whole(qd_jvalue v) { return v.kind == QD_J_INTEGER || v.kind == QD_J_BOOL; }
static inline bool qd_j_is_number(qd_jvalue v) { return qd_j_is_whole(v) || v.kind == QD_J_FLOAT; }
static inline int64_t qd_j_whole(qd_jvalue v) { return v.kind == QD_J_BOOL ? v.truth : v.integer; }
static inline double qd_j_real(qd_jvalue v) { return v.kind == QD_J_FLOAT ? v.number : (double)qd_j_whole(v); }
const char *qd_j_kind_name(qd_jvalue value); /* Python's: "str", "dict" ... */
bool qd_j_truth(qd_jvalue value);
qd_status qd_j_equal(qd_jrender *r, qd_jvalue a, qd_jvalue b, bool *out) QD_MUST_USE;
qd_status qd_j_from_json(qd_jrender *r, const qd_json *json, qd_jvalue *out) QD_MUST_USE;
qd_status qd_j_list(qd_jrender *r, size_t n, qd_jvalue *out) QD_MUST_USE; /* n undefined values */
qd_status qd_j_copy(qd_jrender *r, const char *at, size_t n, qd_jvalue *out) QD_MUST_USE;
qd_status qd_j_pair(qd_jrender *r, qd_jvalue a, qd_jvalue b, qd_jvalue *out) QD_MUST_USE; /* a list of two */
qd_status qd_j_find(qd_jrender *r, const qd_jdict *dict, qd_jtext key, const qd_jvalue **out) QD_MUST_USE; /* NULL: none */
qd_status qd_j_set(qd_jrender *r, qd_jdict *dict, qd_jtext key, qd_jvalue value) QD_MUST_USE;
qd_status qd_j_print(qd_jrender *r, qd_jbuffer *to, qd_jvalue value) QD_MUST_USE; /* Python's str() */
qd_status qd_j_items(qd_jrender *r, qd_jvalue value, qd_jlist *out) QD_MUST_USE;  /* what a loop goes over */
qd_status qd_j_json(qd_jrender *r, qd_jbuffer *to, qd_jvalue value, int indent, int level) QD_MUST_USE; /* json.dumps */
qd_status qd_j_need_text(qd_jrender *r, qd_jvalue value, const char *who) QD_MUST_USE;
size_t qd_j_characters(qd_jtext text);
qd_jtext qd_j_cut(qd_jtext text, size_t first, size_t n); /* characters */

#endif
