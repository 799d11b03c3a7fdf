/* Files that are either not there or whole: written to a temporary, fsynced, renamed, the folder fsynced. */
#ifndef QDIST_STORAGE_ATOMIC_H
#define QDIST_STORAGE_ATOMIC_H

#include "kernels/base/status.h"

/* Write `n` bytes as folder/name by way of temporary_folder (same file system). */
qd_status qd_atomic_write(const char *folder, const char *temporary_folder, const char *name, const void *data,
                          size_t n) QD_MUST_USE;

/* fsync the finished file `temporary_path`, rename it to folder/name, fsync the folder. */
qd_status qd_atomic_publish(const char *temporary_path, const char *folder, const char *name) QD_MUST_USE;

qd_status qd_folder_make(const char *path) QD_MUST_USE;   /* with its parents; fine if it is there */
qd_status qd_folder_remove(const char *path) QD_MUST_USE; /* with all that is in it (no links followed); fine if absent */

#endif
