/* Bytes to read from somewhere: a file or memory.  The seam for tests of damaged input. */
#ifndef QDIST_STORAGE_BYTES_H
#define QDIST_STORAGE_BYTES_H

#include "kernels/base/status.h"

typedef struct qd_bytes {
  qd_status (*read_at)(struct qd_bytes *bytes, uint64_t offset, void *to, size_t n); /* all n or an error; any thread */
  void (*close)(struct qd_bytes *bytes);
  uint64_t    size;
  const char *name; /* for messages */
  void       *state;
} qd_bytes;

/* What says that a file is the same as before without reading it. */
typedef struct qd_file_identity {
  uint64_t size, inode;
  int64_t  mtime_ns, ctime_ns;
} qd_file_identity;

qd_status qd_bytes_open_file(const char *path, qd_bytes *out) QD_MUST_USE;
qd_status qd_bytes_open_memory(const void *data, size_t n, const char *name, qd_bytes *out) QD_MUST_USE; /* data is borrowed */
void      qd_bytes_close(qd_bytes *bytes);
qd_status qd_bytes_read(qd_bytes *bytes, uint64_t offset, void *to, size_t n) QD_MUST_USE; /* checks the range first */

qd_status qd_file_identify(const char *path, qd_file_identity *out) QD_MUST_USE;
qd_status qd_file_read(const char *path, size_t max_bytes, char **text, size_t *n) QD_MUST_USE; /* whole; caller frees */
bool      qd_file_exists(const char *path);
bool      qd_folder_exists(const char *path);

/* base + "/" + name, from the heap. */
qd_status qd_path_join(const char *base, const char *name, char **out) QD_MUST_USE;

#endif
