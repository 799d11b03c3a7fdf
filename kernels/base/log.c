#define _POSIX_C_SOURCE 200809L
#include "kernels/base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static qd_log_level level = QD_LOG_NORMAL;
static bool terminal = true;
static FILE *file;
static char early[1 << 14]; /* lines from before the file is opened, which are whole ones; what does not fit is left out */
static size_t n_early;

void qd_log_level_set(qd_log_level new_level) { level = new_level; }
void qd_log_terminal(bool on) { terminal = on; }

static void close_file(void) {
  if (file != NULL) fclose(file);
  file = NULL;
}

/* A FIFO without a reader is refused by the system instead of waited for, and one with a reader here. */
static qd_status open_file(const char *path) {
  struct stat facts;
  int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_NONBLOCK | O_CLOEXEC, 0666);
  QD_CHECK(fd >= 0, QD_EIO, "cannot write the log %s: %s", path, strerror(errno));
  bool is_file = fstat(fd, &facts) == 0 && S_ISREG(facts.st_mode);
  file = is_file ? fdopen(fd, "a") : NULL;
  if (file == NULL) close(fd);
  QD_CHECK(is_file, QD_EIO, "cannot write the log %s: it is there and no file", path);
  QD_CHECK(file != NULL, QD_EIO, "cannot write the log %s: %s", path, strerror(errno));
  return QD_OK;
}

qd_status qd_log_open(const char *path) {
  close_file();
  QD_TRY(open_file(path));
  fwrite(early, 1, n_early, file);
  n_early = 0;
  return QD_OK;
}

void qd_log_close(void) {
  close_file();
  n_early = 0;
}

static void keep_early(const char *stamp, const char *prefix, const char *format, va_list arguments) {
  size_t room = sizeof early - n_early;
  char *line = early + n_early;
  int head = snprintf(line, room, "%s %s", stamp, prefix);
  if ((size_t)head >= room) return;
  int body = vsnprintf(line + head, room - (size_t)head, format, arguments);
  size_t n = (size_t)head + (size_t)body;
  if (body < 0 || n + 1 >= room) return;
  line[n] = '\n';
  n_early += n + 1;
}

static void to_file(const char *prefix, const char *format, va_list arguments) {
  char stamp[QD_TIME_TEXT_BYTES];
  qd_time_text(stamp);
  if (file == NULL) {
    keep_early(stamp, prefix, format, arguments);
    return;
  }
  fprintf(file, "%s %s", stamp, prefix);
  vfprintf(file, format, arguments);
  fputc('\n', file);
  fflush(file);
}

static void to_terminal(const char *prefix, const char *format, va_list arguments) {
  if (!terminal || level == QD_LOG_QUIET) return;
  fputs(prefix, stderr);
  vfprintf(stderr, format, arguments);
  fputc('\n', stderr);
}

#define LOG_BOTH(prefix)                       \
  do {                                         \
    va_list arguments;                         \
    va_start(arguments, format);               \
    to_terminal(prefix, format, arguments);    \
    va_end(arguments);                         \
    va_start(arguments, format);               \
    to_file(prefix, format, arguments);        \
    va_end(arguments);                         \
  } while (0)

void qd_log(const char *format, ...) { LOG_BOTH(""); }
void qd_log_warning(const char *format, ...) { LOG_BOTH("warning: "); }

void qd_log_file(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  to_file("", format, arguments);
  va_end(arguments);
}

void qd_time_text(char text[QD_TIME_TEXT_BYTES]) {
  time_t now = time(NULL);
  struct tm utc;
  gmtime_r(&now, &utc);
  strftime(text, QD_TIME_TEXT_BYTES, "%Y-%m-%dT%H:%M:%SZ", &utc);
}

static double read_clock(clockid_t clock) {
  struct timespec now = {0};
  clock_gettime(clock, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

double qd_seconds(void) { return read_clock(CLOCK_MONOTONIC); }
double qd_cpu_seconds(void) { return read_clock(CLOCK_THREAD_CPUTIME_ID); }
