/* Products with codes in panels, for one kind of panel of a.  Included by panels_isa.c once for each kind, with
 *   KIND      f32, wide or pairs: prefix of its functions `use` and `put`, and of the functions made here
 *   TARGET    attribute of the functions
 * A kind takes codes by twos, the even k first:  use adds their products to the sums, put stores them in a panel of b. */
#define NAME2(kind, name) kind##_##name
#define NAME1(kind, name) NAME2(kind, name)
#define NAME(name) NAME1(KIND, name)

/* One run; the panel of a stands at its first step. */
QD_INLINE TARGET void NAME(run)(const code_panel *panel, code_shape shape, const void *a, f32_sum *sum) {
  words rest[QD_CODE_PAIR * F32_VECTORS];
  int rows = shape.rows;
#pragma GCC unroll 2
  for (int p = 0; p < shape.panels; p++) join_rest(&panel[p], shape, rest + p * F32_VECTORS);
  UNROLL_RUN
  for (int t = 0; t < QD_CODE_RUN; t += 2) {
#pragma GCC unroll 4
    for (int v = 0; v < shape.panels * F32_VECTORS; v++) {
      const code_panel *of = &panel[v / F32_VECTORS];
      f32_sum even = weight_at(of, shape, t, v % F32_VECTORS, rest[v]),
              odd = weight_at(of, shape, t + 1, v % F32_VECTORS, rest[v]);
#pragma GCC unroll 2
      for (int i = 0; i < rows; i++) NAME(use)(a, t * rows + i, rows, even, odd, &sum[v * rows + i]);
    }
  }
}

/* The panels from column `column` on; the last of them may be cut by c. */
QD_INLINE TARGET void NAME(chunk_of)(const qd_code_panels *b, int64_t column, code_shape shape, const qd_gemm_strip *s) {
  int panels = shape.panels, rows = shape.rows;
  int64_t runs = b->k / QD_CODE_RUN;
  code_panel panel[QD_CODE_PAIR];
  f32_sum sum[QD_CODE_PAIR * F32_VECTORS * QD_CODE_ROWS];
  const uint32_t *a = s->a;
  for (int p = 0; p < panels; p++) panel[p].memory = panel_words(b, column / PANEL_WIDTH + p);
  for (int i = 0; i < panels * F32_VECTORS * rows; i++) sum[i] = f32_zero();
  for (int64_t run = 0; run < runs; run++, a += QD_CODE_RUN / NAME(steps_of) * rows) {
    int64_t k = b->first + run * QD_CODE_RUN;
    for (int p = 0; p < panels && (run == 0 || k % b->group_size == 0); p++)
      load_group(b, k / b->group_size, column + p * PANEL_WIDTH, &panel[p]);
    prefetch_run(b, panel[0].memory, shape.bits);
    NAME(run)(panel, shape, a, sum);
    for (int p = 0; p < panels; p++) panel[p].memory += shape.bits * PAIR_WIDTH;
  }
  for (int p = 0; p < panels; p++) finish_sums(s, column + p * PANEL_WIDTH, rows, sum + p * F32_VECTORS * rows);
}

/* One row alone has too few chains to hide what a step of one takes: both panels of a pair at once. */
QD_INLINE TARGET void NAME(strip_of)(const qd_code_panels *b, int bits, int rows, const qd_gemm_strip *s) {
  int64_t j = 0;
  if (rows == 1 && b->half == 1) NAME(chunk_of)(b, 0, (code_shape){bits, 1, rows, false}, s), j = PANEL_WIDTH;
  for (; rows == 1 && j + PANEL_WIDTH < s->columns; j += PAIR_WIDTH) NAME(chunk_of)(b, j, (code_shape){bits, 2, 1, false}, s);
  for (; j < s->columns; j += PANEL_WIDTH) NAME(chunk_of)(b, j, (code_shape){bits, 1, rows, false}, s);
}

/* Whole runs, each within one group. */
QD_INLINE TARGET void NAME(unpack_of)(const qd_code_panels *b, int bits, uint32_t *to) {
  const code_shape shape = {bits, 1, 0, false};
  code_panel panel = {.memory = panel_words(b, 0)};
  for (int64_t at = 0; at < b->k; at += QD_CODE_RUN, panel.memory += bits * PAIR_WIDTH) {
    int64_t k = b->first + at;
    words rest[F32_VECTORS];
    if (at == 0 || k % b->group_size == 0) load_group(b, k / b->group_size, 0, &panel);
    prefetch_run(b, panel.memory, bits);
    join_rest(&panel, shape, rest);
    UNROLL_RUN
    for (int t = 0; t < QD_CODE_RUN; t += 2) {
#pragma GCC unroll 2
      for (int v = 0; v < F32_VECTORS; v++)
        NAME(put)(to, at + t, v, weight_at(&panel, shape, t, v, rest[v]), weight_at(&panel, shape, t + 1, v, rest[v]));
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
  code_panel panel[QD_CODE_PAIR];
  f32_sum sum[QD_CODE_PAIR * F32_VECTORS];
  uint32_t a[2 * QD_CODE_RUN] = {0};
  for (int i = 0; i < QD_CODE_PAIR * F32_VECTORS; i++) {
    code_panel *of = &panel[i / F32_VECTORS];
    of->kept[i % F32_VECTORS] = words_none();
    of->scale[i % F32_VECTORS] = of->offset[i % F32_VECTORS] = sum[i] = f32_zero();
    KEEP_VECTOR(of->scale[i % F32_VECTORS]); /* known numbers would be left out */
    KEEP_VECTOR(of->offset[i % F32_VECTORS]);
  }
  for (int64_t r = 0; r < rounds; r++) NAME(run)(panel, (code_shape){bits, QD_CODE_PAIR, 1, true}, a, sum);
  float left[F32_LANES];
  for (int i = 1; i < QD_CODE_PAIR * F32_VECTORS; i++) sum[0] = f32_add(sum[0], sum[i]);
  f32_write(left, sum[0]);
  return (double)rounds * QD_CODE_RUN * QD_CODE_PAIR * PANEL_WIDTH + (double)left[0];
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
