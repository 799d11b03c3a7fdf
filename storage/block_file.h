/* Reading the parts of one HDF5 file of the store; writing is qd_store_write_file (store.h). */
#ifndef QDIST_STORAGE_BLOCK_FILE_H
#define QDIST_STORAGE_BLOCK_FILE_H

#include "storage/store.h"

/* Read one part and check type, shape, filters, every chunk and the digest.  `to` NULL: only check, in little memory.
 * QD_ECORRUPT names file and dataset; QD_EIO: what the system said. */
qd_status qd_block_file_read(const char *path, const qd_stored_part *part, void *to) QD_MUST_USE;

#endif
