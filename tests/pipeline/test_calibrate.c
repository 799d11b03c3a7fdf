#include "tests/pipeline/stage_support.h"

#include "kernels/ops.h"

/* Column a times column b over all sequences, in double. */
static double product_of_columns(stand *s, int64_t columns, int64_t a, int64_t b) {
  double sum = 0;
  for (int64_t i = 0; i < SEQUENCES; i++)
    for (int64_t t = 0; t < SEQUENCE_TOKENS; t++) sum += input_at(s, columns, i, t, a) * input_at(s, columns, i, t, b);
  return sum;
}

static void expect_statistics(stand *s, qd_stage stage) {
  qd_stats stats;
  qd_block block = {.index = 1};
  int64_t columns = qd_decoder_mid_columns(&s->run.model, stage);
  fill_inputs(s, columns, 5 + (uint64_t)stage);
  MUST(qd_calibrate(&s->run, &block, stage, &stats));
  cr_assert_eq(stats.columns, columns);
  cr_expect_eq(stats.tokens, SEQUENCES * SEQUENCE_TOKENS);
  for (int64_t a = 0; a < columns; a++) {
    double wanted = product_of_columns(s, columns, a, a), got = ((double *)stats.diagonal.data)[a];
    cr_expect(fabs(got - wanted) <= 1e-12 * wanted, "diagonal %" PRId64 ": %.17g instead of %.17g", a, got, wanted);
    for (int64_t b = 0; b <= a; b++) {
      double value = (double)((float *)stats.h.data)[qd_tri_index(a, b)];
      cr_expect(fabs(value - product_of_columns(s, columns, a, b)) <= 1e-4, "element %" PRId64 ", %" PRId64 ": %g", a, b,
                value);
    }
  }
}

Test(calibrate, statistics_are_those_of_the_inputs) {
  for (int bf16 = 0; bf16 < 2; bf16++) {
    stand s;
    open_stand(&s, "cpu", bf16 ? QD_BF16 : QD_F32);
    for (qd_stage stage = 0; stage < QD_N_STAGES; stage++) expect_statistics(&s, stage);
    close_stand(&s);
  }
}

/* The same sequences in another order: not a bit of the Hessian changes. */
Test(calibrate, the_order_of_sequences_does_not_show_in_the_hessian) {
  stand s;
  qd_stats first, second;
  qd_block block = {.index = 0};
  unsigned char *kept = must_new(1, (size_t)1 << 16);
  open_stand(&s, "cpu", QD_F32);
  size_t bytes = SEQUENCE_TOKENS * FFN * sizeof(float);
  fill_inputs(&s, HIDDEN, 9);
  MUST(qd_calibrate(&s.run, &block, QD_STAGE_QKV, &first));
  memcpy(kept, mid_of(&s, HIDDEN, 0), bytes);
  memcpy(mid_of(&s, HIDDEN, 0), mid_of(&s, HIDDEN, 2), bytes);
  memcpy(mid_of(&s, HIDDEN, 2), kept, bytes);
  MUST(qd_calibrate(&s.run, &block, QD_STAGE_QKV, &second));
  cr_expect_eq(memcmp(first.h.data, second.h.data, qd_tri_bytes(HIDDEN, QD_F32)), 0);
  qd_heap_free(kept);
  close_stand(&s);
}

/* A low bound widens the grid: other numbers, by no more than the grid's step. */
Test(calibrate, a_grid_that_is_too_fine_is_widened) {
  stand s;
  qd_stats fine, coarse;
  qd_block block = {.index = 0};
  open_stand(&s, "cpu", QD_F32);
  fill_inputs(&s, HIDDEN, 11);
  MUST(qd_calibrate(&s.run, &block, QD_STAGE_QKV, &fine));
  s.job.hessian_bound = 0x1p20;
  MUST(qd_calibrate(&s.run, &block, QD_STAGE_QKV, &coarse));
  const float *a = fine.h.data, *b = coarse.h.data;
  cr_expect_neq(memcmp(a, b, qd_tri_bytes(HIDDEN, QD_F32)), 0);
  for (int64_t i = 0; i < HIDDEN; i++)
    cr_expect(fabs((double)a[qd_tri_index(i, i)] - (double)b[qd_tri_index(i, i)]) < 1e-3 * (double)a[qd_tri_index(i, i)]);
  close_stand(&s);
}

Test(calibrate, a_number_that_is_none_is_named) {
  const double wrong[] = {NAN, INFINITY};
  for (int i = 0; i < 2; i++) {
    stand s;
    qd_stats stats;
    qd_block block = {.index = 1};
    open_stand(&s, "cpu", QD_F32);
    fill_inputs(&s, FFN, 13);
    set_input(&s, FFN, 2, 6, 23, wrong[i]);
    cr_expect_eq(qd_calibrate(&s.run, &block, QD_STAGE_DOWN, &stats), QD_ENUMERIC);
    cr_expect(
        strstr(qd_error_text(), "block 1: down_input of sequence 2") != NULL && strstr(qd_error_text(), "column 23") != NULL,
        "%s", qd_error_text());
    close_stand(&s);
  }
}

