/* mpi_same_model model|store FOLDER FOLDER ...: a folder for each rank.  Rank 0 writes what all came to know. */
#include "pipeline/same_model.h"
#include "tests/support/expect.h"
#include "workers/agree.h"
#include "workers/team.h"

#include <string.h>

static qd_status same_model(const char *path, qd_comm *comm) {
  qd_source *source;
  EXPECT(qd_source_open(path, &source) == QD_OK);
  qd_status status = qd_same_model(source, comm);
  qd_source_close(source);
  return status;
}

int main(int argc, char **argv) {
  qd_comm *comm;
  EXPECT(qd_team_open(&comm) == QD_OK && argc == 2 + comm->size);
  const char *path = argv[2 + comm->rank];
  qd_status status = strcmp(argv[1], "model") == 0 ? same_model(path, comm) : qd_same_store(path, comm), agreed = status;
  EXPECT(qd_comm_bcast(comm, &agreed, sizeof agreed, 0) == QD_OK && agreed == status);
  if (comm->rank == 0) printf("<%s %s>\n", qd_status_name(status), status == QD_OK ? "" : qd_error_text());
  qd_team_close(comm, false, 0);
  return 0;
}
