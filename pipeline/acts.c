#include "pipeline/acts.h"

#include <string.h>

static size_t residual_bytes(const qd_acts_shape *s) {
  return (size_t)(s->tokens * s->hidden) * qd_dtype_bytes(s->dtype);
}

/* Room for the widest mid: a stage's output takes the place of its input. */
static size_t mid_bytes(const qd_acts_shape *s) { return (size_t)(s->tokens * s->widest) * qd_dtype_bytes(s->dtype); }

size_t qd_acts_bytes(const qd_acts_shape *s) {
  size_t n = (size_t)s->sequences;
  return (s->saves ? 2 : 1) * qd_arena_cost(n, residual_bytes(s)) + qd_arena_cost(n, mid_bytes(s));
}

qd_status qd_acts_open(qd_acts *acts, const qd_acts_shape *shape, qd_arena *arena) {
  size_t n = (size_t)shape->sequences;
  *acts = (qd_acts){.shape = *shape};
  QD_TRY(qd_arena_new(arena, n, residual_bytes(shape), &acts->h));
  if (shape->saves) QD_TRY(qd_arena_new(arena, n, residual_bytes(shape), &acts->saved));
  return qd_arena_new(arena, n, mid_bytes(shape), &acts->mid);
}

void qd_acts_begin(qd_acts *acts, qd_acts_use use) {
  QD_ASSERT(use.mid_in <= acts->shape.widest && use.mid_out <= acts->shape.widest);
  acts->use = use;
  acts->next = 0;
}

static qd_tensor view(const qd_acts *acts, unsigned char *data, size_t bytes, int64_t n, int64_t columns) {
  const qd_acts_shape *s = &acts->shape;
  return (qd_tensor){.data = data, .dtype = s->dtype, .rank = 3, .dim = {n, s->tokens, columns},
                     .stride = {(int64_t)(bytes / qd_dtype_bytes(s->dtype)), columns, 1}};
}

/* In memory one window holds all sequences. */
qd_status qd_acts_next(qd_acts *acts, qd_acts_window *window) {
  const qd_acts_shape *s = &acts->shape;
  int64_t first = acts->next, n = s->sequences - first, columns = acts->use.mid_in ? acts->use.mid_in : acts->use.mid_out;
  *window = (qd_acts_window){.first = first, .n = n};
  window->h = view(acts, acts->h + (size_t)first * residual_bytes(s), residual_bytes(s), n, s->hidden);
  window->mid = view(acts, acts->mid + (size_t)first * mid_bytes(s), mid_bytes(s), n, columns);
  acts->next += n;
  return QD_OK;
}

void qd_acts_save(qd_acts *acts) {
  QD_ASSERT(acts->shape.saves);
  memcpy(acts->saved, acts->h, (size_t)acts->shape.sequences * residual_bytes(&acts->shape));
}

void qd_acts_restore(qd_acts *acts) {
  memcpy(acts->h, acts->saved, (size_t)acts->shape.sequences * residual_bytes(&acts->shape));
}
