#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "kernels/base/heap.h"
#include "storage/tokenizer_parts.h"
#include "storage/utf8.h"

/* ---- parsing -------------------------------------------------------------------------------------------------------- */

static qd_status add_step(qd_normalizer *n, qd_normalizer_kind kind, qd_normalizer_step **step) {
  QD_TRY(qd_heap_grow(&n->step, &n->capacity, n->n + 1, sizeof *n->step));
  *step = &n->step[n->n++];
  **step = (qd_normalizer_step){.kind = kind};
  return QD_OK;
}

static qd_status parse_prepend(const qd_json *part, const char *what, qd_normalizer *out) {
  const char *text;
  size_t n;
  qd_normalizer_step *step = NULL;
  QD_TRY(qd_part_text(part, what, "prepend", &text, &n));
  QD_TRY(add_step(out, QD_NORMALIZE_PREPEND, &step));
  QD_TRY(qd_buffer_add(&step->content, text, n));
  return QD_OK;
}

static qd_status parse_replace(const qd_json *part, const char *what, qd_normalizer *out) {
  const char *text;
  size_t n;
  qd_normalizer_step *step = NULL;
  QD_TRY(qd_part_text(part, what, "content", &text, &n));
  QD_TRY(add_step(out, QD_NORMALIZE_REPLACE, &step));
  QD_TRY(qd_buffer_add(&step->content, text, n));
  QD_TRY(qd_regex_parse(qd_json_get(part, "pattern"), what, &step->regex));
  return QD_OK;
}

static qd_status parse_sequence(const qd_json *part, const char *what, qd_normalizer *out) {
  const qd_json *list = qd_json_get(part, "normalizers");
  QD_CHECK(qd_json_is_array(list), QD_EBADINPUT, "%s: the normalizer Sequence has no list \"normalizers\"", what);
  for (size_t i = 0; i < qd_json_length(list); i++) {
    QD_CHECK(qd_json_at(list, i) != NULL, QD_EBADINPUT, "%s: normalizer %zu of a Sequence is null", what, i);
    QD_TRY(qd_normalizer_parse(qd_json_at(list, i), what, out));
  }
  return QD_OK;
}

static qd_status parse_unicode(const char *type, qd_normalizer *out) {
  qd_normalizer_step *step = NULL;
  QD_TRY(add_step(out, QD_NORMALIZE_UNICODE, &step));
  step->compatible = type[2] == 'K';
  step->compose = type[strlen(type) - 1] == 'C';
  return QD_OK;
}

qd_status qd_normalizer_parse(const qd_json *part, const char *what, qd_normalizer *out) {
  const char *type;
  if (part == NULL) return QD_OK;
  QD_TRY(qd_part_type(part, what, "normalizer", &type));
  if (strcmp(type, "Sequence") == 0) return parse_sequence(part, what, out);
  if (strcmp(type, "Prepend") == 0) return parse_prepend(part, what, out);
  if (strcmp(type, "Replace") == 0) return parse_replace(part, what, out);
  bool unicode = strcmp(type, "NFC") == 0 || strcmp(type, "NFD") == 0 || strcmp(type, "NFKC") == 0 || strcmp(type, "NFKD") == 0;
  QD_CHECK(unicode, QD_EUNSUPPORTED, "%s: the normalizer %s is not supported", what, type);
  return parse_unicode(type, out);
}

void qd_normalizer_release(qd_normalizer *normalizer) {
  for (size_t i = 0; i < normalizer->n; i++) {
    qd_regex_close(&normalizer->step[i].regex);
    qd_buffer_release(&normalizer->step[i].content);
  }
  qd_heap_free(normalizer->step);
  *normalizer = (qd_normalizer){0};
}

/* ---- Unicode normal forms (UAX #15) --------------------------------------------------------------------------------- */

/* The library's tables end with Unicode 9: it leaves marks and compatibility characters of later versions as they stand, where
 * utf8proc orders and decomposes them. */

typedef struct codepoints {
  utf8proc_int32_t *at;
  size_t n, capacity;
} codepoints;

static qd_status decompose(const qd_buffer *text, utf8proc_option_t options, codepoints *out) {
  enum { LONGEST = 32 }; /* of one character: 18 */
  size_t bytes;
  uint32_t c;
  for (size_t i = 0; i < text->n; i += bytes) {
    QD_ASSERT(qd_utf8_next(text->at + i, text->n - i, &bytes, &c));
    QD_TRY(qd_heap_grow(&out->at, &out->capacity, out->n + LONGEST, sizeof *out->at));
    utf8proc_ssize_t n = utf8proc_decompose_char((utf8proc_int32_t)c, out->at + out->n, LONGEST, options, NULL);
    QD_CHECK(n >= 0 && n <= LONGEST, QD_EBADINPUT, "U+%04" PRIX32 " cannot be normalized: %s", c, utf8proc_errmsg(n));
    out->n += (size_t)n;
  }
  return QD_OK;
}

