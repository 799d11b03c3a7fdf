#define _DEFAULT_SOURCE /* syscall */
#include "tests/support/run.h"

#include "kernels/base/heap.h"
#include "kernels/base/log.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

/* Between SIGTERM and SIGKILL: mpirun needs it to end its ranks. */
static const double grace_seconds = 2.0;

/* For a killed process to end: freeing its memory can take long on a busy machine. */
enum { END_MILLISECONDS = 60000 };

static bool same_name(const char *a, const char *b) {
  size_t n = strcspn(a, "=");
  return n == strcspn(b, "=") && strncmp(a, b, n) == 0;
}

static bool is_replaced(const char *entry, const char *const *additions) {
  for (; *additions != NULL; additions++)
    if (same_name(entry, *additions)) return true;
  return false;
}

static size_t count(const char *const *list) {
  size_t n = 0;
  while (list[n] != NULL) n++;
  return n;
}

/* posix_spawn takes char *const [] and writes to none of it. */
static char *writable(const char *text) {
  union {
    const char *in;
    char *out;
  } same = {.in = text};
  return same.out;
}

static char **new_list(size_t n) {
  char **list;
  qd_status status = qd_heap_new(n + 1, sizeof *list, &list);
  QD_ASSERT(status == QD_OK);
  return list;
}

static char **environment_with(const char *const *additions) {
  static const char *const none[] = {NULL};
  if (additions == NULL) additions = none;
  size_t n = 0, n_own = 0;
  while (environ[n_own] != NULL) n_own++;
  char **list = new_list(n_own + count(additions));
  for (size_t i = 0; i < n_own; i++)
    if (!is_replaced(environ[i], additions)) list[n++] = environ[i];
  for (; *additions != NULL; additions++)
    if (strchr(*additions, '=') != NULL && !is_replaced(*additions, additions + 1)) list[n++] = writable(*additions);
  return list;
}

static void pipe_open(int ends[2]) {
  QD_ASSERT(pipe(ends) == 0);
  for (int e = 0; e < 2; e++) QD_ASSERT(fcntl(ends[e], F_SETFD, FD_CLOEXEC) == 0);
}

static void spawn(qd_run *run, char *const *argv, char *const *environment, const int ends[2]) {
  posix_spawn_file_actions_t files;
  posix_spawnattr_t attributes;
  sigset_t all, none;
  sigfillset(&all);
  sigemptyset(&none);
  posix_spawn_file_actions_init(&files);
  posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&files, ends[0], STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&files, ends[1], STDERR_FILENO);
  posix_spawnattr_init(&attributes);
  posix_spawnattr_setpgroup(&attributes, 0);
  posix_spawnattr_setsigdefault(&attributes, &all);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
  if (posix_spawnp(&run->pid, argv[0], &files, &attributes, argv, environment) != 0) run->pid = -1;
  posix_spawn_file_actions_destroy(&files);
  posix_spawnattr_destroy(&attributes);
}

static qd_run_text text_open(int from) {
  qd_run_text text = {.pipe = from};
  qd_status status = qd_heap_grow(&text.text, &text.capacity, 1, 1);
  QD_ASSERT(status == QD_OK);
  text.text[0] = '\0';
  return text;
}

static void text_read(qd_run_text *text) {
  qd_status status = qd_heap_grow(&text->text, &text->capacity, text->n + 4096, 1);
  QD_ASSERT(status == QD_OK);
  ssize_t n = read(text->pipe, text->text + text->n, text->capacity - text->n - 1);
  if (n < 0 && errno == EINTR) return;
  if (n <= 0) {
    close(text->pipe);
    text->pipe = -1;
    n = 0;
  }
  text->n += (size_t)n;
  text->text[text->n] = '\0';
}

