#include "tests/support/gguf_maker.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TYPE_U32 = 4, TYPE_I32 = 5, TYPE_F32 = 6, TYPE_BOOL = 7, TYPE_TEXT = 8, TYPE_ARRAY = 9, USUAL_ALIGNMENT = 32 };

static void add(qd_made_bytes *bytes, const void *data, size_t n) {
  if (bytes->n + n > bytes->capacity) {
    bytes->capacity = 2 * (bytes->n + n);
    bytes->at = realloc(bytes->at, bytes->capacity);
    if (bytes->at == NULL) abort();
  }
  if (n > 0) memcpy(bytes->at + bytes->n, data, n);
  bytes->n += n;
}

static void add_u32(qd_made_bytes *bytes, uint32_t value) { add(bytes, &value, sizeof value); }
static void add_u64(qd_made_bytes *bytes, uint64_t value) { add(bytes, &value, sizeof value); }

static void add_text(qd_made_bytes *bytes, const char *text) {
  add_u64(bytes, strlen(text));
  add(bytes, text, strlen(text));
}

void qd_make_gguf_raw(qd_gguf_maker *maker, const char *key, uint32_t type, const void *value, size_t n) {
  add_text(&maker->pairs, key);
  add_u32(&maker->pairs, type);
  add(&maker->pairs, value, n);
  maker->n_pairs++;
}

void qd_make_gguf_text(qd_gguf_maker *maker, const char *key, const char *text) {
  qd_make_gguf_raw(maker, key, TYPE_TEXT, NULL, 0);
  add_text(&maker->pairs, text);
}

void qd_make_gguf_u32(qd_gguf_maker *maker, const char *key, uint32_t value) {
  qd_make_gguf_raw(maker, key, TYPE_U32, &value, sizeof value);
}

void qd_make_gguf_f32(qd_gguf_maker *maker, const char *key, float value) {
  qd_make_gguf_raw(maker, key, TYPE_F32, &value, sizeof value);
}

void qd_make_gguf_bool(qd_gguf_maker *maker, const char *key, int value) {
  qd_make_gguf_raw(maker, key, TYPE_BOOL, value ? "\1" : "\0", 1);
}

static void begin_array(qd_gguf_maker *maker, const char *key, uint32_t type, size_t n) {
  qd_make_gguf_raw(maker, key, TYPE_ARRAY, NULL, 0);
  add_u32(&maker->pairs, type);
  add_u64(&maker->pairs, n);
}

void qd_make_gguf_texts(qd_gguf_maker *maker, const char *key, const char *const *texts, size_t n) {
  begin_array(maker, key, TYPE_TEXT, n);
  for (size_t i = 0; i < n; i++) add_text(&maker->pairs, texts[i]);
}

void qd_make_gguf_floats(qd_gguf_maker *maker, const char *key, const float *values, size_t n) {
  begin_array(maker, key, TYPE_F32, n);
  add(&maker->pairs, values, n * sizeof *values);
}

void qd_make_gguf_ints(qd_gguf_maker *maker, const char *key, const int32_t *values, size_t n) {
  begin_array(maker, key, TYPE_I32, n);
  add(&maker->pairs, values, n * sizeof *values);
}

static uint32_t alignment_of(const qd_gguf_maker *maker) { return maker->alignment ? maker->alignment : USUAL_ALIGNMENT; }

static void fill_up(qd_made_bytes *bytes, size_t before, uint32_t alignment) {
  while ((before + bytes->n) % alignment != 0) add(bytes, "", 1);
}

void qd_make_gguf_tensor(qd_gguf_maker *maker, const char *name, uint32_t type, int rank, const int64_t *dim, const void *data,
                         size_t n) {
  add_text(&maker->infos, name);
  add_u32(&maker->infos, (uint32_t)rank);
  for (int i = 0; i < rank; i++) add_u64(&maker->infos, (uint64_t)dim[i]);
  add_u32(&maker->infos, type);
  add_u64(&maker->infos, maker->data.n);
  add(&maker->data, data, n);
  fill_up(&maker->data, 0, alignment_of(maker));
  maker->n_tensors++;
}

void qd_make_gguf(qd_gguf_maker *maker, const char *path) {
  qd_made_bytes all = {0};
  if (maker->alignment != 0) qd_make_gguf_u32(maker, "general.alignment", maker->alignment);
  add(&all, "GGUF", 4);
  add_u32(&all, maker->version ? maker->version : 3);
  add_u64(&all, maker->n_tensors);
  add_u64(&all, maker->n_pairs);
  add(&all, maker->pairs.at, maker->pairs.n);
  add(&all, maker->infos.at, maker->infos.n);
  fill_up(&all, 0, alignment_of(maker));
  add(&all, maker->data.at, maker->data.n);
  FILE *file = fopen(path, "wb");
  if (file == NULL || fwrite(all.at, 1, all.n, file) != all.n || fclose(file) != 0) abort();
  free(all.at);
  free(maker->pairs.at);
  free(maker->infos.at);
  free(maker->data.at);
  *maker = (qd_gguf_maker){0};
}

void qd_make_gguf_keys(qd_gguf_maker *maker, const char *arch) {
  static const struct { const char *name; uint32_t value; } counts[] = {
      {"block_count", 2}, {"embedding_length", 64}, {"feed_forward_length", 96}, {"attention.head_count", 4},
      {"attention.head_count_kv", 2}, {"context_length", 128}};
  char key[128];
  qd_make_gguf_text(maker, "general.architecture", arch);
  for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
    snprintf(key, sizeof key, "%s.%s", arch, counts[i].name);
    qd_make_gguf_u32(maker, key, counts[i].value);
  }
  snprintf(key, sizeof key, "%s.attention.layer_norm_rms_epsilon", arch);
  qd_make_gguf_f32(maker, key, 1e-5f);
}
