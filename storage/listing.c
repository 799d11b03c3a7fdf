#define _POSIX_C_SOURCE 200809L
#include "storage/listing.h"

#include "kernels/base/heap.h"
#include "storage/entry.h"

#include <dirent.h>
#include <errno.h>
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>

static int compare(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static qd_status collect(DIR *handle, const char *folder, qd_listing *out) {
  size_t capacity = 0;
  struct dirent *item;
  while (errno = 0, (item = readdir(handle)) != NULL) {
    if (strcmp(item->d_name, ".") == 0 || strcmp(item->d_name, "..") == 0) continue;
    QD_TRY(qd_heap_grow(&out->name, &capacity, out->n + 1, sizeof *out->name));
    QD_TRY(qd_heap_text(item->d_name, strlen(item->d_name), &out->name[out->n]));
    out->n++;
  }
  QD_CHECK(errno == 0, QD_EIO, "cannot list the folder %s: %s", folder, strerror(errno));
  return QD_OK;
}

qd_status qd_listing_read(const char *folder, qd_listing *out) {
  *out = (qd_listing){0};
  DIR *handle = opendir(folder);
  int error = errno;
  QD_CHECK(handle != NULL || error != ENOENT, QD_ENOTFOUND, "there is no folder %s", folder);
  QD_CHECK(handle != NULL || error != ENOTDIR, QD_EEXIST, "%s is a file, a folder is wanted there", folder);
  QD_CHECK(handle != NULL, QD_EIO, "cannot open the folder %s: %s", folder, strerror(error));
  qd_status status = collect(handle, folder, out);
  closedir(handle);
  if (status != QD_OK) {
    qd_listing_release(out);
    return qd_forward(status, __FILE__, __LINE__);
  }
  if (out->n > 0) qsort(out->name, out->n, sizeof *out->name, compare);
  return QD_OK;
}

void qd_listing_release(qd_listing *listing) {
  for (size_t i = 0; i < listing->n; i++) qd_heap_free(listing->name[i]);
  qd_heap_free(listing->name);
  *listing = (qd_listing){0};
}

bool qd_listing_has(const qd_listing *listing, const char *name) {
  return listing->n > 0 && bsearch(&name, listing->name, listing->n, sizeof *listing->name, compare) != NULL;
}

bool qd_is_beside_store(const char *name) {
  static const char *const pattern[] = {QD_STORE_LOCK, "*.log", QD_JOB_FILE, "report.*", "status*.json"};
  for (size_t i = 0; i < sizeof pattern / sizeof *pattern; i++)
    if (fnmatch(pattern[i], name, 0) == 0) return true;
  return false;
}
