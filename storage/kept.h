/* Activations kept for a resume, in partial/ of an unfinished store: the residual streams as they stand after so many blocks.
 *
 *   partial/activations-00003-00000.raw   after 3 blocks, sequences from 0 on: one file of each rank; row-major elements,
 * streams one after the other, of each its sequences partial/activations.json              names what is good: shape, files, a
 * digest of each sequence; written when the files are on the disk and the journal has the blocks
 *
 * So a kill at any moment leaves the last good ones, or none. */
#ifndef QDIST_STORAGE_KEPT_H
#define QDIST_STORAGE_KEPT_H

#include "kernels/base/dtype.h"
#include "storage/digest.h"
#include "storage/raw_file.h"

/* Sequences [first, first + n) of one file. */
typedef struct qd_kept_part {
  int64_t first, n;
} qd_kept_part;

typedef struct qd_kept {
  int64_t       blocks;                  /* that the streams have passed; at least 1 */
  qd_dtype      dtype;
  int64_t       streams, sequences, tokens, hidden;
  int           n_parts;
  qd_kept_part *part;                    /* ascending, all sequences */
  qd_digest    *digest;                  /* streams x sequences */
} qd_kept;

/* Room for parts and digests; the numbers are set. */
qd_status qd_kept_new(qd_kept *kept, int n_parts) QD_MUST_USE;
void      qd_kept_release(qd_kept *kept); /* a zeroed one is fine */

size_t qd_kept_sequence_bytes(const qd_kept *kept);

/* The file of one part: created under a temporary name; when all is written, brought to the disk under its own. */
qd_status qd_kept_create(const char *folder, const qd_kept *kept, int64_t first, qd_raw_file *out) QD_MUST_USE;
qd_status qd_kept_publish(const char *folder, const qd_kept *kept, int64_t first, qd_raw_file *file) QD_MUST_USE;

/* All parts are published: they are the good ones from now on, and all other files of activations go. */
qd_status qd_kept_note(const char *folder, const qd_kept *kept) QD_MUST_USE;

/* QD_ENOTFOUND: none are kept; QD_ECORRUPT, QD_EIO, QD_EUNSUPPORTED. */
qd_status qd_kept_read(const char *folder, qd_kept *out) QD_MUST_USE;

/* One sequence of a stream.  QD_ECORRUPT: not the bytes that were kept, or the file is gone. */
qd_status qd_kept_read_sequence(const char *folder, const qd_kept *kept, int64_t stream, int64_t sequence,
                                void *to) QD_MUST_USE;

#endif
