/* Chunks as HDF5's registered filter 32015 stores them: one Zstandard frame with the content size in its header and a checksum
 * of the content behind it.  The stock filter passes a truncated frame as data; here every frame is checked to be whole. */
#ifndef QDIST_STORAGE_H5_ZSTD_H
#define QDIST_STORAGE_H5_ZSTD_H

#include "kernels/base/status.h"

enum { QD_ZSTD_FILTER = 32015, QD_ZSTD_LEVEL = 1 };

/* The most bytes that a frame of `n` bytes takes. */
size_t qd_zstd_bound(size_t n);

/* One frame of `n` bytes, the same for the same bytes whatever was compressed before.  `capacity` >= qd_zstd_bound(n).
 * Any thread. */
qd_status qd_zstd_compress(const void *from, size_t n, void *frame, size_t capacity, size_t *frame_bytes) QD_MUST_USE;

/* Exactly `n` bytes from exactly one frame.  QD_ECORRUPT: anything else in `frame`, a wrong checksum or none.  Any thread. */
qd_status qd_zstd_decompress(const void *frame, size_t frame_bytes, void *to, size_t n) QD_MUST_USE;

#endif
