/* Models by name: folders that hold models, the cache that Hugging Face's tools keep, and short names (model_names.def).
 *
 * A name is looked up in this order:
 *   1. a folder or file of exactly that path
 *   2. PLACE/NAME, PLACE/NAME.gguf in each place, in order
 *   3. what the places hold, by its whole name in any case: ORGANISATION/MODEL of the cache, too
 *   4. a short name: the first of its repositories that is there and can be opened, by its whole name or its last part
 *   5. the last part of the name of what the places hold, if that is one model only
 * In the cache (hub/models--ORGANISATION--MODEL) a model is the snapshot that refs/main names, or the only one. */
#ifndef QDIST_STORAGE_FIND_MODEL_H
#define QDIST_STORAGE_FIND_MODEL_H

#include "kernels/base/status.h"

typedef struct qd_model_place {
  char       *path;
  const char *origin; /* "--model-path": for messages */
  bool        is_hub; /* laid out as the cache */
} qd_model_place;

typedef struct qd_model_places { /* zeroed: none */
  qd_model_place *at;
  size_t n, capacity;
} qd_model_places;

/* Folders parted by colons (NULL: none); those that do not exist are fine.  origin is borrowed. */
qd_status qd_model_places_add(qd_model_places *places, const char *folders, const char *origin, bool is_hub) QD_MUST_USE;
void      qd_model_places_release(qd_model_places *places);

/* What a place holds: folders with config.json, GGUF files, snapshots of the cache. */
typedef struct qd_model_entry {
  char *name; /* within its place, or ORGANISATION/MODEL */
  char *path; /* NULL: `why` says why it cannot be used */
  char *why;
  const qd_model_place *place;
} qd_model_entry;

typedef struct qd_model_entries { /* by place, then by name */
  qd_model_entry *at;
  size_t n, capacity;
} qd_model_entries;

qd_status qd_model_entries_read(const qd_model_places *places, qd_model_entries *out) QD_MUST_USE;
void      qd_model_entries_release(qd_model_entries *entries);

/* *path from the heap.  QD_ENOTFOUND: the message says where was looked, what was found there, and the nearest names; or that
 * several models fit. */
qd_status qd_model_find(const qd_model_places *places, const char *name, char **path) QD_MUST_USE;

#endif
