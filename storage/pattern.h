/* Regular expressions that a user gives for tensor names (PCRE2's syntax). */
#ifndef QDIST_STORAGE_PATTERN_H
#define QDIST_STORAGE_PATTERN_H

#include "kernels/base/status.h"

typedef struct qd_pattern qd_pattern;

/* QD_EUSAGE: `option` (for the message) is no valid expression, with the place and PCRE2's reason. */
qd_status qd_pattern_open(const char *expression, const char *option, qd_pattern **out) QD_MUST_USE;
void      qd_pattern_close(qd_pattern *pattern); /* NULL is fine */

bool qd_pattern_finds(const qd_pattern *pattern, const char *text); /* anywhere in the text */

#endif
