#include "pipeline/same_model.h"

#include "kernels/base/heap.h"
#include "storage/digest.h"
#include "workers/agree.h"
#include "workers/team.h"

#include <stdio.h>
#include <string.h>

enum { MOST_SAMPLES = 512, SAMPLE_BYTES = 4096, NAME_BYTES = 256, CONFIG_BYTES = 16 << 20 };

/* What is compared of a file.  Sent as it is: all ranks are the same program. */
typedef struct facts {
  char      name[NAME_BYTES];
  uint64_t  bytes;
  qd_digest tensors,
      values; /* of a weight file: its header as it was understood; samples.  Of another one: values, of all of it */
} facts;

static void keep_name(const char *path, facts *out) {
  const char *slash = strrchr(path, '/');
  snprintf(out->name, sizeof out->name, "%s", slash ? slash + 1 : path);
}

/* digest = digest of what it was and of the new bytes. */
static void add_to_digest(qd_digest *digest, const void *data, size_t n) {
  struct { qd_digest before, added; } both = {.before = *digest};
  qd_digest_of(data, n, &both.added);
  qd_digest_of(&both, sizeof both, digest);
}

static void add_header(const qd_source_tensor *t, facts *file) {
  int64_t shape[QD_MAX_RANK + 2] = {(int64_t)t->dtype, t->rank};
  uint64_t place[] = {t->offset, t->bytes};
  memcpy(shape + 2, t->dim, (size_t)t->rank * sizeof *t->dim);
  add_to_digest(&file->tensors, t->name, strlen(t->name));
  add_to_digest(&file->tensors, shape, sizeof shape);
  add_to_digest(&file->tensors, place, sizeof place);
}

/* Another training of the same model has the same headers, but hardly a tensor that begins alike. */
static qd_status add_sample(const qd_source *source, const qd_source_tensor *t, facts *file) {
  unsigned char sample[SAMPLE_BYTES];
  size_t n = t->bytes < SAMPLE_BYTES ? (size_t)t->bytes : SAMPLE_BYTES;
  QD_TRY(qd_source_read(source, t, 0, sample, n));
  add_to_digest(&file->values, sample, n);
  return QD_OK;
}

static qd_status look_at_weights(const qd_source *source, facts *files) {
  size_t n = qd_source_tensors(source), step = n / MOST_SAMPLES + 1;
  for (size_t i = 0; i < qd_source_files(source); i++) {
    keep_name(qd_source_file_path(source, i), &files[i]);
    files[i].bytes = qd_source_file_identity(source, i).size;
  }
  for (size_t i = 0; i < n; i++) {
    const qd_source_tensor *t = qd_source_tensor_at(source, i);
    add_header(t, &files[t->file]);
    if (i % step == 0) QD_TRY(add_sample(source, t, &files[t->file]));
  }
  return QD_OK;
}

static qd_status look_at_whole(const char *folder, const char *name, facts *out) {
  char *path;
  qd_file_identity identity;
  keep_name(name, out);
  QD_TRY(qd_path_join(folder, name, &path));
  qd_status status = qd_file_identify(path, &identity);
  if (status == QD_OK) status = qd_digest_file(path, &out->values);
  if (status == QD_OK) out->bytes = identity.size;
  qd_heap_free(path);
  return status;
}

/* config.json says what the tensors mean. */
static qd_status look_at_config(const char *path, facts *out) {
  static const char name[] = "config.json";
  char *text;
  size_t n;
  keep_name(name, out);
  QD_TRY(qd_side_file_read(path, name, CONFIG_BYTES, &text, &n));
  qd_digest_of(text, n, &out->values);
  out->bytes = n;
  qd_heap_free(text);
  return QD_OK;
}

static qd_status compare(const char *folder, const facts *here, const facts *there) {
  char host[128];
  const char *what = here->bytes != there->bytes                           ? "size"
                     : !qd_digest_equal(&here->tensors, &there->tensors)   ? "tensors"
                     : !qd_digest_equal(&here->values, &there->values)     ? "values"
                                                                           : NULL;
  qd_host_name(host, sizeof host);
  QD_CHECK(strcmp(here->name, there->name) == 0, QD_EBADINPUT,
           "ranks disagree about the model's files: %s on host %s has %s where rank 0 has %s", folder, host, here->name,
           there->name);
  QD_CHECK(what == NULL, QD_EBADINPUT,
           "ranks disagree about the model's files: %s/%s on host %s is not what rank 0 sees (other %s)", folder, here->name,
           host, what);
  return QD_OK;
}

static qd_status compare_all(const char *folder, const facts *here, const facts *there, size_t n, size_t n_there) {
  char host[128];
  for (size_t i = 0; i < n && i < n_there; i++) QD_TRY(compare(folder, &here[i], &there[i]));
  QD_CHECK(n == n_there, QD_EBADINPUT, "ranks disagree about the model's files: %s on host %s has %zu of them, rank 0 has %zu",
           folder, qd_host_name(host, sizeof host), n, n_there);
  return QD_OK;
}

static qd_status against_rank_0(const char *folder, const facts *here, size_t n, qd_comm *comm) {
  uint64_t n_there = n;
  facts *there = NULL;
  QD_TRY(qd_comm_bcast(comm, &n_there, sizeof n_there, 0));
  QD_TRY_ALL(comm, qd_heap_new((size_t)n_there, sizeof *there, &there));
  if (comm->rank == 0) memcpy(there, here, n * sizeof *there);
  qd_status status = qd_comm_bcast(comm, there, (size_t)n_there * sizeof *there, 0);
  if (status == QD_OK) status = qd_agree(comm, compare_all(folder, here, there, n, (size_t)n_there));
  qd_heap_free(there);
  return status;
}

static qd_status look_at_model(const qd_source *source, facts *files) {
  QD_TRY(look_at_config(qd_source_path(source), &files[0]));
  return look_at_weights(source, files + 1);
}

qd_status qd_same_model(const qd_source *source, qd_comm *comm) {
  size_t n = 1 + qd_source_files(source);
  facts *files = NULL;
  if (comm->size == 1) return QD_OK;
  QD_TRY_ALL(comm, qd_heap_new(n, sizeof *files, &files));
  qd_status status = qd_agree(comm, look_at_model(source, files));
  if (status == QD_OK) status = against_rank_0(qd_source_path(source), files, n, comm);
  qd_heap_free(files);
  return status;
}

qd_status qd_same_store(const char *folder, qd_comm *comm) {
  facts manifest = {.bytes = 0};
  if (comm->size == 1) return QD_OK;
  QD_TRY_ALL(comm, look_at_whole(folder, "manifest.json", &manifest));
  return against_rank_0(folder, &manifest, 1, comm);
}
