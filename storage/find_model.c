#define _POSIX_C_SOURCE 200809L
#include "storage/find_model.h"

#include "kernels/base/heap.h"
#include "kernels/base/nearest.h"
#include "storage/bytes.h"
#include "storage/listing.h"
#include "storage/source.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const struct short_name {
  const char *name, *repository;
} short_names[] = {
#define QD_MODEL_NAME(name, repository) {name, repository},
#include "storage/model_names.def"
#undef QD_MODEL_NAME
};
enum { N_SHORT = sizeof short_names / sizeof *short_names, SHOWN_NAMES = 8, NEAR_NAMES = 3, LIST_BYTES = 1024 };

#define GGUF ".gguf"

/* ---- places -------------------------------------------------------------------------------------------------------------- */

qd_status qd_model_places_add(qd_model_places *places, const char *folders, const char *origin, bool is_hub) {
  while (folders != NULL && *folders != '\0') {
    size_t n = strcspn(folders, ":");
    if (n > 0) {
      QD_TRY(qd_heap_grow(&places->at, &places->capacity, places->n + 1, sizeof *places->at));
      qd_model_place *place = &places->at[places->n];
      *place = (qd_model_place){.origin = origin, .is_hub = is_hub};
      QD_TRY(qd_heap_text(folders, n, &place->path));
      places->n++;
    }
    folders += n + (folders[n] == ':');
  }
  return QD_OK;
}

void qd_model_places_release(qd_model_places *places) {
  for (size_t i = 0; i < places->n; i++) qd_heap_free(places->at[i].path);
  qd_heap_free(places->at);
  *places = (qd_model_places){0};
}

/* ---- what a place holds -------------------------------------------------------------------------------------------------- */

static bool ends_in(const char *text, const char *ending) {
  size_t n = strlen(text), m = strlen(ending);
  return n > m && strcasecmp(text + n - m, ending) == 0;
}

/* FILE-00002-of-00003.gguf belongs to the first part. */
static bool is_later_part(const char *name) {
  size_t n = strlen(name), tail = strlen("-00002-of-00003" GGUF);
  int number, count;
  return n > tail && sscanf(name + n - tail, "-%5d-of-%5d", &number, &count) == 2 && number > 1;
}

static qd_status copy_text(const char *text, char **out) { return qd_heap_text(text, strlen(text), out); }

static qd_status add_entry(qd_model_entries *out, const qd_model_place *place, const char *name, const char *path,
                           const char *why) {
  QD_TRY(qd_heap_grow(&out->at, &out->capacity, out->n + 1, sizeof *out->at));
  qd_model_entry *entry = &out->at[out->n++];
  *entry = (qd_model_entry){.place = place};
  QD_TRY(copy_text(name, &entry->name));
  if (path != NULL) QD_TRY(copy_text(path, &entry->path));
  if (why != NULL) QD_TRY(copy_text(why, &entry->why));
  return QD_OK;
}

static bool holds(const char *folder, const char *name) {
  char *path;
  if (qd_path_join(folder, name, &path) != QD_OK) return false;
  bool found = qd_file_exists(path);
  qd_heap_free(path);
  return found;
}

static qd_status visit_folder(qd_model_entries *out, const qd_model_place *place, const char *path, const char *prefix,
                              int depth);

/* A model, a GGUF file, or (once) an organisation's folder. */
static qd_status visit(qd_model_entries *out, const qd_model_place *place, const char *path, const char *name, int depth) {
  if (!qd_folder_exists(path))
    return ends_in(name, GGUF) && !is_later_part(name) ? add_entry(out, place, name, path, NULL) : QD_OK;
  if (holds(path, "config.json")) return add_entry(out, place, name, path, NULL);
  return depth > 0 ? visit_folder(out, place, path, name, depth - 1) : QD_OK;
}