/* Take what comes on either pipe; false at the deadline. */
static bool pump(qd_run *run) {
  double left = run->deadline - qd_seconds();
  struct pollfd pipes[2] = {{run->out.pipe, POLLIN, 0}, {run->err.pipe, POLLIN, 0}};
  int n = poll(pipes, 2, left > 0.0 ? (int)(1e3 * left) + 1 : 0);
  if (n < 0) QD_ASSERT(errno == EINTR);
  if (n > 0 && pipes[0].revents != 0) text_read(&run->out);
  if (n > 0 && pipes[1].revents != 0) text_read(&run->err);
  return n != 0 || left > 0.0;
}

static bool is_open(const qd_run *run) { return run->out.pipe >= 0 || run->err.pipe >= 0; }

qd_run qd_run_start(const char *const *argv, const char *const *environment, double limit_seconds) {
  qd_run run = {.exit_code = -1, .deadline = qd_seconds() + limit_seconds};
  int out[2], err[2];
  pipe_open(out);
  pipe_open(err);
  size_t n = count(argv);
  char **arguments = new_list(n), **variables = environment_with(environment);
  for (size_t i = 0; i < n; i++) arguments[i] = writable(argv[i]);
  spawn(&run, arguments, variables, (int[2]){out[1], err[1]});
  qd_heap_free(arguments);
  qd_heap_free(variables);
  close(out[1]);
  close(err[1]);
  run.out = text_open(out[0]);
  run.err = text_open(err[0]);
  return run;
}

bool qd_run_until(qd_run *run, const char *text) {
  while (strstr(run->out.text, text) == NULL && strstr(run->err.text, text) == NULL)
    if (!is_open(run) || !pump(run)) return false;
  return true;
}

static int lines(const char *text) {
  int n = 0;
  for (; (text = strchr(text, '\n')) != NULL; text++) n++;
  return n;
}

bool qd_run_until_lines(qd_run *run, int n) {
  while (lines(run->out.text) + lines(run->err.text) < n)
    if (!is_open(run) || !pump(run)) return false;
  return true;
}

static void signal_group(qd_run *run, int number) {
  run->deadline = qd_seconds() + grace_seconds;
  kill(-run->pid, number);
  while (is_open(run) && pump(run)) {}
}

static void stop_group(qd_run *run) {
  run->timed_out = true;
  signal_group(run, SIGTERM);
  signal_group(run, SIGKILL);
}

void qd_run_finish(qd_run *run) {
  if (run->pid < 0) {
    run->exit_code = 127;
    return;
  }
  while (is_open(run) && !run->timed_out)
    if (!pump(run)) stop_group(run);
  int state = 0;
  while (waitpid(run->pid, &state, 0) < 0) QD_ASSERT(errno == EINTR);
  run->exit_code = WIFSIGNALED(state) ? 128 + WTERMSIG(state) : WEXITSTATUS(state);
}

qd_run qd_run_command(const char *const *argv, const char *const *environment, double limit_seconds) {
  qd_run run = qd_run_start(argv, environment, limit_seconds);
  qd_run_finish(&run);
  return run;
}

/* Open MPI 4 reads OMPI_MCA_*, version 5 the PRTE_MCA_* beside them.  Sanitizers: the library's own leaks are not ours. */
static const char *const rank_environment[] = {
    "OMPI_ALLOW_RUN_AS_ROOT=1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1",
    "OMPI_MCA_rmaps_base_oversubscribe=1", "PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe",
    "OMPI_MCA_hwloc_base_binding_policy=none", "PRTE_MCA_hwloc_default_binding_policy=none",
    "OMPI_MCA_btl_vader_single_copy_mechanism=none", "OMPI_MCA_mpi_yield_when_idle=1",
    "ASAN_OPTIONS=detect_leaks=0"};

enum { N_RANK_ENVIRONMENT = sizeof rank_environment / sizeof *rank_environment, MAX_LIST = 128 };

qd_run qd_run_start_ranks(int n_ranks, const char *const *argv, const char *const *environment, double limit_seconds) {
  const char *arguments[MAX_LIST] = {QDIST_MPIEXEC, "-n"}, *variables[MAX_LIST] = {NULL};
  char number[16];
  size_t n = 3, v = 0;
  QD_ASSERT(n + count(argv) < MAX_LIST);
  snprintf(number, sizeof number, "%d", n_ranks);
  arguments[2] = number;
  while (*argv != NULL) arguments[n++] = *argv++;
  while (v < N_RANK_ENVIRONMENT) variables[v] = rank_environment[v], v++;
  if (environment != NULL) {
    QD_ASSERT(v + count(environment) < MAX_LIST);
    while (*environment != NULL) variables[v++] = *environment++;
  }
  return qd_run_start(arguments, variables, limit_seconds);
}

