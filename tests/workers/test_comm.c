#include "workers/comm.h"

#include <criterion/criterion.h>
#include <signal.h>

static int n_calls;

static qd_status no_bcast(qd_comm *comm, void *data, size_t bytes, int root) {
  (void)comm, (void)data, (void)bytes, (void)root;
  n_calls++;
  return QD_ECOMM;
}

static qd_status no_reduce(qd_comm *comm, int64_t *data, size_t n, int root) {
  (void)comm, (void)data, (void)n, (void)root;
  n_calls++;
  return QD_ECOMM;
}

static qd_status no_gather(qd_comm *comm, const void *mine, size_t bytes, void *all, const size_t *bytes_of_rank) {
  (void)comm, (void)mine, (void)bytes, (void)all, (void)bytes_of_rank;
  n_calls++;
  return QD_ECOMM;
}

static qd_status no_alltoall(qd_comm *comm, const void *send, const size_t *send_bytes, void *receive,
                             const size_t *receive_bytes) {
  (void)comm, (void)send, (void)send_bytes, (void)receive, (void)receive_bytes;
  n_calls++;
  return QD_ECOMM;
}

static qd_status no_move(qd_comm *comm, const void *from_data, void *to_data, size_t bytes, int from, int to) {
  (void)comm, (void)from_data, (void)to_data, (void)bytes, (void)from, (void)to;
  n_calls++;
  return QD_ECOMM;
}

static const qd_comm_ops ops = {
    .bcast = no_bcast, .reduce_i64 = no_reduce, .allgatherv = no_gather, .alltoallv = no_alltoall, .move = no_move};
static qd_comm broken = {.ops = &ops, .rank = 1, .size = 3, .name = "broken"};

Test(comm, hands_on_what_the_backend_says) {
  int64_t data[2] = {1, 2};
  size_t bytes[3] = {0, 4, 0};
  cr_assert_eq(qd_comm_bcast(&broken, data, 4, 2), QD_ECOMM);
  cr_assert_eq(qd_comm_reduce_i64(&broken, data, 2, 0), QD_ECOMM);
  cr_assert_eq(qd_comm_allgatherv(&broken, data, 4, data, bytes), QD_ECOMM);
  cr_assert_eq(qd_comm_alltoallv(&broken, data, bytes, data, bytes), QD_ECOMM);
  cr_assert_eq(qd_comm_move(&broken, data, data, 4, 0, 1), QD_ECOMM);
  cr_assert_eq(n_calls, 5);
}

Test(comm, only_two_ranks_take_part_in_a_move) {
  int64_t data[2] = {1, 2};
  cr_assert_eq(qd_comm_move(&broken, data, data, 4, 0, 2), QD_OK);
  cr_assert_eq(qd_comm_move(&broken, data, data + 1, sizeof data[0], 1, 1), QD_OK);
  cr_assert_eq(data[1], 1);
  cr_assert_eq(n_calls, 0);
}

Test(comm, sends_nothing_when_there_is_nothing) {
  cr_assert_eq(qd_comm_bcast(&broken, NULL, 0, 2), QD_OK);
  cr_assert_eq(qd_comm_reduce_i64(&broken, NULL, 0, 0), QD_OK);
  cr_assert_eq(n_calls, 0);
}

Test(comm, root_must_be_a_rank, .signal = SIGABRT) {
  int64_t data = 0;
  cr_assert_eq(qd_comm_bcast(&broken, &data, sizeof data, 3), QD_OK);
}

Test(comm, gather_must_give_what_it_promised, .signal = SIGABRT) {
  size_t bytes[3] = {0, 4, 0};
  int64_t data = 0;
  cr_assert_eq(qd_comm_allgatherv(&broken, &data, 5, &data, bytes), QD_OK);
}
