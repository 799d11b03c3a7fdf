/* Sealed JSON documents: the last member, "digest", is the XXH3-128 of the document's own bytes with the digest's 32 digits
 * replaced by zeros, so that any changed byte is found, white space too.  docs/formats.md promises this for all versions. */
#ifndef QDIST_STORAGE_SEAL_H
#define QDIST_STORAGE_SEAL_H

#include "storage/digest.h"
#include "storage/json.h"

enum { QD_SEALED_BYTES = 512 << 20 }; /* the most that is read */

/* Appends the member "digest" and writes folder/name by way of temporary_folder. */
qd_status qd_seal_write(qd_json *document, const char *folder, const char *temporary_folder, const char *name) QD_MUST_USE;

/* QD_ENOTFOUND; QD_EIO; QD_ECORRUPT: no JSON object, or not the bytes that were sealed. */
qd_status qd_seal_read(const char *path, qd_json **out) QD_MUST_USE;

/* What a reader of the store's own documents says: QD_EBADINPUT becomes QD_ECORRUPT, with the same text. */
qd_status qd_as_corrupt(qd_status status) QD_MUST_USE;

#endif
