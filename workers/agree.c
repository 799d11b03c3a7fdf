#include "workers/agree.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* No memory is asked for and no array is as long as there are ranks: agreeing must not be one more thing that can fail. */
typedef struct failure {
  int32_t status;
  char text[4096], trace[1024];
} failure;

static qd_status sum(qd_comm *comm, int64_t *n) {
  QD_TRY(qd_comm_reduce_i64(comm, n, 1, 0));
  return qd_comm_bcast(comm, n, sizeof *n, 0);
}

static failure failure_here(qd_status status) {
  failure here = {.status = (int32_t)status};
  if (status == QD_OK) return here;
  const char *text = qd_error_text();
  snprintf(here.text, sizeof here.text, "%s", *text ? text : qd_status_text(status));
  const char *trace = qd_error_trace();
  snprintf(here.trace, sizeof here.trace, "%s", *trace ? trace : __FILE__ ":0");
  return here;
}

/* Asks the ranks in turn.  Only after a failure, so the time does not matter. */
static qd_status lowest_failure(qd_comm *comm, const failure *mine, failure *first, int *rank) {
  for (*rank = 0; *rank < comm->size; ++*rank) {
    if (comm->rank == *rank) *first = *mine;
    QD_TRY(qd_comm_bcast(comm, first, sizeof *first, *rank));
    if (first->status != QD_OK) return QD_OK;
  }
  QD_FAIL(QD_ECOMM, "a rank failed, but none of %d says so", comm->size);
}

/* Set the error as it was where it happened.  trace: "file:line < file:line ...". */
static qd_status set_failure(failure *first, const char *prefix) {
  qd_status status = (qd_status)first->status;
  bool is_first = true;
  for (char *place = first->trace, *next; place != NULL; place = next) {
    next = strstr(place, " < ");
    if (next != NULL) {
      *next = '\0';
      next += 3;
    }
    char *colon = strrchr(place, ':');
    int line = colon ? atoi(colon + 1) : 0;
    if (colon != NULL) *colon = '\0';
    status = is_first ? qd_fail(status, place, line, "%s%s", prefix, first->text) : qd_forward(status, place, line);
    is_first = false;
  }
  return status;
}

qd_status qd_agree_on(qd_comm *comm, qd_status mine, qd_status *agreed) {
  *agreed = mine;
  if (comm->size == 1) return QD_OK;
  int64_t n_failed = mine != QD_OK;
  failure here = failure_here(mine), first;
  QD_TRY(sum(comm, &n_failed));
  if (n_failed == 0) return QD_OK;
  int rank;
  QD_TRY(lowest_failure(comm, &here, &first, &rank));
  int64_t n_same = here.status == first.status && strcmp(here.text, first.text) == 0;
  QD_TRY(sum(comm, &n_same));
  char prefix[32] = ""; /* what only the coordinator does is the job's own failure: no rank needs naming */
  if (n_same < comm->size && rank > 0) snprintf(prefix, sizeof prefix, "rank %d: ", rank);
  *agreed = set_failure(&first, prefix);
  return QD_OK;
}

/* A failure of the agreeing itself is not counted: the others may not know of it. */
static bool everyone_knows;

bool qd_agree_failed(void) { return everyone_knows; }

qd_status qd_agree(qd_comm *comm, qd_status mine) {
  qd_status agreed;
  qd_status status = qd_agree_on(comm, mine, &agreed);
  if (status != QD_OK) return status;
  everyone_knows = everyone_knows || agreed != QD_OK;
  return agreed;
}
