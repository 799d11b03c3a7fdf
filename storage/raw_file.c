#define _GNU_SOURCE
#include "storage/raw_file.h"

#include "kernels/base/heap.h"
#include "storage/bytes.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static qd_status keep_path(const char *path, qd_raw_file *out) {
  *out = (qd_raw_file){.fd = -1};
  return qd_heap_text(path, strlen(path), &out->path);
}

static qd_status check_folder(const char *folder) {
  struct stat facts;
  bool there = stat(folder, &facts) == 0;
  QD_CHECK(there || (errno != ENOENT && errno != ENOTDIR), QD_ENOTFOUND, "there is no folder %s", folder);
  QD_CHECK(there, QD_EIO, "cannot look at the folder %s: %s", folder, strerror(errno));
  QD_CHECK(S_ISDIR(facts.st_mode), QD_ENOTFOUND, "%s is a file, a folder is wanted there", folder);
  return QD_OK;
}

/* Where a file cannot be made without a name it loses its name at once: between the two calls alone a kill would leave it. */
static int open_and_unlink(const char *folder) {
  static atomic_uint count;
  char name[64], *path = NULL;
  snprintf(name, sizeof name, "qdist.%ld-%u.tmp", (long)getpid(), atomic_fetch_add(&count, 1));
  if (qd_path_join(folder, name, &path) != QD_OK) return errno = ENOMEM, -1;
  int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600), error = errno;
  if (fd >= 0) unlink(path);
  qd_heap_free(path);
  errno = error;
  return fd;
}

/* A disk that fills in the middle of a job is found here, before it; on file systems that cannot reserve, when it happens. */
static qd_status reserve(const qd_raw_file *file, uint64_t bytes) {
  QD_CHECK(bytes <= INT64_MAX, QD_EIO, "a file of %" PRIu64 " bytes in %s is more than any disk has", bytes, file->path);
  if (bytes == 0) return QD_OK;
  int rc;
  do rc = fallocate(file->fd, 0, 0, (off_t)bytes);
  while (rc != 0 && errno == EINTR);
  bool cannot = rc != 0 && (errno == EOPNOTSUPP || errno == ENOSYS);
  QD_CHECK(rc == 0 || cannot, QD_EIO, "cannot reserve %" PRIu64 " bytes in %s: %s", bytes, file->path, strerror(errno));
  return QD_OK;
}

static qd_status open_nameless(const char *folder, uint64_t bytes, qd_raw_file *out) {
  QD_TRY(keep_path(folder, out));
  QD_TRY(check_folder(folder));
#ifdef O_TMPFILE
  out->fd = open(folder, O_TMPFILE | O_RDWR | O_EXCL | O_CLOEXEC, 0600);
#endif
  if (out->fd < 0) out->fd = open_and_unlink(folder);
  out->open = out->fd >= 0;
  QD_CHECK(out->open, QD_EIO, "cannot make a file in %s: %s", folder, strerror(errno));
  return reserve(out, bytes);
}

qd_status qd_raw_file_nameless(const char *folder, uint64_t bytes, qd_raw_file *out) {
  qd_status status = open_nameless(folder, bytes, out);
  if (status == QD_OK) return QD_OK;
  qd_raw_file_close(out);
  return qd_forward(status, __FILE__, __LINE__);
}

static qd_status create(const char *path, qd_raw_file *out) {
  QD_TRY(keep_path(path, out));
  out->fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  out->open = out->fd >= 0;
  QD_CHECK(out->open, QD_EIO, "cannot make %s: %s", path, strerror(errno));
  return QD_OK;
}

qd_status qd_raw_file_create(const char *path, qd_raw_file *out) {
  qd_status status = create(path, out);
  if (status == QD_OK) return QD_OK;
  qd_raw_file_close(out);
  return qd_forward(status, __FILE__, __LINE__);
}

qd_status qd_raw_file_write(const qd_raw_file *file, uint64_t offset, const void *data, size_t n) {
  const unsigned char *next = data;
  for (size_t done = 0; done < n;) {
    ssize_t put = pwrite(file->fd, next + done, n - done, (off_t)(offset + done));
    if (put < 0 && errno == EINTR) continue;
    QD_CHECK(put > 0, QD_EIO, "cannot write %zu bytes to %s: %s", n - done, file->path, strerror(put < 0 ? errno : ENOSPC));
    done += (size_t)put;
  }
  return QD_OK;
}

qd_status qd_raw_file_read(const qd_raw_file *file, uint64_t offset, void *to, size_t n) {
  unsigned char *next = to;
  for (size_t done = 0; done < n;) {
    ssize_t got = pread(file->fd, next + done, n - done, (off_t)(offset + done));
    if (got < 0 && errno == EINTR) continue;
    QD_CHECK(got >= 0, QD_EIO, "cannot read %s: %s", file->path, strerror(errno));
    QD_CHECK(got > 0, QD_EIO, "%s ends before byte %" PRIu64, file->path, offset + n);
    done += (size_t)got;
  }
  return QD_OK;
}

qd_status qd_raw_file_finish(qd_raw_file *file) {
  int rc = close(file->fd), error = errno;
  file->open = false;
  qd_status status = QD_OK;
  if (rc != 0 && error != EINTR)
    status = qd_fail(QD_EIO, __FILE__, __LINE__, "cannot write %s: %s", file->path, strerror(error));
  qd_raw_file_close(file);
  return status;
}

void qd_raw_file_close(qd_raw_file *file) {
  if (file->open) close(file->fd);
  qd_heap_free(file->path);
  *file = (qd_raw_file){0};
}
