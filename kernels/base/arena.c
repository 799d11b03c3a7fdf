#define _DEFAULT_SOURCE
#include "kernels/base/arena.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

qd_status qd_arena_open(qd_arena *arena, const char *name, size_t capacity_bytes) {
  *arena = (qd_arena){.name = name};
  size_t bytes = capacity_bytes ? capacity_bytes : 1;
  void *base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  QD_CHECK(base != MAP_FAILED, QD_ENOMEM, "no %zu bytes for the %s arena: %s", bytes, name, strerror(errno));
  arena->base = base;
  arena->capacity_bytes = bytes;
  return QD_OK;
}

void qd_arena_close(qd_arena *arena) {
  if (arena->base != NULL) munmap(arena->base, arena->capacity_bytes);
  *arena = (qd_arena){.name = arena->name};
}

qd_status qd_arena_new(qd_arena *arena, size_t n, size_t size, void *out) {
  void **slot = out;
  *slot = NULL;
  size_t left = arena->capacity_bytes - arena->used_bytes;
  QD_CHECK(size == 0 || n <= left / size, QD_ENOMEM, "the %s arena of %zu bytes has %zu left, needs %zu x %zu", arena->name,
           arena->capacity_bytes, left, n, size);
  size_t bytes = qd_arena_cost(n, size);
  QD_CHECK(bytes <= left, QD_ENOMEM, "the %s arena of %zu bytes has %zu left, needs %zu", arena->name, arena->capacity_bytes, left,
           bytes);
  *slot = arena->base + arena->used_bytes;
  arena->used_bytes += bytes;
  if (arena->used_bytes > arena->peak_bytes) arena->peak_bytes = arena->used_bytes;
  return QD_OK;
}

void qd_arena_rewind(qd_arena *arena, size_t mark) {
  QD_ASSERT(mark <= arena->used_bytes);
  arena->used_bytes = mark;
}
