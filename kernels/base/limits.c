#define _GNU_SOURCE
#include "kernels/base/limits.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/quota.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { PATH_BYTES = 4096, LINE_BYTES = 4096 };

static void keep_least(qd_room *room, int64_t bytes, const char *bound) {
  if (bytes < 0) bytes = 0;
  if (bytes >= room->bytes) return;
  room->bytes = bytes;
  snprintf(room->bound, sizeof room->bound, "%s", bound);
}

/* The number behind `key` at the beginning of a line of the file, times `unit`; -1: none. */
static int64_t number_of(const char *path, const char *key, int64_t unit) {
  char line[LINE_BYTES];
  int64_t found = -1;
  size_t n = strlen(key);
  FILE *file = fopen(path, "r");
  if (file == NULL) return -1;
  while (found < 0 && fgets(line, sizeof line, file) != NULL) {
    char *end;
    if (strncmp(line, key, n) != 0) continue;
    errno = 0;
    long long value = strtoll(line + n, &end, 10);
    if (end != line + n && errno == 0 && value >= 0 && value <= INT64_MAX / unit) found = value * unit;
  }
  fclose(file);
  return found;
}

qd_memory_use qd_memory_now(void) {
  static const char path[] = "/proc/self/status";
  struct rusage usage;
  qd_memory_use use = {number_of(path, "VmRSS:", 1024), number_of(path, "VmHWM:", 1024), number_of(path, "VmSize:", 1024)};
  if (use.peak < 0 && getrusage(RUSAGE_SELF, &usage) == 0) use.peak = usage.ru_maxrss * (int64_t)1024;
  if (use.resident < 0) use.resident = use.peak;
  use.resident = use.resident < 0 ? 0 : use.resident;
  use.peak = use.peak < use.resident ? use.resident : use.peak;
  use.address_space = use.address_space < 0 ? 0 : use.address_space;
  return use;
}

/* ---- control groups ------------------------------------------------------------------------------------------------------ */

/* Names of one version's files. */
typedef struct group_files {
  const char *mount, *limit, *use, *cache_key;
} group_files;

static const group_files version_2 = {"/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file "};
static const group_files version_1 = {"/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes",
                                      "total_inactive_file "};

static int64_t file_number(const char *folder, const char *name, const char *key) {
  char path[PATH_BYTES + 64];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  return number_of(path, key, 1);
}

/* What one group leaves: its limit less its use, file pages that are not in use left out. */
static void group_room(const char *folder, const group_files *files, qd_room *out) {
  int64_t limit = file_number(folder, files->limit, ""), use = file_number(folder, files->use, "");
  int64_t cache = file_number(folder, "memory.stat", files->cache_key);
  char what[256];
  if (limit < 0 || use < 0) return; /* "max" is no number */
  if (cache > 0) use -= cache < use ? cache : use;
  snprintf(what, sizeof what, "%s of %.200s", files->limit, folder);
  keep_least(out, limit - use, what);
}

/* The group and all above it, up to the mount. */
static void groups_room(const char *root, const char *group, const group_files *files, qd_room *out) {
  char folder[PATH_BYTES];
  snprintf(folder, sizeof folder, "%s%s%s", root, files->mount, group);
  size_t top = strlen(root) + strlen(files->mount);
  for (;;) {
    size_t n = strlen(folder);
    while (n > top && folder[n - 1] == '/') folder[--n] = '\0';
    group_room(folder, files, out);
    char *slash = strrchr(folder, '/');
    if (n <= top || slash == NULL) return;
    *slash = '\0';
  }
}

/* Lines "0::/path" (version 2) and "N:a,memory,b:/path" (version 1). */
static void group_line(const char *root, char *line, qd_room *out) {
  char *controllers = strchr(line, ':'), *path = controllers ? strchr(controllers + 1, ':') : NULL;
  if (path == NULL) return;
  *path++ = '\0', controllers++;
  path[strcspn(path, "\n")] = '\0';
  if (*controllers == '\0') groups_room(root, path, &version_2, out);
  else if (strstr(controllers, "memory") != NULL) groups_room(root, path, &version_1, out);
}

