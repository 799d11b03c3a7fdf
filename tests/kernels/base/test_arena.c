#include "kernels/base/arena.h"
#include "kernels/base/heap.h"

#include <criterion/criterion.h>
#include <string.h>

Test(arena, pieces_are_aligned_and_apart) {
  qd_arena arena;
  unsigned char *a, *b;
  cr_assert_eq(qd_arena_open(&arena, "test", 1 << 20), QD_OK);
  cr_assert_eq(qd_arena_new(&arena, 3, 7, &a), QD_OK);
  cr_assert_eq(qd_arena_new(&arena, 1, 1, &b), QD_OK);
  cr_assert_eq((uintptr_t)a % QD_ARENA_ALIGNMENT, 0);
  cr_assert_eq((uintptr_t)b % QD_ARENA_ALIGNMENT, 0);
  cr_assert_geq(b, a + 21);
  cr_assert_eq(arena.used_bytes, qd_arena_cost(3, 7) + qd_arena_cost(1, 1));
  qd_arena_close(&arena);
}

Test(arena, rewinding_gives_the_same_place_again) {
  qd_arena arena;
  void *first, *again;
  cr_assert_eq(qd_arena_open(&arena, "test", 1 << 16), QD_OK);
  size_t mark = qd_arena_mark(&arena);
  cr_assert_eq(qd_arena_new(&arena, 100, 8, &first), QD_OK);
  qd_arena_rewind(&arena, mark);
  cr_assert_eq(qd_arena_new(&arena, 1, 8, &again), QD_OK);
  cr_assert_eq(first, again);
  cr_assert_eq(arena.peak_bytes, qd_arena_cost(100, 8));
  qd_arena_close(&arena);
}

Test(arena, a_full_arena_says_its_name) {
  qd_arena arena;
  void *piece;
  cr_assert_eq(qd_arena_open(&arena, "statistics", 1000), QD_OK);
  cr_assert_eq(qd_arena_new(&arena, 2, 501, &piece), QD_ENOMEM);
  cr_assert_null(piece);
  cr_assert_not_null(strstr(qd_error_text(), "statistics"));
  cr_assert_eq(qd_arena_new(&arena, SIZE_MAX / 2, 4, &piece), QD_ENOMEM, "a product that overflows is refused");
  cr_assert_eq(arena.used_bytes, 0);
  qd_arena_close(&arena);
}

Test(arena, a_huge_reserve_costs_what_is_used) {
  qd_arena arena;
  unsigned char *piece;
  cr_assert_eq(qd_arena_open(&arena, "test", (size_t)1 << 38), QD_OK);
  cr_assert_eq(qd_arena_new(&arena, 9 << 20, 1, &piece), QD_OK);
  piece[0] = 1, piece[(9 << 20) - 1] = 2;
  cr_assert_lt(arena.usable_bytes, (size_t)16 << 20);
  qd_arena_close(&arena);
  qd_arena_close(&arena);
}

Test(heap, products_that_overflow_are_refused) {
  void *memory;
  cr_assert_eq(qd_heap_new(SIZE_MAX / 4, 8, &memory), QD_ENOMEM);
  cr_assert_null(memory);
}

Test(heap, memory_is_zeroed_and_never_null) {
  unsigned char *memory;
  cr_assert_eq(qd_heap_new(0, 0, &memory), QD_OK);
  cr_assert_not_null(memory);
  qd_heap_free(memory);
  cr_assert_eq(qd_heap_new(1000, 3, &memory), QD_OK);
  for (int i = 0; i < 3000; i++) cr_assert_eq(memory[i], 0);
  qd_heap_free(memory);
}

Test(heap, growing_keeps_what_was_there) {
  int *list = NULL;
  size_t capacity = 0;
  for (int i = 0; i < 1000; i++) {
    cr_assert_eq(qd_heap_grow(&list, &capacity, (size_t)i + 1, sizeof *list), QD_OK);
    list[i] = i;
  }
  for (int i = 0; i < 1000; i++) cr_assert_eq(list[i], i);
  cr_assert_eq(qd_heap_grow(&list, &capacity, SIZE_MAX / 2, sizeof *list), QD_ENOMEM);
  cr_assert_eq(list[999], 999, "a refused growth leaves the list alone");
  qd_heap_free(list);
}
