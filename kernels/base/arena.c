#define _DEFAULT_SOURCE
#include "kernels/base/arena.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

static const size_t step_bytes = (size_t)4 << 20; /* a multiple of every page size */

qd_status qd_arena_open(qd_arena *arena, const char *name, size_t capacity_bytes) {
  *arena = (qd_arena){.name = name};
  size_t bytes = capacity_bytes ? capacity_bytes : 1;
  void *base = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  QD_CHECK(base != MAP_FAILED, QD_ENOMEM, "no %zu bytes for the %s arena: %s", bytes, name, strerror(errno));
  arena->base = base;
  arena->capacity_bytes = bytes;
  return QD_OK;
}

void qd_arena_close(qd_arena *arena) {
  if (arena->base != NULL) munmap(arena->base, arena->capacity_bytes);
  *arena = (qd_arena){.name = arena->name};
}

/* What is reserved without access counts nowhere; what is made usable is charged to the process. */
static qd_status make_usable(qd_arena *arena, size_t need) {
  if (need <= arena->usable_bytes) return QD_OK;
  size_t bytes = (need + step_bytes - 1) / step_bytes * step_bytes;
  if (bytes > arena->capacity_bytes) bytes = arena->capacity_bytes;
  int failed = mprotect(arena->base, bytes, PROT_READ | PROT_WRITE);
  QD_CHECK(failed == 0, QD_ENOMEM, "no memory left: the %s arena has %zu bytes and needs %zu: %s", arena->name,
           arena->usable_bytes, need, strerror(errno));
  arena->usable_bytes = bytes;
  return QD_OK;
}

qd_status qd_arena_new(qd_arena *arena, size_t n, size_t size, void *out) {
  void **slot = out;
  *slot = NULL;
  size_t left = arena->capacity_bytes - arena->used_bytes;
  QD_CHECK(size == 0 || n <= left / size, QD_ENOMEM, "the %s arena of %zu bytes has %zu left, needs %zu x %zu", arena->name,
           arena->capacity_bytes, left, n, size);
  size_t bytes = qd_arena_cost(n, size);
  QD_CHECK(bytes <= left, QD_ENOMEM, "the %s arena of %zu bytes has %zu left, needs %zu", arena->name, arena->capacity_bytes,
           left, bytes);
  QD_TRY(make_usable(arena, arena->used_bytes + bytes));
  *slot = arena->base + arena->used_bytes;
  arena->used_bytes += bytes;
  if (arena->used_bytes > arena->peak_bytes) arena->peak_bytes = arena->used_bytes;
  return QD_OK;
}

void qd_arena_rewind(qd_arena *arena, size_t mark) {
  QD_ASSERT(mark <= arena->used_bytes);
  arena->used_bytes = mark;
}
