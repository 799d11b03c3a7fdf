#define _POSIX_C_SOURCE 200809L
#include "kernels/base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static qd_log_level level = QD_LOG_NORMAL;
static bool terminal = true;
static FILE *file;

void qd_log_level_set(qd_log_level new_level) { level = new_level; }
void qd_log_terminal(bool on) { terminal = on; }

qd_status qd_log_open(const char *path) {
  qd_log_close();
  file = fopen(path, "a");
  QD_CHECK(file != NULL, QD_EIO, "cannot write the log %s: %s", path, strerror(errno));
  return QD_OK;
}

void qd_log_close(void) {
  if (file != NULL) fclose(file);
  file = NULL;
}

static void to_file(const char *prefix, const char *format, va_list arguments) {
  if (file == NULL) return;
  char stamp[32];
  time_t now = time(NULL);
  struct tm utc;
  gmtime_r(&now, &utc);
  strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%SZ", &utc);
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

static double read_clock(clockid_t clock) {
  struct timespec now = {0};
  clock_gettime(clock, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

double qd_seconds(void) { return read_clock(CLOCK_MONOTONIC); }
double qd_cpu_seconds(void) { return read_clock(CLOCK_THREAD_CPUTIME_ID); }
