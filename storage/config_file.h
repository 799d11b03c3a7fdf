/* A job's settings in a file: YAML, of which JSON is a part.  A mapping of names to values, or, where the order of names
 * counts, a list of such mappings.  A value is a scalar or a list of scalars, which is the name several times. */
#ifndef QDIST_STORAGE_CONFIG_FILE_H
#define QDIST_STORAGE_CONFIG_FILE_H

#include "kernels/base/status.h"

typedef struct qd_config_item {
  char *key, *value; /* value NULL: null, or nothing at all */
  size_t line;
} qd_config_item;

typedef struct qd_config_file {
  qd_config_item *item; /* in the order of the file */
  size_t n, capacity;
} qd_config_file;

/* An underscore in a name becomes a dash.  QD_ENOTFOUND, QD_EIO; QD_EBADINPUT with the line: not YAML, a name twice in a
 * mapping, deeper nesting, an alias, a second document, more than 1 MiB, more than 4096 values. */
qd_status qd_config_file_read(const char *path, qd_config_file *out) QD_MUST_USE;
void qd_config_file_release(qd_config_file *file);

/* A scalar as YAML reads it back: as it is where that is plain, else in quotes; from the heap. */
qd_status qd_config_quote(const char *text, char **out) QD_MUST_USE;

#endif