/* A folder that may not be read is passed over: it holds nothing that could be used. */
static qd_status visit_folder(qd_model_entries *out, const qd_model_place *place, const char *path, const char *prefix,
                              int depth) {
  qd_listing listing;
  qd_status status = QD_OK;
  if (qd_listing_read(path, &listing) != QD_OK) return QD_OK;
  for (size_t i = 0; i < listing.n && status == QD_OK; i++) {
    char *name = NULL, *below = NULL;
    if (listing.name[i][0] == '.') continue;
    status = qd_path_join(prefix, listing.name[i], &name);
    if (status == QD_OK) status = qd_path_join(path, listing.name[i], &below);
    if (status == QD_OK) status = visit(out, place, below, name, depth);
    qd_heap_free(below);
    qd_heap_free(name);
  }
  qd_listing_release(&listing);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

/* ---- the cache ----------------------------------------------------------------------------------------------------------- */

enum { COMMIT_BYTES = 256 };

/* The commit in refs/main; empty: there is none. */
static void read_ref(const char *repository, char commit[COMMIT_BYTES]) {
  char *path, *text = NULL;
  size_t n = 0;
  commit[0] = '\0';
  if (qd_path_join(repository, "refs/main", &path) != QD_OK) return;
  if (qd_file_read(path, COMMIT_BYTES - 1, &text, &n) == QD_OK) snprintf(commit, COMMIT_BYTES, "%s", text);
  commit[strcspn(commit, " \r\n\t/")] = '\0';
  qd_heap_free(text);
  qd_heap_free(path);
}

/* The snapshot's name among those that are there, NULL and the reason where none can be chosen. */
static const char *choose_snapshot(const qd_listing *snapshots, const char *commit, const char **why) {
  for (size_t i = 0; i < snapshots->n && commit[0] != '\0'; i++)
    if (strcmp(snapshots->name[i], commit) == 0) return snapshots->name[i];
  *why = snapshots->n == 0   ? "it has no snapshot: its download has not begun"
         : snapshots->n == 1 ? NULL
         : commit[0] != '\0' ? "the snapshot that refs/main names is not there, and several others are"
                             : "it has several snapshots, and no refs/main says which to use";
  return snapshots->n == 1 ? snapshots->name[0] : NULL;
}

static qd_status add_repository(qd_model_entries *out, const qd_model_place *place, const char *path, const char *name) {
  qd_listing snapshots = {0};
  char commit[COMMIT_BYTES], *folder, *snapshot = NULL;
  const char *why = NULL;
  QD_TRY(qd_path_join(path, "snapshots", &folder));
  bool listed = qd_listing_read(folder, &snapshots) == QD_OK;
  read_ref(path, commit);
  const char *chosen = choose_snapshot(&snapshots, commit, &why);
  qd_status status = chosen != NULL ? qd_path_join(folder, chosen, &snapshot) : QD_OK;
  if (status == QD_OK) status = add_entry(out, place, name, snapshot, why);
  if (listed) qd_listing_release(&snapshots);
  qd_heap_free(snapshot);
  qd_heap_free(folder);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

/* models--ORGANISATION--MODEL to ORGANISATION/MODEL; false: it is something else. */
static bool name_of_repository(const char *folder, char *name, size_t size) {
  static const char prefix[] = "models--";
  if (strncmp(folder, prefix, sizeof prefix - 1) != 0) return false;
  snprintf(name, size, "%s", folder + sizeof prefix - 1);
  char *dashes = strstr(name, "--");
  if (dashes == NULL) return name[0] != '\0';
  *dashes = '/';
  memmove(dashes + 1, dashes + 2, strlen(dashes + 2) + 1);
  return true;
}

static qd_status visit_hub(qd_model_entries *out, const qd_model_place *place) {
  qd_listing listing;
  qd_status status = QD_OK;
  char name[512];
  if (qd_listing_read(place->path, &listing) != QD_OK) return QD_OK;
  for (size_t i = 0; i < listing.n && status == QD_OK; i++) {
    char *path;
    if (!name_of_repository(listing.name[i], name, sizeof name)) continue;
    status = qd_path_join(place->path, listing.name[i], &path);
    if (status == QD_OK) status = add_repository(out, place, path, name);
    qd_heap_free(path);
  }
  qd_listing_release(&listing);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}

qd_status qd_model_entries_read(const qd_model_places *places, qd_model_entries *out) {
  qd_status status = QD_OK;
  *out = (qd_model_entries){0};
  for (size_t i = 0; i < places->n && status == QD_OK; i++) {
    const qd_model_place *place = &places->at[i];
    status = place->is_hub ? visit_hub(out, place) : visit_folder(out, place, place->path, "", 1);
  }
  if (status == QD_OK) return QD_OK;
  qd_model_entries_release(out);
  return qd_forward(status, __FILE__, __LINE__);
}

void qd_model_entries_release(qd_model_entries *entries) {
  for (size_t i = 0; i < entries->n; i++) {
    qd_heap_free(entries->at[i].name);
    qd_heap_free(entries->at[i].path);
    qd_heap_free(entries->at[i].why);
  }
  qd_heap_free(entries->at);
  *entries = (qd_model_entries){0};
}

/* ---- finding ------------------------------------------------------------------------------------------------------------- */

static const char *last_part(const char *name) {
  const char *slash = strrchr(name, '/');
  return slash != NULL ? slash + 1 : name;
}

/* What stands behind a model's name in that of a GGUF file: ".Q4_1.gguf", "-Q4_K_M.gguf", "-F16-00001-of-00002.gguf". */
static bool is_quantization(const char *rest) {
  size_t letters = strspn(rest + 1, "QqFfBbIi");
  bool parted = rest[0] == '.' || rest[0] == '-';
  return parted && letters >= 1 && letters <= 2 && rest[1 + letters] >= '0' && rest[1 + letters] <= '9';
}

/* Whether an entry is the model of that name, the last part of a repository's. */
static bool is_model(const qd_model_entry *entry, const char *model) {
  const char *own = last_part(entry->name);
  size_t n = strlen(model);
  if (strcasecmp(own, model) == 0) return true;
  if (!ends_in(own, GGUF) || strncasecmp(own, model, n) != 0) return false;
  return strcasecmp(own + n, GGUF) == 0 || is_quantization(own + n);
}

static bool is_named(const qd_model_entry *entry, const char *name) {
  size_t n = strlen(name);
  bool without_ending = ends_in(entry->name, GGUF) && strncasecmp(entry->name, name, n) == 0;
  return strcasecmp(entry->name, name) == 0 || (without_ending && strcasecmp(entry->name + n, GGUF) == 0);
}

static bool opens(const char *path) {
  qd_source *source;
  if (qd_source_open(path, &source) != QD_OK) return false;
  qd_source_close(source);
  return true;
}

/* The first entry of a repository that can be opened; *spare: one that cannot, where no better one is known. */
static const qd_model_entry *find_repository(const qd_model_entries *all, const char *repository,
                                             const qd_model_entry **spare) {
  for (size_t i = 0; i < all->n; i++) {
    const qd_model_entry *entry = &all->at[i];
    if (strcasecmp(entry->name, repository) != 0 && (entry->place->is_hub || !is_model(entry, last_part(repository)))) continue;
    if (entry->path != NULL && opens(entry->path)) return entry;
    if (*spare == NULL) *spare = entry;
  }
  return NULL;
}

static const qd_model_entry *find_short(const qd_model_entries *all, const char *name) {
  const qd_model_entry *spare = NULL, *found = NULL;
  for (int i = 0; i < N_SHORT && found == NULL; i++)
    if (strcasecmp(short_names[i].name, name) == 0) found = find_repository(all, short_names[i].repository, &spare);
  return found != NULL ? found : spare;
}

static qd_status find_last_part(const qd_model_entries *all, const char *name, const qd_model_entry **out) {
  for (size_t i = 0; i < all->n; i++) {
    if (!is_model(&all->at[i], name)) continue;
    QD_CHECK(*out == NULL, QD_ENOTFOUND, "\"%s\" is both %s in %s and %s in %s: give the whole name, or the path", name,
             (*out)->name, (*out)->place->path, all->at[i].name, all->at[i].place->path);
    *out = &all->at[i];
  }
  return QD_OK;
}

static qd_status choose(const qd_model_entries *all, const char *name, const qd_model_entry **out) {
  *out = NULL;
  for (size_t i = 0; i < all->n && *out == NULL; i++)
    if (is_named(&all->at[i], name)) *out = &all->at[i];
  if (*out == NULL) *out = find_short(all, name);
  return *out != NULL ? QD_OK : find_last_part(all, name, out);
}

/* PLACE/NAME or PLACE/NAME.gguf, as it stands; NULL: none. */
static qd_status find_exactly(const qd_model_places *places, const char *name, char **path) {
  static const char *const endings[] = {"", GGUF};
  for (size_t i = 0; i < 2 * places->n && *path == NULL; i++) {
    const qd_model_place *place = &places->at[i / 2];
    size_t size = strlen(place->path) + strlen(name) + sizeof "/" GGUF;
    if (place->is_hub) continue;
    QD_TRY(qd_heap_new(size, 1, path));
    snprintf(*path, size, "%s/%s%s", place->path, name, endings[i % 2]);
    if (qd_file_exists(*path)) continue;
    qd_heap_free(*path);
    *path = NULL;
  }
  return QD_OK;
}

/* ---- when nothing fits --------------------------------------------------------------------------------------------------- */

static void append(char list[LIST_BYTES], const char *separator, const char *text) {
  size_t n = strlen(list);
  snprintf(list + n, LIST_BYTES - n, "%s%.120s", n > 0 ? separator : "", text);
}

static void list_places(const qd_model_places *places, char list[LIST_BYTES]) {
  for (size_t i = 0; i < places->n; i++) {
    char place[512];
    bool there = qd_folder_exists(places->at[i].path);
    snprintf(place, sizeof place, "%s (%s%s)", places->at[i].path, places->at[i].origin, there ? "" : ": no such folder");
    append(list, ", ", place);
  }
}

static void list_found(const qd_model_entries *all, char list[LIST_BYTES]) {
  for (size_t i = 0; i < all->n && i < SHOWN_NAMES; i++) append(list, ", ", all->at[i].name);
  if (all->n > SHOWN_NAMES) append(list, " ", "...");
}

/* Of what is there, by whole names and last parts, and of the short names. */
static qd_status list_near(const qd_model_entries *all, const char *name, char list[LIST_BYTES]) {
  const char **names;
  size_t n = 0;
  QD_TRY(qd_heap_new(2 * all->n + N_SHORT + 1, sizeof *names, &names));
  for (size_t i = 0; i < all->n; i++) names[n++] = all->at[i].name, names[n++] = last_part(all->at[i].name);
  for (int i = 0; i < N_SHORT; i++) names[n++] = short_names[i].name;
  for (int i = 0; i < NEAR_NAMES; i++) {
    const char *near = qd_nearest(name, names);
    if (near == NULL) break;
    append(list, ", ", near);
    size_t kept = 0;
    for (size_t k = 0; k < n; k++)
      if (strcmp(names[k], near) != 0) names[kept++] = names[k];
    names[n = kept] = NULL;
  }
  qd_heap_free(names);
  return QD_OK;
}

/* A short name stands for something, even where that is not there. */
static void list_meaning(const char *name, char list[LIST_BYTES]) {
  for (int i = 0; i < N_SHORT; i++)
    if (strcasecmp(short_names[i].name, name) == 0) append(list, ", ", short_names[i].repository);
}

static qd_status refuse(const qd_model_places *places, const qd_model_entries *all, const char *name) {
  char where[LIST_BYTES] = "", found[LIST_BYTES] = "", near[LIST_BYTES] = "", meaning[LIST_BYTES] = "";
  list_places(places, where);
  list_found(all, found);
  list_meaning(name, meaning);
  if (meaning[0] == '\0') QD_TRY(list_near(all, name, near));
  QD_FAIL(QD_ENOTFOUND, "there is no model \"%.120s\"%s%s: looked for it here%s%s; found %s%s%s", name,
          meaning[0] ? ", which stands for " : "", meaning, where[0] ? " and in " : " only (--model-path names other places)",
          where, found[0] ? found : "no model there", near[0] ? "; the nearest names are " : "", near);
}

/* ---- the whole order ----------------------------------------------------------------------------------------------------- */

/* What can be nothing but a path is told as such where it is opened. */
static bool is_path(const char *name) {
  const char *slash = strchr(name, '/');
  if (name[0] == '\0' || strchr("/.~", name[0]) != NULL) return true;
  return (slash != NULL && strchr(slash + 1, '/') != NULL) || qd_file_exists(name);
}

static qd_status find_among(const qd_model_places *places, const qd_model_entries *all, const char *name, char **path) {
  const qd_model_entry *entry;
  QD_TRY(choose(all, name, &entry));
  if (entry == NULL) return refuse(places, all, name);
  QD_CHECK(entry->path != NULL, QD_ENOTFOUND, "%s in %s cannot be used: %s", entry->name, entry->place->path, entry->why);
  return copy_text(entry->path, path);
}

qd_status qd_model_find(const qd_model_places *places, const char *name, char **path) {
  qd_model_entries all;
  *path = NULL;
  if (is_path(name)) return copy_text(name, path);
  QD_TRY(find_exactly(places, name, path));
  if (*path != NULL) return QD_OK;
  QD_TRY(qd_model_entries_read(places, &all));
  qd_status status = find_among(places, &all, name, path);
  qd_model_entries_release(&all);
  return status == QD_OK ? QD_OK : qd_forward(status, __FILE__, __LINE__);
}
