#define _POSIX_C_SOURCE 200809L
#include "storage/block_file.h"

#include "kernels/base/heap.h"
#include "kernels/base/log.h"
#include "storage/atomic.h"
#include "storage/bytes.h"
#include "storage/entry.h"
#include "storage/h5_zstd.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

enum { SLOTS = 8 }; /* chunks that are compressed or decompressed at the same time */

/* A chunk on its way: elements <-> plain (padded, shuffled) <-> frame. */
typedef struct slot {
  unsigned char *elements; /* the tensor's own memory, or the slot's */
  size_t         offset, bytes;
  unsigned char *plain, *frame, *own;
  size_t         frame_bytes;
  qd_status      status;
} slot;

typedef struct workspace {
  unsigned char *memory;
  size_t         frame_capacity;
  slot           slot[SLOTS];
} workspace;

static qd_status workspace_open(workspace *space, size_t chunk_bytes, int n) {
  *space = (workspace){.frame_capacity = qd_zstd_bound(chunk_bytes)};
  size_t slot_bytes = 2 * chunk_bytes + space->frame_capacity;
  QD_TRY(qd_heap_new((size_t)n, slot_bytes, &space->memory));
  for (int i = 0; i < n; i++) {
    unsigned char *base = space->memory + (size_t)i * slot_bytes;
    space->slot[i] = (slot){.plain = base, .own = base + chunk_bytes, .frame = base + 2 * chunk_bytes};
  }
  return QD_OK;
}

enum { COMPRESSOR_BYTES = 2 << 20 }; /* of a zstd context at level 1 for a chunk, generously */

size_t qd_store_workspace_bytes(size_t tensor_bytes) {
  size_t chunks = tensor_bytes / QD_H5_CHUNK_BYTES + 1;
  return (chunks < SLOTS ? chunks : SLOTS) *
         (2 * (size_t)QD_H5_CHUNK_BYTES + qd_zstd_bound(QD_H5_CHUNK_BYTES) + COMPRESSOR_BYTES);
}

static int slots_of(const qd_h5_layout *layout) { return layout->n_chunks < SLOTS ? (int)layout->n_chunks : SLOTS; }

/* HDF5's shuffle filter on elements of two bytes: all first bytes, then all second ones. */
static void shuffle(const unsigned char *from, unsigned char *to, size_t bytes, size_t chunk_bytes) {
  size_t half = chunk_bytes / 2;
  for (size_t i = 0; i < bytes / 2; i++) to[i] = from[2 * i], to[half + i] = from[2 * i + 1];
  memset(to + bytes / 2, 0, half - bytes / 2);
  memset(to + half + bytes / 2, 0, half - bytes / 2);
}

static void unshuffle(const unsigned char *from, unsigned char *to, size_t bytes, size_t chunk_bytes) {
  size_t half = chunk_bytes / 2;
  for (size_t i = 0; i < bytes / 2; i++) to[2 * i] = from[i], to[2 * i + 1] = from[half + i];
}

/* ---- writing ------------------------------------------------------------------------------------------------------------- */

static qd_status compress_slot(slot *s, const qd_h5_layout *layout, size_t capacity) {
  const unsigned char *from = s->elements;
  if (qd_dtype_bytes(layout->dtype) == 2) {
    shuffle(from, s->plain, s->bytes, layout->chunk_bytes);
    from = s->plain;
  } else if (s->bytes < layout->chunk_bytes) {
    memcpy(s->plain, from, s->bytes);
    memset(s->plain + s->bytes, 0, layout->chunk_bytes - s->bytes);
    from = s->plain;
  }
  return qd_zstd_compress(from, layout->chunk_bytes, s->frame, capacity, &s->frame_bytes);
}

/* The error text of a worker thread stays with it, so a chunk that failed is done again by the caller. */
static qd_status compress_slots(workspace *space, int n, const qd_h5_layout *layout) {
#pragma omp parallel for schedule(dynamic, 1) if (n > 1)
  for (int i = 0; i < n; i++) space->slot[i].status = compress_slot(&space->slot[i], layout, space->frame_capacity);
  for (int i = 0; i < n; i++)
    if (space->slot[i].status != QD_OK) QD_TRY(compress_slot(&space->slot[i], layout, space->frame_capacity));
  return QD_OK;
}

