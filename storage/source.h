/* The original model, read-only: named tensors, the configuration, the side files.
 * Formats are plug-ins (sources.def); today: Hugging Face safetensors, one file or sharded by index. */
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
  uint64_t    bytes, offset; /* within its file */
  int         file;
} qd_source_tensor;

/* `path` is the model's folder.  Opens every file, reads and checks every header, no tensor data.
 * QD_ENOTFOUND: no folder, no config.json, no weights, a shard that the index names is missing.  QD_EBADINPUT: a damaged or
 * hostile header (sizes, overlaps, offsets, duplicate names, nesting), an index that contradicts its shards. QD_EUNSUPPORTED: a
 * dtype or a file format that is not read (pytorch_model.bin without safetensors is named, with what to do). */
qd_status qd_source_open(const char *path, qd_source **out) QD_MUST_USE;
void      qd_source_close(qd_source *source); /* NULL is fine */

const char             *qd_source_path(const qd_source *source);
const qd_json          *qd_source_config(const qd_source *source); /* config.json */
size_t                  qd_source_tensors(const qd_source *source);
const qd_source_tensor *qd_source_tensor_at(const qd_source *source, size_t index); /* by name, ascending */
const qd_source_tensor *qd_source_find(const qd_source *source, const char *name);  /* NULL if it is not there */

/* Bytes [offset, offset + n) of the tensor, by pread.  Any thread.  QD_EIO, QD_EBADINPUT (the file shrank). */
qd_status qd_source_read(const qd_source *source, const qd_source_tensor *tensor, uint64_t offset, void *to,
                         size_t n) QD_MUST_USE;

/* The weight files: their number, full paths and identities at the time of opening. */
size_t           qd_source_files(const qd_source *source);
const char      *qd_source_file_path(const qd_source *source, size_t index);
qd_file_identity qd_source_file_identity(const qd_source *source, size_t index);

/* Names of tokenizer and configuration files in the folder, which a store copies byte for byte: config.json,
 * generation_config.json, tokenizer.json, tokenizer_config.json, tokenizer.model, special_tokens_map.json, added_tokens.json,
 * vocab.json, merges.txt, chat_template.jinja, chat_template.json; those that exist, in this order.  NULL past the end. */
const char *qd_source_side_file(const qd_source *source, size_t index);

#endif
