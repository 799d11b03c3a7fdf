/* Memory whose size is known only at run time and that outlives no arena: texts, JSON, vocabularies, token lists.
 * Everything of a job's size (weights, activations, Hessians) lives in arenas instead (arena.h). */
#ifndef QDIST_KERNELS_BASE_HEAP_H
#define QDIST_KERNELS_BASE_HEAP_H

#include "kernels/base/status.h"

/* n x size bytes, zeroed; refuses a product that overflows.  *out is NULL on failure.  n x size = 0 gives one byte. */
qd_status qd_heap_new(size_t n, size_t size, void *out) QD_MUST_USE;

/* Make room for `need` elements in *array (its capacity in *capacity): grows by doubling, keeps the contents. */
qd_status qd_heap_grow(void *array, size_t *capacity, size_t need, size_t size) QD_MUST_USE;

/* A copy of `n` bytes with a NUL behind it. */
qd_status qd_heap_text(const char *text, size_t n, char **out) QD_MUST_USE;

void qd_heap_free(void *memory); /* NULL is fine */

#endif
