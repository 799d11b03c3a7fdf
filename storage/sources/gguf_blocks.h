/* The types of GGUF tensors: blocks of elements in ggml's layouts (ggml-common.h), decoded as its Python package gguf does, in
 * fp32 with each operation rounded. */
#ifndef QDIST_STORAGE_SOURCES_GGUF_BLOCKS_H
#define QDIST_STORAGE_SOURCES_GGUF_BLOCKS_H

#include "kernels/base/dtype.h"

enum { QD_GGUF_MOST_ELEMENTS = 256, QD_GGUF_MOST_BYTES = 210 }; /* of a block */

typedef struct qd_gguf_block {
  uint32_t    type;
  const char *name;
  int         elements, bytes;
  qd_dtype    dtype; /* what is read: F32 where blocks are decoded, else as stored */

  /* n blocks to n x elements numbers; NULL: stored as they are read. */
  void (*decode)(const unsigned char *blocks, size_t n, float *to);
} qd_gguf_block;

const qd_gguf_block *qd_gguf_block_of(uint32_t type); /* NULL: not read */
const char          *qd_gguf_type_name(uint32_t type); /* of all that ggml has; NULL: unknown */
const char          *qd_gguf_type_names(void);         /* of those that are read, for messages */

#endif
