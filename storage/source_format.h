/* What a format of model files brings, and what it fills a source with.  Only storage/sources/ and source.c include this. */
#ifndef QDIST_STORAGE_SOURCE_FORMAT_H
#define QDIST_STORAGE_SOURCE_FORMAT_H

#include "storage/source.h"

typedef struct qd_source_format {
  const char *name;

  /* Does the path, a folder or a file, hold weights of this format?  By names only: what is in them is checked by `open`. */
  qd_status (*recognise)(const char *path, bool *found);

  /* Add all files and tensors, seal, check.  The caller closes the source on failure. */
  qd_status (*open)(qd_source *source);

  /* Bytes [offset, offset + n) of a tensor as it is read, any thread.  NULL: they lie in the file as they are. */
  qd_status (*read)(qd_bytes *file, const void *state, const qd_source_tensor *tensor, uint64_t offset, void *to, size_t n);
  void (*close_state)(void *state); /* NULL where `open` sets none */

  /* A side file made from what the weights' files say, its text from the heap.  QD_ENOTFOUND.  NULL: side files lie in the
   * folder, with config.json among them. */
  qd_status (*make_side_file)(const char *path, const char *name, char **text);
} qd_source_format;

#define QD_SOURCE(x) extern const qd_source_format qd_source_##x;
#include "storage/sources.def"
#undef QD_SOURCE

/* The format of what lies at `path`; NULL: none is known there. */
qd_status qd_source_format_of(const char *path, const qd_source_format **out) QD_MUST_USE;

/* For formats that make their side files: the folder of the weights' files, config.json (handed over, after a failure too) and
 * the names of all side files (NULL behind the last; borrowed). */
qd_status qd_source_set_made(qd_source *source, const char *folder, qd_json *config, const char *const *side_files) QD_MUST_USE;
void      qd_source_set_state(qd_source *source, void *state); /* of the format; closed with the source */

/* Open the weight file folder/name and note its identity. */
qd_status qd_source_add_file(qd_source *source, const char *name, int *file) QD_MUST_USE;
qd_bytes *qd_source_file_bytes(qd_source *source, int file); /* until the next qd_source_add_file */

/* One tensor, checked by the format; the name is copied. */
qd_status qd_source_add_tensor(qd_source *source, const qd_source_tensor *tensor) QD_MUST_USE;

/* After the last tensor: sort by name, so that qd_source_find works.  QD_EBADINPUT: a name twice. */
qd_status qd_source_seal(qd_source *source) QD_MUST_USE;

/* The names in a folder that end in `ending`, hidden ones left out, ascending; from the heap, as is each of them. */
typedef struct qd_names {
  char **name;
  size_t n, capacity;
} qd_names;
qd_status qd_names_list(const char *folder, const char *ending, qd_names *out) QD_MUST_USE;
void      qd_names_release(qd_names *names); /* zeroed is fine */

#endif
