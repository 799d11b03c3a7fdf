/* What this process uses and what the machine still has for it: memory, address space, disk.  Linux's own files say so. */
#ifndef QDIST_KERNELS_BASE_LIMITS_H
#define QDIST_KERNELS_BASE_LIMITS_H

#include "kernels/base/status.h"

/* Of this process, in bytes; 0 where the system does not say. */
typedef struct qd_memory_use {
  int64_t resident, peak, address_space;
} qd_memory_use;
qd_memory_use qd_memory_now(void);

/* How much is left, and what says so: "MemAvailable", "memory.max of /sys/fs/cgroup/job" ... */
typedef struct qd_room {
  int64_t bytes; /* INT64_MAX: nothing bounds it */
  char    bound[320];
} qd_room;

/* The least of MemAvailable and of what each control group above this process (version 2 or 1) leaves; page cache that can be
 * given up counts as left.  `root` stands before /proc and /sys: "" but in tests. */
void qd_memory_room(const char *root, qd_room *out);

/* What RLIMIT_AS leaves of this process's address space. */
void qd_address_room(qd_room *out);

/* What this user may still write to the file system that `path` (or the nearest folder above it that exists) lies on: the least
 * of what is free for everyone and of the user's and the group's quota. */
qd_status qd_disk_room(const char *path, qd_room *out) QD_MUST_USE;

/* Whether two paths (or the nearest folders above them that exist) lie on the same file system. */
bool qd_same_disk(const char *a, const char *b);

#endif
