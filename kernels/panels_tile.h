/* Products with codes in panels, for one kind of panel of a.  Included by panels_isa.c once for each kind, with
 *   KIND      f32, wide or pairs: prefix of its functions `use` and `put`, and of the functions made here
 *   TARGET    attribute of the functions
 * A kind takes codes by twos, the even k first:  use adds their products to the sums, put stores them in a panel of b. */
#define NAME2(kind, name) kind##_##name
#define NAME1(kind, name) NAME2(kind, name)
#define NAME(name) NAME1(KIND, name)

/* One run: `rows` of a, whose panel stands at its first step. */
QD_INLINE TARGET void NAME(run)(const run_words *from, int bits, const group_values *group, int rows, const void *a,
                                f32_sum *sum) {
  words rest[F32_VECTORS];
  join_rest(from, bits, rest);
#pragma GCC unroll 16
  for (int t = 0; t < QD_CODE_RUN; t += 2) {
#pragma GCC unroll 2
    for (int v = 0; v < F32_VECTORS; v++) {
      f32_sum even = weight_at(from, bits, t, v, rest, group), odd = weight_at(from, bits, t + 1, v, rest, group);
#pragma GCC unroll 2
      for (int i = 0; i < rows; i++) NAME(use)(a, t * rows + i, rows, even, odd, &sum[i * F32_VECTORS + v]);
    }
  }
}

QD_INLINE TARGET void NAME(strip_of)(const qd_code_panels *b, int bits, int rows, const qd_gemm_strip *s) {
  int64_t run_words_n = (int64_t)bits * PANEL_WIDTH, runs = b->k / QD_CODE_RUN;
  run_words from = {.memory = b->words};
  for (int64_t j = 0; j < s->columns; j += PANEL_WIDTH) {
    f32_sum sum[QD_CODE_ROWS * F32_VECTORS];
    group_values group;
    const uint32_t *a = s->a;
    for (int i = 0; i < rows * F32_VECTORS; i++) sum[i] = f32_zero();
    for (int64_t run = 0; run < runs; run++, from.memory += run_words_n, a += QD_CODE_RUN / NAME(steps_of) * rows) {
      int64_t k = b->first + run * QD_CODE_RUN;
      if (run == 0 || k % b->group_size == 0) group = load_group(b, k / b->group_size, j);
      prefetch_words(from.memory, run_words_n);
      NAME(run)(&from, bits, &group, rows, a, sum);
    }
    finish_sums(s, j, rows, sum);
  }
}

/* Whole runs, each within one group. */
QD_INLINE TARGET void NAME(unpack_of)(const qd_code_panels *b, int bits, uint32_t *to) {
  run_words from = {.memory = b->words};
  group_values group;
  for (int64_t at = 0; at < b->k; at += QD_CODE_RUN, from.memory += bits * PANEL_WIDTH) {
    int64_t k = b->first + at;
    if (at == 0 || k % b->group_size == 0) group = load_group(b, k / b->group_size, 0);
    prefetch_words(from.memory, bits * PANEL_WIDTH);
    words rest[F32_VECTORS];
    join_rest(&from, bits, rest);
#pragma GCC unroll 16
    for (int t = 0; t < QD_CODE_RUN; t += 2) {
#pragma GCC unroll 2
      for (int v = 0; v < F32_VECTORS; v++)
        NAME(put)(to, at + t, v, weight_at(&from, bits, t, v, rest, &group), weight_at(&from, bits, t + 1, v, rest, &group));
    }
  }
}

static TARGET void NAME(unpack_any)(const qd_code_panels *b, uint32_t *to) {
  for (int64_t k = 0; k < b->k; k += 2) {
    f32_sum even[F32_VECTORS], odd[F32_VECTORS];
    weights_of(b, k, even);
    weights_of(b, k + 1, odd);
    for (int v = 0; v < F32_VECTORS; v++) NAME(put)(to, k, v, even[v], odd[v]);
  }
}

QD_INLINE TARGET double NAME(peak_of)(int bits, int64_t rounds) {
  run_words from = {.memory = NULL};
  group_values group = {{f32_zero(), f32_zero()}, {f32_zero(), f32_zero()}};
  f32_sum sum[F32_VECTORS] = {f32_zero(), f32_zero()};
  uint32_t a[2 * QD_CODE_RUN] = {0};
  for (int v = 0; v < F32_VECTORS; v++) from.kept[v] = words_none();
  for (int64_t r = 0; r < rounds; r++) NAME(run)(&from, bits, &group, 1, a, sum);
  float left[F32_LANES];
  f32_write(left, f32_add(sum[0], sum[1]));
  return (double)rounds * QD_CODE_RUN * PANEL_WIDTH + (double)left[0];
}

#define QD_PANELS_OF(n)                                                                                         \
  static TARGET void NAME(strip1_##n)(const qd_code_panels *b, const qd_gemm_strip *s) { NAME(strip_of)(b, n, 1, s); } \
  static TARGET void NAME(strip2_##n)(const qd_code_panels *b, const qd_gemm_strip *s) { NAME(strip_of)(b, n, 2, s); } \
  static TARGET void NAME(unpack_##n)(const qd_code_panels *b, uint32_t *to) { NAME(unpack_of)(b, n, to); }     \
  static TARGET double NAME(peak_##n)(int64_t rounds) { return NAME(peak_of)(n, rounds); }
QD_PANELS_OF(2)
QD_PANELS_OF(3)
QD_PANELS_OF(4)
QD_PANELS_OF(5)
QD_PANELS_OF(6)
QD_PANELS_OF(7)
QD_PANELS_OF(8)
#undef QD_PANELS_OF

#define QD_ROW_OF(n) {{NAME(strip1_##n), NAME(strip2_##n)}, NAME(unpack_##n), NAME(peak_##n)}
static const kind_kernels NAME(kernels) = {{QD_ROW_OF(2), QD_ROW_OF(3), QD_ROW_OF(4), QD_ROW_OF(5), QD_ROW_OF(6), QD_ROW_OF(7),
                                            QD_ROW_OF(8)}, NAME(unpack_any)};
#undef QD_ROW_OF

#undef NAME
#undef NAME1
#undef NAME2
#undef KIND
#undef TARGET
