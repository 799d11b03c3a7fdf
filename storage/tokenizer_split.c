#include <string.h>

#include "kernels/base/heap.h"
#include "storage/tokenizer_parts.h"
#include "storage/utf8.h"

/* GPT-2's expression (openai/gpt-2, encoder.py), which ByteLevel uses unless told not to. */
static const char GPT2_PATTERN[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

/* ---- parsing -------------------------------------------------------------------------------------------------------- */

static qd_status add_step(qd_splitter *s, qd_split_kind kind, qd_split_step **step) {
  QD_TRY(qd_heap_grow(&s->step, &s->capacity, s->n + 1, sizeof *s->step));
  *step = &s->step[s->n++];
  **step = (qd_split_step){.kind = kind};
  return QD_OK;
}

static qd_status parse_behavior(const qd_json *part, const char *what, qd_split_behavior *out) {
  static const char *const name[] = {"Isolated", "Removed", "Contiguous", "MergedWithPrevious", "MergedWithNext"};
  static const qd_split_behavior behavior[] = {QD_CUT_ISOLATED, QD_CUT_REMOVED, QD_CUT_CONTIGUOUS, QD_CUT_WITH_PREVIOUS,
                                               QD_CUT_WITH_NEXT};
  const char *text;
  QD_TRY(qd_json_need_text(part, what, "behavior", &text));
  for (size_t i = 0; i < sizeof name / sizeof *name; i++) {
    if (strcmp(text, name[i]) != 0) continue;
    *out = behavior[i];
    return QD_OK;
  }
  QD_FAIL(QD_EUNSUPPORTED, "%s: the behavior %s of the pre-tokenizer Split is not supported", what, text);
}

static qd_status parse_split(const qd_json *part, const char *what, qd_splitter *out) {
  qd_split_step *step = NULL;
  QD_TRY(add_step(out, QD_SPLIT_CUT, &step));
  QD_TRY(parse_behavior(part, what, &step->behavior));
  QD_TRY(qd_json_take_bool(part, what, "invert", false, &step->invert));
  QD_TRY(qd_regex_parse(qd_json_get(part, "pattern"), what, &step->regex));
  return QD_OK;
}

static qd_status parse_byte_level(const qd_json *part, const char *what, qd_splitter *out) {
  qd_split_step *step = NULL;
  bool prefix, regex;
  QD_TRY(qd_json_take_bool(part, what, "add_prefix_space", true, &prefix));
  QD_TRY(qd_json_take_bool(part, what, "use_regex", true, &regex));
  if (prefix) {
    QD_TRY(add_step(out, QD_SPLIT_PREFIX, &step));
    QD_TRY(qd_buffer_add(&step->content, " ", 1));
  }
  if (regex) {
    QD_TRY(add_step(out, QD_SPLIT_CUT, &step));
    QD_TRY(qd_regex_open(GPT2_PATTERN, sizeof GPT2_PATTERN - 1, what, &step->regex));
  }
  QD_TRY(add_step(out, QD_SPLIT_BYTES, &step));
  return QD_OK;
}

static qd_status parse_digits(const qd_json *part, const char *what, qd_splitter *out) {
  qd_split_step *step = NULL;
  bool individual;
  QD_TRY(qd_json_take_bool(part, what, "individual_digits", false, &individual));
  QD_TRY(add_step(out, QD_SPLIT_CUT, &step));
  step->behavior = individual ? QD_CUT_ISOLATED : QD_CUT_CONTIGUOUS;
  QD_TRY(qd_regex_open("\\p{N}", 5, what, &step->regex));
  return QD_OK;
}

/* add_prefix_space is the older spelling: true is "always", false "never". */
static qd_status parse_prepend_scheme(const qd_json *part, const char *what, const char **scheme) {
  bool prefix;
  QD_TRY(qd_json_take_bool(part, what, "add_prefix_space", true, &prefix));
  *scheme = prefix ? "always" : "never";
  if (qd_json_get(part, "prepend_scheme") == NULL) return QD_OK;
  QD_TRY(qd_json_need_text(part, what, "prepend_scheme", scheme));
  bool known = strcmp(*scheme, "always") == 0 || strcmp(*scheme, "first") == 0 || strcmp(*scheme, "never") == 0;
  QD_CHECK(known, QD_EUNSUPPORTED, "%s: the prepend_scheme %s of Metaspace is not supported", what, *scheme);
  QD_CHECK(prefix || strcmp(*scheme, "never") == 0, QD_EBADINPUT,
           "%s: Metaspace has add_prefix_space false and prepend_scheme %s", what, *scheme);
  return QD_OK;
}

static qd_status parse_metaspace(const qd_json *part, const char *what, qd_splitter *out) {
  const char *mark, *scheme;
  size_t n;
  bool split;
  qd_split_step *step = NULL;
  QD_TRY(qd_part_text(part, what, "replacement", &mark, &n));
  QD_CHECK(n > 0 && n == qd_utf8_bytes(mark[0]), QD_EBADINPUT, "%s: the replacement \"%s\" of Metaspace is not one character",
           what, mark);
  QD_TRY(parse_prepend_scheme(part, what, &scheme));
  QD_TRY(qd_json_take_bool(part, what, "split", true, &split));
  QD_TRY(add_step(out, QD_SPLIT_SPACES, &step));
  QD_TRY(qd_buffer_add(&step->content, mark, n));
  if (strcmp(scheme, "never") != 0) {
    QD_TRY(add_step(out, QD_SPLIT_PREFIX, &step));
    step->first_only = strcmp(scheme, "first") == 0;
    QD_TRY(qd_buffer_add(&step->content, mark, n));
  }
  if (!split) return QD_OK;
  QD_TRY(add_step(out, QD_SPLIT_CUT, &step));
  step->behavior = QD_CUT_WITH_NEXT;
  QD_TRY(qd_regex_open_literal(mark, n, what, &step->regex));
  return QD_OK;
}

static qd_status parse_sequence(const qd_json *part, const char *what, qd_splitter *out) {
  const qd_json *list = qd_json_get(part, "pretokenizers");
  QD_CHECK(qd_json_is_array(list), QD_EBADINPUT, "%s: the pre-tokenizer Sequence has no list \"pretokenizers\"", what);
  for (size_t i = 0; i < qd_json_length(list); i++) {
    QD_CHECK(qd_json_at(list, i) != NULL, QD_EBADINPUT, "%s: pre-tokenizer %zu of a Sequence is null", what, i);
    QD_TRY(qd_splitter_parse(qd_json_at(list, i), what, out));
  }
  return QD_OK;
}

qd_status qd_splitter_parse(const qd_json *part, const char *what, qd_splitter *out) {
  static const struct {
    const char *type;
    qd_status (*parse)(const qd_json *part, const char *what, qd_splitter *out);
  } known[] = {{"Sequence", parse_sequence}, {"Split", parse_split},         {"ByteLevel", parse_byte_level},
               {"Digits", parse_digits},     {"Metaspace", parse_metaspace}};
  const char *type;
  if (part == NULL) return QD_OK;
  QD_TRY(qd_part_type(part, what, "pre-tokenizer", &type));
  for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
    if (strcmp(type, known[i].type) == 0) return known[i].parse(part, what, out);
  }
  QD_FAIL(QD_EUNSUPPORTED, "%s: the pre-tokenizer %s is not supported", what, type);
}