qd_run qd_run_ranks(int n_ranks, const char *const *argv, const char *const *environment, double limit_seconds) {
  qd_run run = qd_run_start_ranks(n_ranks, argv, environment, limit_seconds);
  qd_run_finish(&run);
  return run;
}

/* The parent of a process is the fourth word of its stat, behind a name in parentheses that may hold anything. */
static pid_t parent_of(const char *pid) {
  char path[64], text[512] = "";
  snprintf(path, sizeof path, "/proc/%.20s/stat", pid);
  FILE *file = fopen(path, "r");
  if (file == NULL) return -1;
  text[fread(text, 1, sizeof text - 1, file)] = '\0';
  fclose(file);
  const char *behind = strrchr(text, ')');
  return behind == NULL ? -1 : (pid_t)strtol(behind + 4, NULL, 10);
}

int qd_run_rank_pids(const qd_run *run, pid_t *pids, int most) {
  int n = 0;
  DIR *processes = opendir("/proc");
  QD_ASSERT(processes != NULL);
  for (const struct dirent *entry; (entry = readdir(processes)) != NULL;)
    if (entry->d_name[0] >= '1' && entry->d_name[0] <= '9' && parent_of(entry->d_name) == run->pid && n < most)
      pids[n++] = (pid_t)strtol(entry->d_name, NULL, 10);
  closedir(processes);
  if (n == 0 && most > 0) pids[n++] = run->pid;
  return n;
}

enum { MAX_RANKS = 64 };

void qd_run_signal_ranks(const qd_run *run, int number) {
  pid_t pids[MAX_RANKS];
  int n = qd_run_rank_pids(run, pids, MAX_RANKS);
  for (int i = 0; i < n; i++) kill(pids[i], number);
}

/* The ranks, each with a descriptor to wait for it by, whoever's child it becomes (-1: it is gone already). */
typedef struct ranks {
  int n, process[MAX_RANKS];
  pid_t pid[MAX_RANKS];
} ranks;

static ranks hold_ranks(const qd_run *run) {
  ranks held;
  held.n = qd_run_rank_pids(run, held.pid, MAX_RANKS);
  for (int i = 0; i < held.n; i++) held.process[i] = (int)syscall(SYS_pidfd_open, held.pid[i], 0);
  return held;
}

/* A killed process holds its locks until it has ended, which can be after its pipes are closed and mpirun is gone. */
static void finish_all(qd_run *run, const ranks *held) {
  qd_run_finish(run);
  for (int i = 0; i < held->n; i++) {
    if (held->process[i] < 0) continue;
    struct pollfd end = {.fd = held->process[i], .events = POLLIN};
    while (poll(&end, 1, END_MILLISECONDS) < 0) QD_ASSERT(errno == EINTR);
    close(held->process[i]);
  }
}

void qd_run_kill(qd_run *run) {
  ranks held = hold_ranks(run);
  kill(run->pid, SIGKILL); /* first, or it would end the others its own way */
  for (int i = 0; i < held.n; i++) kill(held.pid[i], SIGKILL);
  finish_all(run, &held);
}

void qd_run_kill_rank(qd_run *run, int which) {
  ranks held = hold_ranks(run);
  if (which < held.n) kill(held.pid[which], SIGKILL);
  finish_all(run, &held);
}

void qd_run_close(qd_run *run) {
  if (run->out.pipe >= 0) close(run->out.pipe);
  if (run->err.pipe >= 0) close(run->err.pipe);
  qd_heap_free(run->out.text);
  qd_heap_free(run->err.text);
  *run = (qd_run){.out.pipe = -1, .err.pipe = -1};
}
