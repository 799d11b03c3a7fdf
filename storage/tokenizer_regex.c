/* Patterns of tokenizer.json are written for Oniguruma (Ruby syntax, Unicode).  PCRE2 means the same by most of it; here is the
 * list of what it does, and everything else is refused: \w and \h differ, ^ and $ are about lines there, {n,m}+ is not
 * possessive there ...  What is a letter or a number is for the two libraries' versions of Unicode to say: they differ on newer
 * characters only. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <string.h>

#include "kernels/base/heap.h"
#include "storage/tokenizer_parts.h"
#include "storage/utf8.h"

typedef struct translation {
  const char *pattern;
  size_t      n, at;
  bool        in_class;
  const char *what; /* for messages */
  qd_buffer   out;
} translation;

static bool is_digit(char c) { return c >= '0' && c <= '9'; }
static bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
static bool is_hex(char c) { return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); }

/* The byte `ahead` of the current one; NUL past the end. */
static char peek(const translation *t, size_t ahead) { return t->at + ahead < t->n ? t->pattern[t->at + ahead] : '\0'; }

static qd_status copy(translation *t, size_t n) {
  QD_TRY(qd_buffer_add(&t->out, t->pattern + t->at, n));
  t->at += n;
  return QD_OK;
}

static qd_status refuse(const translation *t, size_t n) {
  size_t left = t->n - t->at;
  QD_FAIL(QD_EUNSUPPORTED, "%s: the pattern \"%.200s\" uses \"%.*s\" at offset %zu, which is not supported", t->what,
          t->pattern, (int)(n < left ? n : left), t->pattern + t->at, t->at);
}

/* \p{Lu}, \P{N}, \p{^L}: general categories only (scripts mean another set in PCRE2). */
static qd_status property(translation *t) {
  static const char known[] =
      " L Lu Ll Lt Lm Lo M Mn Mc Me N Nd Nl No P Pc Pd Ps Pe Pi Pf Po S Sm Sc Sk So Z Zs Zl Zp Cc Cf Co ";
  char name[5] = " ";
  size_t i = peek(t, 3) == '^' ? 4 : 3, letters = 0;
  while (letters < 2 && is_letter(peek(t, i))) name[1 + letters++] = peek(t, i++);
  name[1 + letters] = ' ';
  if (peek(t, 2) != '{' || letters == 0 || peek(t, i) != '}' || strstr(known, name) == NULL) return refuse(t, i + 1);
  QD_TRY(copy(t, i + 1));
  return QD_OK;
}

static qd_status hexadecimal(translation *t) {
  size_t i = 3;
  while (is_hex(peek(t, i))) i++;
  if (peek(t, 2) != '{' || i == 3 || peek(t, i) != '}') return refuse(t, i + 1);
  QD_TRY(copy(t, i + 1));
  return QD_OK;
}

static qd_status escape(translation *t) {
  char c = peek(t, 1);
  /* Oniguruma's \s is White_Space; PCRE2's has U+180E as well */
  if (c == 's' || c == 'S') {
    QD_TRY(qd_buffer_add(&t->out, c == 's' ? "\\p{White_Space}" : "\\P{White_Space}", 15));
    t->at += 2;
    return QD_OK;
  }
  if (c == 'p' || c == 'P') return property(t);
  if (c == 'x') return hexadecimal(t);
  bool same = c != '\0' && (strchr("rntdD", c) != NULL || (!is_letter(c) && !is_digit(c) && (unsigned char)c < 0x80));
  if (!same) return refuse(t, 2);
  QD_TRY(copy(t, 2));
  return QD_OK;
}

static qd_status in_class(translation *t) {
  char c = peek(t, 0);
  if (c == '[' || (c == '&' && peek(t, 1) == '&')) return refuse(t, 2); /* sets in sets, intersections */
  if (c == ']') t->in_class = false;
  QD_TRY(copy(t, 1));
  return QD_OK;
}

static qd_status class_begins(translation *t) {
  size_t n = peek(t, 1) == '^' ? 2 : 1;
  if (peek(t, n) == ']') return refuse(t, n + 1);
  t->in_class = true;
  QD_TRY(copy(t, n));
  return QD_OK;
}

