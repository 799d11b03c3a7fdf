#define _POSIX_C_SOURCE 200809L
/* qdist: calibrate, quantize and evaluate language models over MPI ranks. */
#include "jobs/command.h"
#include "jobs/options.h"
#include "jobs/version.h"
#include "kernels/base/log.h"
#include "workers/agree.h"
#include "workers/interrupt.h"
#include "workers/team.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const qd_command *const commands[] = {
#define QD_COMMAND(name) &qd_command_##name,
#include "jobs/commands/commands.def"
#undef QD_COMMAND
};
enum { N_COMMANDS = (int)(sizeof commands / sizeof commands[0]), USAGE_EXIT = 2 };

static void print_help(FILE *to) {
  fputs("qdist calibrates and quantizes language models over MPI ranks, with the same bits at any number of them.\n\n"
        "  mpirun -np 4 qdist quantize --model DIR --method gptq --bits 4 --dataset FILE --output OUT\n"
        "  mpirun -np 4 qdist evaluate --model OUT --dataset FILE\n\nCommands:\n", to);
  for (int i = 0; i < N_COMMANDS; i++) fprintf(to, "  %-10s %s\n", commands[i]->name, commands[i]->summary);
  fputs("\nqdist COMMAND --help tells a command's options with examples; qdist --version what this build and machine have.\n"
        "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 a store is damaged, 75 stopped cleanly: run again to go on.\n", to);
}

static const qd_command *find_command(const char *name) {
  for (int i = 0; i < N_COMMANDS; i++)
    if (strcmp(name, commands[i]->name) == 0) return commands[i];
  return NULL;
}

static int unknown_command(const char *name) {
  const char *names[N_COMMANDS + 1];
  for (int i = 0; i < N_COMMANDS; i++) names[i] = commands[i]->name;
  names[N_COMMANDS] = NULL;
  const char *nearest = qd_nearest(name, names);
  if (qd_launcher_rank() == 0) {
    fprintf(stderr, "qdist: there is no command \"%s\"", name);
    if (nearest != NULL) fprintf(stderr, "; did you mean %s?\n", nearest);
    else fputs("; qdist --help lists them\n", stderr);
  }
  return USAGE_EXIT;
}

/* A failure that all ranks know of is told once; one that only this rank has is told by it. */
static void tell(const qd_command *command, const qd_comm *comm, qd_status status) {
  if (comm != NULL && comm->rank != 0 && qd_agree_failed()) return;
  const char *text = qd_error_text()[0] ? qd_error_text() : qd_status_text(status);
  if (comm != NULL && comm->rank != 0) fprintf(stderr, "qdist %s: rank %d: %s\n", command->name, comm->rank, text);
  else fprintf(stderr, "qdist %s: %s\n", command->name, text);
  if (getenv("QDIST_TRACE") != NULL) fprintf(stderr, "  %s at %s\n", qd_status_name(status), qd_error_trace());
}

/* What each rank may have for itself: where it runs, and where its files lie. */
static bool is_own(const char *argument, int *values) {
  static const char *const own[] = {"--threads", "-t", "--isa", "-I", "--device", "-D", "--model", "-m", "--reference",
                                    "--max-host-mem", "--prompt-file", NULL};
  *values = 1;
  for (int i = 0; own[i] != NULL; i++) {
    size_t n = strlen(own[i]);
    if (strncmp(argument, own[i], n) != 0) continue;
    if (argument[n] == '\0') return true;
    *values = 0;
    if (argument[n] == '=' || n == 2) return true;
  }
  return false;
}

static qd_status same_arguments(const char *here, const char *there) {
  while (*here != '\0' && strcmp(here, there) == 0) here += strlen(here) + 1, there += strlen(there) + 1;
  QD_CHECK(strcmp(here, there) == 0, QD_EINVAL, "another command line than rank 0: here %s, on rank 0 %s",
           *here != '\0' ? here : "nothing", *there != '\0' ? there : "nothing");
  return QD_OK;
}

/* Ranks that do another job would wait for each other, or write a store of two halves. */
static qd_status compare_command_lines(qd_comm *comm, int argc, char **argv) {
  enum { BYTES = 1 << 16 };
  static char here[BYTES], there[BYTES]; /* arguments behind each other, the last one empty */
  size_t used = 0;
  for (int i = 0, values; i < argc && used + strlen(argv[i]) + 2 < BYTES; i++) {
    if (is_own(argv[i], &values)) i += values;
    else used += strlen(strcpy(here + used, argv[i])) + 1;
  }
  memcpy(there, here, BYTES);
  QD_TRY(qd_comm_bcast(comm, there, BYTES, 0));
  return qd_agree(comm, same_arguments(here, there));
}

/* A full disk under a redirected table is a failure like any other. */
static qd_status flush_output(void) {
  QD_CHECK(fflush(stdout) == 0 && !ferror(stdout), QD_EIO, "standard output cannot be written");
  return QD_OK;
}

static int run_command(const qd_command *command, int argc, char **argv) {
  static char name[64];
  snprintf(name, sizeof name, "qdist %s", command->name);
  argv[0] = name;
  command->parse(argc, argv);
  if (command->stops) qd_interrupt_install(); /* before MPI starts, which takes a moment */
  qd_comm *comm = NULL;
  qd_status status = qd_team_open(&comm);
  if (status == QD_OK) {
    qd_log_terminal(comm->rank == 0);
    status = compare_command_lines(comm, argc, argv);
    if (status == QD_OK) status = command->run(comm);
    if (status == QD_OK) status = qd_agree(comm, flush_output());
  }
  if (status != QD_OK) tell(command, comm, status);
  int code = qd_status_exit_code(status);
  if (comm != NULL) qd_team_close(comm, status != QD_OK && !qd_agree_failed(), code);
  return code;
}

int main(int argc, char **argv) {
  if (argc < 2) {
    if (qd_launcher_rank() == 0) print_help(stderr);
    return USAGE_EXIT;
  }
  if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0)
    return print_help(stdout), 0;
  if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0) return qd_version_print(stdout), 0;
  signal(SIGXFSZ, SIG_IGN); /* a file-size limit is told as a failed write, not by a signal */
  const qd_command *command = find_command(argv[1]);
  return command != NULL ? run_command(command, argc - 1, argv + 1) : unknown_command(argv[1]);
}
