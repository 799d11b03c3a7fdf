/* A text file, whole and unpacked, and lines of JSON in it. */
#ifndef QDIST_STORAGE_TEXT_FILE_H
#define QDIST_STORAGE_TEXT_FILE_H

#include "storage/digest.h"
#include "storage/json.h"

typedef struct qd_text_file {
  char     *text; /* from the heap */
  size_t    n;
  qd_digest digest; /* of the file's bytes as they are */
} qd_text_file;

/* unpack: if the file is gzip.  QD_ENOTFOUND, QD_EIO, QD_EBADINPUT (damaged gzip, larger than 16 GiB). */
qd_status qd_text_file_read(const char *path, bool unpack, qd_text_file *out) QD_MUST_USE;
void      qd_text_file_release(qd_text_file *file);

/* gzip (one or more members) -> bytes from the heap.  `what` names it in messages. */
qd_status qd_gzip_unpack(const char *packed, size_t n, const char *what, char **out, size_t *out_n) QD_MUST_USE;

typedef struct qd_jsonl_line {
  size_t begin, bytes, number; /* number: in the file, from 1 */
} qd_jsonl_line;

typedef struct qd_jsonl { /* the lines that are not blank; text and path are borrowed */
  const char    *text, *path;
  qd_jsonl_line *line;
  size_t         n, capacity;
} qd_jsonl;

/* Finds the lines, parses none. */
qd_status qd_jsonl_open(const char *text, size_t n, const char *path, qd_jsonl *out) QD_MUST_USE;
void      qd_jsonl_close(qd_jsonl *lines);
/* A line's document; the caller frees it.  `what` becomes "FILE, line N", for messages. */
enum { QD_JSONL_WHAT_BYTES = 512 };
qd_status qd_jsonl_parse(const qd_jsonl *lines, size_t index, char what[QD_JSONL_WHAT_BYTES], qd_json **out) QD_MUST_USE;
/* The member "text" of a line, from the heap.  QD_EBADINPUT names file and line. */
qd_status qd_jsonl_text(const qd_jsonl *lines, size_t index, char **text, size_t *n) QD_MUST_USE;

#endif