static qd_status group_begins(translation *t) {
  static const char *const known[] = {"(?:", "(?=", "(?!", "(?i:", "(?<=", "(?<!", "(?>"};
  if (peek(t, 1) == '*') return refuse(t, 2); /* PCRE2's verbs */
  if (peek(t, 1) != '?') return copy(t, 1);
  for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
    size_t n = strlen(known[i]);
    if (t->n - t->at >= n && memcmp(t->pattern + t->at, known[i], n) == 0) return copy(t, n);
  }
  return refuse(t, 4);
}

/* {n}, {n,}, {n,m}; {n}? is optional there, and {..}+ is not possessive there. */
static qd_status repeat(translation *t) {
  size_t i = 1;
  bool range = false;
  while (is_digit(peek(t, i))) i++;
  size_t digits = i - 1;
  if (peek(t, i) == ',') {
    range = true;
    i++;
    while (is_digit(peek(t, i))) i++;
  }
  if (digits == 0 || peek(t, i) != '}' || peek(t, i + 1) == '+' || (peek(t, i + 1) == '?' && !range)) return refuse(t, i + 2);
  QD_TRY(copy(t, i + 1));
  return QD_OK;
}

static qd_status translate(translation *t) {
  while (t->at < t->n) {
    char c = peek(t, 0);
    if (c == '\\') QD_TRY(escape(t));
    else if (t->in_class) QD_TRY(in_class(t));
    else if (c == '[') QD_TRY(class_begins(t));
    else if (c == '(') QD_TRY(group_begins(t));
    else if (c == '{') QD_TRY(repeat(t));
    else if (c == '^' || c == '$' || c == '\0') return refuse(t, 1);
    else QD_TRY(copy(t, 1));
  }
  return QD_OK;
}

static qd_status compile(const char *pattern, size_t n, uint32_t options, const char *what, qd_regex *out) {
  int error;
  PCRE2_SIZE offset;
  pcre2_compile_context *context = pcre2_compile_context_create(NULL);
  QD_CHECK(context != NULL, QD_ENOMEM, "no memory left for a pattern");
  pcre2_set_newline(context, PCRE2_NEWLINE_LF);
  pcre2_code *code = pcre2_compile((PCRE2_SPTR)pattern, n, options, &error, &offset, context);
  pcre2_compile_context_free(context);
  if (code == NULL) {
    PCRE2_UCHAR text[160] = "";
    pcre2_get_error_message(error, text, sizeof text);
    QD_FAIL(QD_EBADINPUT, "%s: the pattern \"%.*s\" is not valid: %s, near offset %zu", what, (int)(n < 200 ? n : 200), pattern,
            (const char *)text, (size_t)offset);
  }
  (void)pcre2_jit_compile(code, PCRE2_JIT_COMPLETE); /* where it cannot, the interpreter gives the same matches */
  out->code = code;
  return QD_OK;
}

qd_status qd_regex_open_native(const char *pattern, size_t n, const char *what, qd_regex *out) {
  QD_TRY(compile(pattern, n, PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, what, out));
  return QD_OK;
}

