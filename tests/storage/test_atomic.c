#define _GNU_SOURCE
#include "storage/atomic.h"

#include "kernels/base/heap.h"
#include "storage/bytes.h"
#include "tests/support/temporary_folder.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The program's own write, fsync and rename: they can be interrupted, come short, fail, and say what was called. */
static size_t write_at_most, disk_left = SIZE_MAX;
static int write_interruptions, fsync_error, fsync_error_after, fsyncs, rename_error, renames, fsyncs_before_rename;

ssize_t write(int fd, const void *from, size_t n) {
  struct stat facts;
  if (fstat(fd, &facts) != 0 || !S_ISREG(facts.st_mode)) return syscall(SYS_write, fd, from, n); /* the test runner's pipes */
  if (write_interruptions > 0) return write_interruptions--, errno = EINTR, -1;
  if (write_at_most > 0 && n > write_at_most) n = write_at_most;
  if (disk_left == 0 && n > 0) return errno = ENOSPC, -1;
  if (n > disk_left) n = disk_left;
  ssize_t put = syscall(SYS_write, fd, from, n);
  if (put > 0 && disk_left != SIZE_MAX) disk_left -= (size_t)put;
  return put;
}

int fsync(int fd) {
  if (fsync_error != 0 && fsyncs++ >= fsync_error_after) return errno = fsync_error, -1;
  return (int)syscall(SYS_fsync, fd);
}

