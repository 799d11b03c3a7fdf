#include "workers/comm.h"

#include "kernels/base/log.h"

#include <string.h>

/* ---- the clock ----------------------------------------------------------------------------------------------------------- */

/* The least times inside, and the most work before, the latter negative: so that one minimum gives both. */
static void share_out(qd_comm_clock *clock, const int64_t *least) {
  const int64_t *most_work = least + clock->n;
  for (int i = 0; i < clock->n; i++) {
    clock->copy_seconds[clock->use_of[i]] += 1e-9 * (double)least[i];
    clock->wait_seconds += 1e-9 * (double)(clock->nanoseconds[i] - least[i]);
    clock->work_cpu_seconds += 1e-9 * (double)clock->work_nanoseconds[i];
    clock->uneven_seconds += 1e-9 * (double)(-most_work[i] - clock->work_nanoseconds[i]);
  }
  clock->n = 0;
}

qd_status qd_comm_settle(qd_comm *comm) {
  int64_t least[2 * QD_COMM_TIMES];
  qd_comm_clock *clock = &comm->clock;
  if (comm->size == 1 || clock->n == 0) return QD_OK;
  memcpy(least, clock->nanoseconds, (size_t)clock->n * sizeof *least);
  for (int i = 0; i < clock->n; i++) least[clock->n + i] = -clock->work_nanoseconds[i];
  QD_TRY(comm->ops->least_i64(comm, least, 2 * (size_t)clock->n));
  share_out(clock, least);
  return QD_OK;
}

typedef struct entry {
  double at, cpu;
} entry;

static entry enter(void) { return (entry){qd_seconds(), qd_cpu_seconds()}; }

/* All ranks count alike, so that they settle at the same collective. */
static qd_status note(qd_comm *comm, entry start, qd_status status) {
  qd_comm_clock *clock = &comm->clock;
  if (comm->size == 1 || status != QD_OK) return status;
  double spent = qd_seconds() - start.at, before = clock->left_cpu > 0 ? start.cpu - clock->left_cpu : 0;
  clock->left_cpu = qd_cpu_seconds();
  clock->inside_seconds += spent;
  clock->inside_cpu_seconds += clock->left_cpu - start.cpu;
  clock->use_of[clock->n] = (uint8_t)clock->use;
  clock->work_nanoseconds[clock->n] = (int64_t)(before * 1e9);
  clock->nanoseconds[clock->n++] = (int64_t)(spent * 1e9);
  return clock->n < QD_COMM_TIMES ? QD_OK : qd_comm_settle(comm);
}

/* ---- collectives --------------------------------------------------------------------------------------------------------- */

qd_status qd_comm_barrier(qd_comm *comm) {
  entry start = enter();
  return note(comm, start, comm->ops->barrier(comm));
}

qd_status qd_comm_bcast(qd_comm *comm, void *data, size_t bytes, int root) {
  QD_ASSERT(root >= 0 && root < comm->size);
  entry start = enter();
  return bytes == 0 ? QD_OK : note(comm, start, comm->ops->bcast(comm, data, bytes, root));
}

qd_status qd_comm_reduce_i64(qd_comm *comm, int64_t *data, size_t n, int root) {
  QD_ASSERT(root >= 0 && root < comm->size);
  entry start = enter();
  return n == 0 ? QD_OK : note(comm, start, comm->ops->reduce_i64(comm, data, n, root));
}

qd_status qd_comm_allgatherv(qd_comm *comm, const void *mine, size_t bytes, void *all, const size_t *bytes_of_rank) {
  QD_ASSERT(bytes == bytes_of_rank[comm->rank]);
  entry start = enter();
  return note(comm, start, comm->ops->allgatherv(comm, mine, bytes, all, bytes_of_rank));
}
