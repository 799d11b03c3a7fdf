#include <stdio.h>
#include <string.h>

#include "kernels/base/heap.h"
#include "storage/text_file.h"

static bool is_blank(const char *text, size_t n) {
  for (size_t i = 0; i < n; i++)
    if (text[i] != ' ' && text[i] != '\t' && text[i] != '\r') return false;
  return true;
}

static qd_status find_lines(const char *text, size_t n, qd_jsonl *out) {
  for (size_t begin = 0, number = 1; begin < n; number++) {
    const char *end = memchr(text + begin, '\n', n - begin);
    size_t bytes = end ? (size_t)(end - text) - begin : n - begin;
    if (!is_blank(text + begin, bytes)) {
      QD_TRY(qd_heap_grow(&out->line, &out->capacity, out->n + 1, sizeof *out->line));
      out->line[out->n++] = (qd_jsonl_line){.begin = begin, .bytes = bytes, .number = number};
    }
    begin += bytes + 1;
  }
  return QD_OK;
}

qd_status qd_jsonl_open(const char *text, size_t n, const char *path, qd_jsonl *out) {
  static const char mark[] = "\xEF\xBB\xBF"; /* a byte order mark is no part of the first line */
  *out = (qd_jsonl){.text = text, .path = path};
  if (n >= 3 && memcmp(text, mark, 3) == 0) out->text += 3, n -= 3;
  qd_status status = find_lines(out->text, n, out);
  if (status == QD_OK && out->n > 0) return QD_OK;
  qd_jsonl_close(out);
  if (status != QD_OK) return qd_forward(status, __FILE__, __LINE__);
  QD_FAIL(QD_EBADINPUT, "%s: no line of JSON in it", path);
}

void qd_jsonl_close(qd_jsonl *lines) {
  qd_heap_free(lines->line);
  *lines = (qd_jsonl){0};
}

/* The parser counts lines within the document; here it is one line of the file. */
static qd_status without_inner_line(qd_status status, const char *what) {
  static const char inner[] = ", line 1";
  const char *text = qd_error_text();
  size_t n = strlen(what);
  bool counted = strncmp(text, what, n) == 0 && strncmp(text + n, inner, sizeof inner - 1) == 0;
  if (!counted) return qd_forward(status, __FILE__, __LINE__);
  QD_FAIL(status, "%s%s", what, text + n + sizeof inner - 1);
}

qd_status qd_jsonl_parse(const qd_jsonl *lines, size_t index, char what[QD_JSONL_WHAT_BYTES], qd_json **out) {
  qd_jsonl_line line = lines->line[index];
  *out = NULL;
  snprintf(what, QD_JSONL_WHAT_BYTES, "%.400s, line %zu", lines->path, line.number);
  qd_status parsed = qd_json_parse(lines->text + line.begin, line.bytes, what, out);
  return parsed == QD_OK ? QD_OK : without_inner_line(parsed, what);
}

qd_status qd_jsonl_text(const qd_jsonl *lines, size_t index, char **text, size_t *n) {
  char what[QD_JSONL_WHAT_BYTES];
  qd_json *root;
  *text = NULL;
  *n = 0;
  QD_TRY(qd_jsonl_parse(lines, index, what, &root));
  const qd_json *member = qd_json_is_object(root) ? qd_json_get(root, "text") : NULL;
  qd_status status = QD_OK;
  if (!qd_json_is_text(member))
    status = qd_fail(QD_EBADINPUT, __FILE__, __LINE__, "%s: not an object with a text \"text\"", what);
  if (status == QD_OK) {
    *n = qd_json_text_bytes(member); /* NULs are for the tokenizer to judge */
    status = qd_heap_text(qd_json_text(member), *n, text);
  }
  qd_json_free(root);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}