static qd_status write_chunks(qd_h5_dataset *dataset, workspace *space, unsigned char *elements, double *compress_seconds) {
  const qd_h5_layout *layout = &dataset->layout;
  for (int64_t first = 0; first < layout->n_chunks; first += SLOTS) {
    int n = layout->n_chunks - first < SLOTS ? (int)(layout->n_chunks - first) : SLOTS;
    for (int i = 0; i < n; i++) {
      slot *s = &space->slot[i];
      qd_h5_chunk_range(layout, first + i, &s->offset, &s->bytes);
      s->elements = elements + s->offset;
    }
    double start = qd_seconds();
    QD_TRY(compress_slots(space, n, layout));
    *compress_seconds += qd_seconds() - start;
    for (int i = 0; i < n; i++)
      QD_TRY(qd_h5_chunk_write(dataset, first + i, space->slot[i].frame, space->slot[i].frame_bytes));
  }
  return QD_OK;
}

static qd_status write_tensor(qd_h5_file *file, const qd_out_tensor *out, double *compress_seconds) {
  const qd_tensor *tensor = &out->tensor;
  QD_CHECK(qd_dataset_name_fits(out->dataset), QD_EINVAL, "%s: \"%.64s\" cannot be the name of a dataset", file->path,
           out->dataset);
  QD_CHECK(qd_tensor_is_contiguous(*tensor), QD_ESHAPE, "the tensor for %s has gaps between its elements", out->dataset);
  qd_h5_layout layout;
  qd_h5_dataset dataset;
  workspace space;
  QD_TRY(qd_h5_layout_make(tensor->dtype, tensor->rank, tensor->dim, &layout));
  QD_TRY(workspace_open(&space, layout.chunk_bytes, slots_of(&layout)));
  qd_status status = qd_h5_dataset_create(file, out->dataset, &layout, &dataset);
  if (status == QD_OK) status = write_chunks(&dataset, &space, tensor->data, compress_seconds);
  qd_h5_dataset_close(&dataset);
  qd_heap_free(space.memory);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

static qd_status write_tensors(const char *path, const qd_out_tensor *tensors, int n, qd_entry_file *entry,
                               qd_digest *digests) {
  qd_h5_file file;
  QD_TRY(qd_h5_create(path, &file));
  qd_status status = QD_OK;
  for (int i = 0; i < n && status == QD_OK; i++) {
    status = write_tensor(&file, &tensors[i], &entry->compress_seconds);
    if (status == QD_OK) qd_digest_of(tensors[i].tensor.data, qd_tensor_bytes(tensors[i].tensor), &digests[i]);
  }
  if (status == QD_OK) status = qd_h5_finish(&file);
  qd_h5_close(&file);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

/* The file's digest is taken from what was written, before it gets its name. */
static qd_status write_and_publish(const char *folder, const char *path, const qd_out_tensor *tensors, int n,
                                   qd_entry_file *file, qd_digest *digests) {
  qd_file_identity identity;
  double start = qd_seconds();
  QD_TRY(write_tensors(path, tensors, n, file, digests));
  QD_TRY(qd_file_identify(path, &identity));
  QD_TRY(qd_digest_file(path, &file->digest));
  file->bytes = identity.size;
  QD_TRY(qd_atomic_publish(path, folder, file->name));
  file->write_seconds = qd_seconds() - start - file->compress_seconds;
  return QD_OK;
}

qd_status qd_store_write_file(const char *folder, const char *name, const qd_out_tensor *tensors, int n, qd_entry_file *file,
                              qd_digest *digests) {
  *file = (qd_entry_file){.bytes = 0};
  QD_CHECK(qd_block_file_name_fits(name), QD_EINVAL, "\"%.64s\" cannot be the name of a file of the store", name);
  memcpy(file->name, name, strlen(name) + 1);
  char temporary[sizeof file->name + 32], *path = NULL;
  snprintf(temporary, sizeof temporary, QD_STORE_PARTIAL "/%s.tmp", name);
  QD_TRY(qd_path_join(folder, temporary, &path));
  qd_status status = write_and_publish(folder, path, tensors, n, file, digests);
  if (status != QD_OK) unlink(path);
  qd_heap_free(path);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

/* ---- reading ------------------------------------------------------------------------------------------------------------- */

static qd_status decompress_slot(slot *s, const qd_h5_layout *layout) {
  bool direct = qd_dtype_bytes(layout->dtype) != 2 && s->bytes == layout->chunk_bytes;
  QD_TRY(qd_zstd_decompress(s->frame, s->frame_bytes, direct ? s->elements : s->plain, layout->chunk_bytes));
  if (qd_dtype_bytes(layout->dtype) == 2) unshuffle(s->plain, s->elements, s->bytes, layout->chunk_bytes);
  else if (!direct) memcpy(s->elements, s->plain, s->bytes);
  return QD_OK;
}

static qd_status decompress_slots(workspace *space, int n, int64_t first, const qd_h5_dataset *dataset) {
#pragma omp parallel for schedule(dynamic, 1) if (n > 1)
  for (int i = 0; i < n; i++) space->slot[i].status = decompress_slot(&space->slot[i], &dataset->layout);
  for (int i = 0; i < n; i++) {
    qd_status status = space->slot[i].status == QD_OK ? QD_OK : decompress_slot(&space->slot[i], &dataset->layout);
    if (status != QD_OK)
      QD_FAIL(status, "%s: chunk %" PRId64 " of %s: %s", dataset->path, first + i, dataset->name, qd_error_text());
  }
  return QD_OK;
}

static qd_status read_chunks(qd_h5_dataset *dataset, workspace *space, XXH3_state_t *state, unsigned char *to) {
  const qd_h5_layout *layout = &dataset->layout;
  for (int64_t first = 0; first < layout->n_chunks; first += SLOTS) {
    int n = layout->n_chunks - first < SLOTS ? (int)(layout->n_chunks - first) : SLOTS;
    for (int i = 0; i < n; i++) {
      slot *s = &space->slot[i];
      qd_h5_chunk_range(layout, first + i, &s->offset, &s->bytes);
      s->elements = to != NULL ? to + s->offset : s->own;
      QD_TRY(qd_h5_chunk_read(dataset, first + i, s->frame, space->frame_capacity, &s->frame_bytes));
    }
    QD_TRY(decompress_slots(space, n, first, dataset));
    for (int i = 0; i < n; i++) XXH3_128bits_update(state, space->slot[i].elements, space->slot[i].bytes);
  }
  return QD_OK;
}

static void digest_finish(XXH3_state_t *state, qd_digest *out) {
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(state));
  for (size_t i = 0; i < sizeof canonical.digest; i++) snprintf(out->hex + 2 * i, 3, "%02x", canonical.digest[i]);
}

static qd_status read_dataset(qd_h5_dataset *dataset, const qd_digest *expected, unsigned char *to) {
  workspace space = {0};
  qd_digest digest = {""};
  XXH3_state_t *state = XXH3_createState();
  qd_status status = QD_OK;
  if (state == NULL || XXH3_128bits_reset(state) != XXH_OK)
    status = qd_fail(QD_ENOMEM, __FILE__, __LINE__, "no memory left for the digest of %s", dataset->name);
  if (status == QD_OK) status = workspace_open(&space, dataset->layout.chunk_bytes, slots_of(&dataset->layout));
  if (status == QD_OK) status = read_chunks(dataset, &space, state, to);
  if (status == QD_OK) digest_finish(state, &digest);
  qd_heap_free(space.memory);
  XXH3_freeState(state);
  if (status != QD_OK) return qd_forward(status, __FILE__, __LINE__);
  QD_CHECK(qd_digest_equal(&digest, expected), QD_ECORRUPT, "%s: dataset %s has the digest %s, expected %s", dataset->path,
           dataset->name, digest.hex, expected->hex);
  return QD_OK;
}

/* What the system refuses is told apart from what is damaged before HDF5 sees the file. */
static qd_status check_readable(const char *path) {
  qd_bytes bytes;
  qd_status status = qd_bytes_open_file(path, &bytes);
  qd_bytes_close(&bytes);
  QD_CHECK(status != QD_ENOTFOUND, QD_ECORRUPT, "%s is missing", path);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

qd_status qd_block_file_open(const char *path, qd_h5_file *out) {
  *out = (qd_h5_file){.id = -1};
  QD_TRY(check_readable(path));
  QD_TRY(qd_h5_open(path, out));
  return QD_OK;
}

qd_status qd_block_file_part(qd_h5_file *file, const qd_stored_part *part, void *to) {
  qd_h5_layout layout;
  qd_h5_dataset dataset;
  QD_TRY(qd_h5_layout_make(part->dtype, part->rank, part->dim, &layout));
  qd_status status = qd_h5_dataset_open(file, part->dataset, &layout, &dataset);
  if (status == QD_OK) status = read_dataset(&dataset, &part->digest, to);
  qd_h5_dataset_close(&dataset);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

qd_status qd_block_file_read(const char *path, const qd_stored_part *part, void *to) {
  qd_h5_file file;
  QD_TRY(qd_block_file_open(path, &file));
  qd_status status = qd_block_file_part(&file, part, to);
  qd_h5_close(&file);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}
