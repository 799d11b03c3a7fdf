#define _POSIX_C_SOURCE 200809L
#include "storage/bytes.h"

#include "kernels/base/heap.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct file_state {
  int fd;
  char *name;
} file_state;

typedef struct memory_state {
  const unsigned char *data;
  char *name;
} memory_state;

/* ENOTDIR: a part of the path is a file, so what is asked for is not there either. */
static qd_status open_status(int error) { return error == ENOENT || error == ENOTDIR ? QD_ENOTFOUND : QD_EIO; }

static qd_status check_regular(int fd, const char *path, uint64_t *size) {
  struct stat facts;
  QD_CHECK(fstat(fd, &facts) == 0, QD_EIO, "cannot look at %s: %s", path, strerror(errno));
  QD_CHECK(!S_ISDIR(facts.st_mode), QD_EIO, "cannot read %s: it is a folder, not a file", path);
  QD_CHECK(S_ISREG(facts.st_mode), QD_EIO, "cannot read %s: it is not a regular file", path);
  *size = (uint64_t)facts.st_size;
  return QD_OK;
}

/* O_NONBLOCK: opening a pipe that nobody writes to must not hang; regular files do not mind. */
static qd_status open_regular(const char *path, int *fd, uint64_t *size) {
  do *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  while (*fd < 0 && errno == EINTR);
  QD_CHECK(*fd >= 0, open_status(errno), "cannot open %s: %s", path, strerror(errno));
  qd_status status = check_regular(*fd, path, size);
  if (status != QD_OK) close(*fd);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

static qd_status file_read_at(qd_bytes *bytes, uint64_t offset, void *to, size_t n) {
  const file_state *state = bytes->state;
  unsigned char *next = to;
  for (size_t done = 0; done < n;) {
    ssize_t got = pread(state->fd, next + done, n - done, (off_t)(offset + done));
    if (got < 0 && errno == EINTR) continue;
    QD_CHECK(got >= 0, QD_EIO, "cannot read %s: %s", state->name, strerror(errno));
    QD_CHECK(got > 0, QD_EBADINPUT, "%s ends at byte %" PRIu64 ", %zu bytes from %" PRIu64 " are wanted: it shrank in use",
             state->name, offset + done, n, offset);
    done += (size_t)got;
  }
  return QD_OK;
}

static void file_close(qd_bytes *bytes) {
  file_state *state = bytes->state;
  close(state->fd);
  qd_heap_free(state->name);
  qd_heap_free(state);
}

static qd_status file_open(const char *path, file_state *state, uint64_t *size) {
  QD_TRY(qd_heap_text(path, strlen(path), &state->name));
  QD_TRY(open_regular(path, &state->fd, size));
  return QD_OK;
}

qd_status qd_bytes_open_file(const char *path, qd_bytes *out) {
  *out = (qd_bytes){0};
  file_state *state;
  uint64_t size = 0;
  QD_TRY(qd_heap_new(1, sizeof *state, &state));
  qd_status status = file_open(path, state, &size);
  if (status != QD_OK) {
    qd_heap_free(state->name);
    qd_heap_free(state);
    return qd_forward(status, __FILE__, __LINE__);
  }
  *out = (qd_bytes){.read_at = file_read_at, .close = file_close, .size = size, .name = state->name, .state = state};
  return QD_OK;
}

static qd_status memory_read_at(qd_bytes *bytes, uint64_t offset, void *to, size_t n) {
  const memory_state *state = bytes->state;
  if (n > 0) memcpy(to, state->data + offset, n);
  return QD_OK;
}

static void memory_close(qd_bytes *bytes) {
  memory_state *state = bytes->state;
  qd_heap_free(state->name);
  qd_heap_free(state);
}

qd_status qd_bytes_open_memory(const void *data, size_t n, const char *name, qd_bytes *out) {
  *out = (qd_bytes){0};
  memory_state *state;
  QD_TRY(qd_heap_new(1, sizeof *state, &state));
  state->data = data;
  qd_status status = qd_heap_text(name, strlen(name), &state->name);
  if (status != QD_OK) {
    qd_heap_free(state);
    return qd_forward(status, __FILE__, __LINE__);
  }
  *out = (qd_bytes){.read_at = memory_read_at, .close = memory_close, .size = n, .name = state->name, .state = state};
  return QD_OK;
}

void qd_bytes_close(qd_bytes *bytes) {
  if (bytes->close != NULL) bytes->close(bytes);
  *bytes = (qd_bytes){0};
}

qd_status qd_bytes_read(qd_bytes *bytes, uint64_t offset, void *to, size_t n) {
  QD_CHECK(offset <= bytes->size && n <= bytes->size - offset, QD_EBADINPUT,
           "%s: %zu bytes from byte %" PRIu64 " are wanted, it has %" PRIu64, bytes->name, n, offset, bytes->size);
  QD_TRY(bytes->read_at(bytes, offset, to, n));
  return QD_OK;
}

static int64_t nanoseconds(struct timespec time) { return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec; }

qd_status qd_file_identify(const char *path, qd_file_identity *out) {
  struct stat facts;
  *out = (qd_file_identity){0};
  QD_CHECK(stat(path, &facts) == 0, open_status(errno), "cannot look at %s: %s", path, strerror(errno));
  *out = (qd_file_identity){.size = (uint64_t)facts.st_size,
                            .inode = (uint64_t)facts.st_ino,
                            .mtime_ns = nanoseconds(facts.st_mtim),
                            .ctime_ns = nanoseconds(facts.st_ctim)};
  return QD_OK;
}

static qd_status read_whole(qd_bytes *bytes, size_t max_bytes, char **text) {
  QD_CHECK(bytes->size <= max_bytes, QD_EBADINPUT, "%s has %" PRIu64 " bytes, at most %zu are read", bytes->name, bytes->size,
           max_bytes);
  QD_TRY(qd_heap_new((size_t)bytes->size + 1, 1, text));
  QD_TRY(qd_bytes_read(bytes, 0, *text, (size_t)bytes->size));
  return QD_OK;
}

qd_status qd_file_read(const char *path, size_t max_bytes, char **text, size_t *n) {
  *text = NULL;
  *n = 0;
  qd_bytes bytes;
  QD_TRY(qd_bytes_open_file(path, &bytes));
  qd_status status = read_whole(&bytes, max_bytes, text);
  if (status == QD_OK)
    *n = (size_t)bytes.size;
  else
    qd_heap_free(*text), *text = NULL;
  qd_bytes_close(&bytes);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

bool qd_file_exists(const char *path) {
  struct stat facts;
  return stat(path, &facts) == 0;
}

bool qd_folder_exists(const char *path) {
  struct stat facts;
  return stat(path, &facts) == 0 && S_ISDIR(facts.st_mode);
}

qd_status qd_path_join(const char *base, const char *name, char **out) {
  size_t base_bytes = strlen(base), name_bytes = strlen(name);
  bool slash = base_bytes > 0 && base[base_bytes - 1] != '/';
  QD_TRY(qd_heap_new(base_bytes + slash + name_bytes + 1, 1, out));
  memcpy(*out, base, base_bytes);
  if (slash) (*out)[base_bytes] = '/';
  memcpy(*out + base_bytes + slash, name, name_bytes);
  return QD_OK;
}
