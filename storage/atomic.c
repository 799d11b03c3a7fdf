#define _POSIX_C_SOURCE 200809L
#include "storage/atomic.h"

#include "kernels/base/heap.h"
#include "storage/bytes.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_NAME_BYTES = 200, MAX_PASSES = 16 };

/* ---- writing ---- */

static qd_status write_all(int fd, const char *path, const void *data, size_t n) {
  const unsigned char *next = data;
  for (size_t done = 0; done < n;) {
    ssize_t put = write(fd, next + done, n - done);
    if (put < 0 && errno == EINTR) continue;
    QD_CHECK(put >= 0, QD_EIO, "cannot write %s: %s", path, strerror(errno));
    done += (size_t)put;
  }
  return QD_OK;
}

static qd_status sync_file(int fd, const char *path) {
  int rc;
  do rc = fsync(fd);
  while (rc != 0 && errno == EINTR);
  QD_CHECK(rc == 0, QD_EIO, "cannot bring %s to the disk: %s", path, strerror(errno));
  return QD_OK;
}

/* Some file systems have no fsync for folders and say EINVAL; there is nothing better to do on them. */
static qd_status sync_folder(const char *path) {
  int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  QD_CHECK(fd >= 0, QD_EIO, "cannot open the folder %s: %s", path, strerror(errno));
  qd_status status = QD_OK;
  if (fsync(fd) != 0 && errno != EINVAL && errno != EINTR)
    status = qd_fail(QD_EIO, __FILE__, __LINE__, "cannot bring the folder %s to the disk: %s", path, strerror(errno));
  close(fd);
  return status;
}

