/* The only HDF5 calls of the program: files of chunked datasets whose chunks are compressed outside HDF5 (block_file.c).
 * Files hold no times and are the same bytes on every run.  Any thread may call; one mutex lets one in at a time.
 * Messages fold HDF5's error stack into one sentence that names file and dataset. */
#ifndef QDIST_STORAGE_H5_H
#define QDIST_STORAGE_H5_H

#include "kernels/base/tensor.h"

enum { QD_H5_CHUNK_BYTES = 1 << 20 };

/* How a dataset is cut.  A chunk holds `extent` steps along `axis`, one step of each dimension before it and all of those
 * behind it, so it is a run of the row-major elements.  The last one along the axis is padded with zeros. */
typedef struct qd_h5_layout {
  qd_dtype dtype;
  int      rank;
  int64_t  dim[QD_MAX_RANK];
  int      axis;
  int64_t  extent;
  int64_t  n_chunks;    /* 0 for a dataset without elements */
  size_t   chunk_bytes; /* with the padding */
} qd_h5_layout;

/* Chunks of whole rows, as even as they can be, none above QD_H5_CHUNK_BYTES; a longer row is cut itself.
 * QD_ESHAPE: a rank outside 1 .. QD_MAX_RANK, a negative dimension, more bytes than 2^62. */
qd_status qd_h5_layout_make(qd_dtype dtype, int rank, const int64_t *dim, qd_h5_layout *out) QD_MUST_USE;

/* The bytes [*offset, *offset + *n) of the row-major elements lie in chunk `index`. */
void qd_h5_chunk_range(const qd_h5_layout *layout, int64_t index, size_t *offset, size_t *n);

typedef struct qd_h5_file {
  int64_t     id;
  const char *path; /* borrowed */
} qd_h5_file;

typedef struct qd_h5_dataset {
  int64_t      id;
  const char  *path, *name; /* borrowed */
  qd_h5_layout layout;
} qd_h5_dataset;

/* ---- writing.  QD_EIO: what the system said ---- */
qd_status qd_h5_create(const char *path, qd_h5_file *out) QD_MUST_USE; /* an old file is truncated */
qd_status qd_h5_finish(qd_h5_file *file) QD_MUST_USE;                  /* flushes and closes, also when it fails */
qd_status qd_h5_dataset_create(qd_h5_file *file, const char *name, const qd_h5_layout *layout, qd_h5_dataset *out) QD_MUST_USE;
qd_status qd_h5_chunk_write(qd_h5_dataset *dataset, int64_t index, const void *frame, size_t n) QD_MUST_USE;

/* ---- reading.  QD_ECORRUPT: not what was asked for; QD_EIO: what the system said ---- */
qd_status qd_h5_open(const char *path, qd_h5_file *out) QD_MUST_USE;
/* Opens `name` if it has just this dtype, shape and these filters.  Links into other files are not followed. */
qd_status qd_h5_dataset_open(qd_h5_file *file, const char *name, const qd_h5_layout *expected, qd_h5_dataset *out) QD_MUST_USE;
qd_status qd_h5_chunk_read(qd_h5_dataset *dataset, int64_t index, void *frame, size_t capacity, size_t *n) QD_MUST_USE;

void qd_h5_dataset_close(qd_h5_dataset *dataset);
void qd_h5_close(qd_h5_file *file); /* of a file that is read, or given up */

const char *qd_h5_library_version(void);

#endif
