#include "kernels/base/task.h"

#include <criterion/criterion.h>

static qd_status double_it(void *context) {
  int *n = context;
  *n *= 2;
  return QD_OK;
}

static qd_status fail_with_text(void *context) { QD_FAIL(QD_EIO, "the disk of %s is full", (const char *)context); }

Test(task, work_is_done_when_waited_for) {
  int n = 21;
  qd_task task = {0};
  cr_assert_eq(qd_task_start(&task, double_it, &n), QD_OK);
  cr_assert_eq(qd_task_wait(&task), QD_OK);
  cr_assert_eq(n, 42);
  double worked = task.work_seconds;
  cr_assert_gt(worked, 0);
  cr_assert_eq(qd_task_wait(&task), QD_OK, "nothing was started since");
  cr_assert_eq(task.work_seconds, worked);
}

Test(task, a_failure_comes_over_with_its_text_once) {
  char name[] = "rank 3";
  qd_task task = {0};
  cr_assert_eq(qd_task_start(&task, fail_with_text, name), QD_OK);
  cr_assert_eq(qd_task_wait(&task), QD_EIO);
  cr_assert_str_eq(qd_error_text(), "the disk of rank 3 is full");
  cr_assert_eq(qd_task_wait(&task), QD_OK);
  int n = 1;
  cr_assert_eq(qd_task_start(&task, double_it, &n), QD_OK, "the next one starts afresh");
  cr_assert_eq(qd_task_wait(&task), QD_OK);
}

Test(task, closing_waits) {
  int n = 4;
  qd_task task = {0};
  cr_assert_eq(qd_task_start(&task, double_it, &n), QD_OK);
  qd_task_close(&task);
  cr_assert_eq(n, 8);
  qd_task_close(&task);
}