/* A new file temporary_folder/name.PID-COUNT.tmp: writers of one process, or what a killed one left, never meet. */
static qd_status temporary_open(const char *temporary_folder, const char *name, char **path, int *fd) {
  static atomic_uint count;
  QD_CHECK(strlen(name) <= MAX_NAME_BYTES, QD_EINVAL, "the file name %.64s... is longer than %d bytes", name, MAX_NAME_BYTES);
  do {
    char unique[MAX_NAME_BYTES + 64];
    snprintf(unique, sizeof unique, "%s.%ld-%u.tmp", name, (long)getpid(), atomic_fetch_add(&count, 1));
    qd_heap_free(*path);
    QD_TRY(qd_path_join(temporary_folder, unique, path));
    *fd = open(*path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  } while (*fd < 0 && (errno == EEXIST || errno == EINTR));
  QD_CHECK(*fd >= 0, QD_EIO, "cannot make %s: %s", *path, strerror(errno));
  return QD_OK;
}

static qd_status rename_into(const char *temporary_path, const char *folder, const char *name) {
  char *path = NULL;
  QD_TRY(qd_path_join(folder, name, &path));
  qd_status status = QD_OK;
  if (rename(temporary_path, path) != 0)
    status = qd_fail(QD_EIO, __FILE__, __LINE__, "cannot rename %s to %s: %s", temporary_path, path, strerror(errno));
  qd_heap_free(path);
  if (status == QD_OK) status = sync_folder(folder);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

/* close can report what write did not (quota on a network file system), so its answer counts. */
static qd_status fill_and_close(int fd, const char *path, const void *data, size_t n) {
  qd_status status = write_all(fd, path, data, n);
  if (status == QD_OK) status = sync_file(fd, path);
  if (close(fd) != 0 && errno != EINTR && status == QD_OK)
    status = qd_fail(QD_EIO, __FILE__, __LINE__, "cannot write %s: %s", path, strerror(errno));
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

qd_status qd_atomic_write(const char *folder, const char *temporary_folder, const char *name, const void *data, size_t n) {
  char *path = NULL;
  int fd = -1;
  qd_status status = temporary_open(temporary_folder, name, &path, &fd);
  if (status == QD_OK) status = fill_and_close(fd, path, data, n);
  if (status == QD_OK) status = rename_into(path, folder, name);
  if (status != QD_OK && fd >= 0) unlink(path);
  qd_heap_free(path);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

qd_status qd_atomic_publish(const char *temporary_path, const char *folder, const char *name) {
  int fd = open(temporary_path, O_RDONLY | O_CLOEXEC);
  QD_CHECK(fd >= 0, QD_EIO, "cannot open %s: %s", temporary_path, strerror(errno));
  qd_status status = sync_file(fd, temporary_path);
  close(fd);
  if (status == QD_OK) status = rename_into(temporary_path, folder, name);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

/* ---- folders ---- */

/* The new folder's name is in its parent, which must reach the disk too.  A parent that may not be read cannot be synced. */
static qd_status sync_parent(const char *path) {
  char *parent = NULL;
  QD_TRY(qd_heap_text(path, strlen(path), &parent));
  char *slash = strrchr(parent, '/');
  if (slash != NULL) slash[slash == parent] = '\0';
  const char *folder = slash != NULL ? parent : ".";
  qd_status status = access(folder, R_OK) == 0 ? sync_folder(folder) : QD_OK;
  qd_heap_free(parent);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

static qd_status make_one(const char *path) {
  struct stat facts;
  if (mkdir(path, 0777) == 0) {
    QD_TRY(sync_parent(path));
    return QD_OK;
  }
  int error = errno;
  bool there = stat(path, &facts) == 0; /* mkdir may say EROFS or EACCES of a folder that is there */
  QD_CHECK(!there || S_ISDIR(facts.st_mode), QD_EEXIST, "%s is a file, a folder is wanted there", path);
  QD_CHECK(there || error != EEXIST, QD_EEXIST, "%s is a link to nothing, a folder is wanted there", path);
  QD_CHECK(there, QD_EIO, "cannot make the folder %s: %s", path, strerror(error));
  return QD_OK;
}

static qd_status make_each(char *path) {
  for (char *end = path + strspn(path, "/"); *end != '\0';) {
    end += strcspn(end, "/");
    char *next = end + strspn(end, "/");
    char kept = *end;
    *end = '\0';
    QD_TRY(make_one(path));
    *end = kept;
    end = next;
  }
  return QD_OK;
}

qd_status qd_folder_make(const char *path) {
  QD_CHECK(path[0] != '\0', QD_EINVAL, "a folder without a name cannot be made");
  char *copy = NULL;
  QD_TRY(qd_heap_text(path, strlen(path), &copy));
  qd_status status = make_each(copy);
  qd_heap_free(copy);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

static qd_status remove_at(int at, const char *name, const char *path);

static qd_status remove_entry(int at, const char *name, const char *folder_path) {
  char *path = NULL;
  QD_TRY(qd_path_join(folder_path, name, &path));
  qd_status status = remove_at(at, name, path);
  qd_heap_free(path);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

static qd_status remove_entries(DIR *folder, const char *path, bool *found) {
  rewinddir(folder);
  for (struct dirent *entry; (errno = 0, entry = readdir(folder)) != NULL;) {
    if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
    *found = true;
    QD_TRY(remove_entry(dirfd(folder), entry->d_name, path));
  }
  QD_CHECK(errno == 0, QD_EIO, "cannot read the folder %s: %s", path, strerror(errno));
  return QD_OK;
}

/* Removing while reading a folder hides entries on some file systems, so passes go on until one finds nothing. */
static qd_status empty_folder(int at, const char *name, const char *path) {
  int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  QD_CHECK(fd >= 0, QD_EIO, "cannot open the folder %s: %s", path, strerror(errno));
  DIR *folder = fdopendir(fd);
  if (folder == NULL) close(fd);
  QD_CHECK(folder != NULL, QD_EIO, "cannot read the folder %s: %s", path, strerror(errno));
  qd_status status = QD_OK;
  bool found = true;
  for (int pass = 0; pass < MAX_PASSES && found && status == QD_OK; pass++) {
    found = false;
    status = remove_entries(folder, path, &found);
  }
  closedir(folder);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

/* What is gone already is fine: another one cleans up too. */
static qd_status remove_at(int at, const char *name, const char *path) {
  struct stat facts;
  if (fstatat(at, name, &facts, AT_SYMLINK_NOFOLLOW) != 0) {
    QD_CHECK(errno == ENOENT || errno == ENOTDIR, QD_EIO, "cannot look at %s: %s", path, strerror(errno));
    return QD_OK;
  }
  bool folder = S_ISDIR(facts.st_mode);
  if (folder) QD_TRY(empty_folder(at, name, path));
  QD_CHECK(unlinkat(at, name, folder ? AT_REMOVEDIR : 0) == 0 || errno == ENOENT, QD_EIO, "cannot remove %s: %s", path,
           strerror(errno));
  return QD_OK;
}

/* Trailing slashes go first: with one, the system follows a link. */
qd_status qd_folder_remove(const char *path) {
  char *copy = NULL;
  size_t n = strlen(path);
  while (n > 1 && path[n - 1] == '/') n--;
  QD_TRY(qd_heap_text(path, n, &copy));
  qd_status status = QD_OK;
  struct stat facts;
  if (lstat(copy, &facts) == 0 && !S_ISDIR(facts.st_mode) && !S_ISLNK(facts.st_mode))
    status = qd_fail(QD_EIO, __FILE__, __LINE__, "cannot remove the folder %s: it is a file", copy);
  if (status == QD_OK) status = remove_at(AT_FDCWD, copy, copy);
  qd_heap_free(copy);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}