int rename(const char *from, const char *to) {
  renames++;
  fsyncs_before_rename = fsyncs;
  if (rename_error != 0) return errno = rename_error, -1;
  return (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
}

static qd_temporary_folder folder;
static char temporary[QD_TEMPORARY_PATH_BYTES];

static void open_folder(void) {
  qd_temporary_folder_open(&folder);
  cr_assert_eq(chmod(folder.path, 0755), 0); /* some tests are another user for a while */
  strcpy(temporary, qd_temporary_make_folder(&folder, "partial"));
}

static void close_folder(void) { qd_temporary_folder_close(&folder); }

TestSuite(atomic, .init = open_folder, .fini = close_folder);

static void expect_refusal(qd_status got, qd_status expected, const char *first, const char *second) {
  cr_assert_eq(got, expected, "%s: %s", qd_status_name(got), qd_error_text());
  cr_assert(strstr(qd_error_text(), first) != NULL, "\"%s\" is not in: %s", first, qd_error_text());
  cr_assert(strstr(qd_error_text(), second) != NULL, "\"%s\" is not in: %s", second, qd_error_text());
}

static void expect_text(const char *name, const char *expected, size_t expected_n) {
  char *text;
  size_t n;
  cr_assert_eq(qd_file_read(qd_temporary_path(&folder, name), 1 << 30, &text, &n), QD_OK, "%s", qd_error_text());
  cr_assert_eq(n, expected_n);
  cr_assert_eq(memcmp(text, expected, n), 0);
  qd_heap_free(text);
}

static int entries(const char *path) {
  int n = 0;
  DIR *open_path = opendir(path);
  cr_assert_not_null(open_path);
  for (struct dirent *entry; (entry = readdir(open_path)) != NULL;) n += entry->d_name[0] != '.';
  closedir(open_path);
  return n;
}

Test(atomic, writes_and_replaces) {
  cr_assert_eq(qd_atomic_write(folder.path, temporary, "a file", "one", 3), QD_OK, "%s", qd_error_text());
  expect_text("a file", "one", 3);
  cr_assert_eq(qd_atomic_write(folder.path, temporary, "a file", "second", 6), QD_OK);
  expect_text("a file", "second", 6);
  cr_assert_eq(qd_atomic_write(folder.path, temporary, "a file", NULL, 0), QD_OK);
  expect_text("a file", "", 0);
  cr_assert_eq(entries(temporary), 0);
}

Test(atomic, gives_the_usual_permissions) {
  struct stat facts;
  umask(027);
  cr_assert_eq(qd_atomic_write(folder.path, temporary, "file", "x", 1), QD_OK);
  cr_assert_eq(stat(qd_temporary_path(&folder, "file"), &facts), 0);
  cr_assert_eq(facts.st_mode & 0777, 0640);
}

Test(atomic, goes_on_after_interruptions_and_short_writes) {
  char data[1000];
  for (size_t i = 0; i < sizeof data; i++) data[i] = (char)(i * 11);
  write_interruptions = 3;
  write_at_most = 7;
  cr_assert_eq(qd_atomic_write(folder.path, temporary, "file", data, sizeof data), QD_OK);
  cr_assert_eq(write_interruptions, 0);
  write_at_most = 0;
  expect_text("file", data, sizeof data);
}

Test(atomic, leaves_the_old_file_when_the_disk_is_full) {
  cr_assert_eq(qd_atomic_write(folder.path, temporary, "file", "old", 3), QD_OK);
  disk_left = 4;
  expect_refusal(qd_atomic_write(folder.path, temporary, "file", "a new one", 9), QD_EIO, temporary, strerror(ENOSPC));
  expect_text("file", "old", 3);
  cr_assert_eq(entries(temporary), 0);
}

Test(atomic, reports_what_fsync_reports) {
  fsync_error = EIO;
  expect_refusal(qd_atomic_write(folder.path, temporary, "file", "x", 1), QD_EIO, temporary, strerror(EIO));
  cr_assert_not(qd_file_exists(qd_temporary_path(&folder, "file")));
  cr_assert_eq(entries(temporary), 0);
}

Test(atomic, syncs_the_file_before_the_rename_and_the_folder_after) {
  fsync_error = EDQUOT;
  fsync_error_after = 1; /* the second fsync is the folder's */
  expect_refusal(qd_atomic_write(folder.path, temporary, "file", "x", 1), QD_EIO, folder.path, strerror(EDQUOT));
  cr_assert_eq(renames, 1);
  cr_assert_eq(fsyncs_before_rename, 1);
  expect_text("file", "x", 1);
}

Test(atomic, bears_file_systems_without_fsync_for_folders) {
  fsync_error = EINVAL;
  fsync_error_after = 1;
  cr_assert_eq(qd_atomic_write(folder.path, temporary, "file", "x", 1), QD_OK);
}

Test(atomic, removes_its_temporary_when_the_rename_fails) {
  rename_error = EXDEV;
  expect_refusal(qd_atomic_write(folder.path, temporary, "file", "x", 1), QD_EIO, "/file", strerror(EXDEV));
  cr_assert_eq(entries(temporary), 0);
  rename_error = 0;
  qd_temporary_make_folder(&folder, "taken");
  expect_refusal(qd_atomic_write(folder.path, temporary, "taken", "x", 1), QD_EIO, "/taken", strerror(EISDIR));
  cr_assert_eq(entries(temporary), 0);
}

Test(atomic, names_the_folder_that_is_missing_or_closed) {
  const char *none = qd_temporary_path(&folder, "none");
  expect_refusal(qd_atomic_write(folder.path, none, "file", "x", 1), QD_EIO, none, strerror(ENOENT));
  expect_refusal(qd_atomic_write(none, temporary, "file", "x", 1), QD_EIO, none, strerror(ENOENT));
  cr_assert_eq(entries(temporary), 0);
  cr_assert_eq(chmod(temporary, 0555), 0);
  if (geteuid() == 0) cr_assert_eq(seteuid(65534), 0);
  expect_refusal(qd_atomic_write(folder.path, temporary, "file", "x", 1), QD_EIO, temporary, strerror(EACCES));
  if (getuid() == 0) cr_assert_eq(seteuid(0), 0);
}

Test(atomic, refuses_a_name_that_is_too_long) {
  char name[300];
  memset(name, 'n', sizeof name - 1);
  name[sizeof name - 1] = '\0';
  expect_refusal(qd_atomic_write(folder.path, temporary, name, "x", 1), QD_EINVAL, "nnnn", "200");
}

Test(atomic, writes_any_number_of_bytes) {
  const size_t sizes[] = {0, 1, 1 << 20, (2 << 20) + 5};
  char *data;
  cr_assert_eq(qd_heap_new((2 << 20) + 5, 1, &data), QD_OK);
  for (size_t i = 0; i < (2 << 20) + 5; i++) data[i] = (char)(i * i >> 9);
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    cr_assert_eq(qd_atomic_write(folder.path, temporary, "to", data, sizes[i]), QD_OK, "%s", qd_error_text());
    expect_text("to", data, sizes[i]);
  }
  qd_heap_free(data);
  cr_assert_eq(entries(temporary), 0);
}

Test(atomic, publishes_a_finished_file) {
  const char *finished = qd_temporary_write_text(&folder, "partial/finished", "text");
  cr_assert_eq(qd_atomic_publish(finished, folder.path, "published"), QD_OK);
  expect_text("published", "text", 4);
  cr_assert_eq(entries(temporary), 0);
  expect_refusal(qd_atomic_publish(finished, folder.path, "published"), QD_EIO, finished, strerror(ENOENT));
  fsync_error = EIO;
  finished = qd_temporary_write_text(&folder, "partial/finished", "text 2");
  expect_refusal(qd_atomic_publish(finished, folder.path, "published"), QD_EIO, finished, strerror(EIO));
  expect_text("published", "text", 4);
}

Test(atomic, makes_folders_with_their_parents) {
  const char *const names[] = {"a/b c/é", "a/b c/é", "a//x/", "partial", "./a/../d"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    cr_assert_eq(qd_folder_make(qd_temporary_path(&folder, names[i])), QD_OK, "%s: %s", names[i], qd_error_text());
    struct stat facts;
    cr_assert_eq(stat(qd_temporary_path(&folder, names[i]), &facts), 0);
    cr_assert(S_ISDIR(facts.st_mode));
  }
  cr_assert_eq(chdir(folder.path), 0);
  cr_assert_eq(qd_folder_make("relative"), QD_OK, "%s", qd_error_text());
  cr_assert(qd_file_exists(qd_temporary_path(&folder, "relative")));
  cr_assert_eq(qd_folder_make("/"), QD_OK, "%s", qd_error_text());
  cr_assert_eq(qd_folder_make(""), QD_EINVAL);
}

