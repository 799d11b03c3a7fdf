/* Every collective at sizes below, at and beyond the piece at which messages are cut, with each rank as root. */
#include "kernels/base/heap.h"
#include "tests/support/expect.h"
#include "workers/comm_backends.h"

#include <math.h>
#include <string.h>

enum { PIECE = 64 };

static const size_t sizes[] = {0, 1, 7, 8, 63, 64, 65, 128, 1001};
enum { N_SIZES = sizeof sizes / sizeof *sizes };

static unsigned char byte_of(int rank, size_t i) { return (unsigned char)(37 * (size_t)rank + 11 * i + 5); }

static void check_bcast(qd_comm *comm, size_t bytes, int root) {
  unsigned char data[1024];
  for (size_t i = 0; i < sizeof data; i++) data[i] = byte_of(comm->rank, i);
  EXPECT(qd_comm_bcast(comm, data, bytes, root) == QD_OK);
  for (size_t i = 0; i < sizeof data; i++) EXPECT(data[i] == byte_of(i < bytes ? root : comm->rank, i));
}

/* Near the ends of int64: a sum that went through double would show. */
static int64_t term(int rank, size_t i) {
  int64_t big = (int64_t)1 << 59;
  return (i % 2 ? big : -big) + (int64_t)i * (rank + 1) + rank;
}

static void check_reduce(qd_comm *comm, size_t n, int root) {
  int64_t data[1024];
  for (size_t i = 0; i < 1024; i++) data[i] = term(comm->rank, i);
  EXPECT(qd_comm_reduce_i64(comm, data, n, root) == QD_OK);
  for (size_t i = 0; comm->rank == root && i < 1024; i++) {
    int64_t sum = 0;
    for (int r = 0; r < comm->size; r++) sum += term(r, i);
    EXPECT(data[i] == (i < n ? sum : term(root, i)));
  }
}

/* Rank r gives (bytes + 3 r) bytes, every third rank nothing. */
static size_t given(int rank, size_t bytes) { return rank % 3 == 2 ? 0 : bytes + 3 * (size_t)rank; }

static void check_gather(qd_comm *comm, size_t bytes, bool in_place) {
  size_t of_rank[64], total = 0, before = 0;
  for (int r = 0; r < comm->size; r++) {
    of_rank[r] = given(r, bytes);
    if (r < comm->rank) before += of_rank[r];
    total += of_rank[r];
  }
  unsigned char *all, mine[1100];
  EXPECT(qd_heap_new(total + 1, 1, &all) == QD_OK);
  memset(all, 0xee, total + 1);
  unsigned char *from = in_place ? all + before : mine;
  for (size_t i = 0; i < of_rank[comm->rank]; i++) from[i] = byte_of(comm->rank, i);
  EXPECT(qd_comm_allgatherv(comm, from, of_rank[comm->rank], all, of_rank) == QD_OK);
  const unsigned char *at = all;
  for (int r = 0; r < comm->size; at += of_rank[r], r++)
    for (size_t i = 0; i < of_rank[r]; i++) EXPECT(at[i] == byte_of(r, i));
  EXPECT(all[total] == 0xee);
  qd_heap_free(all);
}

/* What rank `from` has for rank `to`: nothing for some. */
static size_t between(int from, int to, size_t bytes) {
  return (from + 2 * to) % 4 == 3 ? 0 : bytes + 5 * (size_t)from + (size_t)to;
}

static void check_alltoall(qd_comm *comm, size_t bytes) {
  size_t out[64], in[64], n_out = 0, n_in = 0;
  unsigned char *send, *receive;
  for (int r = 0; r < comm->size; r++) {
    n_out += out[r] = between(comm->rank, r, bytes);
    n_in += in[r] = between(r, comm->rank, bytes);
  }
  EXPECT(qd_heap_new(n_out + 1, 1, &send) == QD_OK && qd_heap_new(n_in + 1, 1, &receive) == QD_OK);
  unsigned char *at = send;
  for (int r = 0; r < comm->size; at += out[r], r++)
    for (size_t i = 0; i < out[r]; i++) at[i] = byte_of(comm->rank + 3 * r, i);
  receive[n_in] = 0xee;
  EXPECT(qd_comm_alltoallv(comm, send, out, receive, in) == QD_OK);
  at = receive;
  for (int r = 0; r < comm->size; at += in[r], r++)
    for (size_t i = 0; i < in[r]; i++) EXPECT(at[i] == byte_of(r + 3 * comm->rank, i));
  EXPECT(receive[n_in] == 0xee);
  qd_heap_free(send);
  qd_heap_free(receive);
}

static void check_move(qd_comm *comm, size_t bytes, int from, int to) {
  unsigned char send[1024], receive[1024];
  for (size_t i = 0; i < sizeof send; i++) send[i] = byte_of(comm->rank, i), receive[i] = 0xee;
  EXPECT(qd_comm_move(comm, send, receive, bytes, from, to) == QD_OK);
  for (size_t i = 0; i < sizeof receive; i++) EXPECT(receive[i] == (comm->rank == to && i < bytes ? byte_of(from, i) : 0xee));
}

static double clock_error(const qd_comm *comm) {
  const qd_comm_clock *clock = &comm->clock;
  return fabs(clock->wait_seconds + clock->copy_seconds[QD_COMM_WORK] + clock->copy_seconds[QD_COMM_STREAM] -
              clock->inside_seconds);
}

/* The messages cost every rank the same; the rest was waiting. */
static void check_clock(qd_comm *comm) {
  const qd_comm_clock *clock = &comm->clock;
  EXPECT(qd_comm_settle(comm) == QD_OK && clock->n == 0);
  int64_t least = (int64_t)(1e9 * clock->copy_seconds[QD_COMM_WORK]), mine = least;
  EXPECT(comm->ops->least_i64(comm, &least, 1) == QD_OK);
  EXPECT(least == mine && clock->copy_seconds[QD_COMM_STREAM] == 0 && clock->wait_seconds >= 0);
  EXPECT(clock_error(comm) < 1e-5 + 1e-9 * 4096);
  EXPECT(clock->work_cpu_seconds >= 0 && clock->uneven_seconds >= 0 && clock->inside_cpu_seconds >= 0);
}

int main(void) {
  qd_comm *comm;
  EXPECT(qd_comm_mpi_open(PIECE, &comm) == QD_OK);
  EXPECT(comm->rank >= 0 && comm->rank < comm->size && strcmp(comm->name, "mpi") == 0);
  EXPECT(comm->node->size == comm->size && comm->node->rank == comm->rank && comm->node->node == NULL);
  for (int s = 0; s < N_SIZES; s++) {
    for (int root = 0; root < comm->size; root++) {
      check_bcast(comm, sizes[s], root);
      check_reduce(comm, sizes[s], root);
      for (int to = 0; to < comm->size; to++) check_move(comm, sizes[s], root, to);
    }
    check_alltoall(comm, sizes[s]);
    check_gather(comm, sizes[s], false);
    check_gather(comm, sizes[s], true);
  }
  EXPECT(qd_comm_barrier(comm) == QD_OK);
  check_clock(comm);
  if (comm->rank == 0) printf("%d ranks agree\n", comm->size);
  comm->ops->close(comm);
  EXPECT(!qd_comm_mpi_running());
  return 0;
}
