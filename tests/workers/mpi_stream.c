/* mpi_stream FIRST FAILING: items FIRST .. 6 of 7, of which one may fail (-1: none). */
#include "tests/support/expect.h"
#include "workers/stream.h"
#include "workers/team.h"

#include <string.h>

enum { N_ITEMS = 7 };

static const size_t item_bytes[N_ITEMS] = {100, 0, 5001, 1, 64, 5001, 17};

typedef struct context {
  int rank, n_fetched;
  int64_t failing;
} context;

static size_t bytes_of(void *c, int64_t item) {
  (void)c;
  return item_bytes[item];
}

static qd_status fetch(void *c, int64_t item, void *to) {
  context *self = c;
  EXPECT(self->rank == 0);
  QD_CHECK(item != self->failing, QD_EBADINPUT, "item %d is damaged", (int)item);
  memset(to, (int)item + 65, item_bytes[item]);
  self->n_fetched++;
  return QD_OK;
}

int main(int argc, char **argv) {
  EXPECT(argc == 3);
  int64_t first = atoi(argv[1]);
  qd_comm *comm;
  EXPECT(qd_team_open(&comm) == QD_OK);
  context own = {comm->rank, 0, atoi(argv[2])};
  qd_stream_source source = {&own, N_ITEMS, bytes_of, fetch};
  qd_stream *stream;
  EXPECT(qd_stream_open(comm, &source, first, &stream) == QD_OK);
  qd_status status = QD_OK;
  int64_t item = first;
  for (; item < N_ITEMS; item++) {
    const void *data;
    status = qd_stream_next(stream, &data);
    if (status != QD_OK) break;
    const unsigned char *bytes = data;
    for (size_t i = 0; i < item_bytes[item]; i++) EXPECT(bytes[i] == item + 65);
  }
  EXPECT(item == (own.failing >= first ? own.failing : N_ITEMS));
  EXPECT(comm->rank == 0 || own.n_fetched == 0);
  EXPECT(qd_stream_wait_seconds(stream) >= 0.0);
  char line[300];
  int n = snprintf(line, sizeof line, "<%d %s %s>\n", comm->rank, qd_status_name(status), qd_error_text());
  EXPECT(fwrite(line, 1, (size_t)n, stdout) == (size_t)n && fflush(stdout) == 0);
  qd_stream_close(stream);
  qd_team_close(comm, false, 0);
  return 0;
}
