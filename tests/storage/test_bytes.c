#define _GNU_SOURCE
#include "storage/bytes.h"

#include "kernels/base/heap.h"
#include "tests/support/temporary_folder.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The program's own pread: it can be interrupted, come short, and fail. */
static size_t pread_at_most;
static int pread_interruptions, pread_error;

ssize_t pread(int fd, void *to, size_t n, off_t offset) {
  if (pread_interruptions > 0) return pread_interruptions--, errno = EINTR, -1;
  if (pread_error != 0) return errno = pread_error, -1;
  if (pread_at_most > 0 && n > pread_at_most) n = pread_at_most;
  return syscall(SYS_pread64, fd, to, n, offset);
}

static qd_temporary_folder folder;
static void open_folder(void) {
  qd_temporary_folder_open(&folder);
  cr_assert_eq(chmod(folder.path, 0755), 0); /* a test is another user for a while */
}
static void close_folder(void) { qd_temporary_folder_close(&folder); }

TestSuite(bytes, .init = open_folder, .fini = close_folder);

static void expect_refusal(qd_status got, qd_status expected, const char *first, const char *second) {
  cr_assert_eq(got, expected, "%s: %s", qd_status_name(got), qd_error_text());
  cr_assert(strstr(qd_error_text(), first) != NULL, "\"%s\" is not in: %s", first, qd_error_text());
  cr_assert(strstr(qd_error_text(), second) != NULL, "\"%s\" is not in: %s", second, qd_error_text());
}

static void expect_pattern(const unsigned char *got, size_t first, size_t n) {
  for (size_t i = 0; i < n; i++) cr_assert_eq(got[i], (unsigned char)((first + i) * 7 + 3), "byte %zu", first + i);
}

static const char *pattern_file(size_t n) {
  unsigned char data[5000];
  for (size_t i = 0; i < n; i++) data[i] = (unsigned char)(i * 7 + 3);
  return qd_temporary_write(&folder, "pattern", data, n);
}

Test(bytes, reads_any_range_of_a_file) {
  unsigned char to[5000];
  qd_bytes bytes;
  const char *path = pattern_file(5000);
  cr_assert_eq(qd_bytes_open_file(path, &bytes), QD_OK);
  cr_assert_eq(bytes.size, 5000);
  cr_assert_str_eq(bytes.name, path);
  const size_t ranges[][2] = {{0, 5000}, {0, 1}, {4999, 1}, {17, 4000}, {5000, 0}, {0, 0}};
  for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++) {
    cr_assert_eq(qd_bytes_read(&bytes, ranges[i][0], to, ranges[i][1]), QD_OK);
    expect_pattern(to, ranges[i][0], ranges[i][1]);
  }
  qd_bytes_close(&bytes);
  qd_bytes_close(&bytes);
}

Test(bytes, goes_on_after_interruptions_and_short_reads) {
  unsigned char to[5000];
  qd_bytes bytes;
  cr_assert_eq(qd_bytes_open_file(pattern_file(5000), &bytes), QD_OK);
  pread_interruptions = 3;
  pread_at_most = 7;
  cr_assert_eq(qd_bytes_read(&bytes, 1, to, 4999), QD_OK);
  cr_assert_eq(pread_interruptions, 0);
  expect_pattern(to, 1, 4999);
  pread_error = EIO;
  expect_refusal(qd_bytes_read(&bytes, 0, to, 1), QD_EIO, folder.path, strerror(EIO));
  qd_bytes_close(&bytes);
}

Test(bytes, refuses_a_range_outside_before_reading) {
  unsigned char to[8];
  qd_bytes bytes;
  cr_assert_eq(qd_bytes_open_file(pattern_file(100), &bytes), QD_OK);
  pread_error = EIO; /* would show as QD_EIO */
  expect_refusal(qd_bytes_read(&bytes, 99, to, 2), QD_EBADINPUT, "pattern", "100");
  expect_refusal(qd_bytes_read(&bytes, 101, to, 0), QD_EBADINPUT, "pattern", "101");
  expect_refusal(qd_bytes_read(&bytes, UINT64_MAX, to, 2), QD_EBADINPUT, "pattern", "18446744073709551615");
  expect_refusal(qd_bytes_read(&bytes, 2, to, SIZE_MAX), QD_EBADINPUT, "pattern", "100");
  qd_bytes_close(&bytes);
}

Test(bytes, says_so_when_the_file_shrank) {
  unsigned char to[100];
  qd_bytes bytes;
  const char *path = pattern_file(100);
  cr_assert_eq(qd_bytes_open_file(path, &bytes), QD_OK);
  cr_assert_eq(truncate(path, 40), 0);
  expect_refusal(qd_bytes_read(&bytes, 0, to, 100), QD_EBADINPUT, path, "shrank");
  cr_assert_eq(qd_bytes_read(&bytes, 0, to, 40), QD_OK);
  qd_bytes_close(&bytes);
}

