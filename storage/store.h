/* The quantized model on disk.  docs/formats.md describes it byte by byte.
 *
 *   OUT/manifest.json            everything that there is, with digests; written last
 *   OUT/block-00000.h5 ...       one or more files a block (block-00000.1.h5 ...), cut at linears by --shard-size
 *   OUT/model.h5                 embeddings, final norm, head
 *   OUT/config.json ...          copied byte for byte
 *   OUT/partial/                 while the job runs: job.json, journal entries, temporaries
 *   OUT/job.lock                 while the job runs
 *
 * An *entry* describes the files of one block (or of the rest) and the *records* in them; a record is one linear, plain tensor
 * or linear input: role, scheme name, and named parts, each with dtype, shape, file, dataset, digest.  A new method adds parts.
 */
#ifndef QDIST_STORAGE_STORE_H
#define QDIST_STORAGE_STORE_H

#include "kernels/base/tensor.h"
#include "kernels/qtensor.h"
#include "storage/digest.h"
#include "storage/json.h"

enum { QD_STORE_FORMAT_VERSION = 1, QD_REST = -1 }; /* QD_REST: the entry of embeddings, norm and head */

typedef struct qd_stored_part {
  char      name[32];       /* "codes", "scales", "zeros", "order", "values", "diagonal" ... */
  qd_dtype  dtype;
  int       rank;
  int64_t   dim[QD_MAX_RANK];
  int       file;           /* index in the entry's files */
  char      dataset[160];   /* path inside the HDF5 file  */
  qd_digest digest;         /* of the elements, row-major, little-endian */
} qd_stored_part;

static inline size_t qd_stored_part_bytes(const qd_stored_part *part) {
  size_t n = qd_dtype_bytes(part->dtype);
  for (int i = 0; i < part->rank; i++) n *= (size_t)part->dim[i];
  return n;
}

typedef struct qd_record {
  char      name[160];      /* the original tensor's name; of a linear input: "model.layers.3.self_attn.qkv_input" */
  char      role[32];       /* "q_proj", "input_norm", "embedding", "qkv_input" ...                                */
  int       expert;         /* -1: none */
  char      scheme[32];     /* "uniform" (qd_scheme's grid), "none" (plain tensor), "statistics" (linear input)    */
  qd_dtype  dtype;          /* of the original tensor */
  int       rank;
  int64_t   dim[QD_MAX_RANK];
  qd_digest source;         /* of the original tensor as read; "" for statistics */
  int       n_parts;
  qd_stored_part part[QD_MAX_PARTS];
  qd_json  *facts;          /* object: bits, group_size, symmetric ..., loss, relative_error, damping, tokens; owned */
} qd_record;

typedef struct qd_entry_file {
  char      name[64];
  uint64_t  bytes;
  qd_digest digest;
  double    compress_seconds, write_seconds; /* what writing it took, the rest in write; stored nowhere */
} qd_entry_file;

typedef struct qd_entry {
  int64_t        block;     /* or QD_REST */
  int            n_files;
  qd_entry_file *file;
  int            n_records;
  qd_record     *record;
  qd_json       *facts;     /* object: what is known of the block as a whole; NULL: nothing; owned */
} qd_entry;
void qd_entry_release(qd_entry *entry);

qd_status qd_entry_to_json(const qd_entry *entry, qd_json **out) QD_MUST_USE;
qd_status qd_entry_from_json(const qd_json *json, const char *what,
                             qd_entry *out) QD_MUST_USE; /* checks everything: QD_ECORRUPT */

/* ---- writing ------------------------------------------------------------------------------------------------------------- */

typedef struct qd_out_tensor { /* one dataset to write */
  const char *dataset;
  qd_tensor   tensor;          /* contiguous */
} qd_out_tensor;

/* What writing or reading a tensor of so many bytes takes of the heap at most, the compressor's own part estimated. */
size_t qd_store_workspace_bytes(size_t tensor_bytes);

/* Write folder/name (an HDF5 file; by way of folder/partial, fsync, rename).  Chunks of about 1 MiB of whole rows, zstd level 1
 * with frame checksum, filter 32015 declared, byte shuffle for 2-byte types; same bytes on every run.  Fills *file, and
 * digests[i] of each tensor. QD_EIO names path and cause (disk full ...). */
