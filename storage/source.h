/* The original model, read-only: named tensors, the configuration, the side files.
 * Formats are plug-ins (sources.def): Hugging Face safetensors, one file or sharded by index; GGUF, one file or several parts,
 * read under Hugging Face's names, with the configuration and the tokenizer made from its header. */
#ifndef QDIST_STORAGE_SOURCE_H
#define QDIST_STORAGE_SOURCE_H

#include "kernels/base/tensor.h"
#include "storage/bytes.h"
#include "storage/json.h"

typedef struct qd_source qd_source;

typedef struct qd_source_tensor {
  const char *name;
  qd_dtype    dtype; /* F32, F16 or BF16 */
  int         rank;
  int64_t     dim[QD_MAX_RANK];
  uint64_t    bytes;         /* as it is read */
  uint64_t    offset;        /* within its file */
  int         file;
  size_t      layout;        /* the format's own: how it lies in its file */
  const char *stored;        /* the file's type where it is another one than dtype: "Q4_K"; else NULL */
} qd_source_tensor;

/* `path` is the model's folder, or a GGUF file.  Opens every file, reads and checks every header, no tensor data.  A folder
 * with both safetensors and GGUF files is read by the former.
 * QD_ENOTFOUND: no folder, no config.json, no weights, a shard that the index names is missing.  QD_EBADINPUT: a damaged or
 * hostile header (sizes, overlaps, offsets, duplicate names, nesting), an index that contradicts its shards. QD_EUNSUPPORTED: a
 * dtype or a file format that is not read (pytorch_model.bin without safetensors is named, with what to do). */
qd_status qd_source_open(const char *path, qd_source **out) QD_MUST_USE;
void      qd_source_close(qd_source *source); /* NULL is fine */

const char             *qd_source_path(const qd_source *source);
const char             *qd_source_format_name(const qd_source *source); /* "safetensors", "GGUF" */
const qd_json          *qd_source_config(const qd_source *source); /* config.json, or what stands for it */
const char             *qd_source_config_name(const qd_source *source); /* for messages */
size_t                  qd_source_tensors(const qd_source *source);
const qd_source_tensor *qd_source_tensor_at(const qd_source *source, size_t index); /* by name, ascending */
const qd_source_tensor *qd_source_find(const qd_source *source, const char *name);  /* NULL if it is not there */

/* Bytes [offset, offset + n) of the tensor in its dtype, by pread (GGUF's blocks are decoded to F32).  Any thread.  QD_EIO,
 * QD_EBADINPUT (the file shrank). */
qd_status qd_source_read(const qd_source *source, const qd_source_tensor *tensor, uint64_t offset, void *to,
                         size_t n) QD_MUST_USE;

/* The weight files: their number, full paths and identities at the time of opening. */
size_t           qd_source_files(const qd_source *source);
const char      *qd_source_file_path(const qd_source *source, size_t index);
qd_file_identity qd_source_file_identity(const qd_source *source, size_t index);

/* Names of tokenizer and configuration files in the folder, which a store copies byte for byte: config.json,
 * generation_config.json, tokenizer.json, tokenizer_config.json, tokenizer.model, special_tokens_map.json, added_tokens.json,
 * vocab.json, merges.txt, chat_template.jinja, chat_template.json; those that exist, in this order.  NULL past the end.
 * Of GGUF those that are made: config.json, and with a vocabulary tokenizer.json and tokenizer_config.json. */
const char *qd_source_side_file(const qd_source *source, size_t index);

enum { QD_SIDE_FILE_BYTES = 1 << 30 }; /* no side file has more */

/* The bytes of a side file of the model or store at `path` (as qd_source_open takes it; any folder): those in the folder, or
 * those that are made from a GGUF file's header, the same at every call.  *text from the heap, with a NUL behind it.
 * QD_ENOTFOUND: there is none such; QD_EBADINPUT: more than max_bytes. */
qd_status qd_side_file_read(const char *path, const char *name, size_t max_bytes, char **text, size_t *n) QD_MUST_USE;

/* The same, parsed; *what (from the heap, for messages) is its path. */
qd_status qd_side_file_json(const char *path, const char *name, size_t max_bytes, char **what, qd_json **out) QD_MUST_USE;

#endif
