#define _XOPEN_SOURCE 700
#include "pipeline/status_path.h"

#include "kernels/base/heap.h"
#include "storage/bytes.h"
#include "storage/json.h"
#include "storage/listing.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { STATUS_BYTES = 1 << 24 };

static void split(const char *path, char folder[PATH_MAX], const char **name) {
  const char *slash = strrchr(path, '/');
  *name = slash ? slash + 1 : path;
  snprintf(folder, PATH_MAX, "%.*s", slash ? (int)(slash - path) + 1 : 1, slash ? path : ".");
}

/* Whether `folder` is `place`, or lies in it. */
static bool is_within(const char *folder, const char *place) {
  char inner[PATH_MAX], outer[PATH_MAX];
  if (realpath(folder, inner) == NULL || realpath(place, outer) == NULL) return false;
  size_t n = strlen(outer);
  return strncmp(inner, outer, n) == 0 && (inner[n] == '\0' || inner[n] == '/');
}

/* The store's own names are those that are not beside it. */
static qd_status check_place(const qd_job *job) {
  char folder[PATH_MAX];
  const char *name;
  split(job->status_file, folder, &name);
  QD_CHECK(!is_within(folder, job->model), QD_EINVAL, "--status-file %s lies in the model's folder %s; choose another place",
           job->status_file, job->model);
  bool beside = strncmp(name, "status", 6) == 0 && qd_is_beside_store(name);
  QD_CHECK(beside || job->output == NULL || !is_within(folder, job->output), QD_EINVAL,
           "--status-file %s: in the store's folder %s it is named status*.json", job->status_file, job->output);
  return QD_OK;
}

static bool is_status(const char *path) {
  qd_json *json = NULL;
  if (qd_json_read(path, STATUS_BYTES, &json) != QD_OK) return false;
  bool ours = qd_json_is_object(json) && qd_json_get(json, "state") != NULL && qd_json_get(json, "blocks_done") != NULL;
  qd_json_free(json);
  return ours;
}

/* An empty file may be one that mktemp made for it. */
static qd_status check_present(const char *path) {
  struct stat facts;
  if (lstat(path, &facts) != 0) return QD_OK;
  QD_CHECK(S_ISREG(facts.st_mode), QD_EEXIST, "--status-file %s is there and no regular file", path);
  QD_CHECK(facts.st_size == 0 || is_status(path), QD_EEXIST, "--status-file %s is there and no status of a job; choose another",
           path);
  return QD_OK;
}

qd_status qd_status_path_check(const qd_job *job) {
  if (job->status_file == NULL) return QD_OK;
  QD_TRY(check_place(job));
  return check_present(job->status_file);
}
