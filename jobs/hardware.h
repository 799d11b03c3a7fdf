/* Machines that a plan can be made for without having them: a table of rates, a JSON file (jobs/hardware.json is one). */
#ifndef QDIST_JOBS_HARDWARE_H
#define QDIST_JOBS_HARDWARE_H

#include "pipeline/probe.h"

typedef struct qd_hardware {
  char name[64];
  qd_probe rates;       /* of one rank */
  int64_t memory_bytes; /* of one rank; 0: not looked at */
} qd_hardware;

/* "FILE:NAME", or "FILE" with one machine.  QD_ENOTFOUND: the file, the name (with those that are there); QD_EBADINPUT names
 * the rate that is missing or not positive. */
qd_status qd_hardware_read(const char *text, qd_hardware *out) QD_MUST_USE;

#endif
