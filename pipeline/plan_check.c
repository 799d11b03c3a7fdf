#define _DEFAULT_SOURCE
#include "pipeline/plan.h"

#include "kernels/base/heap.h"
#include "kernels/base/log.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

void qd_size_text(double bytes, char *text, size_t size) {
  static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
  int unit = 0;
  while (bytes >= 1024 && unit < 4) bytes /= 1024, unit++;
  snprintf(text, size, unit == 0 ? "%.0f %s" : "%.2f %s", bytes, units[unit]);
}

/* ---- memory -------------------------------------------------------------------------------------------------------------- */

static int descending(const void *a, const void *b) {
  size_t x = *(const size_t *)a, y = *(const size_t *)b;
  return x < y ? 1 : x > y ? -1 : 0;
}

/* The heaviest ranks that could share a node. */
static qd_status node_bytes(const qd_plan *plan, int ranks_on_node, double *out) {
  size_t *host;
  int ranks = plan->request.ranks;
  *out = 0;
  QD_TRY(qd_heap_new((size_t)ranks, sizeof *host, &host));
  for (int i = 0; i < ranks; i++) host[i] = plan->rank[i].host_bytes;
  qsort(host, (size_t)ranks, sizeof *host, descending);
  for (int i = 0; i < ranks && i < ranks_on_node; i++) *out += (double)host[i];
  qd_heap_free(host);
  return QD_OK;
}

double qd_plan_address_bytes(const qd_plan_rank *rank, const qd_device *device) {
  static const double thread_bytes = 144 * 1048576.0;
  double total = (double)(device->threads + 1) * thread_bytes;
  for (int p = QD_PLAN_PROGRAM + 1; p < QD_N_PLAN_PARTS; p++) total += (double)rank->part[p];
  return total;
}

/* What is asked of one bound. */
typedef struct demand {
  double  need, have;
  char    bound[320];
} demand;

static void keep_worst(demand *worst, double need, double have, const char *bound) {
  if (need - have <= worst->need - worst->have) return;
  *worst = (demand){.need = need, .have = have};
  snprintf(worst->bound, sizeof worst->bound, "%s", bound);
}

static qd_status refuse(const demand *d, const char *who, const char *way_out) {
  char need[32], have[32], more[32];
  if (d->need <= d->have) return QD_OK;
  qd_size_text(d->need, need, sizeof need);
  qd_size_text(d->have, have, sizeof have);
  qd_size_text(d->need - d->have, more, sizeof more);
  QD_FAIL(QD_ENOMEM, "the job needs %s of memory for %s, but %s leaves %s: %s too little; %s", need, who, d->bound, have, more,
          way_out);
}

qd_status qd_plan_check_need(const qd_memory_need *need, qd_plan_place place, const char *way_out) {
  qd_room room;
  char who[64];
  double present = (double)qd_memory_now().resident * place.running;
  demand shared = {0, 0, ""}, own = {0, 0, ""};
  snprintf(who, sizeof who, place.ranks_on_node == 1 ? "its one rank" : "the %d ranks of a node", place.ranks_on_node);
  qd_memory_room("", &room);
  keep_worst(&shared, need->node, (double)room.bytes + present, room.bound);
  if (need->max_host_bytes > 0) keep_worst(&shared, need->node, (double)need->max_host_bytes, "--max-host-mem");
  QD_TRY(refuse(&shared, who, way_out));
  qd_address_room(&room);
  keep_worst(&own, need->address, (double)room.bytes, room.bound);
  return refuse(&own, "the address space of a rank", way_out);
}

qd_status qd_plan_check_memory(const qd_plan *plan, qd_plan_place place) {
  static const char way_out[] =
      "use more nodes or fewer ranks on each, fewer --nsamples or a shorter --seqlen (qdist plan tells where it goes)";
  qd_memory_need need = {.address = qd_plan_address_bytes(&plan->rank[place.rank], plan->request.device),
                         .max_host_bytes = plan->request.job->max_host_bytes};
  QD_TRY(node_bytes(plan, place.ranks_on_node, &need.node));
  return qd_plan_check_need(&need, place, way_out);
}

/* ---- disk ---------------------------------------------------------------------------------------------------------------- */

/* What lies in a folder and one level below it: the files of a killed run that need not be written again. */
static double folder_bytes(const char *path, int levels) {
  char name[4096];
  double total = 0;
  DIR *folder = opendir(path);
  if (folder == NULL) return 0;
  for (const struct dirent *entry; (entry = readdir(folder)) != NULL;) {
    struct stat facts;
    int n = snprintf(name, sizeof name, "%s/%s", path, entry->d_name);
    if (entry->d_name[0] == '.' || n < 0 || (size_t)n >= sizeof name || lstat(name, &facts) != 0) continue;
    if (S_ISREG(facts.st_mode)) total += (double)facts.st_size;
    else if (S_ISDIR(facts.st_mode) && levels > 0) total += folder_bytes(name, levels - 1);
  }
  closedir(folder);
  return total;
}

qd_status qd_plan_check_disk(const qd_plan *plan) {
  const char *output = plan->request.job->output;
  qd_room room;
  char need_text[32], have_text[32], more_text[32];
  if (output == NULL) return QD_OK;
  QD_TRY(qd_disk_room(output, &room));
  double need = (double)plan->disk_bytes - folder_bytes(output, 1), have = (double)room.bytes;
  qd_size_text(need, need_text, sizeof need_text);
  qd_size_text(have, have_text, sizeof have_text);
  qd_size_text(need - have, more_text, sizeof more_text);
  QD_CHECK(need <= have, QD_EIO, "--output %s: the store may take %s, but %s leaves %s: %s too little", output, need_text,
           room.bound, have_text, more_text);
  return QD_OK;
}

/* ---- for people ---------------------------------------------------------------------------------------------------------- */

void qd_plan_log(const qd_plan *plan, int ranks_on_node) {
  char first[32], last[32], disk[32], traffic[32];
  int ranks = plan->request.ranks;
  qd_size_text((double)plan->rank[0].host_bytes, first, sizeof first);
  qd_size_text((double)plan->rank[ranks - 1].host_bytes, last, sizeof last);
  qd_size_text((double)plan->disk_bytes, disk, sizeof disk);
  qd_size_text((double)plan->traffic_bytes, traffic, sizeof traffic);
  if (ranks == 1) qd_log("plan: %s of memory, %s of disk", first, disk);
  else
    qd_log("plan: %s of memory on rank 0, %s on rank %d, %d ranks on this node; %s of disk; %s between ranks", first, last,
           ranks - 1, ranks_on_node, disk, traffic);
}
