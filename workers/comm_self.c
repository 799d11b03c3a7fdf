#include "workers/comm_backends.h"

#include <string.h>

static qd_status self_barrier(qd_comm *comm) {
  (void)comm;
  return QD_OK;
}

static qd_status self_bcast(qd_comm *comm, void *data, size_t bytes, int root) {
  (void)comm, (void)data, (void)bytes, (void)root;
  return QD_OK;
}

static qd_status self_reduce_i64(qd_comm *comm, int64_t *data, size_t n, int root) {
  (void)comm, (void)data, (void)n, (void)root;
  return QD_OK;
}

static qd_status self_allgatherv(qd_comm *comm, const void *mine, size_t bytes, void *all, const size_t *bytes_of_rank) {
  (void)comm, (void)bytes_of_rank;
  if (bytes > 0 && mine != all) memcpy(all, mine, bytes);
  return QD_OK;
}

static qd_status self_least_i64(qd_comm *comm, int64_t *data, size_t n) {
  (void)comm, (void)data, (void)n;
  return QD_OK;
}

static void self_close(qd_comm *comm) { (void)comm; }

qd_comm *qd_comm_self(void) {
  static const qd_comm_ops ops = {self_barrier, self_bcast, self_reduce_i64, self_allgatherv, self_least_i64, self_close};
  static qd_comm self = {.ops = &ops, .rank = 0, .size = 1, .name = "self"};
  return &self;
}