Test(calibrate, takes_back_what_it_does_not_keep) {
  stand s;
  qd_stats stats;
  qd_block block = {.index = 0};
  open_stand(&s, "cpu", QD_F32);
  fill_inputs(&s, HIDDEN, 17);
  size_t mark = qd_arena_mark(&s.run.stats_arena);
  MUST(qd_calibrate(&s.run, &block, QD_STAGE_QKV, &stats));
  size_t kept = qd_arena_mark(&s.run.stats_arena) - mark;
  cr_expect_eq(kept, qd_arena_cost(HIDDEN, sizeof(double)) + qd_arena_cost(qd_tri_elements(HIDDEN), sizeof(float)));
  close_stand(&s);
}

/* ---- beside the original's inputs ---------------------------------------------------------------------------------------- */

static void open_both(stand *s, qd_dtype act) {
  open_stand(s, "cpu", act);
  qd_acts_shape shape = s->run.acts.quantized.shape;
  MUST(qd_acts_open(&s->run.acts.original, &shape, &s->run.acts_arena));
  s->job.gptaq = true, s->job.gptaq_alpha = 0.25;
}

/* The original's inputs: the others', moved by `by` of some noise. */
static void fill_original(stand *s, int64_t columns, double by) {
  uint64_t seed = 3;
  qd_acts kept = s->run.acts.quantized;
  for (int64_t i = 0; i < SEQUENCES; i++)
    for (int64_t t = 0; t < SEQUENCE_TOKENS; t++)
      for (int64_t c = 0; c < columns; c++) {
        double value = input_at(s, columns, i, t, c) + by * noise(&seed);
        s->run.acts.quantized = s->run.acts.original;
        set_input(s, columns, i, t, c, value);
        s->run.acts.quantized = kept;
      }
}

static double original_at(stand *s, int64_t columns, int64_t i, int64_t t, int64_t c) {
  qd_acts kept = s->run.acts.quantized;
  s->run.acts.quantized = s->run.acts.original;
  double value = input_at(s, columns, i, t, c);
  s->run.acts.quantized = kept;
  return value;
}

static double cross_of_columns(stand *s, int64_t columns, int64_t a, int64_t b) {
  double sum = 0;
  for (int64_t i = 0; i < SEQUENCES; i++)
    for (int64_t t = 0; t < SEQUENCE_TOKENS; t++)
      sum += (original_at(s, columns, i, t, a) - input_at(s, columns, i, t, a)) * input_at(s, columns, i, t, b);
  return sum;
}

Test(calibrate, the_cross_sum_is_that_of_both_streams) {
  for (int bf16 = 0; bf16 < 2; bf16++) {
    stand s;
    open_both(&s, bf16 ? QD_BF16 : QD_F32);
    for (qd_stage stage = 0; stage < QD_N_STAGES; stage++) {
      qd_stats stats;
      qd_block block = {.index = 1};
      int64_t columns = qd_decoder_mid_columns(&s.run.model, stage);
      fill_inputs(&s, columns, 5 + (uint64_t)stage);
      fill_original(&s, columns, 0.1);
      MUST(qd_calibrate(&s.run, &block, stage, &stats));
      cr_assert(stats.asymmetric);
      for (int64_t a = 0; a < columns; a++)
        for (int64_t b = 0; b < columns; b++) {
          double got = (double)((float *)stats.cross.data)[a * columns + b], wanted = cross_of_columns(&s, columns, a, b);
          cr_expect(fabs(got - wanted) <= 1e-5, "element %d, %d: %g instead of %g", (int)a, (int)b, got, wanted);
        }
    }
    close_stand(&s);
  }
}

/* Equal streams, an alpha of 0, and a job that does not ask: nothing to correct; the Hessian is the same in any case. */
Test(calibrate, streams_that_are_equal_leave_nothing_to_correct) {
  static const struct { double by, alpha; bool asked, asymmetric; } cases[] = {
      {0, 0.25, true, false}, {0.1, 0, true, false}, {0.1, 0.25, false, false}, {0.1, 0.25, true, true}};
  float first[256 * 256];
  for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
    stand s;
    qd_stats stats;
    qd_block block = {.index = 0};
    open_both(&s, QD_F32);
    s.job.gptaq = cases[k].asked, s.job.gptaq_alpha = cases[k].alpha;
    fill_inputs(&s, HIDDEN, 17);
    fill_original(&s, HIDDEN, cases[k].by);
    MUST(qd_calibrate(&s.run, &block, QD_STAGE_QKV, &stats));
    cr_expect_eq(stats.asymmetric, cases[k].asymmetric, "case %zu", k);
    if (k == 0) memcpy(first, stats.h.data, sizeof first);
    cr_expect_eq(memcmp(first, stats.h.data, sizeof first), 0);
    close_stand(&s);
  }
}