void qd_splitter_release(qd_splitter *splitter) {
  for (size_t i = 0; i < splitter->n; i++) {
    qd_regex_close(&splitter->step[i].regex);
    qd_buffer_release(&splitter->step[i].content);
  }
  qd_heap_free(splitter->step);
  *splitter = (qd_splitter){0};
}

/* ---- cutting -------------------------------------------------------------------------------------------------------- */

/* A match joins what stands before it, unless that is a match too. */
static qd_status join_with_previous(const qd_spans *in, qd_spans *out) {
  bool previous = false;
  for (size_t i = 0; i < in->n; i++) {
    qd_span span = in->at[i];
    if (span.matched && !previous && out->n > 0) out->at[out->n - 1].end = span.end;
    else QD_TRY(qd_spans_add(out, span));
    previous = span.matched;
  }
  return QD_OK;
}

/* The mirror image: from the end. */
static qd_status join_with_next(const qd_spans *in, qd_spans *out) {
  bool next = false;
  for (size_t i = in->n; i-- > 0;) {
    qd_span span = in->at[i];
    if (span.matched && !next && out->n > 0) out->at[out->n - 1].begin = span.begin;
    else QD_TRY(qd_spans_add(out, span));
    next = span.matched;
  }
  for (size_t i = 0; i < out->n / 2; i++) {
    qd_span kept = out->at[i];
    out->at[i] = out->at[out->n - 1 - i];
    out->at[out->n - 1 - i] = kept;
  }
  return QD_OK;
}

