/* partial/: what an unfinished job has done, one document a block; writing is qd_store_begin and qd_store_journal (store.h). */
#ifndef QDIST_STORAGE_JOURNAL_H
#define QDIST_STORAGE_JOURNAL_H

#include "storage/store.h"

/* partial/job.json.  QD_ENOTFOUND: no unfinished store; QD_EIO, QD_ECORRUPT, QD_EUNSUPPORTED: a newer format. */
qd_status qd_journal_read_job(const char *folder, qd_json **job, int64_t *arithmetic_version) QD_MUST_USE;

/* The entry of `block` (or QD_REST), whose files are there with the right size.  QD_ENOTFOUND: not noted; others as above. */
qd_status qd_journal_read_entry(const char *folder, int64_t block, qd_entry *out) QD_MUST_USE;

/* A document of partial/ by its name, sealed: begun by qd_document_begin (manifest.h), checked when it is read. */
qd_status qd_journal_write(qd_json *document, const char *folder, const char *name) QD_MUST_USE;
qd_status qd_journal_read(const char *folder, const char *name, qd_json **out) QD_MUST_USE; /* QD_ENOTFOUND, as above */

#endif
