/* tokenizer.json and tokenizer_config.json from a GGUF header's vocabulary: "gpt2" (byte-level BPE, the pre-tokenizer by its
 * name) and "llama" (sentencepiece's BPE: merges from the scores, as transformers' convert_slow_tokenizer.py makes them). */
#ifndef QDIST_STORAGE_SOURCES_GGUF_TOKENIZER_H
#define QDIST_STORAGE_SOURCES_GGUF_TOKENIZER_H

#include "storage/json.h"
#include "storage/sources/gguf.h"

/* Whether there is a vocabulary, by its names alone.  QD_EUNSUPPORTED: of a kind, or with a pre-tokenizer, that is not read. */
qd_status qd_gguf_tokenizer_is_there(const qd_gguf *gguf, bool *out) QD_MUST_USE;

/* Of a header that has one; the same bytes for the same header.  QD_EBADINPUT names what contradicts itself. */
qd_status qd_gguf_tokenizer(const qd_gguf *gguf, qd_json **out) QD_MUST_USE;
qd_status qd_gguf_tokenizer_config(const qd_gguf *gguf, qd_json **out) QD_MUST_USE;

#endif
