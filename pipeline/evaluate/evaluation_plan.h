/* The plan of an evaluation: what each rank's memory must hold, from shapes alone, against the same bounds as a quantizing
 * job's (pipeline/plan.h).  The number of blocks does not matter: they are streamed.  The arenas are opened with sizes from the
 * same functions. */
#ifndef QDIST_PIPELINE_EVALUATE_EVALUATION_PLAN_H
#define QDIST_PIPELINE_EVALUATE_EVALUATION_PLAN_H

#include "pipeline/evaluate/subject.h"
#include "pipeline/plan.h"

enum { QD_LOGIT_ROWS = 128 }; /* rows whose logits are in memory at a time */

typedef struct qd_evaluation_sizes {
  const qd_subject *subject[2]; /* opened; the reference is the second, NULL: none */
  const qd_device  *device;
  int64_t           tokens;     /* of a window */
  int64_t           windows;    /* at a time on a rank */
  size_t            result_bytes; /* of all windows, on every rank */
  size_t            program_bytes; /* of this process without what is planned; 0: as it stands */
  int               ranks;
  const int        *first_on_node; /* of each rank (workers/team.h); NULL: all are on one node */
} qd_evaluation_sizes;

/* Of one rank.  Parts as in a quantizing job's plan; a rank that reads holds two images of each model, the others one; one that
 * reads parts of them the image and two parts. */
void qd_evaluation_plan(const qd_evaluation_sizes *sizes, int rank, qd_plan_rank *out);

/* The device's scratch beside its packing buffers: a forward of either model; then logits. */
size_t qd_evaluation_scratch(const qd_evaluation_sizes *sizes);

/* As many windows at a time as fit into memory, as all ranks have it, at most `most` of a rank: the fewer, the more often the
 * model is read.  QD_ENOMEM: not even one fits.  Collective. */
qd_status qd_evaluation_choose_windows(qd_evaluation_sizes *sizes, int64_t most, int64_t max_host_bytes,
                                       qd_comm *comm) QD_MUST_USE;
void      qd_evaluation_log(const qd_evaluation_sizes *sizes, const qd_plan_rank *plan); /* for people */

/* QD_ENOMEM as qd_plan_check_memory. */
qd_status qd_evaluation_check(const qd_evaluation_sizes *sizes, int64_t max_host_bytes, qd_plan_place place) QD_MUST_USE;

#endif
