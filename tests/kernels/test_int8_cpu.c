/* What the cpu device does otherwise by the number of tokens and rows: tiles that are not full, codes and images, blocks of
 * tokens, passes, outliers in vectors.  Schemes and shapes are test_int8.c's. */
#include "kernels/int8_isa.h"
#include "tests/kernels/quantized_support.h"

#include <stdio.h>

static void compare(devices *d, qd_arena *arena, const qd_qtensor *q, int64_t tokens, bool has_bias) {
  qd_tensor x = random_matrix(arena, QD_F32, tokens, q->columns), expected = new_matrix(arena, QD_F32, tokens, q->rows);
  qd_tensor bias = random_matrix(arena, QD_F32, 1, q->rows);
  bias = qd_tensor_1d(bias.data, QD_F32, q->rows);
  OK(qd_qlinear(&d->ref, x, q, has_bias ? &bias : NULL, expected));
  for (int n = 0; n < d->n; n++)
    for (int in_panels = 0; in_panels < 2; in_panels++) {
      size_t mark = qd_arena_mark(arena);
      qd_tensor got = new_matrix(arena, QD_F32, tokens, q->rows);
      qd_panels panels;
      if (in_panels) {
        OK(qd_panels_quantized(&d->cpu[n], arena, q, QD_F32, &panels));
        OK(qd_panels_linear(&d->cpu[n], x, &panels, has_bias ? &bias : NULL, got));
      } else {
        OK(qd_qlinear(&d->cpu[n], x, q, has_bias ? &bias : NULL, got));
      }
      cr_assert_eq(memcmp(got.data, expected.data, qd_tensor_bytes(got)), 0,
                   "%d bits, groups of %" PRId64 ", %" PRId64 " tokens, %s on %s, %d threads", q->scheme.bits,
                   q->scheme.group_size, tokens, in_panels ? "panels" : "qlinear", qd_isa_name(d->cpu[n].isa),
                   d->cpu[n].threads);
      qd_arena_rewind(arena, mark);
    }
}

/* Every width of a tile and every kind of record. */
Test(int8_cpu, any_number_of_tokens_equals_ref) {
  static const int64_t groups[] = {32, 16, 8, 40};
  devices d = open_devices();
  qd_arena arena = open_numbers();
  use_arithmetic(&d, QD_ARITHMETIC_INT8);
  for (int64_t tokens = 1; tokens <= 13; tokens++)
    for (int bits = QD_MIN_BITS + tokens % 2; bits <= QD_MAX_BITS; bits += 2) {
      qd_scheme scheme = {.bits = bits, .group_size = groups[(tokens + bits / 2) % 4], .scale_dtype = QD_F16};
      qd_qtensor q = random_qtensor(&arena, scheme, 33, 80, false);
      compare(&d, &arena, &q, tokens, bits % 4 == 0);
      qd_arena_rewind(&arena, 0);
    }
  close_devices(&d);
  qd_arena_close(&arena);
}

/* More tokens than meet codes as they are, than a block holds; more rows than a task; more columns than a chunk, which the last
 * record does not fill. */
Test(int8_cpu, blocks_of_tokens_and_chunks_of_columns_equal_ref) {
  static const struct {
    int64_t tokens, rows, columns, group;
  } cases[] = {{49, 200, 1100, 128}, {600, 40, 70, 32}, {64, 34, 1050, 16}, {50, 70, 527, QD_PER_CHANNEL}, {7, 300, 540, 8}};
  devices d = open_devices();
  qd_arena arena = open_numbers();
  use_arithmetic(&d, QD_ARITHMETIC_INT8);
  for (int i = 0; i < 5; i++) {
    qd_scheme scheme = {.bits = i == 4 ? 8 : 4 - i % 2, .group_size = cases[i].group, .scale_dtype = QD_F16};
    qd_qtensor q = random_qtensor(&arena, scheme, cases[i].rows, cases[i].columns, i % 2);
    compare(&d, &arena, &q, cases[i].tokens, i % 2);
    qd_arena_rewind(&arena, 0);
  }
  close_devices(&d);
  qd_arena_close(&arena);
}

