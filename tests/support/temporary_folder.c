#define _XOPEN_SOURCE 700
#include "tests/support/temporary_folder.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

void qd_temporary_folder_open(qd_temporary_folder *folder) {
  const char *parent = getenv("TMPDIR");
  if (parent == NULL || *parent == '\0') parent = "/tmp";
  *folder = (qd_temporary_folder){0};
  int n = snprintf(folder->path, sizeof folder->path, "%s/qdist-test-XXXXXX", parent);
  QD_ASSERT(n > 0 && (size_t)n < sizeof folder->path);
  QD_ASSERT(mkdtemp(folder->path) != NULL);
}

static int remove_one(const char *path, const struct stat *facts, int kind, struct FTW *place) {
  (void)facts, (void)kind, (void)place;
  return remove(path);
}

/* A test may have taken the rights of a folder away; the owner gives them back first, on the way down. */
static int make_writable(const char *path, const struct stat *facts, int kind, struct FTW *place) {
  (void)facts, (void)place;
  if (kind == FTW_D || kind == FTW_DNR) return chmod(path, 0700);
  return 0;
}

void qd_temporary_remove(const char *path) {
  nftw(path, make_writable, 16, FTW_PHYS);
  nftw(path, remove_one, 16, FTW_PHYS | FTW_DEPTH);
}

void qd_temporary_folder_close(qd_temporary_folder *folder) {
  QD_ASSERT(folder->path[0] != '\0');
  qd_temporary_remove(folder->path);
  *folder = (qd_temporary_folder){0};
}

const char *qd_temporary_path(qd_temporary_folder *folder, const char *name) {
  char *path = folder->joined[folder->n_joined++ % QD_TEMPORARY_PATHS];
  size_t folder_bytes = strlen(folder->path), name_bytes = strlen(name);
  QD_ASSERT(folder_bytes + 1 + name_bytes < QD_TEMPORARY_PATH_BYTES);
  memcpy(path, folder->path, folder_bytes);
  path[folder_bytes] = '/';
  memcpy(path + folder_bytes + 1, name, name_bytes + 1);
  return path;
}

const char *qd_temporary_write(qd_temporary_folder *folder, const char *name, const void *data, size_t n) {
  const char *path = qd_temporary_path(folder, name);
  FILE *file = fopen(path, "wb");
  QD_ASSERT(file != NULL);
  QD_ASSERT(n == 0 || fwrite(data, 1, n, file) == n);
  QD_ASSERT(fclose(file) == 0);
  return path;
}

const char *qd_temporary_write_text(qd_temporary_folder *folder, const char *name, const char *text) {
  return qd_temporary_write(folder, name, text, strlen(text));
}

const char *qd_temporary_make_folder(qd_temporary_folder *folder, const char *name) {
  const char *path = qd_temporary_path(folder, name);
  QD_ASSERT(mkdir(path, 0777) == 0);
  return path;
}