static int combining_class(utf8proc_int32_t c) { return utf8proc_get_property(c)->combining_class; }

/* Stable by combining class, by counting: a run of marks may be as long as the text. */
static void sort_run(utf8proc_int32_t *run, size_t n, utf8proc_int32_t *spare) {
  size_t place[257] = {0};
  for (size_t i = 0; i < n; i++) place[combining_class(run[i]) + 1]++;
  for (int c = 0; c < 256; c++) place[c + 1] += place[c];
  for (size_t i = 0; i < n; i++) spare[place[combining_class(run[i])]++] = run[i];
  memcpy(run, spare, n * sizeof *run);
}

static qd_status order_marks(codepoints *all) {
  utf8proc_int32_t *spare = NULL;
  for (size_t i = 0, end; i < all->n; i = end) {
    end = i + 1;
    if (combining_class(all->at[i]) == 0) continue;
    while (end < all->n && combining_class(all->at[end]) != 0) end++;
    if (end - i < 2) continue;
    if (spare == NULL) QD_TRY(qd_heap_new(all->n, sizeof *spare, &spare));
    sort_run(all->at + i, end - i, spare);
  }
  qd_heap_free(spare);
  return QD_OK;
}

static qd_status write_codepoints(const codepoints *all, qd_buffer *out) {
  char bytes[QD_UTF8_MAX];
  out->n = 0;
  for (size_t i = 0; i < all->n; i++) QD_TRY(qd_buffer_add(out, bytes, qd_utf8_write((uint32_t)all->at[i], bytes)));
  return QD_OK;
}

static qd_status normalize(const qd_normalizer_step *step, const qd_buffer *text, codepoints *all, qd_buffer *out) {
  int options = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | (step->compatible ? UTF8PROC_COMPAT : 0);
  QD_TRY(decompose(text, (utf8proc_option_t)options, all));
  QD_TRY(order_marks(all));
  if (step->compose) {
    options = UTF8PROC_STABLE | UTF8PROC_COMPOSE;
    utf8proc_ssize_t n = utf8proc_normalize_utf32(all->at, (utf8proc_ssize_t)all->n, (utf8proc_option_t)options);
    QD_CHECK(n >= 0, QD_EBADINPUT, "a text cannot be normalized: %s", utf8proc_errmsg(n));
    all->n = (size_t)n;
  }
  QD_TRY(write_codepoints(all, out));
  return QD_OK;
}

static bool is_ascii(const qd_buffer *text) {
  for (size_t i = 0; i < text->n; i++)
    if ((unsigned char)text->at[i] >= 0x80) return false;
  return true;
}

/* ---- applying ------------------------------------------------------------------------------------------------------- */

/* spare := the step's result.  *same: the text is its own result. */
static qd_status apply_step(const qd_normalizer_step *step, qd_matcher *matcher, const qd_buffer *text, qd_buffer *spare,
                            bool *same) {
  spare->n = 0;
  *same = false;
  if (step->kind == QD_NORMALIZE_PREPEND) {
    QD_TRY(qd_buffer_add(spare, step->content.at, step->content.n));
    QD_TRY(qd_buffer_add(spare, text->at, text->n));
  } else if (step->kind == QD_NORMALIZE_REPLACE) {
    QD_TRY(qd_regex_replace(&step->regex, matcher, (qd_span){.end = text->n}, text->at, &step->content, spare));
  } else if (is_ascii(text)) {
    *same = true;
  } else {
    codepoints all = {0};
    qd_status status = normalize(step, text, &all, spare);
    qd_heap_free(all.at);
    if (status != QD_OK) return qd_forward(status, __FILE__, __LINE__);
  }
  return QD_OK;
}

/* Steps multiply: a few replacements could make a terabyte of a page.  NFKD's worst is 18 times, a word for a letter not much
 * more. */
enum { MOST_GROWTH = 64, SHORT_BYTES = 1024 };

qd_status qd_normalizer_apply(const qd_normalizer *normalizer, qd_matcher *matcher, qd_buffer *text, qd_buffer *spare) {
  size_t given = text->n;
  for (size_t i = 0; i < normalizer->n && text->n > 0; i++) {
    bool same;
    QD_TRY(apply_step(&normalizer->step[i], matcher, text, spare, &same));
    QD_CHECK(spare->n / MOST_GROWTH <= given + SHORT_BYTES, QD_EBADINPUT,
             "the tokenizer's normalizer makes %zu bytes or more of a text of %zu", spare->n, given);
    if (same) continue;
    qd_buffer kept = *text;
    *text = *spare;
    *spare = kept;
  }
  return QD_OK;
}
