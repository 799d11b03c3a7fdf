#include "kernels/base/status.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TEXT_BYTES = 4096, TRACE_BYTES = 1024 };

static _Thread_local char error_text[TEXT_BYTES];
static _Thread_local char error_trace[TRACE_BYTES];

static void trace_append(const char *file, int line) {
  size_t used = strlen(error_trace);
  if (used + 1 < TRACE_BYTES)
    snprintf(error_trace + used, TRACE_BYTES - used, "%s%s:%d", used ? " < " : "", file, line);
}

void qd_remove_controls(char *text) {
  for (; *text != '\0'; text++)
    if ((unsigned char)*text < ' ' || *text == 0x7f) *text = '?';
}

qd_status qd_fail(qd_status status, const char *file, int line, const char *format, ...) {
  char text[TEXT_BYTES]; /* the arguments may hold the old text */
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  qd_remove_controls(text);
  memcpy(error_text, text, sizeof text);
  error_trace[0] = '\0';
  trace_append(file, line);
  return status;
}

qd_status qd_forward(qd_status status, const char *file, int line) {
  trace_append(file, line);
  return status;
}

const char *qd_status_name(qd_status status) {
  switch (status) {
#define QD_STATUS_CASE(code, text, exit_code) \
  case code: return #code;
    QD_STATUS_LIST(QD_STATUS_CASE)
#undef QD_STATUS_CASE
  }
  return "unknown status";
}

const char *qd_status_text(qd_status status) {
  switch (status) {
#define QD_STATUS_CASE(code, text, exit_code) \
  case code: return text;
    QD_STATUS_LIST(QD_STATUS_CASE)
#undef QD_STATUS_CASE
  }
  return "unknown status";
}

int qd_status_exit_code(qd_status status) {
  switch (status) {
#define QD_STATUS_CASE(code, text, exit_code) \
  case code: return exit_code;
    QD_STATUS_LIST(QD_STATUS_CASE)
#undef QD_STATUS_CASE
  }
  return 1;
}

const char *qd_error_text(void) { return error_text; }
const char *qd_error_trace(void) { return error_trace; }

void qd_error_clear(void) {
  error_text[0] = '\0';
  error_trace[0] = '\0';
}

void qd_assert_failed(const char *expression, const char *file, int line) {
  fprintf(stderr, "qdist: internal error: %s does not hold at %s:%d\n", expression, file, line);
  abort();
}

bool qd_fault_here(void) {
  static atomic_long count;
  static long target = -1;
  if (target < 0) {
    const char *text = getenv("QDIST_FAULT_AT");
    target = text ? strtol(text, NULL, 10) : 0;
  }
  return target > 0 && atomic_fetch_add(&count, 1) + 1 == target;
}
