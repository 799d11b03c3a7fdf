/* Small stores for tests: two blocks and the rest, every element type, one side file. */
#ifndef QDIST_TESTS_SUPPORT_STORE_MAKER_H
#define QDIST_TESTS_SUPPORT_STORE_MAKER_H

#include "storage/atomic.h"
#include "storage/bytes.h"
#include "storage/store.h"
#include "tests/support/temporary_folder.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "kernels/base/heap.h"

enum { MADE_BLOCKS = 2, MADE_PARTS = 4 };

#define MUST(call) cr_assert_eq((call), QD_OK, "%s", qd_error_text())

/* The contents of block b: codes, scales, order of one linear, and the values of a norm. */
typedef struct made_tensors {
  uint8_t  codes[5 * 3];
  uint16_t scales[5 * 2];
  int32_t  order[7];
  uint16_t norm[9];
} made_tensors;

static inline made_tensors made_values(int64_t block) {
  made_tensors t;
  for (int i = 0; i < 5 * 3; i++) t.codes[i] = (uint8_t)(17 * i + 31 * (block + 2));
  for (int i = 0; i < 5 * 2; i++) t.scales[i] = qd_f16_from_f32(0.25f * (float)(i + block));
  for (int i = 0; i < 7; i++) t.order[i] = (i * 3) % 7;
  for (int i = 0; i < 9; i++) t.norm[i] = qd_bf16_from_f32(1.5f - (float)i);
  return t;
}

static inline int made_outputs(made_tensors *t, qd_out_tensor out[MADE_PARTS]) {
  out[0] = (qd_out_tensor){"q_proj/codes", qd_tensor_2d(t->codes, QD_U8, 5, 3)};
  out[1] = (qd_out_tensor){"q_proj/scales", qd_tensor_2d(t->scales, QD_F16, 5, 2)};
  out[2] = (qd_out_tensor){"q_proj/order", qd_tensor_1d(t->order, QD_I32, 7)};
  out[3] = (qd_out_tensor){"norm/values", qd_tensor_1d(t->norm, QD_BF16, 9)};
  return MADE_PARTS;
}

static inline qd_stored_part made_part(const qd_out_tensor *out, const qd_digest *digest) {
  qd_stored_part part = {.dtype = out->tensor.dtype, .rank = out->tensor.rank, .digest = *digest};
  snprintf(part.name, sizeof part.name, "%s", strchr(out->dataset, '/') + 1);
  snprintf(part.dataset, sizeof part.dataset, "%s", out->dataset);
  memcpy(part.dim, out->tensor.dim, sizeof part.dim);
  return part;
}

/* Writes the block's file and describes it. */
static inline qd_entry made_entry(const char *folder, int64_t block) {
  made_tensors values = made_values(block);
  qd_out_tensor out[MADE_PARTS];
  qd_digest digest[MADE_PARTS];
  int n = made_outputs(&values, out);
  qd_entry entry = {.block = block, .n_files = 1, .n_records = 2};
  MUST(qd_heap_new(1, sizeof *entry.file, &entry.file));
  MUST(qd_heap_new(2, sizeof *entry.record, &entry.record));
  char name[64] = "model.h5";
  if (block != QD_REST) snprintf(name, sizeof name, "block-%05d.h5", (int)block);
  MUST(qd_store_write_file(folder, name, out, n, entry.file, digest));
  qd_record *linear = &entry.record[0], *norm = &entry.record[1];
  *linear = (qd_record){.role = "q_proj", .expert = 3, .scheme = "uniform", .rank = 2, .dim = {5, 7}, .n_parts = 3};
  *norm = (qd_record){.role = "input_norm", .expert = -1, .scheme = "none", .rank = 1, .dim = {9}, .n_parts = 1};
  linear->dtype = norm->dtype = QD_BF16;
  snprintf(linear->name, sizeof linear->name, "model.layers.%d.self_attn.q_proj.weight", (int)block);
  snprintf(norm->name, sizeof norm->name, "model.layers.%d.input_layernorm.weight", (int)block);
  qd_digest_of("source", 6, &linear->source);
  for (int i = 0; i < 3; i++) linear->part[i] = made_part(&out[i], &digest[i]);
  norm->part[0] = made_part(&out[3], &digest[3]);
  linear->facts = qd_json_object();
  qd_json_set_integer(linear->facts, "bits", 4);
  qd_json_set_number(linear->facts, "loss", 0.1);
  norm->facts = qd_json_object();
  return entry;
}

static inline qd_json *made_job(void) {
  qd_json *job = qd_json_object();
  qd_json_set_text(job, "method", "gptq");
  qd_json_set_number(job, "damping", 0.01);
  return job;
}

static inline void made_begin(const char *folder) {
  qd_json *job = made_job();
  MUST(qd_store_begin(folder, job));
  qd_json_free(job);
}

static inline void made_block(const char *folder, int64_t block) {
  qd_entry entry = made_entry(folder, block);
  MUST(qd_store_journal(folder, &entry));
  qd_entry_release(&entry);
}

static inline qd_status made_finish(const char *folder, const char *source) {
  static const char *const side_files[] = {"config.json"};
  return qd_store_finish(folder, source, side_files, 1, MADE_BLOCKS, false);
}

/* A finished store in folder/out, from a source in folder/source.  Returns the store's path. */
static inline const char *made_store(qd_temporary_folder *folder) {
  static char out[QD_TEMPORARY_PATH_BYTES];
  snprintf(out, sizeof out, "%s", qd_temporary_path(folder, "out"));
  const char *source = qd_temporary_make_folder(folder, "source");
  qd_temporary_write_text(folder, "source/config.json", "{\"model_type\": \"llama\"}\n");
  made_begin(out);
  for (int64_t block = 0; block < MADE_BLOCKS; block++) made_block(out, block);
  made_block(out, QD_REST);
  MUST(made_finish(out, source));
  return out;
}

/* The bytes of a file, and back. */
static inline unsigned char *made_read(const char *path, size_t *n) {
  static char *text; /* static, or gcc takes what is returned for a pointer to a local */
  MUST(qd_file_read(path, 1 << 24, &text, n));
  return (unsigned char *)text;
}

/* In place: file systems bring a file that was emptied and written anew to the disk at once, which takes long. */
static inline void made_write(const char *path, const void *data, size_t n) {
  int fd = open(path, O_WRONLY | O_CREAT, 0666);
  cr_assert_geq(fd, 0);
  cr_assert_eq(pwrite(fd, data, n, 0), (ssize_t)n);
  cr_assert_eq(ftruncate(fd, (off_t)n), 0);
  close(fd);
}

#endif