void qd_memory_room(const char *root, qd_room *out) {
  char path[PATH_BYTES], line[LINE_BYTES];
  *out = (qd_room){.bytes = INT64_MAX};
  snprintf(path, sizeof path, "%s/proc/meminfo", root);
  int64_t available = number_of(path, "MemAvailable:", 1024);
  if (available >= 0) keep_least(out, available, "MemAvailable");
  snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
  FILE *file = fopen(path, "r");
  if (file == NULL) return;
  while (fgets(line, sizeof line, file) != NULL) group_line(root, line, out);
  fclose(file);
}

void qd_address_room(qd_room *out) {
  struct rlimit limit;
  *out = (qd_room){.bytes = INT64_MAX};
  if (getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY || limit.rlim_cur > INT64_MAX) return;
  keep_least(out, (int64_t)limit.rlim_cur - qd_memory_now().address_space, "RLIMIT_AS (ulimit -v)");
}

/* ---- disk ---------------------------------------------------------------------------------------------------------------- */

/* `path`, or the nearest folder above it that exists: what is none is not opened, as a FIFO would wait for a writer. */
static int open_nearest(const char *path) {
  char folder[PATH_BYTES];
  snprintf(folder, sizeof folder, "%s", path);
  for (;;) {
    int fd = open(*folder ? folder : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0 || (errno != ENOENT && errno != ENOTDIR && errno != EACCES)) return fd;
    char *slash = strrchr(folder, '/');
    if (slash == NULL && *folder == '\0') return fd;
    if (slash == folder && folder[1] != '\0') folder[1] = '\0';
    else if (slash == NULL) *folder = '\0';
    else *slash = '\0';
  }
}

static void quota_room(int fd, int type, int id, const char *what, qd_room *out) {
#ifdef SYS_quotactl_fd
  struct dqblk quota;
  unsigned command =
      (unsigned)Q_GETQUOTA << SUBCMDSHIFT | ((unsigned)type & SUBCMDMASK); /* QCMD shifts an int beyond its width */
  if (syscall(SYS_quotactl_fd, fd, command, id, &quota) != 0) return; /* no quotas here, or an older kernel */
  uint64_t hard = quota.dqb_bhardlimit ? quota.dqb_bhardlimit : quota.dqb_bsoftlimit;
  if (hard == 0 || hard > (uint64_t)INT64_MAX / 1024) return;
  keep_least(out, (int64_t)(hard * 1024) - (int64_t)quota.dqb_curspace, what);
#else
  (void)fd, (void)type, (void)id, (void)what, (void)out;
#endif
}

qd_status qd_disk_room(const char *path, qd_room *out) {
  struct statvfs space;
  *out = (qd_room){.bytes = INT64_MAX};
  int fd = open_nearest(path);
  QD_CHECK(fd >= 0, QD_EIO, "cannot look at %s: %s", path, strerror(errno));
  int failed = fstatvfs(fd, &space);
  if (failed == 0) {
    double free_bytes = (double)space.f_bavail * (double)space.f_frsize;
    keep_least(out, free_bytes < 9e18 ? (int64_t)free_bytes : INT64_MAX, "the free space of its file system");
    quota_room(fd, USRQUOTA, (int)getuid(), "the user's quota", out);
    quota_room(fd, GRPQUOTA, (int)getgid(), "the group's quota", out);
  }
  close(fd);
  QD_CHECK(failed == 0, QD_EIO, "cannot tell the free space at %s: %s", path, strerror(errno));
  return QD_OK;
}

static bool device_of(const char *path, dev_t *device) {
  struct stat facts;
  int fd = open_nearest(path);
  bool there = fd >= 0 && fstat(fd, &facts) == 0;
  if (fd >= 0) close(fd);
  if (there) *device = facts.st_dev;
  return there;
}

bool qd_same_disk(const char *a, const char *b) {
  dev_t device_a, device_b;
  return device_of(a, &device_a) && device_of(b, &device_b) && device_a == device_b;
}
