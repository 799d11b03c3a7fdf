/* The text of tokens as they come: whole characters, held back where they may begin a stop text. */
#ifndef QDIST_PIPELINE_GENERATE_NEW_TEXT_H
#define QDIST_PIPELINE_GENERATE_NEW_TEXT_H

#include "storage/tokenizer.h"

typedef struct qd_new_text {
  const qd_tokenizer *tokenizer;
  const char *const  *stop;
  int     n_stops;
  size_t  context, known; /* tokens: decoding begins at context, the text of those before `known` is in */
  char   *text;           /* from the heap */
  size_t  n, capacity, emitted;
} qd_new_text;

/* The first `n` tokens are the prompt: of them only the spacing matters. */
qd_new_text qd_new_text_behind(const qd_tokenizer *tokenizer, size_t n, const char *const *stop, int n_stops);

/* Token n - 1 has come.  *ready bytes from text + emitted on may be shown: add them to `emitted`.  *stopped: a stop text came;
 * the text ends before it.  ends: nothing is held back any longer. */
qd_status qd_new_text_add(qd_new_text *text, const int32_t *ids, size_t n, bool ends, size_t *ready, bool *stopped) QD_MUST_USE;

#endif
