/* What commands on one finished store share: its folder, --json, and printing a document. */
#ifndef QDIST_JOBS_STORE_OPTIONS_H
#define QDIST_JOBS_STORE_OPTIONS_H

#include "jobs/options.h"
#include "storage/json.h"

typedef struct qd_store_options {
  const char *folder;
  bool        json;
} qd_store_options;

void qd_store_options_parse(const char *doc, int argc, char **argv, qd_store_options *options);

/* Print `document` to stdout and free it. */
qd_status qd_print_json(qd_json *document) QD_MUST_USE;

#endif
