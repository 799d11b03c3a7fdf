/* Lines for people.  Only rank 0 prints to the terminal; every line goes to the log file when one is open. */
#ifndef QDIST_KERNELS_BASE_LOG_H
#define QDIST_KERNELS_BASE_LOG_H

#include "kernels/base/status.h"

typedef enum qd_log_level { QD_LOG_QUIET, QD_LOG_NORMAL, QD_LOG_VERBOSE } qd_log_level;

void qd_log_level_set(qd_log_level level);
void qd_log_terminal(bool on);                                 /* off on ranks other than 0                         */
qd_status qd_log_open(const char *path) QD_MUST_USE;           /* appends, first the lines of before; one a process */
void qd_log_close(void);

void qd_log(const char *format, ...) __attribute__((format(printf, 1, 2)));         /* terminal and file            */
void qd_log_warning(const char *format, ...) __attribute__((format(printf, 1, 2))); /* the same, with "warning: "   */
void qd_log_file(const char *format, ...) __attribute__((format(printf, 1, 2)));    /* file only                    */

enum { QD_TIME_TEXT_BYTES = 32 };
void qd_time_text(char text[QD_TIME_TEXT_BYTES]); /* now, in UTC: "2030-01-31T12:00:00Z" */

double qd_seconds(void);     /* a monotonic clock, for what is told to people; never decides anything */
double qd_cpu_seconds(void); /* what this thread has had of a core */

#endif
