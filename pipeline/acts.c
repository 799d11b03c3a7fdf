#include "pipeline/acts.h"

#include "pipeline/acts_disk.h"

#include <string.h>

size_t qd_acts_h_bytes(const qd_acts_shape *s) { return (size_t)(s->tokens * s->hidden) * qd_dtype_bytes(s->dtype); }

size_t qd_acts_mid_bytes(const qd_acts_shape *s) { return (size_t)(s->tokens * s->widest) * qd_dtype_bytes(s->dtype); }

size_t qd_acts_bytes(const qd_acts_shape *s) {
  size_t n = (size_t)s->sequences;
  if (s->disk != NULL) return qd_acts_disk_host_bytes(s);
  return (s->saves ? 2 : 1) * qd_arena_cost(n, qd_acts_h_bytes(s)) + qd_arena_cost(n, qd_acts_mid_bytes(s));
}

uint64_t qd_acts_disk_bytes(const qd_acts_shape *s) { return s->disk != NULL ? qd_acts_disk_file_bytes(s) : 0; }

qd_status qd_acts_open(qd_acts *acts, const qd_acts_shape *shape, qd_arena *arena) {
  size_t n = (size_t)shape->sequences;
  *acts = (qd_acts){.shape = *shape};
  if (shape->disk != NULL) return qd_acts_disk_open(shape, arena, &acts->disk);
  QD_TRY(qd_arena_new(arena, n, qd_acts_h_bytes(shape), &acts->h));
  if (shape->saves) QD_TRY(qd_arena_new(arena, n, qd_acts_h_bytes(shape), &acts->saved));
  return qd_arena_new(arena, n, qd_acts_mid_bytes(shape), &acts->mid);
}

void qd_acts_close(qd_acts *acts) {
  qd_acts_disk_close(acts->disk);
  *acts = (qd_acts){0};
}

void qd_acts_begin(qd_acts *acts, qd_acts_use use) {
  QD_ASSERT(use.mid_in <= acts->shape.widest && use.mid_out <= acts->shape.widest);
  acts->use = use;
  acts->next = 0;
  if (acts->disk != NULL) qd_acts_disk_begin(acts->disk, use);
}

qd_tensor qd_acts_view(const qd_acts_shape *s, void *data, size_t sequence_bytes, int64_t n, int64_t columns) {
  return (qd_tensor){.data = data, .dtype = s->dtype, .rank = 3, .dim = {n, s->tokens, columns},
                     .stride = {(int64_t)(sequence_bytes / qd_dtype_bytes(s->dtype)), columns, 1}};
}

/* In memory one window holds all sequences. */
qd_status qd_acts_next(qd_acts *acts, qd_acts_window *window) {
  const qd_acts_shape *s = &acts->shape;
  if (acts->disk != NULL) return qd_acts_disk_next(acts->disk, window);
  int64_t first = acts->next, n = s->sequences - first, columns = acts->use.mid_in ? acts->use.mid_in : acts->use.mid_out;
  *window = (qd_acts_window){.first = first, .n = n};
  window->h = qd_acts_view(s, acts->h + (size_t)first * qd_acts_h_bytes(s), qd_acts_h_bytes(s), n, s->hidden);
  window->mid = qd_acts_view(s, acts->mid + (size_t)first * qd_acts_mid_bytes(s), qd_acts_mid_bytes(s), n, columns);
  acts->next += n;
  return QD_OK;
}

void qd_acts_save(qd_acts *acts) {
  QD_ASSERT(acts->shape.saves);
  if (acts->disk != NULL) qd_acts_disk_save(acts->disk);
  else memcpy(acts->saved, acts->h, (size_t)acts->shape.sequences * qd_acts_h_bytes(&acts->shape));
}

void qd_acts_restore(qd_acts *acts) {
  QD_ASSERT(acts->shape.saves);
  if (acts->disk != NULL) qd_acts_disk_restore(acts->disk);
  else memcpy(acts->h, acts->saved, (size_t)acts->shape.sequences * qd_acts_h_bytes(&acts->shape));
}

double qd_acts_wait_seconds(const qd_acts *acts) {
  return acts->disk != NULL ? qd_acts_disk_wait_seconds(acts->disk) : 0;
}
