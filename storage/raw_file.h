/* Files of plain bytes that are written and read in pieces at any place: activations on disk, and activations kept for a
 * resume. Reading and writing from any thread; a piece is whole or an error. */
#ifndef QDIST_STORAGE_RAW_FILE_H
#define QDIST_STORAGE_RAW_FILE_H

#include "kernels/base/status.h"

typedef struct qd_raw_file {
  int   fd;
  bool  open;  /* so that a zeroed one is closed */
  char *path;  /* for messages: of the file, or of the folder that a nameless one lies in */
} qd_raw_file;

/* A file without a name in an existing folder, gone with the process however that ends.  Its `bytes` are reserved on the disk,
 * where the file system can do so.  QD_ENOTFOUND, QD_EIO. */
qd_status qd_raw_file_nameless(const char *folder, uint64_t bytes, qd_raw_file *out) QD_MUST_USE;

/* An empty file for writing; one that is there is emptied. */
qd_status qd_raw_file_create(const char *path, qd_raw_file *out) QD_MUST_USE;

qd_status qd_raw_file_write(const qd_raw_file *file, uint64_t offset, const void *data, size_t n) QD_MUST_USE;
qd_status qd_raw_file_read(const qd_raw_file *file, uint64_t offset, void *to, size_t n) QD_MUST_USE;

/* What close alone may tell (a quota on a network file system) is an error too. */
qd_status qd_raw_file_finish(qd_raw_file *file) QD_MUST_USE;
void      qd_raw_file_close(qd_raw_file *file); /* a zeroed or finished one is fine */

#endif