qd_status qd_regex_open(const char *pattern, size_t n, const char *what, qd_regex *out) {
  translation t = {.pattern = pattern, .n = n, .what = what};
  qd_status status = qd_buffer_add(&t.out, "", 0);
  if (status == QD_OK) status = translate(&t);
  if (status == QD_OK) status = qd_regex_open_native(t.out.at, t.out.n, what, out);
  qd_buffer_release(&t.out);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

qd_status qd_regex_open_literal(const char *text, size_t n, const char *what, qd_regex *out) {
  QD_TRY(compile(text, n, PCRE2_UTF | PCRE2_LITERAL, what, out));
  return QD_OK;
}

qd_status qd_regex_parse(const qd_json *pattern, const char *what, qd_regex *out) {
  const char *text;
  size_t n;
  QD_CHECK(qd_json_is_object(pattern), QD_EBADINPUT, "%s: a pattern is neither {\"Regex\": ...} nor {\"String\": ...}", what);
  if (qd_json_get(pattern, "Regex") != NULL) {
    QD_TRY(qd_part_text(pattern, what, "Regex", &text, &n));
    QD_TRY(qd_regex_open(text, n, what, out));
    return QD_OK;
  }
  QD_TRY(qd_part_text(pattern, what, "String", &text, &n));
  QD_TRY(qd_regex_open_literal(text, n, what, out));
  return QD_OK;
}

void qd_regex_close(qd_regex *regex) {
  pcre2_code_free(regex->code);
  regex->code = NULL;
}

qd_status qd_matcher_open(qd_matcher *matcher) {
  enum { STACK_START = 32 << 10, STACK_LIMIT = 16 << 20 };
  *matcher = (qd_matcher){.match = pcre2_match_data_create(1, NULL)};
  matcher->context = pcre2_match_context_create(NULL);
  if (matcher->match == NULL || matcher->context == NULL) {
    qd_matcher_close(matcher);
    QD_FAIL(QD_ENOMEM, "no memory left for matching patterns");
  }
  matcher->stack = pcre2_jit_stack_create(STACK_START, STACK_LIMIT, NULL);
  if (matcher->stack != NULL) pcre2_jit_stack_assign(matcher->context, NULL, matcher->stack);
  return QD_OK;
}

void qd_matcher_close(qd_matcher *matcher) {
  pcre2_match_data_free(matcher->match);
  pcre2_match_context_free(matcher->context);
  pcre2_jit_stack_free(matcher->stack);
  qd_heap_free(matcher->spans.at);
  qd_heap_free(matcher->cut.at);
  *matcher = (qd_matcher){0};
}

/* The next match at or behind `from`.  *found false: none. */
static qd_status next_match(const qd_regex *regex, qd_matcher *m, qd_span subject, const char *text, bool *found) {
  int rc = pcre2_match(regex->code, (PCRE2_SPTR)text, subject.end, subject.begin, PCRE2_NO_UTF_CHECK, m->match, m->context);
  *found = rc >= 0;
  if (rc >= 0 || rc == PCRE2_ERROR_NOMATCH) return QD_OK;
  PCRE2_UCHAR reason[160] = "";
  pcre2_get_error_message(rc, reason, sizeof reason);
  QD_FAIL(QD_EUNSUPPORTED, "a pattern of the tokenizer cannot be matched at byte %zu of a stretch of %zu bytes: %s",
          subject.begin, subject.end, (const char *)reason);
}

qd_status qd_regex_cover(const qd_regex *regex, qd_matcher *matcher, const char *text, size_t n) {
  const PCRE2_SIZE *at = pcre2_get_ovector_pointer(matcher->match);
  size_t from = 0, covered = 0;
  bool found = true, matched_before = false;
  matcher->spans.n = 0;
  if (n == 0) return QD_OK; /* not even an empty match */
  while (from <= n) {
    QD_TRY(next_match(regex, matcher, (qd_span){.begin = from, .end = n}, text, &found));
    if (!found) break;
    if (at[0] == at[1] && matched_before && at[1] == covered) { /* no empty match right behind a match */
      from = at[1] + (at[1] < n ? qd_utf8_bytes(text[at[1]]) : 1);
      continue;
    }
    if (at[0] > covered) QD_TRY(qd_spans_add(&matcher->spans, (qd_span){.begin = covered, .end = at[0]}));
    QD_TRY(qd_spans_add(&matcher->spans, (qd_span){.begin = at[0], .end = at[1], .matched = true}));
    from = covered = at[1];
    matched_before = true;
  }
  if (covered < n) QD_TRY(qd_spans_add(&matcher->spans, (qd_span){.begin = covered, .end = n}));
  return QD_OK;
}

qd_status qd_regex_replace(const qd_regex *regex, qd_matcher *matcher, qd_span span, const char *text,
                           const qd_buffer *content, qd_buffer *out) {
  text += span.begin;
  QD_TRY(qd_regex_cover(regex, matcher, text, span.end - span.begin));
  for (size_t i = 0; i < matcher->spans.n; i++) {
    qd_span found = matcher->spans.at[i];
    if (found.matched) QD_TRY(qd_buffer_add(out, content->at, content->n));
    else QD_TRY(qd_buffer_add(out, text + found.begin, found.end - found.begin));
  }
  return QD_OK;
}
