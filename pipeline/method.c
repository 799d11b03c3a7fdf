#include "pipeline/method.h"

#include "kernels/base/heap.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const qd_method *const methods[] = {
#define QD_METHOD(name) &qd_method_##name,
#include "pipeline/methods.def"
#undef QD_METHOD
};
enum { N_METHODS = (int)(sizeof methods / sizeof methods[0]) };

const qd_method *qd_method_at(int index) { return index < N_METHODS ? methods[index] : NULL; }

const qd_method *qd_method_find(const char *name) {
  for (int i = 0; i < N_METHODS; i++)
    if (strcmp(name, methods[i]->name) == 0) return methods[i];
  return NULL;
}

const char *qd_method_names(void) {
  static char names[256];
  size_t used = 0;
  for (int i = 0; i < N_METHODS && used < sizeof names; i++)
    used += (size_t)snprintf(names + used, sizeof names - used, "%s%s", i ? ", " : "", methods[i]->name);
  return names;
}

/* A column's place among the others: its group's key first (equal keys for orders without groups), then its own. */
typedef struct sort_key {
  float   group_key, key;
  int64_t group, column;
} sort_key;

static int descending(const void *a, const void *b) {
  const sort_key *x = a, *y = b;
  if (x->group_key != y->group_key) return x->group_key < y->group_key ? 1 : -1;
  if (x->group != y->group) return x->group < y->group ? -1 : 1;
  if (x->key != y->key) return x->key < y->key ? 1 : -1;
  return x->column < y->column ? -1 : x->column > y->column;
}

/* The largest diagonal of each column's group, so that whole groups are sorted by it. */
static void group_keys(int64_t group_size, const float *diagonal, int64_t columns, sort_key *keys) {
  for (int64_t first = 0; first < columns; first += group_size) {
    int64_t end = first + group_size < columns ? first + group_size : columns;
    float largest = diagonal[first];
    for (int64_t c = first; c < end; c++) largest = diagonal[c] > largest ? diagonal[c] : largest;
    for (int64_t c = first; c < end; c++) keys[c].group_key = largest, keys[c].group = first;
  }
}

qd_status qd_method_order(qd_act_order act_order, int64_t group_size, const float *diagonal, int64_t columns, int32_t *order) {
  for (int64_t c = 0; c < columns; c++) order[c] = (int32_t)c;
  if (act_order == QD_ORDER_NONE) return QD_OK;
  sort_key *keys;
  QD_TRY(qd_heap_new((size_t)columns, sizeof *keys, &keys));
  for (int64_t c = 0; c < columns; c++) keys[c] = (sort_key){.key = diagonal[c], .column = c};
  if (act_order == QD_ORDER_GROUP && group_size > 0) group_keys(group_size, diagonal, columns, keys);
  qsort(keys, (size_t)columns, sizeof *keys, descending);
  for (int64_t c = 0; c < columns; c++) order[c] = (int32_t)keys[c].column;
  qd_heap_free(keys);
  return QD_OK;
}
