#include <string.h>

#include "kernels/base/heap.h"
#include "storage/tokenizer_parts.h"
#include "storage/utf8.h"

static const char UNREADABLE[] = "\xEF\xBF\xBD"; /* U+FFFD */

/* ---- parsing -------------------------------------------------------------------------------------------------------- */

static qd_status parse_replace(const qd_json *part, const char *what, qd_decoder_step *step) {
  const char *text;
  size_t n;
  QD_TRY(qd_part_text(part, what, "content", &text, &n));
  QD_TRY(qd_buffer_add(&step->content, text, n));
  QD_TRY(qd_regex_parse(qd_json_get(part, "pattern"), what, &step->regex));
  return QD_OK;
}

static qd_status parse_character(const qd_json *part, const char *what, const char *key, qd_buffer *out) {
  const char *text;
  size_t n;
  QD_TRY(qd_part_text(part, what, key, &text, &n));
  QD_CHECK(n > 0 && n == qd_utf8_bytes(text[0]), QD_EBADINPUT, "%s: \"%s\" of a decoder is \"%s\", expected one character",
           what, key, text);
  QD_TRY(qd_buffer_add(out, text, n));
  return QD_OK;
}

static qd_status parse_strip(const qd_json *part, const char *what, qd_decoder_step *step) {
  QD_TRY(parse_character(part, what, "content", &step->content));
  QD_TRY(qd_json_take_integer(part, what, "start", 0, INT32_MAX, 0, &step->start));
  QD_TRY(qd_json_take_integer(part, what, "stop", 0, INT32_MAX, 0, &step->stop));
  return QD_OK;
}

static qd_status parse_metaspace(const qd_json *part, const char *what, qd_decoder_step *step) {
  const char *scheme = "always";
  bool prefix;
  QD_TRY(parse_character(part, what, "replacement", &step->content));
  QD_TRY(qd_json_take_bool(part, what, "add_prefix_space", true, &prefix));
  if (qd_json_get(part, "prepend_scheme") != NULL) QD_TRY(qd_json_need_text(part, what, "prepend_scheme", &scheme));
  step->drop_first = prefix && strcmp(scheme, "never") != 0;
  return QD_OK;
}

static qd_status parse_nothing(const qd_json *part, const char *what, qd_decoder_step *step) {
  (void)part, (void)what, (void)step;
  return QD_OK;
}

static qd_status parse_sequence(const qd_json *part, const char *what, qd_decoder *out) {
  const qd_json *list = qd_json_get(part, "decoders");
  QD_CHECK(qd_json_is_array(list), QD_EBADINPUT, "%s: the decoder Sequence has no list \"decoders\"", what);
  for (size_t i = 0; i < qd_json_length(list); i++) {
    QD_CHECK(qd_json_at(list, i) != NULL, QD_EBADINPUT, "%s: decoder %zu of a Sequence is null", what, i);
    QD_TRY(qd_decoder_parse(qd_json_at(list, i), what, out));
  }
  return QD_OK;
}

qd_status qd_decoder_parse(const qd_json *part, const char *what, qd_decoder *out) {
  static const struct {
    const char *type;
    qd_decoder_kind kind;
    qd_status (*parse)(const qd_json *part, const char *what, qd_decoder_step *step);
  } known[] = {{"Replace", QD_DECODE_REPLACE, parse_replace},       {"ByteFallback", QD_DECODE_BYTE_FALLBACK, parse_nothing},
               {"Fuse", QD_DECODE_FUSE, parse_nothing},             {"Strip", QD_DECODE_STRIP, parse_strip},
               {"ByteLevel", QD_DECODE_BYTE_LEVEL, parse_nothing},  {"Metaspace", QD_DECODE_METASPACE, parse_metaspace}};
  const char *type;
  if (part == NULL) return QD_OK;
  out->given = true;
  QD_TRY(qd_part_type(part, what, "decoder", &type));
  if (strcmp(type, "Sequence") == 0) return parse_sequence(part, what, out);
  for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
    if (strcmp(type, known[i].type) != 0) continue;
    QD_TRY(qd_heap_grow(&out->step, &out->capacity, out->n + 1, sizeof *out->step));
    out->step[out->n] = (qd_decoder_step){.kind = known[i].kind};
    return known[i].parse(part, what, &out->step[out->n++]);
  }
  QD_FAIL(QD_EUNSUPPORTED, "%s: the decoder %s is not supported", what, type);
}

