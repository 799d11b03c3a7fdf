/* Options from a file: --config FILE.  Its names are the long options'; what the command line gives goes before it. */
#ifndef QDIST_JOBS_CONFIG_H
#define QDIST_JOBS_CONFIG_H

#include "kernels/base/status.h"

#include <argp.h>

/* An option as it was given, by its first name, in the order in which it counts. */
typedef struct qd_given {
  const char *name, *value; /* value NULL: it takes none */
} qd_given;

/* Where `argp` has an option "config" and the command line gives it: *argv becomes one that holds the file's options, without
 * those that the command line gives itself (or an opposite of, or another name of), before the command line's.
 * QD_EUSAGE: a name that is none (with the nearest), a value that does not fit, --config twice or in the file; QD_ENOTFOUND,
 * QD_EIO, QD_EBADINPUT: the file.  Memory lives as long as the process. */
qd_status qd_config_apply(const struct argp *argp, int *argc, char ***argv) QD_MUST_USE;

/* All that command line and file gave, but --config; how many.  After qd_config_apply. */
size_t qd_config_given(const qd_given **out);

/* Whether two options set the same thing: one name, an opposite (sym, asym; x, no-x), or two spellings of one choice. */
bool qd_config_same_setting(const char *a, const char *b);

/* The YAML that gives these options again, from the heap. */
qd_status qd_config_print(const qd_given *given, size_t n, char **text) QD_MUST_USE;

#endif
