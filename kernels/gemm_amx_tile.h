/* A strip of c by TDPBF16PS, two tiles down and two across.  Included once by gemm_amx_isa.c with the instructions, and by its
 * test with a model of them, so that the test does not depend on the machine:
 *   TILES_TARGET                  attribute of the functions
 *   TILES_BEGIN(rows), TILES_END  registers for a panel of a of so many rows: 0 to 3 hold sums, 4 and 5 rows of a, 6 and 7
 *                                 columns of b; 0, 1 and 4 the first 16 rows, 2, 3 and 5 the others
 *   TILE_ZERO(t), TILE_LOAD(t, from, bytes), TILE_STORE(t, to, bytes)   `bytes` from one row to the next
 *   TILE_MULTIPLY(c, a, b)        c = c + a b */
enum { TILE_ROWS = 16, TILE_WORDS = 16, TILES_ROWS = 2 * TILE_ROWS, TILES_COLUMNS = 2 * TILE_WORDS };

/* Panels lie as QD_PANEL_TILES says: of each block the rows of a, 64 bytes each; of b 16 pairs of TILES_COLUMNS. */
TILES_TARGET static void tiles_upper(const uint32_t *a, const uint32_t *b, int64_t blocks, int rows, float *sum) {
  TILE_ZERO(0);
  TILE_ZERO(1);
  for (int64_t i = 0; i < blocks; i++, a += rows * TILE_WORDS, b += TILE_ROWS * TILES_COLUMNS) {
    TILE_LOAD(4, a, 4 * TILE_WORDS);
    TILE_LOAD(6, b, 4 * TILES_COLUMNS);
    TILE_LOAD(7, b + TILE_WORDS, 4 * TILES_COLUMNS);
    TILE_MULTIPLY(0, 4, 6);
    TILE_MULTIPLY(1, 4, 7);
  }
  TILE_STORE(0, sum, 4 * TILES_COLUMNS);
  TILE_STORE(1, sum + TILE_WORDS, 4 * TILES_COLUMNS);
}

TILES_TARGET static void tiles_both(const uint32_t *a, const uint32_t *b, int64_t blocks, int rows, float *sum) {
  TILE_ZERO(0);
  TILE_ZERO(1);
  TILE_ZERO(2);
  TILE_ZERO(3);
  for (int64_t i = 0; i < blocks; i++, a += rows * TILE_WORDS, b += TILE_ROWS * TILES_COLUMNS) {
    TILE_LOAD(4, a, 4 * TILE_WORDS);
    TILE_LOAD(6, b, 4 * TILES_COLUMNS);
    TILE_LOAD(7, b + TILE_WORDS, 4 * TILES_COLUMNS);
    TILE_LOAD(5, a + TILE_ROWS * TILE_WORDS, 4 * TILE_WORDS);
    TILE_MULTIPLY(0, 4, 6);
    TILE_MULTIPLY(1, 4, 7);
    TILE_MULTIPLY(2, 5, 6);
    TILE_MULTIPLY(3, 5, 7);
  }
  TILE_STORE(0, sum, 4 * TILES_COLUMNS);
  TILE_STORE(1, sum + TILE_WORDS, 4 * TILES_COLUMNS);
  TILE_STORE(2, sum + TILE_ROWS * TILES_COLUMNS, 4 * TILES_COLUMNS);
  TILE_STORE(3, sum + TILE_ROWS * TILES_COLUMNS + TILE_WORDS, 4 * TILES_COLUMNS);
}

TILES_TARGET static void tiles_strip(const qd_gemm_strip *s) {
  _Alignas(64) float sum[TILES_ROWS * TILES_COLUMNS];
  int64_t stride = qd_panel_stride(s->steps, TILES_COLUMNS), blocks = s->steps / TILE_WORDS;
  TILES_BEGIN(s->rows);
  for (int64_t column = 0; column < s->columns; column += TILES_COLUMNS) {
    const uint32_t *b = (const uint32_t *)s->b + column / TILES_COLUMNS * stride;
    if (s->rows > TILE_ROWS)
      tiles_both(s->a, b, blocks, s->rows, sum);
    else
      tiles_upper(s->a, b, blocks, s->rows, sum);
    put_sums(s, column, s->rows, TILES_COLUMNS, sum);
  }
  TILES_END();
}