static qd_status join_alike(const qd_spans *in, qd_spans *out) {
  bool previous = false;
  for (size_t i = 0; i < in->n; i++) {
    qd_span span = in->at[i];
    if (span.matched == previous && out->n > 0) out->at[out->n - 1].end = span.end;
    else QD_TRY(qd_spans_add(out, span));
    previous = span.matched;
  }
  return QD_OK;
}

static qd_status keep_all(const qd_spans *in, bool matches_too, qd_spans *out) {
  for (size_t i = 0; i < in->n; i++) {
    if (matches_too || !in->at[i].matched) QD_TRY(qd_spans_add(out, in->at[i]));
  }
  return QD_OK;
}

static qd_status join(qd_split_behavior behavior, const qd_spans *in, qd_spans *out) {
  out->n = 0;
  switch (behavior) {
    case QD_CUT_ISOLATED: return keep_all(in, true, out);
    case QD_CUT_REMOVED: return keep_all(in, false, out);
    case QD_CUT_CONTIGUOUS: return join_alike(in, out);
    case QD_CUT_WITH_PREVIOUS: return join_with_previous(in, out);
    case QD_CUT_WITH_NEXT: return join_with_next(in, out);
  }
  return QD_OK;
}

static qd_status cut(const qd_split_step *step, qd_matcher *matcher, qd_pieces *pieces, qd_spans *out) {
  const qd_spans *in = &pieces->spans;
  size_t start = in->n > 0 ? in->at[0].begin : 0;
  out->n = 0;
  for (size_t i = 0; i < in->n; i++) {
    size_t begin = in->at[i].begin;
    QD_TRY(qd_regex_cover(&step->regex, matcher, pieces->text.at + begin, in->at[i].end - begin));
    for (size_t k = 0; step->invert && k < matcher->spans.n; k++) matcher->spans.at[k].matched = !matcher->spans.at[k].matched;
    QD_TRY(join(step->behavior, &matcher->spans, &matcher->cut));
    for (size_t k = 0; k < matcher->cut.n; k++) {
      qd_span span = matcher->cut.at[k];
      if (span.end == span.begin) continue;
      QD_TRY(qd_spans_add(out, (qd_span){.begin = begin + span.begin, .end = begin + span.end}));
    }
  }
  pieces->from_start = pieces->from_start && out->n > 0 && out->at[0].begin == start;
  return QD_OK;
}

/* ---- rewriting ------------------------------------------------------------------------------------------------------ */

size_t qd_byte_character(unsigned char byte, char to[2]) {
  char bytes[QD_UTF8_MAX] = {0};
  uint32_t c = byte;
  if (byte <= 0x20) c = 0x100u + byte;
  else if (byte >= 0x7F && byte <= 0xA0) c = 0x121u + (byte - 0x7Fu);
  else if (byte == 0xAD) c = 0x143u;
  size_t n = qd_utf8_write(c, bytes);
  memcpy(to, bytes, 2);
  return n;
}

