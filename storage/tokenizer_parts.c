#include "storage/tokenizer_parts.h"

#include <string.h>

#include "kernels/base/heap.h"

qd_status qd_buffer_add(qd_buffer *buffer, const char *bytes, size_t n) {
  QD_CHECK(n < (size_t)PTRDIFF_MAX - buffer->n, QD_ENOMEM, "a text of more bytes than any machine has");
  QD_TRY(qd_heap_grow(&buffer->at, &buffer->capacity, buffer->n + n + 1, 1)); /* never NULL afterwards, room for a NUL */
  if (n > 0) memcpy(buffer->at + buffer->n, bytes, n);
  buffer->n += n;
  return QD_OK;
}

void qd_buffer_release(qd_buffer *buffer) {
  qd_heap_free(buffer->at);
  *buffer = (qd_buffer){0};
}

qd_status qd_ids_add(qd_ids *ids, int32_t id) {
  QD_TRY(qd_heap_grow(&ids->at, &ids->capacity, ids->n + 1, sizeof *ids->at));
  ids->at[ids->n++] = id;
  return QD_OK;
}

void qd_ids_release(qd_ids *ids) {
  qd_heap_free(ids->at);
  *ids = (qd_ids){0};
}

qd_status qd_spans_add(qd_spans *spans, qd_span span) {
  QD_TRY(qd_heap_grow(&spans->at, &spans->capacity, spans->n + 1, sizeof *spans->at));
  spans->at[spans->n++] = span;
  return QD_OK;
}

qd_status qd_pieces_add(qd_pieces *pieces, const char *bytes, size_t n) {
  size_t begin = pieces->text.n;
  QD_TRY(qd_buffer_add(&pieces->text, bytes, n));
  QD_TRY(qd_spans_add(&pieces->spans, (qd_span){.begin = begin, .end = begin + n}));
  return QD_OK;
}

void qd_pieces_clear(qd_pieces *pieces) { pieces->text.n = pieces->spans.n = 0; }

void qd_pieces_release(qd_pieces *pieces) {
  qd_buffer_release(&pieces->text);
  qd_heap_free(pieces->spans.at);
  *pieces = (qd_pieces){0};
}

void qd_pieces_swap(qd_pieces *a, qd_pieces *b) {
  qd_pieces kept = *a;
  *a = *b;
  *b = kept;
}

qd_status qd_part_type(const qd_json *part, const char *what, const char *which, const char **type) {
  QD_CHECK(qd_json_is_object(part), QD_EBADINPUT, "%s: the %s is not an object", what, which);
  QD_TRY(qd_json_need_text(part, what, "type", type));
  return QD_OK;
}

qd_status qd_part_text(const qd_json *part, const char *what, const char *key, const char **text, size_t *n) {
  QD_TRY(qd_json_need_text(part, what, key, text));
  *n = qd_json_text_bytes(qd_json_get(part, key));
  return QD_OK;
}