void qd_decoder_release(qd_decoder *decoder) {
  for (size_t i = 0; i < decoder->n; i++) {
    qd_regex_close(&decoder->step[i].regex);
    qd_buffer_release(&decoder->step[i].content);
  }
  qd_heap_free(decoder->step);
  *decoder = (qd_decoder){0};
}

/* ---- decoding ------------------------------------------------------------------------------------------------------- */

typedef struct token {
  const char *text;
  size_t      n;
} token;

static token token_at(const qd_pieces *tokens, size_t i) {
  qd_span span = tokens->spans.at[i];
  return (token){tokens->text.at + span.begin, span.end - span.begin};
}

static qd_status replace(const qd_decoder_step *step, qd_matcher *matcher, const qd_pieces *in, qd_pieces *out) {
  for (size_t i = 0; i < in->spans.n; i++) {
    size_t begin = out->text.n;
    QD_TRY(qd_regex_replace(&step->regex, matcher, in->spans.at[i], in->text.at, &step->content, &out->text));
    QD_TRY(qd_spans_add(&out->spans, (qd_span){.begin = begin, .end = out->text.n}));
  }
  return QD_OK;
}

static int hex_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* The byte that "<0x41>" stands for; -1: it is another token. */
static int byte_of_token(token t) {
  if (t.n != 6 || memcmp(t.text, "<0x", 3) != 0 || t.text[5] != '>') return -1;
  int high = hex_value(t.text[3]), low = hex_value(t.text[4]);
  return high < 0 || low < 0 ? -1 : high << 4 | low;
}

/* A run of bytes is one text if it is UTF-8 as a whole; else each byte is unreadable. */
static qd_status end_run(qd_buffer *run, qd_pieces *out) {
  size_t bad;
  bool readable = run->n == 0 || qd_utf8_valid(run->at, run->n, &bad);
  if (run->n > 0 && readable) QD_TRY(qd_pieces_add(out, run->at, run->n));
  for (size_t i = 0; !readable && i < run->n; i++) QD_TRY(qd_pieces_add(out, UNREADABLE, sizeof UNREADABLE - 1));
  run->n = 0;
  return QD_OK;
}

static qd_status join_bytes(const qd_pieces *in, qd_buffer *run, qd_pieces *out) {
  for (size_t i = 0; i < in->spans.n; i++) {
    token t = token_at(in, i);
    int byte = byte_of_token(t);
    char as_text = (char)byte;
    if (byte >= 0) {
      QD_TRY(qd_buffer_add(run, &as_text, 1));
      continue;
    }
    QD_TRY(end_run(run, out));
    QD_TRY(qd_pieces_add(out, t.text, t.n));
  }
  return end_run(run, out);
}

