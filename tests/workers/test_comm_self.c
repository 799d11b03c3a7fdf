#include "workers/comm_backends.h"

#include <criterion/criterion.h>
#include <signal.h>
#include <string.h>

Test(comm_self, is_one_rank_without_mpi) {
  qd_comm *comm = qd_comm_self();
  cr_assert_eq(comm->rank, 0);
  cr_assert_eq(comm->size, 1);
  cr_assert_str_eq(comm->name, "self");
  cr_assert_not(qd_comm_mpi_running());
}

Test(comm_self, leaves_own_data_as_it_is) {
  qd_comm *comm = qd_comm_self();
  int64_t data[3] = {INT64_MIN, 7, INT64_MAX};
  cr_assert_eq(qd_comm_barrier(comm), QD_OK);
  cr_assert_eq(qd_comm_bcast(comm, data, sizeof data, 0), QD_OK);
  cr_assert_eq(qd_comm_reduce_i64(comm, data, 3, 0), QD_OK);
  cr_assert(data[0] == INT64_MIN && data[1] == 7 && data[2] == INT64_MAX);
}

Test(comm_self, gathers_a_copy) {
  qd_comm *comm = qd_comm_self();
  const char mine[5] = "four";
  char all[6] = {0, 0, 0, 0, 0, 'z'};
  size_t bytes[1] = {5};
  cr_assert_eq(qd_comm_allgatherv(comm, mine, 5, all, bytes), QD_OK);
  cr_assert_str_eq(all, "four");
  cr_assert_eq(all[5], 'z');
  cr_assert_eq(qd_comm_allgatherv(comm, all, 5, all, bytes), QD_OK);
  cr_assert_str_eq(all, "four");
  bytes[0] = 0;
  cr_assert_eq(qd_comm_allgatherv(comm, NULL, 0, all, bytes), QD_OK);
  cr_assert_str_eq(all, "four");
}

Test(comm_self, sends_to_itself) {
  qd_comm *comm = qd_comm_self();
  char there[6] = "-----";
  size_t bytes[1] = {3};
  cr_assert_eq(qd_comm_alltoallv(comm, "abcd", bytes, there, bytes), QD_OK);
  cr_assert_str_eq(there, "abc--");
  cr_assert_eq(qd_comm_move(comm, "xyz", there, 2, 0, 0), QD_OK);
  cr_assert_str_eq(there, "xyc--");
  bytes[0] = 0;
  cr_assert_eq(qd_comm_alltoallv(comm, NULL, bytes, NULL, bytes), QD_OK);
}
