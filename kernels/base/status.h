/* Errors: a status code that is returned, and a text with a trace that is kept for the thread.
 *
 *   Programmer's error    QD_ASSERT, always on.
 *   Run-time failure      qd_status, which the compiler does not let you ignore.
 *   Expected outcome      a value, never a status.
 *
 * The text says what, which, expected, got.  The lowest function that knows the name writes it; only jobs/main.c prints it. */
#ifndef QDIST_KERNELS_BASE_STATUS_H
#define QDIST_KERNELS_BASE_STATUS_H

#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*    code            text                                             exit */
#define QD_STATUS_LIST(X)                                                   \
  X(QD_OK,           "done",                                            0)  \
  X(QD_EINVAL,       "invalid value",                                   1)  \
  X(QD_ESHAPE,       "shapes do not fit",                               1)  \
  X(QD_EDTYPE,       "data type does not fit",                          1)  \
  X(QD_ENOMEM,       "out of memory",                                   1)  \
  X(QD_EIO,          "input or output failed",                          1)  \
  X(QD_ENOTFOUND,    "not found",                                       1)  \
  X(QD_EEXIST,       "is there already",                                1)  \
  X(QD_EBADINPUT,    "input is damaged or contradicts itself",          1)  \
  X(QD_EUNSUPPORTED, "not supported",                                   1)  \
  X(QD_ENUMERIC,     "numerical failure",                               1)  \
  X(QD_ECOMM,        "communication between ranks failed",              1)  \
  X(QD_EUSAGE,       "wrong usage",                                     2)  \
  X(QD_ECORRUPT,     "the store is damaged",                            3)  \
  X(QD_ESTOPPED,     "stopped cleanly: run again to go on",            75)

typedef enum qd_status {
#define QD_STATUS_CODE(code, text, exit_code) code,
  QD_STATUS_LIST(QD_STATUS_CODE)
#undef QD_STATUS_CODE
} qd_status;

#define QD_MUST_USE __attribute__((warn_unused_result))

/* Set the thread's error text (the trace starts anew) and return `status`. */
qd_status qd_fail(qd_status status, const char *file, int line, const char *format, ...)
    __attribute__((format(printf, 4, 5), warn_unused_result));

/* Add one place to the thread's trace and return `status`. */
qd_status qd_forward(qd_status status, const char *file, int line) QD_MUST_USE;

const char *qd_status_name(qd_status status);      /* "QD_EIO"                                     */
const char *qd_status_text(qd_status status);      /* the general sentence of the list above       */
int         qd_status_exit_code(qd_status status); /* 0, 1, 2, 3, 75                               */
const char *qd_error_text(void);                   /* this thread's last message; "" if none       */
const char *qd_error_trace(void);                  /* "file:line < file:line ..."; "" if none      */
void        qd_error_clear(void);

/* Names come from files: a message stays one line, and nothing in it commands the terminal. */
void qd_remove_controls(char *text);

_Noreturn void qd_assert_failed(const char *expression, const char *file, int line);

/* Fault injection (test builds): true when this call is the QDIST_FAULT_AT-th check of the process. */
bool qd_fault_here(void);

#ifdef QDIST_FAULT_INJECTION
#define QD_FAULT_ (qd_fault_here())
#else
#define QD_FAULT_ false
#endif

#define QD_ASSERT(expression) \
  ((expression) ? (void)0 : qd_assert_failed(#expression, __FILE__, __LINE__))

#define QD_FAIL(status, ...) return qd_fail((status), __FILE__, __LINE__, __VA_ARGS__)

#define QD_CHECK(condition, status, ...)                                \
  do {                                                                  \
    if (!(condition) || QD_FAULT_) QD_FAIL((status), __VA_ARGS__);      \
  } while (0)

#define QD_TRY(call)                                                            \
  do {                                                                          \
    qd_status qd_try_status_ = (call);                                          \
    if (qd_try_status_ != QD_OK) return qd_forward(qd_try_status_, __FILE__, __LINE__); \
  } while (0)

/* As QD_TRY, with the clean-up at `label`; the function keeps its result in `status`. */
#define QD_TRY_GOTO(status, label, call)                        \
  do {                                                          \
    (status) = (call);                                          \
    if ((status) != QD_OK) {                                    \
      (status) = qd_forward((status), __FILE__, __LINE__);      \
      goto label;                                               \
    }                                                           \
  } while (0)

#endif
