/* Reading the parts of one HDF5 file of the store; writing is qd_store_write_file (store.h). */
#ifndef QDIST_STORAGE_BLOCK_FILE_H
#define QDIST_STORAGE_BLOCK_FILE_H

#include "storage/h5.h"
#include "storage/store.h"

/* QD_ECORRUPT: missing or no HDF5 file; QD_EIO: what the system said.  Closed by qd_h5_close. */
qd_status qd_block_file_open(const char *path, qd_h5_file *out) QD_MUST_USE;

/* Read one part and check type, shape, filters, every chunk and the digest.  `to` NULL: only check, in little memory.
 * QD_ECORRUPT names file and dataset. */
qd_status qd_block_file_part(qd_h5_file *file, const qd_stored_part *part, void *to) QD_MUST_USE;

qd_status qd_block_file_read(const char *path, const qd_stored_part *part, void *to) QD_MUST_USE; /* all three */

#endif
