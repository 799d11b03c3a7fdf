#include <string.h>

#include "kernels/base/heap.h"
#include "storage/tokenizer_parts.h"

/* FNV-1a, its high bits folded down. */
static size_t hash(const char *text, size_t n) {
  uint64_t h = 0xCBF29CE484222325u;
  for (size_t i = 0; i < n; i++) h = (h ^ (unsigned char)text[i]) * 0x100000001B3u;
  return (size_t)(h ^ h >> 32);
}

const char *qd_vocabulary_token(const qd_vocabulary *vocabulary, int64_t id, size_t *n) {
  *n = 0;
  if (id < 0 || id >= vocabulary->size || vocabulary->bytes[id] == 0) return NULL;
  *n = vocabulary->bytes[id];
  return vocabulary->text.at + vocabulary->begin[id];
}

/* The slot of the token, or the free one where it would go. */
static size_t find_slot(const qd_vocabulary *v, const char *token, size_t n) {
  size_t at = hash(token, n) & (v->slots - 1);
  while (v->slot[at] >= 0) {
    int32_t id = v->slot[at];
    if (v->bytes[id] == n && memcmp(v->text.at + v->begin[id], token, n) == 0) break;
    at = (at + 1) & (v->slots - 1);
  }
  return at;
}

int32_t qd_vocabulary_find(const qd_vocabulary *vocabulary, const char *token, size_t n) {
  return vocabulary->slots == 0 ? -1 : vocabulary->slot[find_slot(vocabulary, token, n)];
}

/* Room for ids below `size`. */
static qd_status make_room(qd_vocabulary *v, int64_t size) {
  if (size <= v->size) return QD_OK;
  size_t *begin = NULL;
  uint32_t *bytes = NULL;
  QD_TRY(qd_heap_new((size_t)size, sizeof *begin, &begin));
  qd_status status = qd_heap_new((size_t)size, sizeof *bytes, &bytes);
  if (status != QD_OK) {
    qd_heap_free(begin);
    return qd_forward(status, __FILE__, __LINE__);
  }
  if (v->size > 0) {
    memcpy(begin, v->begin, (size_t)v->size * sizeof *begin);
    memcpy(bytes, v->bytes, (size_t)v->size * sizeof *bytes);
  }
  qd_heap_free(v->begin);
  qd_heap_free(v->bytes);
  v->begin = begin, v->bytes = bytes, v->size = size;
  return QD_OK;
}

static qd_status enter(qd_vocabulary *v, const char *token, size_t n, int32_t id) {
  v->begin[id] = v->text.n;
  QD_TRY(qd_buffer_add(&v->text, token, n));
  v->bytes[id] = (uint32_t)n;
  return QD_OK;
}

qd_status qd_vocabulary_append(qd_vocabulary *vocabulary, const char *token, size_t n, int32_t id) {
  QD_TRY(make_room(vocabulary, (int64_t)id + 1));
  return enter(vocabulary, token, n, id);
}

static qd_status read_id(const qd_json *value, const char *token, const char *what, int64_t *id) {
  bool whole = qd_json_is_number(value) && (double)qd_json_integer(value) == qd_json_number(value);
  QD_CHECK(whole, QD_EBADINPUT, "%s: the id of the token \"%.80s\" is not a whole number", what, token);
  *id = qd_json_integer(value);
  QD_CHECK(*id >= 0 && *id < QD_TOKEN_ID_LIMIT, QD_EBADINPUT,
           "%s: the token \"%.80s\" has the id %" PRId64 ", expected 0 to %d", what, token, *id, QD_TOKEN_ID_LIMIT - 1);
  return QD_OK;
}

static qd_status largest_id(const qd_json *vocab, const char *what, int64_t *largest) {
  const char *token;
  const qd_json *value;
  int64_t id = 0;
  *largest = -1;
  for (size_t i = 0; qd_json_member(vocab, i, &token, &value); i++) {
    QD_TRY(read_id(value, token, what, &id));
    if (id > *largest) *largest = id;
  }
  return QD_OK;
}

static qd_status enter_all(const qd_json *vocab, const char *what, qd_vocabulary *out) {
  const char *token;
  const qd_json *value;
  for (size_t i = 0; qd_json_member(vocab, i, &token, &value); i++) {
    int32_t id = (int32_t)qd_json_integer(value);
    size_t n = strlen(token); /* keys hold no NUL */
    QD_CHECK(n > 0 && n < UINT32_MAX, QD_EBADINPUT, "%s: the token of id %" PRId32 " has %zu bytes", what, id, n);
    QD_CHECK(out->bytes[id] == 0, QD_EBADINPUT, "%s: the tokens \"%.*s\" and \"%.80s\" both have the id %" PRId32, what,
             (int)(out->bytes[id] < 80 ? out->bytes[id] : 80), out->text.at + out->begin[id], token, id);
    QD_TRY(enter(out, token, n, id));
    out->slot[find_slot(out, token, n)] = id;
    out->tokens++;
  }
  return QD_OK;
}

qd_status qd_vocabulary_parse(const qd_json *vocab, const char *what, qd_vocabulary *out) {
  int64_t largest;
  QD_CHECK(qd_json_is_object(vocab), QD_EBADINPUT, "%s: the model's \"vocab\" is not an object", what);
  QD_TRY(largest_id(vocab, what, &largest));
  QD_TRY(qd_buffer_add(&out->text, "", 0));
  QD_TRY(make_room(out, largest + 1));
  size_t slots = 16;
  while (slots < 2 * qd_json_length(vocab)) slots *= 2;
  QD_TRY(qd_heap_new(slots, sizeof *out->slot, &out->slot));
  memset(out->slot, 0xFF, slots * sizeof *out->slot); /* -1 */
  out->slots = slots;
  QD_TRY(enter_all(vocab, what, out));
  return QD_OK;
}

void qd_vocabulary_release(qd_vocabulary *vocabulary) {
  qd_buffer_release(&vocabulary->text);
  qd_heap_free(vocabulary->begin);
  qd_heap_free(vocabulary->bytes);
  qd_heap_free(vocabulary->slot);
  *vocabulary = (qd_vocabulary){0};
}
