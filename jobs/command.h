/* A sub-command: commands/cmd_NAME.c, one line in commands.def. */
#ifndef QDIST_JOBS_COMMAND_H
#define QDIST_JOBS_COMMAND_H

#include "workers/comm.h"

typedef struct qd_command {
  const char *name, *summary;
  void      (*parse)(int argc, char **argv); /* usage errors end the program with 2; --help with 0 */
  qd_status (*run)(qd_comm *comm);           /* collective */
  bool      stops;                           /* SIGUSR1 and SIGTERM stop it cleanly (workers/interrupt.h) */
} qd_command;

#define QD_COMMAND(name) extern const qd_command qd_command_##name;
#include "jobs/commands/commands.def"
#undef QD_COMMAND

#endif
