/* A thin, bounded layer over jansson: documents from files are hostile until read.  Every getter's message names the document
 * and the key, says what was expected and what was there. */
#ifndef QDIST_STORAGE_JSON_H
#define QDIST_STORAGE_JSON_H

#include "kernels/base/status.h"

typedef struct qd_json qd_json; /* a jansson value; the root is owned by who parsed or made it */

/* Parse `n` bytes.  QD_EBADINPUT: not JSON, a key twice in one object, nesting deeper than 64, NUL in a key, trailing bytes.
 * `what` names the document in messages (copied). */
qd_status qd_json_parse(const char *text, size_t n, const char *what, qd_json **out) QD_MUST_USE;
qd_status qd_json_read(const char *path, size_t max_bytes, qd_json **out) QD_MUST_USE; /* QD_ENOTFOUND, QD_EIO, QD_EBADINPUT */
void      qd_json_free(qd_json *root); /* NULL is fine */

/* Reading.  A missing key and a null are the same: *_get gives NULL, the typed getters take the default. */
const qd_json *qd_json_get(const qd_json *object, const char *key);
bool           qd_json_is_object(const qd_json *value);
bool           qd_json_is_array(const qd_json *value);
bool           qd_json_is_text(const qd_json *value);
bool           qd_json_is_number(const qd_json *value);
bool           qd_json_is_true(const qd_json *value);  /* of what is a constant */
bool           qd_json_is_integer(const qd_json *value); /* written without fraction and exponent, and within int64 */
size_t         qd_json_length(const qd_json *array_or_object);
const qd_json *qd_json_at(const qd_json *array, size_t index);
bool           qd_json_member(const qd_json *object, size_t index, const char **key, const qd_json **value); /* in file order */
const char    *qd_json_text(const qd_json *value);      /* NULL if it is not text; lives as long as the root */
size_t         qd_json_text_bytes(const qd_json *value); /* text may hold NULs */
double         qd_json_number(const qd_json *value);     /* 0 if it is none */
int64_t        qd_json_integer(const qd_json *value);

/* Typed members of `object` (document name `what` in the messages).  QD_EBADINPUT on another type or outside [low, high]. */
qd_status qd_json_need_integer(const qd_json *object, const char *what, const char *key, int64_t low, int64_t high,
                               int64_t *out) QD_MUST_USE;
qd_status qd_json_take_integer(const qd_json *object, const char *what, const char *key, int64_t low, int64_t high,
                               int64_t otherwise, int64_t *out) QD_MUST_USE;
qd_status qd_json_take_number(const qd_json *object, const char *what, const char *key, double low, double high,
                              double otherwise, double *out) QD_MUST_USE;
qd_status qd_json_take_bool(const qd_json *object, const char *what, const char *key, bool otherwise, bool *out) QD_MUST_USE;
qd_status qd_json_need_text(const qd_json *object, const char *what, const char *key, const char **out) QD_MUST_USE;

/* Making.  Members keep their order.  A value handed over (set, append) belongs to its container. */
qd_json  *qd_json_object(void);
qd_json  *qd_json_array(void);
qd_json  *qd_json_copy(const qd_json *value); /* deep */
void      qd_json_set(qd_json *object, const char *key, qd_json *value);
void      qd_json_set_text(qd_json *object, const char *key, const char *text); /* NULL: null */
void      qd_json_set_integer(qd_json *object, const char *key, int64_t value);
void      qd_json_set_number(qd_json *object, const char *key, double value); /* NaN and Inf: null */
void      qd_json_set_bool(qd_json *object, const char *key, bool value);
void      qd_json_append(qd_json *array, qd_json *value);
void      qd_json_append_integer(qd_json *array, int64_t value);
void      qd_json_append_number(qd_json *array, double value);
void      qd_json_append_text(qd_json *array, const char *text);
bool      qd_json_equal(const qd_json *a, const qd_json *b);

/* The text, members in order, numbers by %.17g, indented by `indent` (0: one line).  The caller frees with qd_heap_free. */
qd_status qd_json_print(const qd_json *value, int indent, char **text) QD_MUST_USE;

const char *qd_json_library_version(void);

#endif
