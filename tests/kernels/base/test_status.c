#include "kernels/base/status.h"

#include <criterion/criterion.h>
#include <string.h>

static qd_status fail_here(int n) {
  QD_CHECK(n < 3, QD_ESHAPE, "n must be below %d, got %d", 3, n);
  return QD_OK;
}

static qd_status through(int n) {
  QD_TRY(fail_here(n));
  return QD_OK;
}

static qd_status with_cleanup(int n, int *cleaned) {
  qd_status status = QD_OK;
  QD_TRY_GOTO(status, done, fail_here(n));
done:
  ++*cleaned;
  return status;
}

Test(status, a_check_that_holds_says_nothing) {
  qd_error_clear();
  cr_assert_eq(through(2), QD_OK);
  cr_assert_str_empty(qd_error_text());
}

Test(status, a_failure_has_text_and_trace) {
  cr_assert_eq(through(7), QD_ESHAPE);
  cr_assert_str_eq(qd_error_text(), "n must be below 3, got 7");
  cr_assert_not_null(strstr(qd_error_trace(), "test_status.c"));
  cr_assert_not_null(strstr(qd_error_trace(), " < "), "the forwarding place is in the trace: %s", qd_error_trace());
}

Test(status, a_message_is_one_line_that_commands_no_terminal) {
  qd_status status = qd_fail(QD_EINVAL, "file.c", 1, "the tensor %s is strange", "a\nb\x1b[31m\x7f\xc3\xa9");
  cr_assert_eq(status, QD_EINVAL);
  cr_assert_str_eq(qd_error_text(), "the tensor a?b?[31m?\xc3\xa9 is strange");
}

Test(status, cleanup_runs_on_both_ways) {
  int cleaned = 0;
  cr_assert_eq(with_cleanup(1, &cleaned), QD_OK);
  cr_assert_eq(with_cleanup(9, &cleaned), QD_ESHAPE);
  cr_assert_eq(cleaned, 2);
}

Test(status, a_new_text_may_hold_the_old_one) {
  cr_assert_eq(fail_here(5), QD_ESHAPE);
  cr_assert_eq(qd_fail(QD_EIO, __FILE__, __LINE__, "q_proj: %s", qd_error_text()), QD_EIO);
  cr_assert_str_eq(qd_error_text(), "q_proj: n must be below 3, got 5");
}

Test(status, a_long_text_is_cut_not_overrun) {
  char text[10000];
  memset(text, 'x', sizeof text);
  text[sizeof text - 1] = '\0';
  cr_assert_eq(qd_fail(QD_EIO, __FILE__, __LINE__, "%s", text), QD_EIO);
  cr_assert_lt(strlen(qd_error_text()), sizeof text - 1);
}

Test(status, exit_codes_are_the_documented_ones) {
  cr_assert_eq(qd_status_exit_code(QD_OK), 0);
  cr_assert_eq(qd_status_exit_code(QD_EIO), 1);
  cr_assert_eq(qd_status_exit_code(QD_EUSAGE), 2);
  cr_assert_eq(qd_status_exit_code(QD_ECORRUPT), 3);
  cr_assert_eq(qd_status_exit_code(QD_ESTOPPED), 75);
  cr_assert_str_eq(qd_status_name(QD_ENUMERIC), "QD_ENUMERIC");
}
