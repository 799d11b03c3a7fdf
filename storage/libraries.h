/* The versions of the libraries that storage stands on, for --version. */
#ifndef QDIST_STORAGE_LIBRARIES_H
#define QDIST_STORAGE_LIBRARIES_H

const char *qd_storage_libraries(void); /* "HDF5 1.10.8, zstd 1.5.4, ..." */
int         qd_storage_format_version(void);

#endif
