#define _POSIX_C_SOURCE 200809L
#include "storage/entry.h"

#include "kernels/base/heap.h"
#include "storage/bytes.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { TEXT_BYTES = 512 };

/* The holder's text, one line; "" if it cannot be read. */
static void read_text(int fd, char text[TEXT_BYTES]) {
  ssize_t n = pread(fd, text, TEXT_BYTES - 1, 0);
  text[n > 0 ? n : 0] = '\0';
  for (char *c = text; *c != '\0'; c++)
    if ((unsigned char)*c < ' ' || *c == 0x7f) *c = ' ';
  for (size_t end = strlen(text); end > 0 && text[end - 1] == ' '; end--) text[end - 1] = '\0';
}

static qd_status write_text(int fd, const char *path, const char *text) {
  size_t n = strlen(text);
  bool done = ftruncate(fd, 0) == 0 && pwrite(fd, text, n, 0) == (ssize_t)n;
  QD_CHECK(done, QD_EIO, "cannot write %s: %s", path, strerror(errno));
  return QD_OK;
}

static qd_status refuse(int fd, const char *path) {
  char text[TEXT_BYTES];
  read_text(fd, text);
  QD_FAIL(QD_EEXIST, "another job works in this folder: %s (%s)", text[0] != '\0' ? text : "it does not say which", path);
}

/* A lock on a file that its holder has just unlinked locks nothing: `*current` says whether the path still names it. */
static qd_status take_open(int fd, const char *path, bool *current) {
  struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
  int rc;
  while ((rc = fcntl(fd, F_SETLK, &whole)) != 0 && errno == EINTR) continue;
  if (rc != 0 && (errno == EACCES || errno == EAGAIN)) return refuse(fd, path);
  QD_CHECK(rc == 0, QD_EIO, "cannot lock %s: %s", path, strerror(errno));
  struct stat ours, named;
  QD_CHECK(fstat(fd, &ours) == 0, QD_EIO, "cannot look at %s: %s", path, strerror(errno));
  *current = stat(path, &named) == 0 && named.st_dev == ours.st_dev && named.st_ino == ours.st_ino;
  return QD_OK;
}

/* The lock is the process's, and any descriptor of the file that it closes gives it up: nothing else opens job.lock. */
static qd_status take(const char *path, const char *text, int *out) {
  for (bool current = false; !current;) {
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW, 0666);
    QD_CHECK(fd >= 0, QD_EIO, "cannot open %s: %s", path, strerror(errno));
    qd_status status = take_open(fd, path, &current);
    if (status == QD_OK && current) status = write_text(fd, path, text);
    if (status == QD_OK && current) *out = fd;
    else close(fd);
    if (status != QD_OK) return qd_forward(status, __FILE__, __LINE__);
  }
  return QD_OK;
}

qd_status qd_store_lock_take(const char *folder, const char *text, qd_store_lock *lock) {
  *lock = (qd_store_lock){.fd = -1};
  QD_TRY(qd_path_join(folder, QD_STORE_LOCK, &lock->path));
  qd_status status = take(lock->path, text, &lock->fd);
  if (status == QD_OK) return QD_OK;
  qd_heap_free(lock->path);
  lock->path = NULL;
  return qd_forward(status, __FILE__, __LINE__);
}

/* Unlinked while it is still held, so that whoever opened it meanwhile finds the path naming another file. */
void qd_store_lock_release(qd_store_lock *lock) {
  if (lock->path == NULL) return;
  unlink(lock->path);
  close(lock->fd);
  qd_heap_free(lock->path);
  *lock = (qd_store_lock){.fd = -1};
}
