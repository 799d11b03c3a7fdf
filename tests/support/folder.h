/* Folders compared file by file: what two jobs left, or what one job left alone. */
#ifndef QDIST_TESTS_SUPPORT_FOLDER_H
#define QDIST_TESTS_SUPPORT_FOLDER_H

#include <stdbool.h>

/* NULL when both folders hold the same names with the same bytes; else what differs first, in a static text.  Logs (*.log) and
 * job.yaml do not count, nor do folders within beyond their names.  With `times`, the times of the last change must be equal as
 * well. */
const char *qd_folder_difference(const char *a, const char *b, bool times);

/* All names in the folder but logs and job.yaml, sorted, with a blank behind each; in a static text. */
const char *qd_folder_names(const char *path);

/* A copy of the folder with all that is in it, times kept; `to` must not exist. */
void qd_folder_copy(const char *from, const char *to);

#endif
