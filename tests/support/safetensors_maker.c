#include "tests/support/safetensors_maker.h"

#include "kernels/base/heap.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { PATH_BYTES = 2048 };

typedef struct buffer {
  unsigned char *bytes;
  size_t n, capacity;
} buffer;

static unsigned char *extend(buffer *b, size_t n) {
  QD_ASSERT(qd_heap_grow(&b->bytes, &b->capacity, b->n + n + 1, 1) == QD_OK);
  b->n += n;
  return b->bytes + b->n - n;
}

static void __attribute__((format(printf, 2, 3))) print(buffer *b, const char *format, ...) {
  va_list arguments, again;
  va_start(arguments, format);
  va_copy(again, arguments);
  int n = vsnprintf(NULL, 0, format, arguments);
  QD_ASSERT(n >= 0);
  char *at = (char *)extend(b, (size_t)n);
  vsnprintf(at, (size_t)n + 1, format, again);
  va_end(again);
  va_end(arguments);
}

/* FNV-1a of the name, then a mix of SplitMix64. */
static uint64_t hash_of(const char *name) {
  uint64_t state = 1469598103934665603u;
  for (; *name != '\0'; name++) state = (state ^ (unsigned char)*name) * 1099511628211u;
  return state;
}

static float value_of(uint64_t state, int64_t index) {
  state += (uint64_t)(index + 1) * 0x9e3779b97f4a7c15u;
  state = (state ^ state >> 30) * 0xbf58476d1ce4e5b9u;
  state = (state ^ state >> 27) * 0x94d049bb133111ebu;
  return ((float)(state >> 48) - 32767.5f) / 327680.0f;
}

float qd_made_value(const char *name, int64_t index) { return value_of(hash_of(name), index); }

static int64_t elements(const qd_made_tensor *t) {
  int64_t n = 1;
  for (int i = 0; i < t->rank; i++) n *= t->dim[i];
  return n;
}

static size_t bytes_of(const qd_made_tensor *t) { return (size_t)elements(t) * qd_dtype_bytes(t->dtype); }

