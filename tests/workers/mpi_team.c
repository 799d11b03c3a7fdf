/* mpi_team describe|nodes|interrupt|abort|die|exit: what a rank does to the others. */
#define _POSIX_C_SOURCE 200809L
#include "tests/support/expect.h"
#include "workers/interrupt.h"
#include "workers/team.h"

#include <signal.h>
#include <string.h>
#include <unistd.h>

static void describe(qd_comm *comm) {
  printf("<%d of %d by %s, %d on this node>\n", comm->rank, comm->size, comm->name, qd_team_ranks_on_node(comm));
  fflush(stdout);
}

/* The last rank gets the signal; all must come to know. */
static void interrupt(qd_comm *comm) {
  bool stop = true;
  qd_interrupt_install();
  EXPECT(qd_interrupt_agree(comm, &stop) == QD_OK && !stop);
  if (comm->rank == comm->size - 1) raise(SIGUSR1);
  EXPECT(qd_interrupt_seen() == (comm->rank == comm->size - 1));
  EXPECT(qd_interrupt_agree(comm, &stop) == QD_OK && stop);
}

/* Five ranks, two a node: what the first rank of a node says reaches its node alone. */
static void nodes(qd_comm *comm) {
  static const int first[] = {0, 0, 2, 2, 4}, size[] = {2, 2, 2, 2, 1};
  qd_comm *node = qd_team_node(comm);
  int said = comm->rank;
  EXPECT(comm->size == 5 && qd_team_nodes(comm) == 3);
  for (int r = 0; r < comm->size; r++) EXPECT(qd_team_first_on_node(comm)[r] == first[r]);
  EXPECT(node->size == size[comm->rank] && node->rank == comm->rank - first[comm->rank]);
  EXPECT(qd_comm_bcast(node, &said, sizeof said, 0) == QD_OK && said == first[comm->rank]);
}

int main(int argc, char **argv) {
  EXPECT(argc == 2);
  qd_comm *comm;
  qd_status status = qd_team_open(&comm);
  if (status != QD_OK) {
    fprintf(stderr, "%s\n", qd_error_text());
    return qd_status_exit_code(status);
  }
  bool last = comm->rank == comm->size - 1;
  describe(comm);
  if (strcmp(argv[1], "nodes") == 0) nodes(comm);
  if (strcmp(argv[1], "interrupt") == 0) interrupt(comm);
  if (strcmp(argv[1], "abort") == 0 && last) {
    qd_team_close(comm, true, 3);
    return 3;
  }
  if (strcmp(argv[1], "die") == 0 && last) raise(SIGKILL);
  if (strcmp(argv[1], "abort") == 0 || strcmp(argv[1], "die") == 0) {
    qd_status ignored = qd_comm_barrier(comm); /* waits for the one that never comes */
    (void)ignored;
  }
  qd_team_close(comm, false, 0);
  return strcmp(argv[1], "exit") == 0 ? 75 : 0;
}
