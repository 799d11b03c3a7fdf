#include "kernels/base/limits.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "tests/support/temporary_folder.h"

static qd_temporary_folder folder;
static void open_folder(void) { qd_temporary_folder_open(&folder); }
static void close_folder(void) { qd_temporary_folder_close(&folder); }
TestSuite(limits, .init = open_folder, .fini = close_folder);

static void write_file(const char *name, const char *text) { qd_temporary_write(&folder, name, text, strlen(text)); }

static qd_room room(void) {
  qd_room out;
  qd_memory_room(qd_temporary_path(&folder, "."), &out);
  return out;
}

static void make_folders(const char *const *names) {
  for (; *names != NULL; names++) qd_temporary_make_folder(&folder, *names);
}

static void make_machine(const char *group, const char *available) {
  char text[128];
  static const char *const folders[] = {"proc", "proc/self", "sys", "sys/fs", "sys/fs/cgroup", NULL};
  make_folders(folders);
  snprintf(text, sizeof text, "MemTotal:       900 kB\nMemAvailable:   %s kB\nBuffers: 1 kB\n", available);
  write_file("proc/meminfo", text);
  write_file("proc/self/cgroup", group);
}

static void make_group(const char *path, const char *limit, const char *use, const char *cache) {
  static char name[256];
  const char *text[] = {limit, use, cache}, *file[] = {"memory.max", "memory.current", "memory.stat"};
  for (int i = 0; i < 3; i++) {
    snprintf(name, sizeof name, "sys/fs/cgroup%s/%s", path, file[i]);
    write_file(name, text[i]);
  }
}

Test(limits, without_groups_the_kernel_says_what_is_available) {
  make_machine("", "5");
  cr_expect_eq(room().bytes, 5 * 1024);
  cr_expect_str_eq(room().bound, "MemAvailable");
}

Test(limits, a_machine_that_says_nothing_bounds_nothing) { cr_expect_eq(room().bytes, INT64_MAX); }

Test(limits, the_tightest_group_above_the_process_counts) {
  static const char *const folders[] = {"sys/fs/cgroup/job", "sys/fs/cgroup/job/step", NULL};
  make_machine("0::/job/step\n", "100000");
  make_folders(folders);
  make_group("/job/step", "max\n", "70000\n", "anon 9\n");
  make_group("/job", "50000\n", "20000\n", "anon 3\ninactive_file 7000\nactive_file 9\n");
  cr_expect_eq(room().bytes, 50000 - (20000 - 7000)); /* file pages that are not in use can be given up */
  cr_expect(strstr(room().bound, "memory.max of ") != NULL && strstr(room().bound, "/job") != NULL, "%s", room().bound);
  make_group("/job/step", "10000\n", "9000\n", "inactive_file 0\n");
  cr_expect_eq(room().bytes, 1000);
  make_group("/job/step", "10000\n", "12000\n", "inactive_file 0\n");
  cr_expect_eq(room().bytes, 0);
}

Test(limits, a_group_that_cannot_be_seen_is_looked_for_above) {
  make_machine("0::/not/here\n", "100000");
  make_group("", "4096\n", "96\n", "");
  cr_expect_eq(room().bytes, 4000);
}

Test(limits, groups_of_version_1) {
  static const char *const folders[] = {"sys/fs/cgroup/memory", "sys/fs/cgroup/memory/job", NULL};
  make_machine("5:cpu:/job\n4:hugetlb,memory:/job\n", "100000");
  make_folders(folders);
  write_file("sys/fs/cgroup/memory/job/memory.limit_in_bytes", "8000\n");
  write_file("sys/fs/cgroup/memory/job/memory.usage_in_bytes", "3000\n");
  write_file("sys/fs/cgroup/memory/job/memory.stat", "inactive_file 5\ntotal_inactive_file 500\n");
  cr_expect_eq(room().bytes, 5500);
}

Test(limits, lines_that_are_damaged_are_passed_over) {
  make_machine("nonsense\n0:\n0::\n", "99999999999999999999999");
  make_group("", "12x\n", "nothing\n", "inactive_file\n");
  cr_expect_eq(room().bytes, INT64_MAX);
}

Test(limits, the_address_space_that_is_left) {
  qd_room out;
#if defined(__SANITIZE_ADDRESS__)
  cr_skip_test("AddressSanitizer has taken more address space than any limit here would leave");
#endif
  qd_address_room(&out);
  struct rlimit limit = {.rlim_cur = (rlim_t)1 << 40, .rlim_max = (rlim_t)1 << 40};
  cr_assert_eq(setrlimit(RLIMIT_AS, &limit), 0);
  qd_address_room(&out);
  cr_expect_leq(out.bytes, (int64_t)1 << 40);
  cr_expect_gt(out.bytes, ((int64_t)1 << 40) - ((int64_t)1 << 36));
  cr_expect(strstr(out.bound, "RLIMIT_AS") != NULL);
}

Test(limits, what_this_process_uses) {
  qd_memory_use use = qd_memory_now();
  cr_expect_gt(use.resident, 0);
  cr_expect_geq(use.peak, use.resident);
  cr_expect_geq(use.address_space, use.resident);
}

Test(limits, whether_two_paths_share_a_disk) {
  cr_expect(qd_same_disk(qd_temporary_path(&folder, "."), qd_temporary_path(&folder, "a/b/c")));
  cr_expect_not(qd_same_disk(qd_temporary_path(&folder, "."), "/proc/self"));
}

Test(limits, the_disk_below_a_path_that_does_not_exist_yet) {
  qd_room here, below, beyond;
  cr_assert_eq(qd_disk_room(qd_temporary_path(&folder, "."), &here), QD_OK);
  cr_assert_eq(qd_disk_room(qd_temporary_path(&folder, "a/b/c"), &below), QD_OK);
  cr_assert_eq(qd_disk_room("no/such/place", &beyond), QD_OK);
  cr_expect_gt(here.bytes, 0);
  cr_expect_lt(here.bytes - below.bytes, (int64_t)1 << 32); /* others write as well */
  cr_expect(strlen(beyond.bound) > 0);
}
