/* The files of one GGUF model: one, or FILE-00001-of-0000N.gguf and the others.  Only headers are read. */
#ifndef QDIST_STORAGE_SOURCES_GGUF_FILES_H
#define QDIST_STORAGE_SOURCES_GGUF_FILES_H

#include "storage/sources/gguf.h"

typedef struct qd_gguf_files {
  char     *folder;
  char    **name;  /* within the folder */
  qd_bytes *bytes;
  qd_gguf  *gguf;
  size_t    n, n_open;
} qd_gguf_files;

/* `path` is a file, the first one of several, or a folder with one model.  QD_ENOTFOUND: a file is missing, or the folder holds
 * several models; QD_EBADINPUT: files that contradict each other; else as qd_gguf_read.  Close it after a failure, too. */
qd_status qd_gguf_files_open(const char *path, qd_gguf_files *out) QD_MUST_USE;
void      qd_gguf_files_close(qd_gguf_files *files);

/* By names alone: a file that ends in .gguf, or a folder that holds such. */
qd_status qd_gguf_files_recognise(const char *path, bool *found) QD_MUST_USE;

#endif
