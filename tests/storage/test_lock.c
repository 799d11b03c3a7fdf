#define _POSIX_C_SOURCE 200809L
#include "storage/store.h"

#include "tests/support/store_maker.h"

#include <signal.h>
#include <sys/wait.h>

static qd_temporary_folder folder;
static void setup(void) { qd_temporary_folder_open(&folder); }
static void teardown(void) { qd_temporary_folder_close(&folder); }
TestSuite(lock, .init = setup, .fini = teardown);

/* A child that holds the lock until it is told to end by a byte in `to`, or is killed. */
typedef struct holder {
  pid_t pid;
  int   to;
} holder;

static void hold(int ready, int to, bool release) {
  qd_store_lock lock;
  char byte = 'n';
  if (qd_store_lock_take(folder.path, "host a, pid 77, job 5\n", &lock) == QD_OK) byte = 'y';
  if (write(ready, &byte, 1) != 1 || read(to, &byte, 1) != 1) _exit(1);
  if (release) qd_store_lock_release(&lock);
  _exit(0);
}

static holder start_holder(bool release) {
  int ready[2], to[2];
  cr_assert(pipe(ready) == 0 && pipe(to) == 0);
  holder child = {.pid = fork(), .to = to[1]};
  cr_assert_geq(child.pid, 0);
  if (child.pid == 0) hold(ready[1], to[0], release);
  char byte = 0;
  cr_assert_eq(read(ready[0], &byte, 1), 1);
  cr_assert_eq(byte, 'y');
  return child;
}

static void end_holder(holder child, bool by_force) {
  if (by_force) cr_assert_eq(kill(child.pid, SIGKILL), 0);
  else cr_assert_eq(write(child.to, "e", 1), 1);
  cr_assert_eq(waitpid(child.pid, NULL, 0), child.pid);
}

static void check_can_be_taken(const char *text) {
  qd_store_lock lock;
  size_t n;
  char there[256];
  MUST(qd_store_lock_take(folder.path, text, &lock));
  cr_assert_eq(lseek(lock.fd, 0, SEEK_SET), 0); /* not by another descriptor: closing that would give the lock up */
  n = (size_t)read(lock.fd, there, sizeof there);
  cr_assert(n == strlen(text) && memcmp(there, text, n) == 0);
  qd_store_lock_release(&lock);
  cr_assert_not(qd_file_exists(qd_temporary_path(&folder, "job.lock")));
}

Test(lock, is_there_while_held_and_gone_afterwards) {
  check_can_be_taken("host b, pid 1");
  check_can_be_taken("");
}

Test(lock, held_by_a_live_process_is_refused_with_its_text) {
  qd_store_lock lock;
  holder child = start_holder(true);
  cr_assert_eq(qd_store_lock_take(folder.path, "mine", &lock), QD_EEXIST);
  cr_assert(strstr(qd_error_text(), "host a, pid 77, job 5 ("), "%s", qd_error_text());
  cr_assert(strstr(qd_error_text(), folder.path));
  qd_store_lock_release(&lock);
  cr_assert(qd_file_exists(qd_temporary_path(&folder, "job.lock")));
  end_holder(child, false);
  cr_assert_not(qd_file_exists(qd_temporary_path(&folder, "job.lock")));
  check_can_be_taken("mine");
}

Test(lock, of_a_dead_process_is_taken_over) {
  end_holder(start_holder(true), true);
  cr_assert(qd_file_exists(qd_temporary_path(&folder, "job.lock")));
  check_can_be_taken("shorter");
}

Test(lock, file_of_a_machine_that_went_down_is_taken_over) {
  qd_temporary_write_text(&folder, "job.lock", "host gone, pid 123456, job 9, and more text than the next one has");
  check_can_be_taken("host b");
}

/* Several processes want it over and over: there is never more than one that has it. */
static void compete(void) {
  char path[QD_TEMPORARY_PATH_BYTES];
  strcpy(path, qd_temporary_path(&folder, "inside"));
  for (int taken = 0; taken < 300;) {
    qd_store_lock lock;
    qd_status status = qd_store_lock_take(folder.path, "competitor", &lock);
    if (status == QD_EEXIST) continue;
    int inside = status == QD_OK ? open(path, O_CREAT | O_EXCL | O_WRONLY, 0600) : -1;
    if (inside < 0) _exit(1);
    close(inside);
    unlink(path);
    qd_store_lock_release(&lock);
    taken++;
  }
  _exit(0);
}

Test(lock, is_never_held_twice) {
  enum { COMPETITORS = 4 };
  pid_t child[COMPETITORS];
  for (int i = 0; i < COMPETITORS; i++) {
    child[i] = fork();
    cr_assert_geq(child[i], 0);
    if (child[i] == 0) compete();
  }
  for (int i = 0; i < COMPETITORS; i++) {
    int end;
    cr_assert_eq(waitpid(child[i], &end, 0), child[i]);
    cr_assert(WIFEXITED(end) && WEXITSTATUS(end) == 0);
  }
}

Test(lock, a_folder_that_is_not_there_is_named) {
  qd_store_lock lock;
  const char *gone = qd_temporary_path(&folder, "gone");
  cr_assert_eq(qd_store_lock_take(gone, "text", &lock), QD_EIO);
  cr_assert(strstr(qd_error_text(), "gone/job.lock") && strstr(qd_error_text(), "No such file"));
  qd_store_lock_release(&lock);
}

Test(lock, a_link_in_its_place_is_not_followed) {
  qd_store_lock lock;
  char target[QD_TEMPORARY_PATH_BYTES];
  strcpy(target, qd_temporary_write_text(&folder, "precious", "text"));
  cr_assert_eq(symlink(target, qd_temporary_path(&folder, "job.lock")), 0);
  cr_assert_eq(qd_store_lock_take(folder.path, "text", &lock), QD_EIO);
  size_t n;
  qd_heap_free(made_read(target, &n));
  cr_assert_eq(n, 4);
}
