/* The register tiles of one kind of panel.  Included by gemm_tile_isa.c once for each kind, with
 *   KIND      f32, f64 or pairs: prefix of the vector functions (gemm_vector.h) and of the functions made here
 *   ELEMENT   of the panels;  OUTPUT  of c;  TARGET  attribute of the functions
 *   LANES of a vector, VECTORS across a panel of b, ROWS of the largest tile (6, 8 or 14)
 *
 * A tile keeps rows x VECTORS sums in registers over all steps. */
#define NAME2(kind, name) kind##_##name
#define NAME1(kind, name) NAME2(kind, name)
#define NAME(name) NAME1(KIND, name)

QD_DEFINE_PUT_SUMS(NAME(put_sums), OUTPUT)

#define EACH_SUM(statement)                                                              \
  _Pragma("GCC unroll 14") for (int i = 0; i < rows; i++) {                              \
    OUTPUT *c = (OUTPUT *)s->c + i * s->c_stride + column;                               \
    _Pragma("GCC unroll 3") for (int v = 0; v < VECTORS; v++, c += LANES) { statement; } \
  }

QD_INLINE TARGET void NAME(finish)(const qd_gemm_strip *s, int64_t column, int rows, const NAME(sum) * sum) {
  if (s->columns - column < LANES * VECTORS) {
    OUTPUT part[ROWS * VECTORS * LANES];
#pragma GCC unroll 28
    for (int i = 0; i < rows * VECTORS; i++) NAME(write)(part + i * LANES, sum[i]);
    NAME(put_sums)(s, column, rows, LANES * VECTORS, part);
  } else if (s->update == QD_TILE_STORE) {
    EACH_SUM(NAME(write)(c, sum[i * VECTORS + v]))
  } else if (s->update == QD_TILE_ADD) {
    EACH_SUM(NAME(write)(c, NAME(add)(NAME(read)(c), sum[i * VECTORS + v])))
  } else {
    EACH_SUM(NAME(write)(c, NAME(subtract)(NAME(read)(c), sum[i * VECTORS + v])))
  }
}

QD_INLINE TARGET void NAME(tile)(const qd_gemm_strip *s, int64_t column, int rows) {
  const int width = LANES * VECTORS;
  int64_t stride = qd_panel_stride(s->steps, width);
  const ELEMENT *a = s->a, *b = (const ELEMENT *)s->b + column / width * stride;
  NAME(sum) sum[ROWS * VECTORS];
#pragma GCC unroll 28
  for (int i = 0; i < rows * VECTORS; i++) sum[i] = NAME(zero)();
  int64_t ahead = column / width * 64;
  if (ahead < s->ahead_bytes)
    for (int i = 0; i < rows; i++)
      __builtin_prefetch((const void *)((uintptr_t)s->ahead + (uintptr_t)(i * s->ahead_stride + ahead)), 0, 2);
  for (int i = 0; i < rows; i++)
    for (int j = 0; j < LANES * VECTORS; j += 64 / (int)sizeof(OUTPUT))
      __builtin_prefetch((const OUTPUT *)s->c + i * s->c_stride + column + j, 1);
  for (int64_t k = 0; k < s->steps; k++) {
    NAME(input) y[VECTORS];
#pragma GCC unroll 3
    for (int v = 0; v < VECTORS; v++) y[v] = NAME(load)(b + v * LANES);
#pragma GCC unroll 14
    for (int i = 0; i < rows; i++) {
      NAME(input) x = NAME(broadcast)(a + i);
#pragma GCC unroll 3
      for (int v = 0; v < VECTORS; v++) sum[i * VECTORS + v] = NAME(fma)(x, y[v], sum[i * VECTORS + v]);
    }
    a += rows;
    b += width;
  }
  NAME(finish)(s, column, rows, sum);
}

QD_INLINE TARGET void NAME(strip_of)(const qd_gemm_strip *s, int rows) {
  for (int64_t j = 0; j < s->columns; j += LANES * VECTORS) NAME(tile)(s, j, rows);
}

#define QD_STRIP(n) \
  static TARGET void NAME(strip##n)(const qd_gemm_strip *s) { NAME(strip_of)(s, n); }
QD_STRIP(1)
QD_STRIP(2)
QD_STRIP(3)
QD_STRIP(4)
QD_STRIP(5)
QD_STRIP(6)
#if ROWS >= 8
QD_STRIP(7)
QD_STRIP(8)
#endif
#if ROWS >= 14
QD_STRIP(9)
QD_STRIP(10)
QD_STRIP(11)
QD_STRIP(12)
QD_STRIP(13)
QD_STRIP(14)
#endif
#undef QD_STRIP

static void NAME(strip)(const qd_gemm_strip *s) {
  static void (*const strips[])(const qd_gemm_strip *) = {
    NAME(strip1),
    NAME(strip2),
    NAME(strip3),
    NAME(strip4),
    NAME(strip5),
    NAME(strip6),
#if ROWS >= 8
    NAME(strip7),
    NAME(strip8),
#endif
#if ROWS >= 14
    NAME(strip9),
    NAME(strip10),
    NAME(strip11),
    NAME(strip12),
    NAME(strip13),
    NAME(strip14),
#endif
  };
  strips[s->rows - 1](s);
}

#undef EACH_SUM
#undef NAME
#undef NAME1
#undef NAME2
#undef KIND
#undef ELEMENT
#undef OUTPUT
#undef TARGET
#undef LANES
#undef VECTORS
#undef ROWS