/* Groups of 1 make 32 records of a run: scratch holds fewer tokens at once than there are. */
Test(int8_cpu, tokens_come_in_passes_where_groups_cut_runs) {
  devices d = open_devices();
  qd_arena arena = open_numbers();
  use_arithmetic(&d, QD_ARITHMETIC_INT8);
  for (int64_t group = 1; group <= 7; group += 3) {
    qd_qtensor q = random_qtensor(&arena, (qd_scheme){.bits = 5, .group_size = group, .scale_dtype = QD_F16}, 35, 530, false);
    compare(&d, &arena, &q, 23, true);
    qd_arena_rewind(&arena, 0);
  }
  close_devices(&d);
  qd_arena_close(&arena);
}

/* One by one, in vectors, in vectors that are not full; statistics of panels in a byte, and too many bits for that. */
Test(int8_cpu, outliers_of_any_number_of_tokens_equal_ref) {
  static const int64_t token_counts[] = {1, 2, 4, 5, 16, 17, 50};
  devices d = open_devices();
  qd_arena arena = open_numbers();
  use_arithmetic(&d, QD_ARITHMETIC_INT8);
  for (int i = 0; i < 7; i++) {
    qd_scheme scheme = {.bits = 3, .group_size = 16, .scale_dtype = QD_F16, .spqr = true, .scale_bits = i % 3 ? 3 : 5,
                        .zero_bits = 3 + i % 2, .stat_group = i % 2 ? 16 : 32};
    qd_qtensor q = random_spqr(&arena, scheme, 67, 199, i % 2);
    compare(&d, &arena, &q, token_counts[i], i % 3 == 0);
    qd_arena_rewind(&arena, 0);
  }
  close_devices(&d);
  qd_arena_close(&arena);
}

/* A product of bytes that saturates would show: the largest codes, the largest activations, all of one sign. */
Test(int8_cpu, the_largest_sums_are_exact) {
  devices d = open_devices();
  qd_arena arena = open_numbers();
  use_arithmetic(&d, QD_ARITHMETIC_INT8);
  for (int bits = QD_MIN_BITS; bits <= QD_MAX_BITS; bits++)
    for (int sign = -1; sign <= 1; sign += 2) {
      qd_qtensor q = random_qtensor(&arena, (qd_scheme){.bits = bits, .group_size = 32, .scale_dtype = QD_F32}, 32, 64, false);
      qd_tensor x = new_matrix(&arena, QD_F32, 60, 64), y = new_matrix(&arena, QD_F32, 60, 32);
      memset(q.codes.data, 0xff, qd_tensor_bytes(q.codes));
      memset(q.zeros.data, 0, qd_tensor_bytes(q.zeros));
      for (int i = 0; i < 60 * 64; i++) ((float *)x.data)[i] = 127.0f * (float)sign;
      for (int i = 0; i < 64; i++) ((float *)q.scales.data)[i] = 1;
      for (int n = 0; n < 2 * d.n; n++) {
        OK(qd_qlinear(&d.cpu[n / 2], n % 2 ? x : qd_tensor_rows(x, 0, 3), &q, NULL, n % 2 ? y : qd_tensor_rows(y, 0, 3)));
        cr_assert_eq(((float *)y.data)[33], (float)(sign * 64 * 127 * ((1 << bits) - 1)), "%d bits on %s", bits,
                     qd_isa_name(d.cpu[n / 2].isa));
      }
      qd_arena_rewind(&arena, 0);
    }
  close_devices(&d);
  qd_arena_close(&arena);
}

/* What has no chance to be seen in sums: how many records lie before a position. */
Test(int8_cpu, records_are_counted_as_they_come) {
  static const int64_t groups[] = {1, 3, 8, 16, 24, 32, 33, 48, 64, 100, 600};
  for (int g = 0; g < 11; g++) {
    qd_scheme scheme = {.bits = 4, .group_size = groups[g], .scale_dtype = QD_F16};
    qd_int8_pieces p = qd_int8_pieces_of(&scheme, 1100);
    int64_t n = 0;
    for (int64_t k = 0; k < 1100; k = p.regular ? k + p.slot : qd_int8_piece_end(&p, k), n++)
      if (k % QD_INT8_CHUNK == 0) cr_expect_eq(qd_int8_records(&p, k), n, "groups of %" PRId64 " at %" PRId64, groups[g], k);
    cr_expect_eq(qd_int8_records(&p, 1100), n, "groups of %" PRId64, groups[g]);
  }
}
