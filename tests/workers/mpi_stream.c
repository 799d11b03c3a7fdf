/* mpi_stream READERS FIRST FAILING: items FIRST .. 6 of 7, of which one may fail (-1: none), on the last rank that reads. */
#define _POSIX_C_SOURCE 200809L
#include "tests/support/expect.h"
#include "workers/stream.h"
#include "workers/team.h"

#include <sched.h>
#include <stdatomic.h>
#include <string.h>

enum { N_ITEMS = 7, STEP = 100 };

static const size_t item_bytes[N_ITEMS] = {100, 0, 5001, 1, 64, 5001, 17};

typedef struct context {
  bool reads, fails;
  atomic_int n_begun; /* fetches */
  int64_t failing;
} context;

static size_t bytes_of(void *c, int64_t item) {
  (void)c;
  return item_bytes[item];
}

/* Items may be parted at multiples of 100 bytes. */
static size_t cut(void *c, int64_t item, size_t at) {
  (void)c, (void)item;
  return (at + STEP - 1) / STEP * STEP;
}

static unsigned char byte_of(int64_t item, size_t i) { return (unsigned char)(item + 65 + 7 * (int64_t)i); }

static qd_status fetch(void *c, int64_t item, size_t first, size_t n, void *to) {
  context *self = c;
  EXPECT(self->reads);
  atomic_fetch_add(&self->n_begun, 1);
  EXPECT(first % STEP == 0 || first == item_bytes[item]);
  EXPECT((first + n) % STEP == 0 || first + n == item_bytes[item]);
  QD_CHECK(item != self->failing || !self->fails, QD_EBADINPUT, "item %d is damaged", (int)item);
  for (size_t i = 0; i < n; i++) ((unsigned char *)to)[i] = byte_of(item, first + i);
  return QD_OK;
}

static qd_readers readers_named(const char *name) {
  qd_readers readers = QD_READERS_COORDINATOR;
  while (strcmp(qd_readers_name(readers), name) != 0) readers++;
  return readers;
}

static bool is_reader(qd_readers readers, const qd_comm *comm, int rank) {
  return qd_stream_share_of(readers, rank, comm->size, qd_team_first_on_node(comm)[rank]).reads;
}

static int last_reader(qd_readers readers, const qd_comm *comm) {
  int rank = comm->size - 1;
  while (!is_reader(readers, comm, rank)) rank--;
  return rank;
}

int main(int argc, char **argv) {
  EXPECT(argc == 4);
  qd_readers readers = readers_named(argv[1]);
  int64_t first = atoi(argv[2]);
  qd_comm *comm;
  EXPECT(qd_team_open(&comm) == QD_OK);
  context own = {is_reader(readers, comm, comm->rank), comm->rank == last_reader(readers, comm), 0, atoi(argv[3])};
  qd_stream_source source = {&own, N_ITEMS, bytes_of, cut, fetch};
  qd_stream *stream;
  EXPECT(qd_stream_open(comm, &source, readers, first, &stream) == QD_OK);
  qd_status status = QD_OK;
  int64_t item = first;
  for (; item < N_ITEMS; item++) {
    const void *data;
    status = qd_stream_next(stream, &data);
    if (status != QD_OK) break;
    const unsigned char *bytes = data;
    for (size_t i = 0; i < item_bytes[item]; i++) EXPECT(bytes[i] == byte_of(item, i));
    bool more = item + 1 < N_ITEMS; /* while this one is worked on the next one is fetched: nobody has asked for it yet */
    while (own.reads && more && atomic_load(&own.n_begun) < item - first + 2) sched_yield();
  }
  EXPECT(item == (own.failing >= first ? own.failing : N_ITEMS));
  EXPECT(own.reads == (atomic_load(&own.n_begun) > 0));
  EXPECT(qd_stream_wait_seconds(stream) >= 0.0);
  char line[300];
  int n = snprintf(line, sizeof line, "<%d %s %s>\n", comm->rank, qd_status_name(status), qd_error_text());
  EXPECT(fwrite(line, 1, (size_t)n, stdout) == (size_t)n && fflush(stdout) == 0);
  qd_stream_close(stream);
  qd_team_close(comm, false, 0);
  return 0;
}
