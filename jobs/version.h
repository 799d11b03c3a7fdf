/* qdist --version: what this build and this machine have. */
#ifndef QDIST_JOBS_VERSION_H
#define QDIST_JOBS_VERSION_H

#include <stdio.h>

void qd_version_print(FILE *to);

#endif
