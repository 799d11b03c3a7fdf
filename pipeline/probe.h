/* How long a planned job will take, from a short probe (some tenths of a second) of this machine: the rates of the operations
 * that cost most, of reading, and, where there are ranks to ask, of the wires between them.  For people; nothing else depends
 * on it. */
#ifndef QDIST_PIPELINE_PROBE_H
#define QDIST_PIPELINE_PROBE_H

#include "pipeline/plan.h"
#include "workers/comm.h"

/* Rates, in units a second. */
typedef struct qd_probe {
  double linear;    /* multiply-adds of a product in act's arithmetic */
  double hessian;   /* multiply-adds of the exact sum's lower triangle */
  double factor;    /* multiply-adds of factor and inverse, C^3 / 3 in all */
  double fit;       /* weights whose grid is found */
  double solve;     /* rows x columns^2 / 2 of GPTQ's loop */
  double measure;   /* rows x columns^2 / 2 of an output error */
  double read;      /* bytes of the model's files, by one reader */
  double wire;      /* bytes that a rank receives */
} qd_probe;

/* Measure.  The device's scratch is replaced by one of the probe's own.  Collective. */
qd_status qd_probe_run(const qd_plan *plan, qd_comm *comm, qd_device *device, qd_probe *out) QD_MUST_USE;

/* Seconds of a job, of its slowest rank. */
typedef struct qd_probe_time {
  double forward;  /* products, attention, the report's head */
  double sums;     /* exact sums of the Hessians */
  double factor;   /* factors: of each stage one rank's, while the others wait */
  double codes;    /* grids, GPTQ's loop, errors */
  double wires;    /* what a rank receives */
  double waiting;  /* for reading, where that is slower than all of these */
  double reading;  /* of the model, most of it behind the others */
  double total;    /* all but reading */
} qd_probe_time;

/* The whole job at these rates, each rank having its cores to itself; reading ahead and writing behind cost nothing unless they
 * are slower. */
qd_probe_time qd_probe_seconds(const qd_plan *plan, const qd_probe *probe);

#endif
