#include "pipeline/generate/new_text.h"

#include "kernels/base/heap.h"

#include <string.h>

enum { CONTEXT_TOKENS = 4 };

qd_new_text qd_new_text_behind(const qd_tokenizer *tokenizer, size_t n, const char *const *stop, int n_stops) {
  return (qd_new_text){.tokenizer = tokenizer, .stop = stop, .n_stops = n_stops, .known = n,
                       .context = n > CONTEXT_TOKENS ? n - CONTEXT_TOKENS : 0};
}

/* U+FFFD at the end: a character of which bytes are still to come. */
static bool is_cut(const char *text, size_t n) { return n >= 3 && memcmp(text + n - 3, "\xef\xbf\xbd", 3) == 0; }

static qd_status append(qd_new_text *t, const char *text, size_t n) {
  QD_TRY(qd_heap_grow(&t->text, &t->capacity, t->n + n + 1, 1));
  memcpy(t->text + t->n, text, n);
  t->text[t->n += n] = '\0';
  return QD_OK;
}

/* What a token adds depends on those before it (spaces at the front of a text): so both are decoded with some context. */
static qd_status decode(qd_new_text *t, const int32_t *ids, size_t n, bool ends) {
  char *before = NULL, *with = NULL;
  qd_status status = qd_tokenizer_decode(t->tokenizer, ids + t->context, t->known - t->context, &before);
  if (status == QD_OK) status = qd_tokenizer_decode(t->tokenizer, ids + t->context, n - t->context, &with);
  if (status == QD_OK) {
    size_t old = strlen(before), all = strlen(with);
    if (ends || !is_cut(with, all)) {
      if (all > old) status = append(t, with + old, all - old);
      t->context = t->known > t->context + CONTEXT_TOKENS ? t->known - CONTEXT_TOKENS : t->context;
      t->known = n;
    }
  }
  qd_heap_free(before);
  qd_heap_free(with);
  return status;
}

/* Where the first stop text begins, or n. */
static size_t first_stop(const qd_new_text *t) {
  size_t first = t->n;
  for (int i = 0; t->n > 0 && i < t->n_stops; i++) {
    const char *at = strstr(t->text + t->emitted, t->stop[i]);
    if (at != NULL && (size_t)(at - t->text) < first) first = (size_t)(at - t->text);
  }
  return first;
}

/* How many bytes at the end may be the beginning of a stop text. */
static size_t held_back(const qd_new_text *t) {
  size_t most = 0;
  for (int i = 0; i < t->n_stops; i++)
    for (size_t k = strlen(t->stop[i]) - 1; k > most; k--)
      if (k <= t->n - t->emitted && memcmp(t->text + t->n - k, t->stop[i], k) == 0) most = k;
  return most;
}

qd_status qd_new_text_add(qd_new_text *t, const int32_t *ids, size_t n, bool ends, size_t *ready, bool *stopped) {
  QD_TRY(decode(t, ids, n, ends));
  size_t end = first_stop(t);
  *stopped = end < t->n;
  if (*stopped) t->text[t->n = end] = '\0';
  *ready = t->n - t->emitted - (*stopped || ends ? 0 : held_back(t));
  return QD_OK;
}
