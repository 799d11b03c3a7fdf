/* One piece of work in a thread of its own, whose failure is carried over to who waits for it: reading ahead, writing behind.
 */
#ifndef QDIST_KERNELS_BASE_TASK_H
#define QDIST_KERNELS_BASE_TASK_H

#include "kernels/base/status.h"

#include <pthread.h>

typedef struct qd_task {
  qd_status (*work)(void *context);
  void     *context;
  pthread_t thread;
  bool      running;
  qd_status status;
  char      text[4096]; /* error texts belong to threads */
  double    wait_seconds; /* how long qd_task_wait waited, in all */
  double    work_seconds; /* how long the work took that was waited for, in all */
  double    begun, ended; /* the thread's own until it was waited for */
} qd_task;

/* context is the task's alone until it was waited for.  The task must not be running. */
qd_status qd_task_start(qd_task *task, qd_status (*work)(void *context), void *context) QD_MUST_USE;

/* The work's status, its text set in this thread.  QD_OK at once when nothing was started since the last wait. */
qd_status qd_task_wait(qd_task *task) QD_MUST_USE;

void qd_task_close(qd_task *task); /* waits, whatever came of it */

#endif