static void describe_tensor(buffer *header, const qd_made_tensor *t, size_t begin) {
  print(header, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[", t->name, qd_dtype_name(t->dtype));
  for (int i = 0; i < t->rank; i++) print(header, "%s%" PRId64, i > 0 ? "," : "", t->dim[i]);
  print(header, "],\"data_offsets\":[%zu,%zu]}", begin, begin + bytes_of(t));
}

/* Some at a time: tensors may be larger than memory should be. */
static void write_values(FILE *file, const qd_made_tensor *t) {
  enum { SOME = 4096 };
  uint32_t some[SOME];
  uint64_t hash = hash_of(t->name);
  size_t size = qd_dtype_bytes(t->dtype);
  QD_ASSERT(t->dtype == QD_F32 || t->dtype == QD_F16 || t->dtype == QD_BF16);
  for (int64_t first = 0, n; first < elements(t); first += n) {
    n = elements(t) - first < SOME ? elements(t) - first : SOME;
    for (int64_t i = 0; i < n; i++) {
      float value = value_of(hash, first + i);
      uint16_t half = t->dtype == QD_F16 ? qd_f16_from_f32(value) : qd_bf16_from_f32(value);
      memcpy((unsigned char *)some + (size_t)i * size, t->dtype == QD_F32 ? (const void *)&value : (const void *)&half, size);
    }
    QD_ASSERT(fwrite(some, size, (size_t)n, file) == (size_t)n);
  }
}

static void write_file(const char *path, const void *start, size_t n_start, const void *rest, size_t n_rest) {
  FILE *file = fopen(path, "wb");
  QD_ASSERT(file != NULL);
  QD_ASSERT(n_start == 0 || fwrite(start, 1, n_start, file) == n_start);
  QD_ASSERT(n_rest == 0 || fwrite(rest, 1, n_rest, file) == n_rest);
  QD_ASSERT(fclose(file) == 0);
}

static void add_header(buffer *start, const char *header, size_t header_bytes) {
  unsigned char *length = extend(start, 8);
  for (int i = 0; i < 8; i++) length[i] = (unsigned char)((uint64_t)header_bytes >> (8 * i));
  if (header_bytes > 0) memcpy(extend(start, header_bytes), header, header_bytes);
}

void qd_make_raw_safetensors(const char *path, const char *header, size_t header_bytes, const void *data, size_t data_bytes) {
  buffer start = {0};
  add_header(&start, header, header_bytes);
  write_file(path, start.bytes, start.n, data, data_bytes);
  qd_heap_free(start.bytes);
}

/* Shard `shard` of the tensors; all of them when it is negative.  The header is filled with spaces to a multiple of 8. */
static void make_shard(const char *path, const qd_made_tensor *tensors, int n, int shard) {
  buffer header = {0}, start = {0};
  size_t at = 0;
  print(&header, "{\"__metadata__\":{\"format\":\"pt\"}");
  for (int i = 0; i < n; i++) {
    if (shard >= 0 && tensors[i].shard != shard) continue;
    describe_tensor(&header, &tensors[i], at);
    at += bytes_of(&tensors[i]);
  }
  print(&header, "}");
  while (header.n % 8 != 0) print(&header, " ");
  add_header(&start, (const char *)header.bytes, header.n);
  FILE *file = fopen(path, "wb");
  QD_ASSERT(file != NULL);
  QD_ASSERT(fwrite(start.bytes, 1, start.n, file) == start.n);
  for (int i = 0; i < n; i++) {
    if (shard >= 0 && tensors[i].shard != shard) continue;
    if (tensors[i].data == NULL) write_values(file, &tensors[i]);
    else QD_ASSERT(fwrite(tensors[i].data, 1, bytes_of(&tensors[i]), file) == bytes_of(&tensors[i]));
  }
  QD_ASSERT(fclose(file) == 0);
  qd_heap_free(header.bytes);
  qd_heap_free(start.bytes);
}

void qd_make_safetensors(const char *path, const qd_made_tensor *tensors, int n) { make_shard(path, tensors, n, -1); }

static void join(char path[PATH_BYTES], const char *folder, const char *name) {
  int n = snprintf(path, PATH_BYTES, "%s/%s", folder, name);
  QD_ASSERT(n > 0 && n < PATH_BYTES);
}

static void shard_name(char name[64], int shard, int n_shards) {
  snprintf(name, 64, "model-%05d-of-%05d.safetensors", shard + 1, n_shards);
}

static void make_index(const char *folder, const qd_made_tensor *tensors, int n, int n_shards) {
  char path[PATH_BYTES], shard[64];
  buffer text = {0};
  print(&text, "{\"metadata\":{\"total_size\":0},\"weight_map\":{");
  for (int i = 0; i < n; i++) {
    shard_name(shard, tensors[i].shard, n_shards);
    print(&text, "%s\"%s\":\"%s\"", i > 0 ? "," : "", tensors[i].name, shard);
  }
  print(&text, "}}");
  join(path, folder, "model.safetensors.index.json");
  write_file(path, text.bytes, text.n, NULL, 0);
  qd_heap_free(text.bytes);
}

void qd_make_model(const char *folder, const char *config, const qd_made_tensor *tensors, int n, int n_shards) {
  char path[PATH_BYTES], name[64];
  join(path, folder, "config.json");
  write_file(path, config, strlen(config), NULL, 0);
  if (n_shards == 1) {
    join(path, folder, "model.safetensors");
    qd_make_safetensors(path, tensors, n);
    return;
  }
  for (int shard = 0; shard < n_shards; shard++) {
    shard_name(name, shard, n_shards);
    join(path, folder, name);
    make_shard(path, tensors, n, shard);
  }
  make_index(folder, tensors, n, n_shards);
}
