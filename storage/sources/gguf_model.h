/* A GGUF header as a Hugging Face model: the configuration, and the tensors' names and places.  llama (with Mistral, Mixtral
 * and SmolLM), qwen2, qwen3, qwen2moe, qwen3moe; names and rows as llama.cpp's convert_hf_to_gguf.py makes them. */
#ifndef QDIST_STORAGE_SOURCES_GGUF_MODEL_H
#define QDIST_STORAGE_SOURCES_GGUF_MODEL_H

#include "storage/json.h"
#include "storage/source.h"
#include "storage/sources/gguf.h"

typedef struct qd_gguf_model {
  const qd_gguf *gguf;         /* the files' headers, borrowed; the first one has the keys */
  size_t         n_files;
  const char    *arch;         /* general.architecture, one that is known */
  const char    *model_type;   /* Hugging Face's */
  int64_t        n_blocks, heads, kv_heads, experts; /* experts 0: dense */
  bool           permuted;     /* rows of q and k, and elements of their biases, are in llama.cpp's order */
} qd_gguf_model;

/* QD_EUNSUPPORTED: another architecture, a key of it that would change the forward; QD_EBADINPUT. */
qd_status qd_gguf_model_of(const qd_gguf *files, size_t n_files, qd_gguf_model *out) QD_MUST_USE;

/* config.json, the same bytes for the same header. */
qd_status qd_gguf_config(const qd_gguf_model *model, qd_json **out) QD_MUST_USE;

/* How a GGUF tensor is one of the model, or one for each expert. */
typedef struct qd_gguf_place {
  char    name[160];    /* "#" stands for the expert's number where it holds all experts */
  int     rank;
  int64_t dim[2];
  int64_t experts;      /* how many tensors it holds, one behind the other */
  int64_t heads;        /* rows are to be put back into order in so many heads; 0: they are */
  bool    left_out;     /* it says nothing that config.json does not: rope_freqs.weight */
} qd_gguf_place;

/* QD_EUNSUPPORTED: a tensor that the model's family does not have; QD_EBADINPUT: dimensions that cannot be. */
qd_status qd_gguf_place_of(const qd_gguf_model *model, const qd_gguf_tensor *tensor, qd_gguf_place *out) QD_MUST_USE;

#endif
