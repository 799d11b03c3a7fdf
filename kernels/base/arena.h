/* One block of memory with a bump pointer.  Whoever opens the arena owns the memory; views into it die with it.
 * The block is reserved as address space and made usable in steps, so an arena costs what was used of it, also where the system
 * does not overcommit. */
#ifndef QDIST_KERNELS_BASE_ARENA_H
#define QDIST_KERNELS_BASE_ARENA_H

#include "kernels/base/status.h"

enum { QD_ARENA_ALIGNMENT = 64 };

typedef struct qd_arena {
  unsigned char *base;
  size_t capacity_bytes, used_bytes, peak_bytes, usable_bytes;
  const char *name; /* for messages: "block", "scratch" ... */
} qd_arena;

qd_status qd_arena_open(qd_arena *arena, const char *name, size_t capacity_bytes) QD_MUST_USE;
void      qd_arena_close(qd_arena *arena); /* a zeroed arena is fine */

/* n x size bytes, aligned to 64, not zeroed after a rewind.  *out is NULL on failure (QD_ENOMEM names the arena). */
qd_status qd_arena_new(qd_arena *arena, size_t n, size_t size, void *out) QD_MUST_USE;

static inline size_t qd_arena_mark(const qd_arena *arena) { return arena->used_bytes; }
void qd_arena_rewind(qd_arena *arena, size_t mark);

/* What one allocation of n x size bytes takes, alignment included: for sizing an arena beforehand. */
static inline size_t qd_arena_cost(size_t n, size_t size) {
  return (n * size + QD_ARENA_ALIGNMENT - 1) / QD_ARENA_ALIGNMENT * QD_ARENA_ALIGNMENT;
}

#endif
