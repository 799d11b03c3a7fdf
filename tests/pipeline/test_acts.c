#include "pipeline/acts.h"

#include <criterion/criterion.h>
#include <string.h>

#define MUST(call) cr_assert_eq((call), QD_OK, "%s", qd_error_text())

enum { TOKENS = 3, HIDDEN = 5, WIDEST = 7 };

static qd_arena arena;

static qd_acts opened(qd_dtype dtype, int64_t sequences, bool saves) {
  qd_acts acts;
  qd_acts_shape shape = {
      .dtype = dtype, .sequences = sequences, .tokens = TOKENS, .hidden = HIDDEN, .widest = WIDEST, .saves = saves};
  MUST(qd_arena_open(&arena, "activations", qd_acts_bytes(&shape)));
  MUST(qd_acts_open(&acts, &shape, &arena));
  return acts;
}

/* A pass that leaves h and mid different in each element, or looks whether they are as one with `seed` left them. */
static void fill(qd_tensor x, unsigned seed, int64_t first, bool write) {
  for (int64_t i = 0; i < x.dim[0]; i++) {
    unsigned char *byte = qd_tensor_at(x, i).data;
    size_t n = qd_tensor_bytes(qd_tensor_at(x, i));
    for (size_t b = 0; b < n; b++) {
      unsigned char value = (unsigned char)(seed + 31 * (unsigned)(first + i) + 7 * (unsigned)b);
      if (write) byte[b] = value;
      else cr_assert_eq(byte[b], value, "sequence %d byte %zu", (int)(first + i), b);
    }
  }
}

static int64_t pass(qd_acts *acts, qd_acts_use use, unsigned seed, bool write) {
  qd_acts_window window;
  int64_t seen = 0;
  qd_acts_begin(acts, use);
  for (;;) {
    MUST(qd_acts_next(acts, &window));
    if (window.n == 0) return seen;
    cr_assert_eq(window.first, seen);
    if (use.reads_h || use.writes_h) fill(window.h, seed, window.first, write);
    if (use.mid_in || use.mid_out) fill(window.mid, seed + 1, window.first, write);
    seen += window.n;
  }
}

Test(acts, what_a_pass_leaves_the_next_one_finds) {
  const qd_dtype dtypes[] = {QD_F32, QD_BF16};
  for (int d = 0; d < 2; d++)
    for (int64_t n = 0; n <= 9; n++) {
      qd_acts acts = opened(dtypes[d], n, false);
      cr_expect_eq(pass(&acts, (qd_acts_use){.writes_h = true, .mid_out = 4}, 3, true), n);
      cr_expect_eq(pass(&acts, (qd_acts_use){.mid_in = 4}, 3, false), n);
      cr_expect_eq(pass(&acts, (qd_acts_use){.mid_out = WIDEST}, 9, true), n);
      cr_expect_eq(pass(&acts, (qd_acts_use){.reads_h = true}, 3, false), n);
      cr_expect_eq(pass(&acts, (qd_acts_use){.mid_in = WIDEST}, 9, false), n);
      cr_expect_eq(qd_arena_mark(&arena), arena.peak_bytes);
      qd_arena_close(&arena);
    }
}

Test(acts, the_residual_goes_back_to_what_was_saved) {
  qd_acts acts = opened(QD_F32, 4, true);
  pass(&acts, (qd_acts_use){.writes_h = true}, 3, true);
  qd_acts_save(&acts);
  pass(&acts, (qd_acts_use){.reads_h = true, .writes_h = true}, 50, true);
  pass(&acts, (qd_acts_use){.reads_h = true}, 50, false);
  qd_acts_restore(&acts);
  pass(&acts, (qd_acts_use){.reads_h = true}, 3, false);
  qd_arena_close(&arena);
}

Test(acts, a_pass_that_was_left_half_way_is_forgotten) {
  qd_acts acts = opened(QD_F32, 5, false);
  qd_acts_window window;
  qd_acts_begin(&acts, (qd_acts_use){.writes_h = true});
  MUST(qd_acts_next(&acts, &window));
  cr_expect_eq(pass(&acts, (qd_acts_use){.writes_h = true}, 8, true), 5);
  cr_expect_eq(pass(&acts, (qd_acts_use){.reads_h = true}, 8, false), 5);
  qd_arena_close(&arena);
}
