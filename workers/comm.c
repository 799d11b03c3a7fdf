#include "workers/comm.h"

#include <string.h>

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

qd_status qd_comm_alltoallv(qd_comm *comm, const void *send, const size_t *send_bytes, void *receive,
                            const size_t *receive_bytes) {
  QD_ASSERT(send_bytes[comm->rank] == receive_bytes[comm->rank]);
  return comm->ops->alltoallv(comm, send, send_bytes, receive, receive_bytes);
}

qd_status qd_comm_move(qd_comm *comm, const void *from_data, void *to_data, size_t bytes, int from, int to) {
  QD_ASSERT(from >= 0 && from < comm->size && to >= 0 && to < comm->size);
  if (bytes == 0 || (comm->rank != from && comm->rank != to)) return QD_OK;
  if (from == to) return memcpy(to_data, from_data, bytes), QD_OK;
  return comm->ops->move(comm, from_data, to_data, bytes, from, to);
}
