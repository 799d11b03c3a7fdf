/* Every test in memory and on disk: the same passes, the same bytes. */
#include "pipeline/acts.h"

#include "tests/support/temporary_folder.h"

#include <criterion/criterion.h>
#include <string.h>

#define MUST(call) cr_assert_eq((call), QD_OK, "%s", qd_error_text())

enum { TOKENS = 3, HIDDEN = 5, WIDEST = 7, IN_MEMORY = 0, ON_DISK = 1, PLACES = 2 };

static qd_temporary_folder folder;
static void open_folder(void) { qd_temporary_folder_open(&folder); }
static void close_folder(void) { qd_temporary_folder_close(&folder); }
TestSuite(acts, .init = open_folder, .fini = close_folder);

static qd_arena arena;

static qd_acts_shape shape_of(int place, qd_dtype dtype, int64_t sequences, bool saves) {
  return (qd_acts_shape){.dtype = dtype, .sequences = sequences, .tokens = TOKENS, .hidden = HIDDEN, .widest = WIDEST,
                         .saves = saves, .disk = place == ON_DISK ? folder.path : NULL};
}

static qd_acts opened(int place, qd_dtype dtype, int64_t sequences, bool saves) {
  qd_acts acts;
  qd_acts_shape shape = shape_of(place, dtype, sequences, saves);
  MUST(qd_arena_open(&arena, "activations", qd_acts_bytes(&shape)));
  MUST(qd_acts_open(&acts, &shape, &arena));
  return acts;
}

static void closed(qd_acts *acts) {
  qd_acts_close(acts);
  qd_arena_close(&arena);
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

static void expect_passes(int place, qd_dtype dtype, int64_t n) {
  qd_acts acts = opened(place, dtype, n, false);
  cr_expect_eq(pass(&acts, (qd_acts_use){.writes_h = true, .mid_out = 4}, 3, true), n);
  cr_expect_eq(pass(&acts, (qd_acts_use){.mid_in = 4}, 3, false), n);
  cr_expect_eq(pass(&acts, (qd_acts_use){.mid_out = WIDEST}, 9, true), n);
  cr_expect_eq(pass(&acts, (qd_acts_use){.reads_h = true}, 3, false), n);
  cr_expect_eq(pass(&acts, (qd_acts_use){.mid_in = WIDEST}, 9, false), n);
  cr_expect_eq(pass(&acts, (qd_acts_use){.reads_h = true, .writes_h = true, .mid_in = 2, .mid_out = 2}, 70, true), n);
  cr_expect_eq(pass(&acts, (qd_acts_use){.reads_h = true, .mid_in = 2}, 70, false), n);
  cr_expect_eq(qd_arena_mark(&arena), qd_acts_bytes(&acts.shape), "what is planned is what is taken");
  closed(&acts);
}

Test(acts, what_a_pass_leaves_the_next_one_finds) {
  static const int64_t counts[] = {0, 1, 2, 3, 7, 8, 9, 31, 32, 33, 50};
  for (int place = 0; place < PLACES; place++)
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
      expect_passes(place, QD_F32, counts[i]);
      expect_passes(place, QD_BF16, counts[i]);
    }
}

/* A stage's output takes the place of its input, of another width. */
Test(acts, a_pass_may_leave_other_columns_than_it_found) {
  for (int place = 0; place < PLACES; place++) {
    qd_acts acts = opened(place, QD_F32, 11, false);
    qd_acts_window window;
    pass(&acts, (qd_acts_use){.mid_out = 4}, 3, true);
    qd_acts_begin(&acts, (qd_acts_use){.mid_in = 4, .mid_out = WIDEST});
    for (;;) {
      MUST(qd_acts_next(&acts, &window));
      if (window.n == 0) break;
      fill(window.mid, 4, window.first, false);
      window.mid.dim[2] = window.mid.stride[1] = WIDEST;
      fill(window.mid, 21, window.first, true);
    }
    pass(&acts, (qd_acts_use){.mid_in = WIDEST}, 20, false);
    closed(&acts);
  }
}

Test(acts, the_residual_goes_back_to_what_was_saved) {
  for (int place = 0; place < PLACES; place++) {
    qd_acts acts = opened(place, QD_F32, 13, true);
    pass(&acts, (qd_acts_use){.writes_h = true}, 3, true);
    for (unsigned block = 0; block < 3; block++) {
      unsigned was = block == 0 ? 3 : 100 + block - 1;
      qd_acts_save(&acts);
      pass(&acts, (qd_acts_use){.reads_h = true}, was, false);
      pass(&acts, (qd_acts_use){.reads_h = true, .writes_h = true}, 50, true);
      pass(&acts, (qd_acts_use){.reads_h = true, .writes_h = true}, 51, true);
      pass(&acts, (qd_acts_use){.reads_h = true}, 51, false);
      qd_acts_restore(&acts);
      pass(&acts, (qd_acts_use){.reads_h = true}, was, false);
      pass(&acts, (qd_acts_use){.reads_h = true, .writes_h = true}, 100 + block, true);
    }
    closed(&acts);
  }
}

Test(acts, a_pass_that_was_left_half_way_is_forgotten) {
  for (int place = 0; place < PLACES; place++) {
    qd_acts acts = opened(place, QD_F32, 45, false);
    qd_acts_window window;
    qd_acts_begin(&acts, (qd_acts_use){.writes_h = true});
    for (int i = 0; i < 3; i++) MUST(qd_acts_next(&acts, &window));
    cr_expect_eq(pass(&acts, (qd_acts_use){.writes_h = true}, 8, true), 45);
    cr_expect_eq(pass(&acts, (qd_acts_use){.reads_h = true}, 8, false), 45);
    closed(&acts);
  }
}

/* Two streams of one shape get the same windows, so that passes go side by side. */
Test(acts, streams_are_cut_alike) {
  qd_acts_shape shape = shape_of(ON_DISK, QD_BF16, 21, false);
  qd_acts both[2];
  qd_acts_window window[2];
  MUST(qd_arena_open(&arena, "activations", 2 * qd_acts_bytes(&shape)));
  for (int i = 0; i < 2; i++) MUST(qd_acts_open(&both[i], &shape, &arena));
  for (int i = 0; i < 2; i++) pass(&both[i], (qd_acts_use){.writes_h = true}, 5 * (unsigned)i, true);
  for (int i = 0; i < 2; i++) qd_acts_begin(&both[i], (qd_acts_use){.reads_h = true});
  do {
    for (int i = 0; i < 2; i++) MUST(qd_acts_next(&both[i], &window[i]));
    cr_assert(window[0].first == window[1].first && window[0].n == window[1].n);
    for (int i = 0; i < 2 && window[0].n > 0; i++) fill(window[i].h, 5 * (unsigned)i, window[i].first, false);
  } while (window[0].n > 0);
  for (int i = 0; i < 2; i++) qd_acts_close(&both[i]);
  qd_arena_close(&arena);
}
