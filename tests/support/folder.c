#define _XOPEN_SOURCE 700
#include "tests/support/folder.h"

#include "kernels/base/status.h"
#include "tests/support/run.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { MAX_NAMES = 512, NAME_BYTES = 256, PATH_BYTES = 2048, PIECE = 65536 };

typedef struct listing {
  char name[MAX_NAMES][NAME_BYTES];
  int n;
} listing;

static int by_name(const void *a, const void *b) { return strcmp(a, b); }

static bool is_log(const char *name) {
  size_t n = strlen(name);
  return (n > 4 && strcmp(name + n - 4, ".log") == 0) || strcmp(name, "job.yaml") == 0;
}

static void list(const char *path, listing *out) {
  out->n = 0;
  DIR *folder = opendir(path);
  QD_ASSERT(folder != NULL);
  for (const struct dirent *entry; (entry = readdir(folder)) != NULL;) {
    if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 || is_log(entry->d_name)) continue;
    QD_ASSERT(out->n < MAX_NAMES && strlen(entry->d_name) < NAME_BYTES);
    strcpy(out->name[out->n++], entry->d_name);
  }
  closedir(folder);
  qsort(out->name, (size_t)out->n, NAME_BYTES, by_name);
}

static char difference[4 * PATH_BYTES];

#define DIFFER(...) return snprintf(difference, sizeof difference, __VA_ARGS__), difference

static const char *compare_bytes(const char *a, const char *b) {
  static unsigned char piece[2][PIECE];
  FILE *file[2] = {fopen(a, "rb"), fopen(b, "rb")};
  QD_ASSERT(file[0] != NULL && file[1] != NULL);
  size_t n[2] = {PIECE, PIECE}, at = 0, i = 0;
  bool same = true;
  for (; same && n[0] == PIECE; at += i) {
    for (int k = 0; k < 2; k++) n[k] = fread(piece[k], 1, PIECE, file[k]);
    for (i = 0; i < n[0] && i < n[1] && piece[0][i] == piece[1][i];) i++;
    same = n[0] == n[1] && i == n[0];
  }
  for (int k = 0; k < 2; k++) fclose(file[k]);
  if (!same) DIFFER("%s and %s differ from byte %zu on", a, b, at);
  return NULL;
}

static const char *compare_files(const char *a, const char *b, bool times) {
  struct stat facts[2];
  QD_ASSERT(stat(a, &facts[0]) == 0 && stat(b, &facts[1]) == 0);
  if (S_ISDIR(facts[0].st_mode) != S_ISDIR(facts[1].st_mode)) DIFFER("only one of %s and %s is a folder", a, b);
  const struct timespec *t[2] = {&facts[0].st_mtim, &facts[1].st_mtim};
  if (times && (t[0]->tv_sec != t[1]->tv_sec || t[0]->tv_nsec != t[1]->tv_nsec))
    DIFFER("%s and %s are not of the same time", a, b);
  return S_ISDIR(facts[0].st_mode) ? NULL : compare_bytes(a, b);
}

const char *qd_folder_difference(const char *a, const char *b, bool times) {
  static listing in_a, in_b;
  char path_a[PATH_BYTES], path_b[PATH_BYTES];
  list(a, &in_a);
  list(b, &in_b);
  for (int i = 0; i < in_a.n || i < in_b.n; i++) {
    int order = i >= in_a.n ? 1 : i >= in_b.n ? -1 : strcmp(in_a.name[i], in_b.name[i]);
    if (order != 0) DIFFER("only %s holds %s", order < 0 ? a : b, order < 0 ? in_a.name[i] : in_b.name[i]);
    snprintf(path_a, sizeof path_a, "%s/%s", a, in_a.name[i]);
    snprintf(path_b, sizeof path_b, "%s/%s", b, in_b.name[i]);
    const char *what = compare_files(path_a, path_b, times);
    if (what != NULL) return what;
  }
  return NULL;
}

const char *qd_folder_names(const char *path) {
  static char names[MAX_NAMES * 32];
  static listing in;
  size_t n = 0;
  list(path, &in);
  names[0] = '\0';
  for (int i = 0; i < in.n; i++) {
    QD_ASSERT(n + strlen(in.name[i]) + 2 < sizeof names);
    n += (size_t)sprintf(names + n, "%s ", in.name[i]);
  }
  return names;
}

void qd_folder_copy(const char *from, const char *to) {
  qd_run run = qd_run_command((const char *const[]){"cp", "-aT", from, to, NULL}, NULL, 60.0);
  QD_ASSERT(run.exit_code == 0);
  qd_run_close(&run);
}
