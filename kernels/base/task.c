#include "kernels/base/task.h"

#include "kernels/base/log.h"

#include <stdio.h>
#include <string.h>

static void *task_main(void *argument) {
  qd_task *task = argument;
  task->begun = qd_seconds();
  task->status = task->work(task->context);
  task->ended = qd_seconds();
  if (task->status != QD_OK) snprintf(task->text, sizeof task->text, "%s", qd_error_text());
  return NULL;
}

qd_status qd_task_start(qd_task *task, qd_status (*work)(void *context), void *context) {
  QD_ASSERT(!task->running);
  task->work = work, task->context = context;
  task->status = QD_OK, task->text[0] = '\0';
  int error = pthread_create(&task->thread, NULL, task_main, task);
  task->running = error == 0; /* before the check: an injected fault must not leave a thread that nobody waits for */
  QD_CHECK(error == 0, QD_ENOMEM, "cannot start a thread: %s", strerror(error));
  return QD_OK;
}

static void join(qd_task *task) {
  if (!task->running) return;
  double begin = qd_seconds();
  pthread_join(task->thread, NULL);
  task->running = false;
  task->wait_seconds += qd_seconds() - begin;
  task->work_seconds += task->ended - task->begun;
}

qd_status qd_task_wait(qd_task *task) {
  join(task);
  qd_status status = task->status;
  task->status = QD_OK;
  if (status != QD_OK) QD_FAIL(status, "%s", task->text[0] ? task->text : qd_status_text(status));
  return QD_OK;
}

void qd_task_close(qd_task *task) {
  join(task);
  task->status = QD_OK;
}
