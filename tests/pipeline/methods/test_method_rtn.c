#include "tests/pipeline/method_support.h"

static const qd_scheme schemes[] = {{.bits = 4, .group_size = 16, .scale_dtype = QD_F16},
                                    {.bits = 3, .group_size = QD_PER_CHANNEL, .symmetric = true, .scale_dtype = QD_F16},
                                    {.bits = 2, .group_size = 7, .mse = true, .scale_dtype = QD_F32},
                                    {.bits = 8, .group_size = COLUMNS, .scale_dtype = QD_F16},
                                    {.bits = 5, .group_size = 1000, .symmetric = true, .mse = true, .scale_dtype = QD_F32}};
enum { N_SCHEMES = sizeof schemes / sizeof *schemes };

Test(method_rtn, is_what_it_says_it_is) {
  cr_expect_eq(qd_method_find("rtn"), &qd_method_rtn);
  cr_expect(!qd_method_rtn.needs_factor && !qd_method_rtn.default_mse);
  cr_expect_eq(qd_method_rtn.default_act_order, QD_ORDER_NONE);
}

/* No other code of the stored grid is nearer to the weight. */
static void expect_nearest(const trial *t, const layer *l) {
  for (int r = 0; r < ROWS; r++)
    for (int c = 0; c < COLUMNS; c++) {
      double scale = (double)scale_of(&t->q, r, c), best = 1e30, got = fabs((double)l->w[r][c] - weight_of(&t->q, r, c));
      for (int code = 0; code <= qd_scheme_max_code(t->scheme); code++)
        best = fmin(best, fabs((double)l->w[r][c] - scale * (code - zero_of(&t->q, r, c))));
      cr_assert(got <= best + 1e-6 * scale, "row %d column %d: %g away instead of %g", r, c, got, best);
    }
}

Test(method_rtn, takes_the_nearest_point) {
  static layer l;
  qd_device device;
  must_open(&device, "cpu", NULL, 1);
  new_layer(&l, 5);
  for (int i = 0; i < N_SCHEMES; i++) {
    trial t = {.method = &qd_method_rtn, .scheme = schemes[i]};
    run_trial(&t, &l, &device);
    expect_nearest(&t, &l);
    qd_arena_close(&t.arena);
  }
  qd_device_close(&device);
}

Test(method_rtn, any_cut_of_the_rows_gives_the_same_bytes) {
  static layer l;
  qd_device device, ref;
  must_open(&device, "cpu", NULL, 2);
  must_open(&ref, "ref", NULL, 1);
  new_layer(&l, 6);
  for (int i = 0; i < N_SCHEMES; i++) {
    trial whole = {.method = &qd_method_rtn, .scheme = schemes[i]}, cut = whole, slow = whole;
    run_trial(&whole, &l, &device);
    run_trial(&slow, &l, &ref);
    open_trial(&cut, &l);
    MUST(quantize_rows(&cut, &l, &device, 3, 4));
    MUST(quantize_rows(&cut, &l, &device, 0, 1));
    MUST(quantize_rows(&cut, &l, &device, 1, 2));
    cr_expect(same_parts(&whole.q, &cut.q) && same_parts(&whole.q, &slow.q));
    qd_arena_close(&whole.arena);
    qd_arena_close(&cut.arena);
    qd_arena_close(&slow.arena);
  }
  qd_device_close(&device);
  qd_device_close(&ref);
}

Test(method_rtn, says_where_a_scale_does_not_fit) {
  static layer l;
  qd_device device;
  trial t = {.method = &qd_method_rtn, .scheme = schemes[0]};
  must_open(&device, "cpu", NULL, 1);
  new_layer(&l, 7);
  l.w[4][20] = 3e6f;
  open_trial(&t, &l);
  cr_expect_eq(quantize_rows(&t, &l, &device, 0, ROWS), QD_ENUMERIC);
  cr_expect(strstr(qd_error_text(), "row 4") != NULL && strstr(qd_error_text(), "group 1") != NULL, "%s", qd_error_text());
  qd_arena_close(&t.arena);
  qd_device_close(&device);
}
