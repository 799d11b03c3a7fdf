/* The only file that calls MPI.  Its counts and displacements are ints, so every message is cut in pieces, and what
 * does not fit one piece is gathered by broadcasts, which need no displacement. */
#include "workers/comm_backends.h"

#include "kernels/base/heap.h"

#include <limits.h>
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct comm_mpi {
  qd_comm base; /* first: a qd_comm * is cast to this */
  MPI_Comm mpi;
  size_t piece_bytes;
  int *counts, *places; /* one a rank; allocated at the start, so that no gather fails for want of memory on one rank */
  int *first_on_node;    /* one a rank */
} comm_mpi;

static qd_status mpi_failed(int code, const char *file, int line, const char *what) {
  char text[MPI_MAX_ERROR_STRING] = "";
  int length = 0;
  MPI_Error_string(code, text, &length);
  return qd_fail(QD_ECOMM, file, line, "%s failed: %s", what, text);
}

#define TRY_MPI(function, ...)                                                                    \
  do {                                                                                            \
    int code_ = function(__VA_ARGS__);                                                            \
    if (code_ != MPI_SUCCESS) return mpi_failed(code_, __FILE__, __LINE__, #function);            \
  } while (0)

static size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

static qd_status mpi_barrier(qd_comm *comm) {
  TRY_MPI(MPI_Barrier, ((comm_mpi *)comm)->mpi);
  return QD_OK;
}

static qd_status mpi_bcast(qd_comm *comm, void *data, size_t bytes, int root) {
  comm_mpi *self = (comm_mpi *)comm;
  unsigned char *at = data;
  for (size_t done = 0, n; done < bytes; done += n) {
    n = smaller(bytes - done, self->piece_bytes);
    TRY_MPI(MPI_Bcast, at + done, (int)n, MPI_BYTE, root, self->mpi);
  }
  return QD_OK;
}

static qd_status mpi_reduce_i64(qd_comm *comm, int64_t *data, size_t n_elements, int root) {
  comm_mpi *self = (comm_mpi *)comm;
  size_t piece = self->piece_bytes / sizeof *data;
  for (size_t done = 0, n; done < n_elements; done += n) {
    n = smaller(n_elements - done, piece);
    if (comm->rank == root)
      TRY_MPI(MPI_Reduce, MPI_IN_PLACE, data + done, (int)n, MPI_INT64_T, MPI_SUM, root, self->mpi);
    else
      TRY_MPI(MPI_Reduce, data + done, NULL, (int)n, MPI_INT64_T, MPI_SUM, root, self->mpi);
  }
  return QD_OK;
}

static qd_status gather_at_once(comm_mpi *self, void *all, const size_t *bytes_of_rank) {
  int place = 0;
  for (int r = 0; r < self->base.size; r++) {
    self->places[r] = place;
    self->counts[r] = (int)bytes_of_rank[r];
    place += self->counts[r];
  }
  TRY_MPI(MPI_Allgatherv, MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, all, self->counts, self->places, MPI_BYTE, self->mpi);
  return QD_OK;
}

static qd_status mpi_allgatherv(qd_comm *comm, const void *mine, size_t bytes, void *all, const size_t *bytes_of_rank) {
  comm_mpi *self = (comm_mpi *)comm;
  unsigned char *at = all;
  size_t total = 0, before = 0;
  for (int r = 0; r < comm->size; r++) {
    if (r < comm->rank) before += bytes_of_rank[r];
    total += bytes_of_rank[r];
  }
  if (bytes > 0 && mine != at + before) memcpy(at + before, mine, bytes);
  if (total == 0) return QD_OK;
  if (total <= self->piece_bytes) return gather_at_once(self, all, bytes_of_rank);
  for (int r = 0; r < comm->size; at += bytes_of_rank[r], r++) QD_TRY(mpi_bcast(comm, at, bytes_of_rank[r], r));
  return QD_OK;
}

static qd_status mpi_least_i64(qd_comm *comm, int64_t *data, size_t n) {
  TRY_MPI(MPI_Allreduce, MPI_IN_PLACE, data, (int)n, MPI_INT64_T, MPI_MIN, ((comm_mpi *)comm)->mpi);
  return QD_OK;
}

static void release(comm_mpi *self) {
  MPI_Comm_free(&self->mpi);
  qd_heap_free(self->counts);
  qd_heap_free(self->places);
  qd_heap_free(self->first_on_node);
  qd_heap_free(self);
}

static void mpi_close(qd_comm *comm) {
  comm_mpi *self = (comm_mpi *)comm;
  bool whole = comm->node != NULL; /* a node's own has none */
  if (whole) release((comm_mpi *)comm->node);
  release(self);
  if (whole) MPI_Finalize();
}

static const qd_comm_ops mpi_ops = {mpi_barrier, mpi_bcast, mpi_reduce_i64, mpi_allgatherv, mpi_least_i64, mpi_close};

static qd_status start(void) {
  int provided = MPI_THREAD_SINGLE;
  TRY_MPI(MPI_Init_thread, NULL, NULL, MPI_THREAD_SERIALIZED, &provided);
  QD_CHECK(provided >= MPI_THREAD_SERIALIZED, QD_ECOMM, "this MPI library does not allow calls from a threaded program");
  return QD_OK;
}

static qd_status fill(comm_mpi *self) {
  TRY_MPI(MPI_Comm_set_errhandler, self->mpi, MPI_ERRORS_RETURN);
  TRY_MPI(MPI_Comm_rank, self->mpi, &self->base.rank);
  TRY_MPI(MPI_Comm_size, self->mpi, &self->base.size);
  QD_TRY(qd_heap_new((size_t)self->base.size, sizeof *self->counts, &self->counts));
  QD_TRY(qd_heap_new((size_t)self->base.size, sizeof *self->places, &self->places));
  return QD_OK;
}

static qd_status split_nodes(comm_mpi *self, MPI_Comm *node) {
  const char *text = getenv(QD_RANKS_PER_NODE);
  long per_node = text != NULL ? strtol(text, NULL, 10) : 0;
  if (per_node > 0) TRY_MPI(MPI_Comm_split, self->mpi, (int)(self->base.rank / per_node), self->base.rank, node);
  else TRY_MPI(MPI_Comm_split_type, self->mpi, MPI_COMM_TYPE_SHARED, self->base.rank, MPI_INFO_NULL, node);
  return QD_OK;
}

static qd_status new_comm(size_t piece_bytes, comm_mpi **out) {
  QD_TRY(qd_heap_new(1, sizeof **out, out));
  (*out)->base = (qd_comm){.ops = &mpi_ops, .name = "mpi"};
  (*out)->piece_bytes = piece_bytes;
  return QD_OK;
}

static qd_status find_node(comm_mpi *self) {
  int first = self->base.rank;
  comm_mpi *node;
  QD_TRY(new_comm(self->piece_bytes, &node));
  QD_TRY(split_nodes(self, &node->mpi));
  QD_TRY(fill(node));
  QD_TRY(qd_heap_new((size_t)self->base.size, sizeof *self->first_on_node, &self->first_on_node));
  TRY_MPI(MPI_Bcast, &first, 1, MPI_INT, 0, node->mpi);
  TRY_MPI(MPI_Allgather, &first, 1, MPI_INT, self->first_on_node, 1, MPI_INT, self->mpi);
  self->base.node = &node->base;
  return QD_OK;
}

qd_status qd_comm_mpi_open(size_t piece_bytes, qd_comm **out) {
  QD_ASSERT(piece_bytes > 0 && piece_bytes % sizeof(int64_t) == 0 && piece_bytes <= INT_MAX);
  *out = NULL;
  QD_TRY(start());
  comm_mpi *self;
  QD_TRY(new_comm(piece_bytes, &self));
  TRY_MPI(MPI_Comm_dup, MPI_COMM_WORLD, &self->mpi);
  QD_TRY(fill(self));
  QD_TRY(find_node(self));
  *out = &self->base;
  return QD_OK;
}

bool qd_comm_mpi_running(void) {
  int begun = 0, ended = 0;
  MPI_Initialized(&begun);
  MPI_Finalized(&ended);
  return begun && !ended;
}

void qd_comm_mpi_abort(int exit_code) { MPI_Abort(MPI_COMM_WORLD, exit_code); }

const int *qd_comm_mpi_first_on_node(const qd_comm *comm) { return ((const comm_mpi *)comm)->first_on_node; }

void qd_comm_mpi_library(char *text, size_t bytes) {
  char whole[MPI_MAX_LIBRARY_VERSION_STRING] = "";
  int length = 0;
  MPI_Get_library_version(whole, &length);
  snprintf(text, bytes, "%s", whole);
}