int qd_byte_of_character(uint32_t c) {
  if (c >= 0x100 && c <= 0x120) return (int)(c - 0x100);
  if (c >= 0x121 && c <= 0x142) return (int)(c - 0x121 + 0x7F);
  if (c == 0x143) return 0xAD;
  bool itself = (c >= 0x21 && c <= 0x7E) || (c >= 0xA1 && c <= 0xFF);
  return itself && c != 0xAD ? (int)c : -1;
}

static qd_status add_bytes(const char *text, size_t n, qd_pieces *out) {
  size_t begin = out->text.n;
  for (size_t i = 0; i < n; i++) {
    char to[2];
    QD_TRY(qd_buffer_add(&out->text, to, qd_byte_character((unsigned char)text[i], to)));
  }
  return qd_spans_add(&out->spans, (qd_span){.begin = begin, .end = out->text.n});
}

static qd_status add_spaced(const char *text, size_t n, const qd_buffer *mark, qd_pieces *out) {
  size_t begin = out->text.n;
  for (size_t i = 0; i < n;) {
    const char *space = memchr(text + i, ' ', n - i);
    size_t plain = space ? (size_t)(space - text) - i : n - i;
    QD_TRY(qd_buffer_add(&out->text, text + i, plain));
    if (space) QD_TRY(qd_buffer_add(&out->text, mark->at, mark->n));
    i += plain + (space != NULL);
  }
  return qd_spans_add(&out->spans, (qd_span){.begin = begin, .end = out->text.n});
}

static qd_status add_prefixed(const char *text, size_t n, const qd_buffer *prefix, qd_pieces *out) {
  size_t begin = out->text.n;
  bool there = n >= prefix->n && memcmp(text, prefix->at, prefix->n) == 0;
  if (!there) QD_TRY(qd_buffer_add(&out->text, prefix->at, prefix->n));
  QD_TRY(qd_buffer_add(&out->text, text, n));
  return qd_spans_add(&out->spans, (qd_span){.begin = begin, .end = out->text.n});
}

static qd_status rewrite(const qd_split_step *step, const qd_pieces *in, qd_pieces *out) {
  qd_pieces_clear(out);
  QD_TRY(qd_buffer_add(&out->text, "", 0)); /* no text is not NULL */
  out->from_start = in->from_start;
  for (size_t i = 0; i < in->spans.n; i++) {
    const char *text = in->text.at + in->spans.at[i].begin;
    size_t n = in->spans.at[i].end - in->spans.at[i].begin;
    bool skipped = step->kind == QD_SPLIT_PREFIX && step->first_only && (i > 0 || !in->from_start);
    if (skipped) QD_TRY(qd_pieces_add(out, text, n));
    else if (step->kind == QD_SPLIT_PREFIX) QD_TRY(add_prefixed(text, n, &step->content, out));
    else if (step->kind == QD_SPLIT_SPACES) QD_TRY(add_spaced(text, n, &step->content, out));
    else QD_TRY(add_bytes(text, n, out));
  }
  return QD_OK;
}

qd_status qd_splitter_apply(const qd_splitter *splitter, qd_matcher *matcher, qd_pieces *pieces, qd_pieces *spare) {
  for (size_t i = 0; i < splitter->n; i++) {
    const qd_split_step *step = &splitter->step[i];
    if (step->kind == QD_SPLIT_CUT) {
      QD_TRY(cut(step, matcher, pieces, &spare->spans));
      qd_spans kept = pieces->spans;
      pieces->spans = spare->spans;
      spare->spans = kept;
    } else {
      QD_TRY(rewrite(step, pieces, spare));
      qd_pieces_swap(pieces, spare);
    }
  }
  return QD_OK;
}
