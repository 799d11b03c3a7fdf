#include "kernels/base/heap.h"

#include <stdlib.h>
#include <string.h>

static bool product_fits(size_t n, size_t size) { return size == 0 || n <= (size_t)PTRDIFF_MAX / size; }

qd_status qd_heap_new(size_t n, size_t size, void *out) {
  void **slot = out;
  *slot = NULL;
  QD_CHECK(product_fits(n, size), QD_ENOMEM, "%zu x %zu bytes are more than any machine has", n, size);
  size_t bytes = n * size;
  *slot = calloc(bytes ? bytes : 1, 1);
  QD_CHECK(*slot != NULL, QD_ENOMEM, "no %zu bytes of memory left", bytes);
  return QD_OK;
}

qd_status qd_heap_grow(void *array, size_t *capacity, size_t need, size_t size) {
  void **slot = array;
  if (need <= *capacity && *slot != NULL) return QD_OK;
  size_t n = *capacity < 16 ? 16 : *capacity;
  while (n < need && n <= SIZE_MAX / 2) n *= 2;
  QD_CHECK(n >= need && product_fits(n, size), QD_ENOMEM, "%zu x %zu bytes are more than any machine has", need, size);
  void *grown = realloc(*slot, n * size);
  if (grown != NULL) {
    *slot = grown; /* before the check: an injected fault must not leave the old, freed pointer behind */
    *capacity = n;
  }
  QD_CHECK(grown != NULL, QD_ENOMEM, "no %zu bytes of memory left", n * size);
  return QD_OK;
}

qd_status qd_heap_text(const char *text, size_t n, char **out) {
  *out = NULL;
  QD_CHECK(n < (size_t)PTRDIFF_MAX, QD_ENOMEM, "%zu bytes are more than any machine has", n);
  QD_TRY(qd_heap_new(n + 1, 1, out));
  memcpy(*out, text, n);
  return QD_OK;
}

void qd_heap_free(void *memory) { free(memory); }
