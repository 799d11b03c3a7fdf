#define _DEFAULT_SOURCE
#include "pipeline/plan.h"

#include "kernels/base/heap.h"
#include "kernels/base/log.h"
#include "storage/raw_file.h"

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

static size_t host_of(const qd_plan_rank *rank) { return rank->host_bytes; }
static size_t scratch_of(const qd_plan_rank *rank) { return (size_t)rank->scratch_disk_bytes; }

/* Of the heaviest ranks that could share a node. */
static qd_status node_bytes(const qd_plan *plan, int ranks_on_node, size_t (*bytes_of)(const qd_plan_rank *), double *out) {
  size_t *bytes;
  int ranks = plan->request.ranks;
  *out = 0;
  QD_TRY(qd_heap_new((size_t)ranks, sizeof *bytes, &bytes));
  for (int i = 0; i < ranks; i++) bytes[i] = bytes_of(&plan->rank[i]);
  qsort(bytes, (size_t)ranks, sizeof *bytes, descending);
  for (int i = 0; i < ranks && i < ranks_on_node; i++) *out += (double)bytes[i];
  qd_heap_free(bytes);
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

static const char *way_out_of(const qd_plan *plan) {
  if (plan->request.sequences > 0 && !plan->request.acts_on_disk)
    return "use more nodes or fewer ranks on each, fewer --nsamples or a shorter --seqlen, or put the activations on the "
           "nodes' "
           "disks with --activations disk:DIR (qdist plan tells where it goes)";
  return "use more nodes or fewer ranks on each, fewer --nsamples or a shorter --seqlen (qdist plan tells where it goes)";
}

qd_status qd_plan_check_memory(const qd_plan *plan, qd_plan_place place) {
  qd_memory_need need = {.address = qd_plan_address_bytes(&plan->rank[place.rank], plan->request.device),
                         .max_host_bytes = plan->request.job->max_host_bytes};
  QD_TRY(node_bytes(plan, place.ranks_on_node, host_of, &need.node));
  return qd_plan_check_need(&need, place, way_out_of(plan));
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

/* What is still to be written there. */
static double output_need(const qd_plan *plan) {
  return (double)plan->disk_bytes - folder_bytes(plan->request.job->output, 1);
}

static qd_status refuse_disk(const char *option, const char *path, const char *what, double need, const qd_room *room) {
  char need_text[32], have_text[32], more_text[32];
  double have = (double)room->bytes;
  qd_size_text(need, need_text, sizeof need_text);
  qd_size_text(have, have_text, sizeof have_text);
  qd_size_text(need - have, more_text, sizeof more_text);
  QD_CHECK(need <= have, QD_EIO, "%s%s: %s may take %s, but %s leaves %s: %s too little", option, path, what, need_text,
           room->bound, have_text, more_text);
  return QD_OK;
}

qd_status qd_plan_check_disk(const qd_plan *plan) {
  const char *output = plan->request.job->output;
  qd_room room;
  if (output == NULL) return QD_OK;
  QD_TRY(qd_disk_room(output, &room));
  return refuse_disk("--output ", output, "the store", output_need(plan), &room);
}

/* That a file can be made there is tried, not guessed. */
static qd_status try_scratch(const char *folder) {
  qd_raw_file file;
  qd_status status = qd_raw_file_nameless(folder, 0, &file);
  qd_raw_file_close(&file);
  QD_CHECK(status == QD_OK, status, "--activations: %s", qd_error_text());
  return QD_OK;
}

qd_status qd_plan_check_scratch(const qd_plan *plan, qd_plan_place place) {
  const qd_job *job = plan->request.job;
  const char *what = "the activations of a node's ranks";
  qd_room room;
  double need;
  if (!plan->request.acts_on_disk || plan->request.sequences == 0) return QD_OK;
  QD_TRY(try_scratch(job->acts_folder));
  QD_TRY(node_bytes(plan, place.ranks_on_node, scratch_of, &need));
  QD_TRY(qd_disk_room(job->acts_folder, &room));
  if (job->output != NULL && qd_same_disk(job->output, job->acts_folder)) {
    what = "the activations of a node's ranks and, on the same file system, the store";
    need += output_need(plan);
  }
  return refuse_disk("--activations disk:", job->acts_folder, what, need, &room);
}

/* ---- for people ---------------------------------------------------------------------------------------------------------- */

int64_t qd_plan_linears(const qd_plan *plan, qd_role role, qd_fate fate) {
  int64_t n = 0;
  for (size_t k = 0; k < plan->n_kinds; k++)
    for (int i = 0; i < plan->kind[k].n; i++) {
      const qd_plan_tensor *t = &plan->kind[k].tensor[i];
      if (t->slot.role == role && t->fate == fate) n += plan->kind[k].blocks;
    }
  return n;
}

void qd_plan_tell_unlike(const qd_plan *plan, void (*say)(const char *line)) {
  static const char *const fates[QD_N_FATES] = {[QD_FATE_RAGGED] = "no group divides the width: the last one is shorter",
                                                [QD_FATE_WHOLE_ROWS] = "no group divides the width: one group a row",
                                                [QD_FATE_IGNORED] = "kept: --ignore",
                                                [QD_FATE_SKIPPED] = "kept: no group divides the width (--odd-shape skip)"};
  for (qd_fate fate = QD_FATE_RAGGED; fate < QD_N_FATES; fate++)
    for (qd_role role = 0; role < QD_N_LINEARS; role++) {
      char line[160];
      int64_t n = qd_plan_linears(plan, role, fate);
      snprintf(line, sizeof line, "%" PRId64 " %s of %" PRId64 " columns: %s", n, qd_role_name(role),
               qd_model_columns(plan->request.model, role), fates[fate]);
      if (n > 0) say(line);
    }
}

static void log_line(const char *line) { qd_log("%s", line); }

void qd_plan_log(const qd_plan *plan, int ranks_on_node) {
  char first[32], last[32], disk[32], traffic[32];
  int ranks = plan->request.ranks;
  qd_size_text((double)plan->rank[0].host_bytes, first, sizeof first);
  qd_size_text((double)plan->rank[ranks - 1].host_bytes, last, sizeof last);
  qd_size_text((double)plan->disk_bytes, disk, sizeof disk);
  qd_size_text((double)plan->traffic_bytes, traffic, sizeof traffic);
  if (plan->request.acts_on_disk && plan->request.sequences > 0) {
    char scratch[32];
    qd_size_text((double)plan->rank[0].scratch_disk_bytes, scratch, sizeof scratch);
    qd_log("activations: on disk, %s a rank in %s", scratch, plan->request.job->acts_folder);
  }
  if (ranks == 1) qd_log("plan: %s of memory, %s of disk", first, disk);
  else
    qd_log("plan: %s of memory on rank 0, %s on rank %d, %d ranks on this node; %s of disk; %s between ranks", first, last,
           ranks - 1, ranks_on_node, disk, traffic);
  qd_plan_tell_unlike(plan, log_line);
}
