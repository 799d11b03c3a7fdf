/* What entry.c shares with the other files of the store: names that may stand in it, and files as JSON. */
#ifndef QDIST_STORAGE_ENTRY_H
#define QDIST_STORAGE_ENTRY_H

#include "storage/store.h"

#define QD_STORE_PARTIAL "partial"
#define QD_STORE_MANIFEST "manifest.json"
#define QD_STORE_LOCK "job.lock"
#define QD_JOB_FILE "job.yaml" /* the job as a configuration, for people */
#define QD_STORE_JOB "job.json" /* in partial/ */

/* Names within the folder: letters, digits, '.', '_' and '-', no '.' in front, so no path leads out of it.
 * Those of HDF5 files end in ".h5"; side files are all others but the store's own. */
bool qd_block_file_name_fits(const char *name);
bool qd_side_file_name_fits(const char *name);
bool qd_dataset_name_fits(const char *name); /* groups and a name joined by '/'; no empty one, no "." and ".." */

qd_json  *qd_entry_file_to_json(const qd_entry_file *file);
qd_status qd_entry_file_from_json(const qd_json *json, const char *what, qd_entry_file *out) QD_MUST_USE; /* of either kind */

/* The first name that is there twice, or NULL.  Sorts `names`. */
const char *qd_find_twice(const char **names, size_t n);

#endif
