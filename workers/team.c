#define _POSIX_C_SOURCE 200809L
#include "workers/team.h"

#include "workers/comm_backends.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* How many processes the variable promises; 0 if it is not set. */
static long promised(const char *variable) {
  const char *text = getenv(variable);
  long n = text ? strtol(text, NULL, 10) : 0;
  return n > 0 ? n : 0;
}

/* mpirun of Open MPI, any launcher that speaks PMIx (srun --mpi=pmix), mpirun of MPICH and its kin. */
static bool launched(void) {
  static const char *const variables[] = {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK", "PMI_SIZE"};
  for (size_t i = 0; i < sizeof variables / sizeof *variables; i++)
    if (getenv(variables[i]) != NULL) return true;
  return false;
}

static long launched_size(void) {
  static const char *const variables[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"};
  for (size_t i = 0; i < sizeof variables / sizeof *variables; i++)
    if (promised(variables[i]) > 0) return promised(variables[i]);
  return 1;
}

/* A launcher of another MPI starts n processes, each of which takes itself for the only one: all would write the same store. */
static qd_status check_size(int size) {
  QD_CHECK(launched_size() <= size, QD_ECOMM,
           "the launcher started %ld processes, but each sees %d: use the mpirun of %s, or srun --mpi=pmix", launched_size(),
           size, qd_team_library());
  return QD_OK;
}

qd_status qd_team_open(qd_comm **out) {
  *out = NULL;
  if (!launched()) {
    QD_TRY(check_size(1));
    *out = qd_comm_self();
    return QD_OK;
  }
  /* A rank that waits must leave its core to one that works; Open MPI does so by itself only where there are more ranks than
   * cores, and does not count threads. */
  setenv("OMPI_MCA_mpi_yield_when_idle", "1", 0);
  qd_comm *comm;
  QD_TRY(qd_comm_mpi_open(QD_COMM_PIECE_BYTES, &comm));
  qd_status status = check_size(comm->size);
  if (status == QD_OK) *out = comm;
  else comm->ops->close(comm);
  return status;
}

void qd_team_close(qd_comm *comm, bool abort, int exit_code) {
  bool alone = comm != NULL && comm->size == 1;
  if (abort && !alone && qd_comm_mpi_running()) qd_comm_mpi_abort(exit_code);
  if (comm != NULL) comm->ops->close(comm);
}

qd_comm *qd_team_node(qd_comm *comm) { return comm->node != NULL ? comm->node : comm; }

int qd_team_ranks_on_node(const qd_comm *comm) { return comm->node != NULL ? comm->node->size : comm->size; }

const int *qd_team_first_on_node(const qd_comm *comm) {
  static const int alone[] = {0};
  return comm == qd_comm_self() ? alone : qd_comm_mpi_first_on_node(comm);
}

int qd_team_nodes(const qd_comm *comm) {
  int n = 0;
  for (int r = 0; r < comm->size; r++) n += qd_team_first_on_node(comm)[r] == r;
  return n;
}

const char *qd_host_name(char *text, size_t size) {
  if (gethostname(text, size) != 0) strncpy(text, "?", size);
  text[size - 1] = '\0';
  return text;
}

/* "Open MPI v4.1.4, package: ..." and "MPICH Version:\t4.0.2\n..." become "Open MPI 4.1.4" and "MPICH 4.0.2". */
const char *qd_team_library(void) {
  static char name[128];
  char words[1024];
  if (*name) return name;
  qd_comm_mpi_library(words, sizeof words);
  words[strcspn(words, ",\r\n")] = '\0';
  size_t n = 0;
  char *rest = words;
  for (char *word; (word = strtok_r(rest, " \t", &rest)) != NULL;) {
    if (strcmp(word, "Version:") == 0) continue;
    if (word[0] == 'v' && isdigit((unsigned char)word[1])) word++;
    size_t length = strlen(word);
    if (n + length + 2 > sizeof name) break;
    if (n > 0) name[n++] = ' ';
    memcpy(name + n, word, length);
    n += length;
    name[n] = '\0';
  }
  return name;
}
