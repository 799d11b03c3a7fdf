#include "workers/comm.h"

qd_status qd_comm_barrier(qd_comm *comm) { return comm->ops->barrier(comm); }

qd_status qd_comm_bcast(qd_comm *comm, void *data, size_t bytes, int root) {
  QD_ASSERT(root >= 0 && root < comm->size);
  return bytes == 0 ? QD_OK : comm->ops->bcast(comm, data, bytes, root);
}

qd_status qd_comm_reduce_i64(qd_comm *comm, int64_t *data, size_t n, int root) {
  QD_ASSERT(root >= 0 && root < comm->size);
  return n == 0 ? QD_OK : comm->ops->reduce_i64(comm, data, n, root);
}

qd_status qd_comm_allgatherv(qd_comm *comm, const void *mine, size_t bytes, void *all, const size_t *bytes_of_rank) {
  QD_ASSERT(bytes == bytes_of_rank[comm->rank]);
  return comm->ops->allgatherv(comm, mine, bytes, all, bytes_of_rank);
}
