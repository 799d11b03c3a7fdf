/* Small GGUF files for tests.  Written by its own code, not by the product's. */
#ifndef QDIST_TESTS_SUPPORT_GGUF_MAKER_H
#define QDIST_TESTS_SUPPORT_GGUF_MAKER_H

#include <stddef.h>
#include <stdint.h>

typedef struct qd_made_bytes { /* zeroed is empty */
  unsigned char *at;
  size_t n, capacity;
} qd_made_bytes;

typedef struct qd_gguf_maker { /* zeroed is empty, version 3, alignment 32 */
  qd_made_bytes pairs, infos, data;
  uint64_t n_pairs, n_tensors;
  uint32_t version, alignment; /* 0: the usual one, without a key */
} qd_gguf_maker;

void qd_make_gguf_text(qd_gguf_maker *maker, const char *key, const char *text);
void qd_make_gguf_u32(qd_gguf_maker *maker, const char *key, uint32_t value);
void qd_make_gguf_f32(qd_gguf_maker *maker, const char *key, float value);
void qd_make_gguf_bool(qd_gguf_maker *maker, const char *key, int value);
void qd_make_gguf_texts(qd_gguf_maker *maker, const char *key, const char *const *texts, size_t n);
void qd_make_gguf_floats(qd_gguf_maker *maker, const char *key, const float *values, size_t n);
void qd_make_gguf_ints(qd_gguf_maker *maker, const char *key, const int32_t *values, size_t n);

/* A key with these bytes behind its type: what hostile files are made of. */
void qd_make_gguf_raw(qd_gguf_maker *maker, const char *key, uint32_t type, const void *value, size_t n);

/* dim[0] is the fastest; `data` of n bytes is filled up to the alignment. */
void qd_make_gguf_tensor(qd_gguf_maker *maker, const char *name, uint32_t type, int rank, const int64_t *dim, const void *data,
                         size_t n);

/* Writes the file and empties the maker. */
void qd_make_gguf(qd_gguf_maker *maker, const char *path);

/* The keys that a model of an architecture cannot do without, those of a tiny one (2 blocks, hidden 64, 4 heads, 2 for keys,
 * ffn 96, 128 positions). */
void qd_make_gguf_keys(qd_gguf_maker *maker, const char *arch);

#endif
