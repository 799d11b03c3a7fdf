/* A fresh folder for one test, under TMPDIR or /tmp. */
#ifndef QDIST_TESTS_SUPPORT_TEMPORARY_FOLDER_H
#define QDIST_TESTS_SUPPORT_TEMPORARY_FOLDER_H

#include "kernels/base/status.h"

enum { QD_TEMPORARY_PATHS = 64, QD_TEMPORARY_PATH_BYTES = 1024 };

typedef struct qd_temporary_folder {
  char path[QD_TEMPORARY_PATH_BYTES / 2];
  char joined[QD_TEMPORARY_PATHS][QD_TEMPORARY_PATH_BYTES];
  int  n_joined;
} qd_temporary_folder;

void qd_temporary_folder_open(qd_temporary_folder *folder);
void qd_temporary_folder_close(qd_temporary_folder *folder); /* removes it as _remove does */

/* A folder with all that is in it; links are not followed; one that is not there is fine. */
void qd_temporary_remove(const char *path);

/* PATH/name; the text lasts for the next 63 calls. */
const char *qd_temporary_path(qd_temporary_folder *folder, const char *name);

/* Write PATH/name, plainly; PATH/name must not need new folders.  Returns its path, as above. */
const char *qd_temporary_write(qd_temporary_folder *folder, const char *name, const void *data, size_t n);
const char *qd_temporary_write_text(qd_temporary_folder *folder, const char *name, const char *text);
const char *qd_temporary_make_folder(qd_temporary_folder *folder, const char *name);

#endif