Test(atomic, says_why_a_folder_cannot_be_made) {
  const char *file = qd_temporary_write_text(&folder, "file", "");
  expect_refusal(qd_folder_make(file), QD_EEXIST, file, "is a file");
  expect_refusal(qd_folder_make(qd_temporary_path(&folder, "file/in")), QD_EEXIST, file, "is a file");
  const char *nothing = qd_temporary_path(&folder, "nothing");
  cr_assert_eq(symlink("nowhere", nothing), 0);
  expect_refusal(qd_folder_make(nothing), QD_EEXIST, nothing, "link to nothing");
  cr_assert_eq(chmod(temporary, 0555), 0);
  if (geteuid() == 0) cr_assert_eq(seteuid(65534), 0);
  expect_refusal(qd_folder_make(qd_temporary_path(&folder, "partial/x")), QD_EIO, "partial/x", strerror(EACCES));
  if (getuid() == 0) cr_assert_eq(seteuid(0), 0);
}

Test(atomic, a_link_to_a_folder_is_a_folder) {
  cr_assert_eq(symlink("partial", qd_temporary_path(&folder, "link")), 0);
  cr_assert_eq(qd_folder_make(qd_temporary_path(&folder, "link/deeper")), QD_OK, "%s", qd_error_text());
  cr_assert(qd_file_exists(qd_temporary_path(&folder, "partial/deeper")));
}

Test(atomic, removes_a_whole_tree) {
  cr_assert_eq(qd_folder_make(qd_temporary_path(&folder, "tree/a/b/c")), QD_OK);
  for (int i = 0; i < 300; i++) {
    char name[32];
    snprintf(name, sizeof name, "tree/a/%d", i);
    qd_temporary_write_text(&folder, name, "x");
  }
  qd_temporary_write_text(&folder, "tree/a/b/c/.hidden", "x");
  cr_assert_eq(qd_folder_remove(qd_temporary_path(&folder, "tree")), QD_OK, "%s", qd_error_text());
  cr_assert_not(qd_file_exists(qd_temporary_path(&folder, "tree")));
  cr_assert_eq(qd_folder_remove(qd_temporary_path(&folder, "tree")), QD_OK);
  cr_assert(qd_file_exists(temporary));
}

Test(atomic, follows_no_links_when_removing) {
  cr_assert_eq(qd_folder_make(qd_temporary_path(&folder, "kept")), QD_OK);
  qd_temporary_write_text(&folder, "kept/file", "x");
  cr_assert_eq(qd_folder_make(qd_temporary_path(&folder, "tree")), QD_OK);
  cr_assert_eq(symlink("../kept", qd_temporary_path(&folder, "tree/to a folder")), 0);
  cr_assert_eq(symlink("../kept/file", qd_temporary_path(&folder, "tree/to a file")), 0);
  cr_assert_eq(symlink("nowhere", qd_temporary_path(&folder, "tree/dangling")), 0);
  cr_assert_eq(symlink("kept", qd_temporary_path(&folder, "link")), 0);
  cr_assert_eq(qd_folder_remove(qd_temporary_path(&folder, "tree")), QD_OK, "%s", qd_error_text());
  cr_assert_not(qd_file_exists(qd_temporary_path(&folder, "tree")));
  cr_assert_eq(qd_folder_remove(qd_temporary_path(&folder, "link/")), QD_OK, "%s", qd_error_text());
  cr_assert_not(qd_file_exists(qd_temporary_path(&folder, "link")));
  expect_text("kept/file", "x", 1);
}

Test(atomic, does_not_remove_a_file_for_a_folder) {
  const char *file = qd_temporary_write_text(&folder, "file", "x");
  expect_refusal(qd_folder_remove(file), QD_EIO, file, "is a file");
  expect_text("file", "x", 1);
}

Test(atomic, names_what_cannot_be_removed) {
  cr_assert_eq(qd_folder_make(qd_temporary_path(&folder, "tree/closed")), QD_OK);
  qd_temporary_write_text(&folder, "tree/closed/file", "x");
  cr_assert_eq(chmod(qd_temporary_path(&folder, "tree/closed"), 0555), 0);
  if (geteuid() == 0) cr_assert_eq(seteuid(65534), 0);
  expect_refusal(qd_folder_remove(qd_temporary_path(&folder, "tree")), QD_EIO, "tree/closed/file", strerror(EACCES));
  if (getuid() == 0) cr_assert_eq(seteuid(0), 0);
}