Test(bytes, refuses_what_is_no_file) {
  qd_bytes bytes;
  const char *none = qd_temporary_path(&folder, "none"), *below = qd_temporary_path(&folder, "pattern/x");
  pattern_file(1);
  expect_refusal(qd_bytes_open_file(none, &bytes), QD_ENOTFOUND, none, strerror(ENOENT));
  expect_refusal(qd_bytes_open_file(below, &bytes), QD_ENOTFOUND, below, strerror(ENOTDIR));
  expect_refusal(qd_bytes_open_file(folder.path, &bytes), QD_EIO, folder.path, "folder");
  expect_refusal(qd_bytes_open_file("/dev/null", &bytes), QD_EIO, "/dev/null", "not a regular file");
  const char *pipe_path = qd_temporary_path(&folder, "pipe"); /* no one writes to it: opening must not wait */
  cr_assert_eq(mkfifo(pipe_path, 0600), 0);
  expect_refusal(qd_bytes_open_file(pipe_path, &bytes), QD_EIO, pipe_path, "not a regular file");
  qd_bytes_close(&bytes);
}

Test(bytes, names_a_missing_permission) {
  qd_bytes bytes;
  const char *path = pattern_file(10);
  cr_assert_eq(chmod(path, 0), 0);
  if (geteuid() == 0) cr_assert_eq(seteuid(65534), 0); /* root may read anything */
  expect_refusal(qd_bytes_open_file(path, &bytes), QD_EIO, path, strerror(EACCES));
  if (getuid() == 0) cr_assert_eq(seteuid(0), 0);
}

Test(bytes, reads_memory) {
  qd_bytes bytes;
  char to[6] = "";
  cr_assert_eq(qd_bytes_open_memory("hello", 5, "a greeting", &bytes), QD_OK);
  cr_assert_eq(qd_bytes_read(&bytes, 1, to, 4), QD_OK);
  cr_assert_str_eq(to, "ello");
  cr_assert_eq(qd_bytes_read(&bytes, 5, NULL, 0), QD_OK);
  expect_refusal(qd_bytes_read(&bytes, 3, to, 3), QD_EBADINPUT, "a greeting", "5");
  qd_bytes_close(&bytes);
  cr_assert_eq(qd_bytes_open_memory(NULL, 0, "nothing", &bytes), QD_OK);
  cr_assert_eq(qd_bytes_read(&bytes, 0, NULL, 0), QD_OK);
  qd_bytes_close(&bytes);
}

Test(bytes, tells_a_changed_file_from_the_same) {
  qd_file_identity a, b;
  const char *path = pattern_file(100);
  cr_assert_eq(qd_file_identify(path, &a), QD_OK);
  cr_assert_eq(qd_file_identify(path, &b), QD_OK);
  cr_assert_eq(memcmp(&a, &b, sizeof a), 0);
  cr_assert_eq(a.size, 100);
  struct stat facts;
  cr_assert_eq(stat(path, &facts), 0);
  cr_assert_eq(a.inode, facts.st_ino);
  cr_assert_eq(a.mtime_ns, (int64_t)facts.st_mtim.tv_sec * 1000000000 + facts.st_mtim.tv_nsec);
  cr_assert_eq(a.ctime_ns, (int64_t)facts.st_ctim.tv_sec * 1000000000 + facts.st_ctim.tv_nsec);
  cr_assert_eq(truncate(path, 99), 0);
  cr_assert_eq(qd_file_identify(path, &b), QD_OK);
  cr_assert_eq(b.size, 99);
  expect_refusal(qd_file_identify(qd_temporary_path(&folder, "none"), &a), QD_ENOTFOUND, "none", strerror(ENOENT));
}

Test(bytes, reads_a_whole_file_within_its_limit) {
  char *text;
  size_t n;
  const char *path = pattern_file(5000);
  cr_assert_eq(qd_file_read(path, 5000, &text, &n), QD_OK);
  cr_assert_eq(n, 5000);
  expect_pattern((const unsigned char *)text, 0, n);
  cr_assert_eq(text[n], '\0');
  qd_heap_free(text);
  expect_refusal(qd_file_read(path, 4999, &text, &n), QD_EBADINPUT, path, "5000 bytes, at most 4999");
  cr_assert_null(text);
  pread_error = EIO;
  expect_refusal(qd_file_read(path, 5000, &text, &n), QD_EIO, path, strerror(EIO));
  cr_assert_null(text);
  pread_error = 0;
  cr_assert_eq(qd_file_read(qd_temporary_write_text(&folder, "empty", ""), 0, &text, &n), QD_OK);
  cr_assert_eq(n, 0);
  cr_assert_str_eq(text, "");
  qd_heap_free(text);
}

Test(bytes, knows_what_exists) {
  const char *path = pattern_file(1);
  cr_assert(qd_file_exists(path));
  cr_assert(qd_file_exists(folder.path));
  cr_assert_not(qd_file_exists(qd_temporary_path(&folder, "none")));
  cr_assert_eq(symlink("none", qd_temporary_path(&folder, "dangling")), 0);
  cr_assert_not(qd_file_exists(qd_temporary_path(&folder, "dangling")));
}

Test(bytes, joins_paths) {
  const char *const cases[][3] = {
      {"a", "b", "a/b"}, {"/a/b c", "d é", "/a/b c/d é"}, {"a/", "b", "a/b"}, {"/", "b", "/b"}, {"", "b", "b"}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    char *path;
    cr_assert_eq(qd_path_join(cases[i][0], cases[i][1], &path), QD_OK);
    cr_assert_str_eq(path, cases[i][2]);
    qd_heap_free(path);
  }
}
