#define _POSIX_C_SOURCE 200809L
#include "tests/support/program.h"

#include "kernels/base/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { MAX_WORDS = 96, LINE_BYTES = 16384 };

static const double limit_seconds = 600.0;

/* Threads that wait must not take the cores of ranks that work: there are more of both than cores. */
static const char *const environment[] = {"OMP_NUM_THREADS=1",
                                          "OMP_WAIT_POLICY=passive",
                                          "QDIST_ISA",
                                          "QDIST_TRACE",
                                          "OMPI_COMM_WORLD_SIZE",
                                          "OMPI_COMM_WORLD_RANK",
                                          "PMIX_RANK",
                                          "PMI_RANK",
                                          "PMI_SIZE",
                                          "SLURM_PROCID",
                                          "SLURM_STEP_NUM_TASKS",
                                          NULL};

typedef struct line {
  char text[LINE_BYTES];
  const char *word[MAX_WORDS + 1]; /* ends in NULL */
  size_t n;
} line;

static void split(line *l, char *text) {
  char *rest = text;
  for (char *word; (word = strtok_r(rest, " ", &rest)) != NULL;) {
    QD_ASSERT(l->n < MAX_WORDS);
    l->word[l->n++] = word;
  }
}

static void compose(line *l, const char *format, va_list arguments) {
  int n = vsnprintf(l->text, sizeof l->text, format, arguments);
  QD_ASSERT(n >= 0 && (size_t)n < sizeof l->text);
  l->word[l->n++] = QDIST_PROGRAM;
  split(l, l->text);
}

static qd_run start(int n_ranks, const line *l) {
  return n_ranks > 0 ? qd_run_start_ranks(n_ranks, l->word, environment, limit_seconds)
                     : qd_run_start(l->word, environment, limit_seconds);
}

qd_run qd_program_start(int n_ranks, const char *format, ...) {
  line l = {.n = 0};
  va_list arguments;
  va_start(arguments, format);
  compose(&l, format, arguments);
  va_end(arguments);
  return start(n_ranks, &l);
}

qd_run qd_program(int n_ranks, const char *format, ...) {
  line l = {.n = 0};
  va_list arguments;
  va_start(arguments, format);
  compose(&l, format, arguments);
  va_end(arguments);
  qd_run run = start(n_ranks, &l);
  qd_run_finish(&run);
  return run;
}

qd_run qd_program_through(const char *command, const char *format, ...) {
  line l = {.n = 0};
  char before[1024];
  va_list arguments;
  QD_ASSERT(strlen(command) < sizeof before);
  split(&l, strcpy(before, command));
  va_start(arguments, format);
  compose(&l, format, arguments);
  va_end(arguments);
  qd_run run = start(0, &l);
  qd_run_finish(&run);
  return run;
}

const char *qd_program_message(const qd_run *run) {
  static char message[4096];
  const char *last = "";
  for (const char *at = run->err.text; *at != '\0'; at += strcspn(at, "\n"), at += *at == '\n')
    if (strncmp(at, "qdist", 5) == 0) last = at;
  snprintf(message, sizeof message, "%.*s", (int)strcspn(last, "\n"), last);
  return message;
}
