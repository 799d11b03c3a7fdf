/* Ranks.  One interface; comm_self (one rank, no MPI) and comm_mpi behind it.  Everything here is collective unless it says
 * otherwise.  Errors: QD_ECOMM.  Sums are of integers only: they are exact, so no order of ranks can show (docs/numerics). */
#ifndef QDIST_WORKERS_COMM_H
#define QDIST_WORKERS_COMM_H

#include "kernels/base/status.h"

enum { QD_COMM_PIECE_BYTES = 16 << 20 }; /* a longer message is sent in pieces */

typedef struct qd_comm qd_comm;

typedef struct qd_comm_ops {
  qd_status (*barrier)(qd_comm *comm);
  qd_status (*bcast)(qd_comm *comm, void *data, size_t bytes, int root);
  qd_status (*reduce_i64)(qd_comm *comm, int64_t *data, size_t n, int root);
  qd_status (*allgatherv)(qd_comm *comm, const void *mine, size_t bytes, void *all, const size_t *bytes_of_rank);
  qd_status (*alltoallv)(qd_comm *comm, const void *send, const size_t *send_bytes, void *receive, const size_t *receive_bytes);
  qd_status (*move)(qd_comm *comm, const void *from_data, void *to_data, size_t bytes, int from, int to);
  qd_status (*least_i64)(qd_comm *comm, int64_t *data, size_t n);
  void (*close)(qd_comm *comm);
} qd_comm_ops;

/* Where this rank's time inside collectives goes.  A rank waits in a collective for as long as it stays there beyond the rank
 * that stays for the shortest time: the last one to come waits for nobody, so that its time is what the message itself costs.
 * That needs no barrier: the times of QD_COMM_TIMES collectives are kept, then the least of each over ranks is taken at once.
 *
 * How much of that is the job's own, and how much a machine with fewer cores than threads, tells the CPU time of the threads
 * that call: between two collectives the rank with the most has the others wait for what they have less. */
enum { QD_COMM_TIMES = 1024 };

typedef enum qd_comm_use { QD_COMM_WORK, QD_COMM_STREAM, QD_N_COMM_USES } qd_comm_use;

typedef struct qd_comm_clock {
  qd_comm_use use;                     /* what the coming collectives are for: the caller's to set, alike on all ranks */
  int         n;                       /* collectives since the last settling */
  int64_t     nanoseconds[QD_COMM_TIMES];
  int64_t     work_nanoseconds[QD_COMM_TIMES]; /* CPU time since the collective before */
  uint8_t     use_of[QD_COMM_TIMES];
  double      left_cpu;                            /* when the last collective was left; 0: none yet */
  double      inside_seconds, inside_cpu_seconds;  /* all time in collectives so far */
  double      wait_seconds, copy_seconds[QD_N_COMM_USES]; /* as far as they are settled; copies: the same on every rank */
  double      work_cpu_seconds, uneven_seconds;    /* as far as they are settled: between collectives; less than the most */
} qd_comm_clock;

struct qd_comm {
  const qd_comm_ops *ops;
  int rank, size;
  const char *name; /* "self", "mpi" */
  qd_comm *node;    /* the ranks of this rank's node, closed with this one; NULL: all of them (team.h) */
  qd_comm_clock clock;
};

qd_status qd_comm_barrier(qd_comm *comm) QD_MUST_USE;

/* `bytes` bytes of root's data to all; any size (cut in pieces inside). */
qd_status qd_comm_bcast(qd_comm *comm, void *data, size_t bytes, int root) QD_MUST_USE;

/* data[i] summed over ranks, into root's data; what the others hold afterwards is unspecified.  In pieces: no second copy. */
qd_status qd_comm_reduce_i64(qd_comm *comm, int64_t *data, size_t n, int root) QD_MUST_USE;

/* all = mine of rank 0, of rank 1 ...; bytes_of_rank is the same on every rank, and this rank's is `bytes`.  mine may lie
 * inside all at its place. */
qd_status qd_comm_allgatherv(qd_comm *comm, const void *mine, size_t bytes, void *all, const size_t *bytes_of_rank) QD_MUST_USE;

/* send holds what goes to rank 0, to rank 1 ... (send_bytes each); receive gets what comes from rank 0, from rank 1 ...
 * (receive_bytes each, which equal the senders' send_bytes).  Any size.  The two do not overlap. */
qd_status qd_comm_alltoallv(qd_comm *comm, const void *send, const size_t *send_bytes, void *receive,
                            const size_t *receive_bytes) QD_MUST_USE;

/* `bytes` bytes of from_data on rank `from` to to_data on rank `to`; any size; only these two take part and look at their
 * side's pointer.  from = to: a copy. */
qd_status qd_comm_move(qd_comm *comm, const void *from_data, void *to_data, size_t bytes, int from, int to) QD_MUST_USE;

/* Settle the clock: from now on waits and copies add up to the time inside.  Collective. */
qd_status qd_comm_settle(qd_comm *comm) QD_MUST_USE;

#endif