qd_status qd_store_write_file(const char *folder, const char *name, const qd_out_tensor *tensors, int n, qd_entry_file *file,
                              qd_digest *digests) QD_MUST_USE;

/* State of an output folder, seen by the coordinator. */
typedef enum qd_store_state { QD_STORE_FRESH, QD_STORE_UNFINISHED, QD_STORE_FINISHED, QD_STORE_FOREIGN } qd_store_state;

/* FRESH: absent or empty (job.lock, logs, report.*, status*.json do not count).  FINISHED: a manifest of ours and no partial/.
 * UNFINISHED: partial/job.json of ours; or a manifest and partial/, when only qd_store_finish is left to do.
 * FOREIGN: anything else (*what: the first thing found, from the heap).  QD_EIO; QD_EEXIST: path is not a folder. */
qd_status qd_store_look(const char *folder, qd_store_state *state, char **what) QD_MUST_USE;

typedef struct qd_store_lock { int fd; char *path; } qd_store_lock;
/* Take folder/job.lock (fcntl), made if it is not there; the text (host, pid, job id) goes into it.  QD_EEXIST: held by a live
 * job, with the lock's text in the message.  A lock file whose holder is dead is taken over.  unlock removes the file. */
qd_status qd_store_lock_take(const char *folder, const char *text, qd_store_lock *lock) QD_MUST_USE;
void      qd_store_lock_release(qd_store_lock *lock);

/* Makes partial/, writes partial/job.json.  Fine if it is there with the same job; QD_EEXIST: another job's, or a finished
 * store. */
qd_status qd_store_begin(const char *folder, const qd_json *job) QD_MUST_USE;
qd_status qd_store_journal(const char *folder, const qd_entry *entry) QD_MUST_USE; /* the entry's files are on disk: note it */

/* The end: copies side files (names, from source_folder; `unties`: config.json then says that the head is not the embedding),
 * composes and writes manifest.json from the job and all journal entries (blocks 0 .. n_blocks - 1 and the rest must be there),
 * removes partial/ and whatever a killed run left.  Can be repeated.  QD_ENOTFOUND: a block is not done, or there is no
 * unfinished store. */
qd_status qd_store_finish(const char *folder, const char *source_folder, const char *const *side_files, int n_side_files,
                          int64_t n_blocks, bool unties) QD_MUST_USE;

/* ---- reading ------------------------------------------------------------------------------------------------------------- */

typedef struct qd_store {
  char     *folder;
  bool      finished;
  qd_json  *job;
  int64_t   n_blocks;       /* finished: all; else entries found, consecutive from block 0 */
  qd_entry *block;
  bool      has_rest;
  qd_entry  rest;
} qd_store;

/* A finished store, or with allow_unfinished the blocks that a killed job left (whose files are there with the right size).
 * QD_ENOTFOUND: no store there (unfinished: says so);  QD_ECORRUPT: manifest damaged, a file missing or of another size;
 * QD_EUNSUPPORTED: a newer format version; an unfinished store of another arithmetic version. */
qd_status qd_store_open(const char *folder, bool allow_unfinished, qd_store *out) QD_MUST_USE;
void      qd_store_close(qd_store *store);

/* The job alone of a finished or an unfinished store, for the caller to free.  Errors as above. */
qd_status qd_store_read_job(const char *folder, qd_json **job) QD_MUST_USE;

/* Every byte of one file of an entry.  QD_ECORRUPT names it. */
qd_status qd_store_check_file(const qd_store *store, const qd_entry_file *file) QD_MUST_USE;

/* Of an unfinished store: `block` and all behind it count as not done, or the rest.  A warning tells why, unless NULL. */
void qd_store_give_up(qd_store *store, int64_t block, const char *why);

/* Read one part into `to` (its bytes); checks dtype, shape and digest.  QD_ECORRUPT names file and dataset. */
qd_status qd_store_read_part(const qd_store *store, const qd_entry *entry, const qd_stored_part *part, void *to) QD_MUST_USE;

/* Check every byte of every file.  Calls report(context, text) for each piece of damage; QD_ECORRUPT if there was any.
 * QD_ENOTFOUND: no store, or an unfinished one in which all is whole that is there.  `report` may be NULL. */
qd_status qd_store_verify(const char *folder, void (*report)(void *context, const char *text), void *context) QD_MUST_USE;

#endif
