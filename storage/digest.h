/* XXH3-128 digests, as 32 hexadecimal digits (canonical byte order). */
#ifndef QDIST_STORAGE_DIGEST_H
#define QDIST_STORAGE_DIGEST_H

#include "kernels/base/status.h"

enum { QD_DIGEST_DIGITS = 32 };
typedef struct qd_digest {
  char hex[QD_DIGEST_DIGITS + 1];
} qd_digest;

void      qd_digest_of(const void *data, size_t n, qd_digest *out);
qd_status qd_digest_file(const char *path, qd_digest *out) QD_MUST_USE; /* read in pieces */
bool      qd_digest_equal(const qd_digest *a, const qd_digest *b);

#endif