static qd_status byte_fallback(const qd_pieces *in, qd_pieces *out) {
  qd_buffer run = {0};
  qd_status status = join_bytes(in, &run, out);
  qd_buffer_release(&run);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

static qd_status fuse(const qd_pieces *in, qd_pieces *out) {
  for (size_t i = 0; i < in->spans.n; i++) {
    token t = token_at(in, i);
    QD_TRY(qd_buffer_add(&out->text, t.text, t.n));
  }
  return qd_spans_add(&out->spans, (qd_span){.begin = 0, .end = out->text.n});
}

static qd_status strip(const qd_decoder_step *step, const qd_pieces *in, qd_pieces *out) {
  const char *mark = step->content.at;
  size_t m = step->content.n;
  for (size_t i = 0; i < in->spans.n; i++) {
    token t = token_at(in, i);
    for (int64_t k = 0; k < step->start && t.n >= m && memcmp(t.text, mark, m) == 0; k++) t.text += m, t.n -= m;
    for (int64_t k = 0; k < step->stop && t.n >= m && memcmp(t.text + t.n - m, mark, m) == 0; k++) t.n -= m;
    QD_TRY(qd_pieces_add(out, t.text, t.n));
  }
  return QD_OK;
}

/* The bytes of a token's characters; a token with a character that stands for no byte is taken as it is. */
static qd_status add_token_bytes(token t, qd_buffer *out) {
  size_t before = out->n, bytes;
  uint32_t c;
  for (size_t i = 0; i < t.n; i += bytes) {
    int byte = qd_utf8_next(t.text + i, t.n - i, &bytes, &c) ? qd_byte_of_character(c) : -1;
    char as_text = (char)byte;
    if (byte < 0) {
      out->n = before;
      return qd_buffer_add(out, t.text, t.n);
    }
    QD_TRY(qd_buffer_add(out, &as_text, 1));
  }
  return QD_OK;
}

static qd_status add_lossy(const qd_buffer *bytes, qd_pieces *out) {
  size_t n;
  uint32_t c;
  for (size_t i = 0; i < bytes->n; i += n) {
    bool readable = qd_utf8_next(bytes->at + i, bytes->n - i, &n, &c);
    QD_TRY(qd_buffer_add(&out->text, readable ? bytes->at + i : UNREADABLE, readable ? n : sizeof UNREADABLE - 1));
  }
  return qd_spans_add(&out->spans, (qd_span){.begin = 0, .end = out->text.n});
}

static qd_status byte_level(const qd_pieces *in, qd_pieces *out) {
  qd_buffer bytes = {0};
  qd_status status = QD_OK;
  for (size_t i = 0; i < in->spans.n && status == QD_OK; i++) status = add_token_bytes(token_at(in, i), &bytes);
  if (status == QD_OK) status = add_lossy(&bytes, out);
  qd_buffer_release(&bytes);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

static qd_status metaspace(const qd_decoder_step *step, const qd_pieces *in, qd_pieces *out) {
  size_t m = step->content.n;
  for (size_t i = 0; i < in->spans.n; i++) {
    token t = token_at(in, i);
    size_t begin = out->text.n, bytes;
    for (size_t k = 0; k < t.n; k += bytes) {
      bytes = qd_utf8_bytes(t.text[k]);
      bool mark = bytes == m && memcmp(t.text + k, step->content.at, m) == 0;
      if (!mark) QD_TRY(qd_buffer_add(&out->text, t.text + k, bytes));
      else if (i > 0 || !step->drop_first) QD_TRY(qd_buffer_add(&out->text, " ", 1));
    }
    QD_TRY(qd_spans_add(&out->spans, (qd_span){.begin = begin, .end = out->text.n}));
  }
  return QD_OK;
}

static qd_status apply_step(const qd_decoder_step *step, qd_matcher *matcher, const qd_pieces *in, qd_pieces *out) {
  qd_pieces_clear(out);
  QD_TRY(qd_buffer_add(&out->text, "", 0)); /* no text is not NULL */
  switch (step->kind) {
    case QD_DECODE_REPLACE: return replace(step, matcher, in, out);
    case QD_DECODE_BYTE_FALLBACK: return byte_fallback(in, out);
    case QD_DECODE_FUSE: return fuse(in, out);
    case QD_DECODE_STRIP: return strip(step, in, out);
    case QD_DECODE_BYTE_LEVEL: return byte_level(in, out);
    case QD_DECODE_METASPACE: return metaspace(step, in, out);
  }
  return QD_OK;
}

static qd_status join_by_spaces(const qd_pieces *in, qd_pieces *out) {
  qd_pieces_clear(out);
  for (size_t i = 0; i < in->spans.n; i++) {
    token t = token_at(in, i);
    if (i > 0) QD_TRY(qd_buffer_add(&out->text, " ", 1));
    QD_TRY(qd_buffer_add(&out->text, t.text, t.n));
  }
  return qd_spans_add(&out->spans, (qd_span){.begin = 0, .end = out->text.n});
}

qd_status qd_decoder_apply(const qd_decoder *decoder, qd_matcher *matcher, qd_pieces *tokens, qd_pieces *spare) {
  if (!decoder->given) {
    QD_TRY(join_by_spaces(tokens, spare));
    qd_pieces_swap(tokens, spare);
    return QD_OK;
  }
  for (size_t i = 0; i < decoder->n; i++) {
    QD_TRY(apply_step(&decoder->step[i], matcher, tokens, spare));
    qd_pieces_swap(tokens, spare);
  }
  return QD_OK;
}
