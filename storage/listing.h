/* What lies in a folder of the store. */
#ifndef QDIST_STORAGE_LISTING_H
#define QDIST_STORAGE_LISTING_H

#include "kernels/base/status.h"

typedef struct qd_listing {
  size_t n;
  char **name; /* ascending */
} qd_listing;

/* All names but "." and "..".  QD_ENOTFOUND: no such folder; QD_EEXIST: not a folder; QD_EIO. */
qd_status qd_listing_read(const char *folder, qd_listing *out) QD_MUST_USE;
void      qd_listing_release(qd_listing *listing);
bool      qd_listing_has(const qd_listing *listing, const char *name);

/* job.lock, *.log, job.yaml, report.* and status*.json: what a job leaves beside the store and no manifest lists. */
bool qd_is_beside_store(const char *name);

#endif
