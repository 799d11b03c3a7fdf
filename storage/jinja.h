/* The part of Jinja that chat templates of models are written in: if, for (with loop, break, continue), set (also of a
 * namespace and of a block), macro, expressions, the usual filters, tests and methods, white space control with trim_blocks and
 * lstrip_blocks on, as Hugging Face's transformers renders them.  Whatever else a template asks for is refused by its name.
 * Templates are hostile: nesting, work, memory and output are bounded, and nothing of the machine (its clock) can be seen. */
#ifndef QDIST_STORAGE_JINJA_H
#define QDIST_STORAGE_JINJA_H

#include "storage/json.h"

typedef struct qd_jinja qd_jinja;

/* Parse n bytes; `what` names the template in messages (copied).  QD_EBADINPUT: not UTF-8, not Jinja (with the line), larger
 * than 1 MiB, nested deeper than 100.  QD_EUNSUPPORTED names the construct. */
qd_status qd_jinja_open(const char *text, size_t n, const char *what, qd_jinja **out) QD_MUST_USE;
void qd_jinja_close(qd_jinja *jinja); /* NULL is fine */

/* The text for the members of the object `variables`; *text from the heap.  QD_EBADINPUT: raise_exception, a wrong type, a loop
 * that does not end, more than 64 MiB.  QD_EUNSUPPORTED: a filter, test, method or function that is not known.  Any thread. */
qd_status qd_jinja_render(const qd_jinja *jinja, const qd_json *variables, char **text, size_t *n) QD_MUST_USE;

#endif
