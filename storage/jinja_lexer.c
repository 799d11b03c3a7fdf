#include <string.h>

#include "kernels/base/heap.h"
#include "storage/jinja_parts.h"
#include "storage/utf8.h"

typedef struct lexer {
  qd_jtext source;
  const char *what;
  qd_arena *arena;
  qd_jtokens *out;
  size_t at;
  int line;
  bool line_starts; /* what was taken last ended a line, as jinja2.lexer counts: for lstrip_blocks */
} lexer;

static bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }
static bool is_digit(char c) { return c >= '0' && c <= '9'; }
static bool is_name_start(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
static bool is_name(char c) { return is_name_start(c) || is_digit(c); }
static char at(const lexer *l, size_t ahead) { return l->at + ahead < l->source.n ? l->source.at[l->at + ahead] : '\0'; }
static bool looks_at(const lexer *l, const char *word) {
  size_t n = strlen(word);
  return l->source.n - l->at >= n && memcmp(l->source.at + l->at, word, n) == 0;
}

static void advance(lexer *l, size_t n) {
  for (size_t i = 0; i < n; i++) l->line += l->source.at[l->at++] == '\n';
  if (n > 0) l->line_starts = l->source.at[l->at - 1] == '\n';
}

static qd_status add(lexer *l, qd_jtoken_kind kind, qd_jtext text) {
  QD_TRY(qd_heap_grow(&l->out->at, &l->out->capacity, l->out->n + 1, sizeof *l->out->at));
  l->out->at[l->out->n++] = (qd_jtoken){.kind = kind, .line = l->line, .text = text};
  return QD_OK;
}

/* ---- between tags -------------------------------------------------------------------------------------------------------- */

/* "-" takes all white space before a tag; without "+" a block's or comment's indentation goes (lstrip_blocks). */
static size_t kept_before(const lexer *l, size_t begin, size_t end, char opener, char sign) {
  if (sign == '-') {
    while (end > begin && is_space(l->source.at[end - 1])) end--;
    return end;
  }
  size_t line = end;
  if (sign == '+' || opener == '{') return end;
  while (line > begin && (l->source.at[line - 1] == ' ' || l->source.at[line - 1] == '\t')) line--;
  return line > begin ? (l->source.at[line - 1] == '\n' ? line : end) : l->line_starts ? line : end;
}

/* Behind a tag's end: "-" takes all white space, without "+" a block's or comment's line end goes (trim_blocks). */
static void skip_behind(lexer *l, char sign, bool trims_line) {
  size_t n = 0;
  if (sign == '-')
    while (l->at + n < l->source.n && is_space(l->source.at[l->at + n])) n++;
  else if (sign != '+' && trims_line && at(l, 0) == '\n')
    n = 1;
  advance(l, n);
}

static qd_status skip_comment(lexer *l) {
  int line = l->line;
  while (l->at < l->source.n && !looks_at(l, "#}")) advance(l, 1);
  QD_CHECK(l->at < l->source.n, QD_EBADINPUT, "%s, line %d: a comment that does not end", l->what, line);
  char sign = l->source.at[l->at - 1];
  advance(l, 2);
  skip_behind(l, sign, true);
  return QD_OK;
}

/* ---- in tags ------------------------------------------------------------------------------------------------------------- */

/* \x, \u, \U with their digits, or up to three octal ones. */
static bool read_code(const char *from, size_t n, size_t *used, uint32_t *code) {
  size_t digits = *from == 'x' ? 2 : *from == 'u' ? 4 : *from == 'U' ? 8 : 0, i = digits > 0;
  uint32_t base = digits > 0 ? 16 : 8;
  size_t end = digits > 0 ? 1 + digits : 3;
  for (*code = 0; i < end && i < n; i++) {
    char c = from[i];
    uint32_t value = is_digit(c)                          ? (uint32_t)(c - '0')
                     : (c | 32) >= 'a' && (c | 32) <= 'f' ? (uint32_t)((c | 32) - 'a' + 10)
                                                          : 99;
    if (value >= base) break;
    *code = *code * base + value;
  }
  *used = i;
  return (digits == 0 || i == end) && *code <= 0x10FFFF && !(*code >= 0xD800 && *code <= 0xDFFF);
}

/* One escape as Python's strings have it; *used bytes behind the backslash. */
static qd_status unescape(const lexer *l, const char *from, size_t n, size_t *used, char **to) {
  static const char letters[] = "ntrabfv\\'\"", values[] = "\n\t\r\a\b\f\v\\'\"";
  const char *letter = strchr(letters, *from);
  *used = 1;
  if (*from == '\n') return QD_OK; /* a line that goes on */
  if (letter != NULL && *from != '\0') return *(*to)++ = values[letter - letters], QD_OK;
  if (*from == 'x' || *from == 'u' || *from == 'U' || (*from >= '0' && *from <= '7')) {
    uint32_t code;
    char bytes[QD_UTF8_MAX];
    QD_CHECK(read_code(from, n, used, &code), QD_EBADINPUT, "%s, line %d: an escape that names no character: \\%.*s", l->what,
             l->line, (int)(n < 9 ? n : 9), from);
    size_t made = qd_utf8_write(code, bytes);
    memcpy(*to, bytes, made);
    *to += made;
    return QD_OK;
  }
  *(*to)++ = '\\', *(*to)++ = *from;
  return QD_OK;
}

static qd_status lex_text(lexer *l) {
  char quote = at(l, 0), *text, *to;
  size_t end = l->at + 1;
  while (end < l->source.n && l->source.at[end] != quote) end += l->source.at[end] == '\\' ? 2 : 1;
  QD_CHECK(end < l->source.n, QD_EBADINPUT, "%s, line %d: a string that does not end", l->what, l->line);
  size_t n = end - l->at - 1, used;
  const char *from = l->source.at + l->at + 1;
  QD_TRY(qd_arena_new(l->arena, n + 1, 1, &text)); /* no escape is longer than what it stands for */
  to = text;
  for (size_t i = 0; i < n;) {
    if (from[i] != '\\') {
      *to++ = from[i++];
      continue;
    }
    QD_TRY(unescape(l, from + i + 1, n - i - 1, &used, &to));
    i += 1 + used;
  }
  QD_TRY(add(l, QD_JT_TEXT, (qd_jtext){text, (size_t)(to - text)}));
  advance(l, n + 2);
  return QD_OK;
}

static qd_status lex_number(lexer *l) {
  size_t n = 0;
  qd_jtoken_kind kind = QD_JT_INTEGER;
  while (is_digit(at(l, n))) n++;
  if (at(l, n) == '.' && is_digit(at(l, n + 1))) {
    kind = QD_JT_FLOAT;
    for (n++; is_digit(at(l, n));) n++;
  }
  QD_CHECK(!is_name(at(l, n)) && n <= 18, QD_EUNSUPPORTED, "%s, line %d: the number %.*s is not supported", l->what, l->line,
           (int)n + 1, l->source.at + l->at);
  QD_TRY(add(l, kind, (qd_jtext){l->source.at + l->at, n}));
  advance(l, n);
  return QD_OK;
}

static qd_status lex_operator(lexer *l) {
  static const char *const longer[] = {"//", "**", "==", "!=", "<=", ">=", NULL};
  size_t n = strchr("+-/*%~[](){}<>=.:|,", at(l, 0)) != NULL && at(l, 0) != '\0' ? 1 : 0;
  for (int i = 0; longer[i] != NULL; i++)
    if (looks_at(l, longer[i])) n = 2;
  QD_CHECK(n > 0, QD_EBADINPUT, "%s, line %d: \"%.*s\" is not expected in a tag", l->what, l->line,
           (int)qd_utf8_bytes(at(l, 0)), l->source.at + l->at);
  QD_TRY(add(l, QD_JT_OPERATOR, (qd_jtext){l->source.at + l->at, n}));
  advance(l, n);
  return QD_OK;
}

static qd_status lex_word(lexer *l) {
  size_t n = 0;
  if (at(l, 0) == '\'' || at(l, 0) == '"') return lex_text(l);
  if (is_digit(at(l, 0))) return lex_number(l);
  if (!is_name_start(at(l, 0))) return lex_operator(l);
  while (is_name(at(l, n))) n++;
  QD_TRY(add(l, QD_JT_NAME, (qd_jtext){l->source.at + l->at, n}));
  advance(l, n);
  return QD_OK;
}

/* Brackets that are open keep "}}" from ending the tag. */
static qd_status lex_tag(lexer *l, bool is_block) {
  const char *closer = is_block ? "%}" : "}}";
  int line = l->line, open = 0;
  for (;;) {
    while (is_space(at(l, 0))) advance(l, 1);
    QD_CHECK(l->at < l->source.n, QD_EBADINPUT, "%s, line %d: a tag that does not end", l->what, line);
    char sign = at(l, 0) == '-' || (is_block && at(l, 0) == '+') ? at(l, 0) : '\0';
    size_t before = sign != '\0';
    if (open == 0 && at(l, before) == closer[0] && at(l, before + 1) == closer[1]) {
      QD_TRY(add(l, QD_JT_END, (qd_jtext){closer, 2}));
      advance(l, before + 2);
      skip_behind(l, sign, is_block);
      return QD_OK;
    }
    char c = at(l, 0);
    open += (c == '(' || c == '[' || c == '{') - ((c == ')' || c == ']' || c == '}') && open > 0);
    QD_TRY(lex_word(l));
  }
}

static qd_status lex_all(lexer *l) {
  while (l->at < l->source.n) {
    size_t begin = l->at, end = begin;
    while (end < l->source.n && !(l->source.at[end] == '{' && end + 1 < l->source.n && strchr("{%#", l->source.at[end + 1])))
      end++;
    char opener = end < l->source.n ? l->source.at[end + 1] : '\0';
    char sign = end + 2 < l->source.n ? l->source.at[end + 2] : '\0';
    size_t kept = opener ? kept_before(l, begin, end, opener, sign) : end;
    if (kept > begin) QD_TRY(add(l, QD_JT_DATA, (qd_jtext){l->source.at + begin, kept - begin}));
    advance(l, end - begin);
    if (opener == '\0') break;
    advance(l, 2 + (sign == '-' || sign == '+'));
    if (opener == '#')
      QD_TRY(skip_comment(l));
    else {
      QD_TRY(add(l, opener == '{' ? QD_JT_VARIABLE : QD_JT_BLOCK, (qd_jtext){"", 0}));
      QD_TRY(lex_tag(l, opener == '%'));
    }
  }
  return add(l, QD_JT_EOF, (qd_jtext){"", 0});
}

qd_status qd_jinja_lex(qd_jtext source, const char *what, qd_arena *arena, qd_jtokens *out) {
  lexer l = {.source = source, .what = what, .arena = arena, .out = out, .line = 1, .line_starts = true};
  return lex_all(&l);
}
