/* What --help prints.  glibc's argp loses its place in long lines: it leaves out the indent, or puts blanks in the middle,
 * and it cuts the examples, which are then no commands.  So it is asked for lines that are never cut, and they are cut here. */
#ifndef QDIST_JOBS_HELP_H
#define QDIST_JOBS_HELP_H

#include <argp.h>
#include <stdio.h>

/* name: of the command, as it is typed. */
void qd_help_print(const struct argp *argp, const char *name, FILE *to);

#endif
