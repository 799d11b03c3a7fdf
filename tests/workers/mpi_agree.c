/* mpi_agree none|one|two|all|each|silent RANK: which ranks fail.  Every rank writes what it came to know. */
#include "tests/support/expect.h"
#include "workers/agree.h"
#include "workers/team.h"

#include <string.h>

static qd_status lowest(int rank) { QD_FAIL(QD_EIO, "file %d is gone", rank); }
static qd_status forward(int rank) {
  QD_TRY(lowest(rank));
  return QD_OK;
}
static qd_status same(void) { QD_FAIL(QD_ENUMERIC, "pivot 3 is not positive"); }

static qd_status mine(const char *which, int failing, int rank) {
  if (strcmp(which, "one") == 0) return rank == failing ? forward(rank) : QD_OK;
  if (strcmp(which, "two") == 0) return rank == failing ? forward(rank) : rank > failing ? same() : QD_OK;
  if (strcmp(which, "all") == 0) return same();
  if (strcmp(which, "each") == 0) return lowest(rank);
  if (strcmp(which, "silent") == 0) return rank == failing ? QD_EDTYPE : QD_OK;
  return QD_OK;
}

int main(int argc, char **argv) {
  EXPECT(argc == 3);
  qd_comm *comm;
  EXPECT(qd_team_open(&comm) == QD_OK);
  qd_status on;
  EXPECT(qd_agree_on(comm, mine(argv[1], atoi(argv[2]), comm->rank), &on) == QD_OK);
  EXPECT(!qd_agree_failed()); /* so far it is nobody's end */
  char text[5000];
  snprintf(text, sizeof text, "%s", on == QD_OK ? "" : qd_error_text());
  qd_error_clear();
  qd_status status = qd_agree(comm, mine(argv[1], atoi(argv[2]), comm->rank));
  EXPECT(qd_agree_failed() == (status != QD_OK) && on == status);
  EXPECT(status == QD_OK || strcmp(text, qd_error_text()) == 0);
  char line[6000];
  int n = snprintf(line, sizeof line, "<%d %s|%s|%s>\n", comm->rank, qd_status_name(status), qd_error_text(), qd_error_trace());
  EXPECT(n > 0 && fwrite(line, 1, (size_t)n, stdout) == (size_t)n && fflush(stdout) == 0);
  EXPECT(qd_agree(comm, QD_OK) == QD_OK); /* it works again */
  qd_team_close(comm, false, 0);
  return 0;
}
