/* The GGUF container: key-value pairs and where tensors lie (ggml's docs/gguf.md), versions 2 and 3, little-endian.
 *
 *   "GGUF"; u32 version; u64 tensors; u64 pairs; the pairs; the tensors' names, dimensions, types and offsets; filling up to
 *   general.alignment; the tensors' data, each filled up to the alignment
 *
 * The header is hostile until checked; of its values only places are kept, arrays are read when they are asked for. */
#ifndef QDIST_STORAGE_SOURCES_GGUF_H
#define QDIST_STORAGE_SOURCES_GGUF_H

#include "storage/bytes.h"

typedef enum qd_gguf_kind {
  QD_GGUF_U8, QD_GGUF_I8, QD_GGUF_U16, QD_GGUF_I16, QD_GGUF_U32, QD_GGUF_I32, QD_GGUF_F32, QD_GGUF_BOOL, QD_GGUF_TEXT,
  QD_GGUF_ARRAY, QD_GGUF_U64, QD_GGUF_I64, QD_GGUF_F64, QD_GGUF_KINDS
} qd_gguf_kind;

typedef struct qd_gguf_value {
  char        *key;
  qd_gguf_kind kind, item; /* item: of an array */
  uint64_t     n;          /* elements of an array; else 1 */
  uint64_t     at, bytes;  /* in the file: a text's bytes, an array's elements with the lengths of its texts */
} qd_gguf_value;

enum { QD_GGUF_RANK = 4 };

typedef struct qd_gguf_tensor {
  char    *name;
  int      rank;
  int64_t  dim[QD_GGUF_RANK]; /* dim[0] is the fastest */
  uint32_t type;
  uint64_t offset, bytes;     /* in the file */
} qd_gguf_tensor;

typedef struct qd_gguf {
  qd_bytes       *bytes; /* borrowed */
  qd_gguf_value  *value;
  qd_gguf_tensor *tensor;
  size_t          n_values, n_tensors;
} qd_gguf;

/* Reads and checks the whole header.  QD_EBADINPUT: damaged or hostile (counts, lengths, offsets, alignment, names twice,
 * arrays in arrays).  QD_EUNSUPPORTED: a version or a tensor's type that is not read.  Release it after a failure, too. */
qd_status qd_gguf_read(qd_bytes *bytes, qd_gguf *out) QD_MUST_USE;
void      qd_gguf_release(qd_gguf *gguf); /* zeroed is fine */

const qd_gguf_value  *qd_gguf_find(const qd_gguf *gguf, const char *key);          /* NULL: it is not there */
const qd_gguf_tensor *qd_gguf_find_tensor(const qd_gguf *gguf, const char *name);

/* Values of a key; one that is not there gives `otherwise`.  QD_EBADINPUT: another kind, outside [low, high]. */
qd_status qd_gguf_integer(const qd_gguf *gguf, const char *key, int64_t low, int64_t high, int64_t otherwise,
                          int64_t *out) QD_MUST_USE;
qd_status qd_gguf_number(const qd_gguf *gguf, const char *key, double otherwise, double *out) QD_MUST_USE;
qd_status qd_gguf_bool(const qd_gguf *gguf, const char *key, bool otherwise, bool *out) QD_MUST_USE;
qd_status qd_gguf_text(const qd_gguf *gguf, const char *key, char **out) QD_MUST_USE; /* NULL: not there; from the heap */

/* Arrays; one that is not there has n = 0. */
typedef struct qd_gguf_texts {
  char   *all;   /* a NUL behind each text; texts are UTF-8 without NULs */
  char  **text;
  size_t *bytes; /* of each */
  size_t  n;
} qd_gguf_texts;
qd_status qd_gguf_read_texts(const qd_gguf *gguf, const char *key, qd_gguf_texts *out) QD_MUST_USE;
void      qd_gguf_texts_release(qd_gguf_texts *texts);
qd_status qd_gguf_read_floats(const qd_gguf *gguf, const char *key, float **out, size_t *n) QD_MUST_USE;
qd_status qd_gguf_read_ints(const qd_gguf *gguf, const char *key, int32_t **out, size_t *n) QD_MUST_USE;

#endif
