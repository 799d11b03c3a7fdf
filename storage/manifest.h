/* manifest.json: all that a finished store holds. */
#ifndef QDIST_STORAGE_MANIFEST_H
#define QDIST_STORAGE_MANIFEST_H

#include "storage/store.h"

typedef struct qd_manifest {
  int64_t        arithmetic_version;
  qd_json       *job;
  int64_t        n_blocks;
  qd_entry      *block;
  qd_entry       rest;
  int            n_files; /* side files */
  qd_entry_file *file;
} qd_manifest;
void qd_manifest_release(qd_manifest *manifest);

qd_status qd_manifest_write(const qd_manifest *manifest, const char *folder) QD_MUST_USE; /* by way of folder/partial */

/* QD_ENOTFOUND; QD_EIO; QD_ECORRUPT; QD_EUNSUPPORTED: a newer format version. */
qd_status qd_manifest_read(const char *folder, qd_manifest *out) QD_MUST_USE;
qd_status qd_manifest_from_json(const qd_json *json, const char *what, qd_manifest *out) QD_MUST_USE;

/* The members in front of every document of the store: "format", "format_version". */
qd_json  *qd_document_begin(void);
qd_status qd_document_check(const qd_json *json, const char *what) QD_MUST_USE;

/* folder/name is there, a regular file of the right size.  QD_ECORRUPT, QD_EIO. */
qd_status qd_entry_file_check(const char *folder, const qd_entry_file *file) QD_MUST_USE;
qd_status qd_entry_file_check_bytes(const char *folder, const qd_entry_file *file) QD_MUST_USE; /* by its digest */
qd_status qd_entry_check_files(const char *folder, const qd_entry *entry) QD_MUST_USE;

#endif
