/* tokenizer.json (Hugging Face tokenizers): byte-level BPE and sentencepiece-style BPE.  Whatever part is not known is refused
 * by name, never guessed. */
#ifndef QDIST_STORAGE_TOKENIZER_H
#define QDIST_STORAGE_TOKENIZER_H

#include "kernels/base/status.h"

typedef struct qd_tokenizer qd_tokenizer;

typedef enum qd_add_bos { QD_BOS_AUTO, QD_BOS_YES, QD_BOS_NO } qd_add_bos;

/* Reads tokenizer.json of a model's or store's folder, and tokenizer_config.json where it is there (bos_token); of a GGUF file
 * those that are made from its vocabulary (source.h, qd_side_file_read).
 * QD_ENOTFOUND, QD_EBADINPUT, QD_EUNSUPPORTED (the text names the part and its type). */
qd_status qd_tokenizer_open(const char *folder, qd_tokenizer **out) QD_MUST_USE;
void      qd_tokenizer_close(qd_tokenizer *tokenizer); /* NULL is fine */

/* Token ids of `n` bytes of UTF-8 text.  QD_BOS_AUTO: the special tokens that the tokenizer adds by default (the post-processor
 * of tokenizer.json; add_bos_token of tokenizer_config.json does not count beside it, as in transformers); YES: exactly one BOS
 * in front whatever the default (the default's other special tokens are kept; a BOS that the text itself begins with is that
 * one); NO: none of the default special tokens.
 * Special tokens written in the text are recognised, as in the library.  *ids from the heap.
 * QD_EBADINPUT: invalid UTF-8 (with its byte offset), a character that the model cannot spell and that has no unknown token.
 * QD_EINVAL: YES, and the tokenizer has no BOS.  Any thread. */
qd_status qd_tokenizer_encode(const qd_tokenizer *tokenizer, const char *text, size_t n, qd_add_bos bos, int32_t **ids,
                              size_t *n_ids) QD_MUST_USE;

/* The text of ids (special tokens written out), by the tokenizer's decoder; invalid UTF-8 in the middle of a character becomes
 * U+FFFD.  Ids that no token has give nothing, as in the library.  *text from the heap. */
qd_status qd_tokenizer_decode(const qd_tokenizer *tokenizer, const int32_t *ids, size_t n_ids, char **text) QD_MUST_USE;

int64_t qd_tokenizer_size(const qd_tokenizer *tokenizer);    /* largest id + 1 */
int32_t qd_tokenizer_bos(const qd_tokenizer *tokenizer);     /* -1: none known */
int32_t qd_tokenizer_unknown(const qd_tokenizer *tokenizer); /* -1: none */
bool    qd_tokenizer_adds_bos(const qd_tokenizer *tokenizer); /* by default */

#endif
