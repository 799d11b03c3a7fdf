/* The factor's work on diagonal tiles and next to them: each lane is one row (or one column of the inverse), whose
 * multiply-adds follow each other one k at a time.  COLUMNS x 3 vectors stay in registers while k runs. */
#include "kernels/factor.h"

#include <float.h>
#include <math.h>
#include <string.h>

#if defined(__AVX512F__)
#include <immintrin.h>
typedef __m512d vec;
enum { LANES = 8, COLUMNS = 8 };
#define LOAD _mm512_loadu_pd
#define STORE _mm512_storeu_pd
#define SPLAT _mm512_set1_pd
#define SUBTRACT_PRODUCT(a, b, c) _mm512_fnmadd_pd(a, b, c)
#define DIVIDE _mm512_div_pd
#elif defined(__AVX2__)
#include <immintrin.h>
typedef __m256d vec;
enum { LANES = 4, COLUMNS = 4 };
#define LOAD _mm256_loadu_pd
#define STORE _mm256_storeu_pd
#define SPLAT _mm256_set1_pd
#define SUBTRACT_PRODUCT(a, b, c) _mm256_fnmadd_pd(a, b, c)
#define DIVIDE _mm256_div_pd
#else
typedef double vec;
enum { LANES = 1, COLUMNS = 4 };
#define LOAD(p) (*(p))
#define STORE(p, v) ((void)(*(p) = (v)))
#define SPLAT(x) (x)
#define SUBTRACT_PRODUCT(a, b, c) fma(-(a), b, c)
#define DIVIDE(a, b) ((a) / (b))
#endif

enum { TILE = QD_TRI_TILE, VECTORS = 3, PANEL = VECTORS * LANES };

#define ALWAYS_INLINE static inline __attribute__((always_inline))

/* Columns j .. j + COLUMNS - 1 of `vectors` vectors of rows:  x_j = x_j - l_jk x_k for k = first .. j - 1, then, if `solve`,
 * the columns among themselves and the divisions.  x[k * stride + lane]. */
ALWAYS_INLINE void panel(const double *lt, double *x, int64_t stride, int64_t first, int64_t j, int vectors, int solve) {
  vec sum[COLUMNS][VECTORS];
#pragma GCC unroll 8
  for (int c = 0; c < COLUMNS; c++)
#pragma GCC unroll 3
    for (int v = 0; v < vectors; v++) sum[c][v] = LOAD(x + (j + c) * stride + v * LANES);
  for (int64_t k = first; k < j; k++) {
    vec known[VECTORS];
#pragma GCC unroll 3
    for (int v = 0; v < vectors; v++) known[v] = LOAD(x + k * stride + v * LANES);
#pragma GCC unroll 8
    for (int c = 0; c < COLUMNS; c++) {
      vec l = SPLAT(lt[k * TILE + j + c]);
#pragma GCC unroll 3
      for (int v = 0; v < vectors; v++) sum[c][v] = SUBTRACT_PRODUCT(l, known[v], sum[c][v]);
    }
  }
  if (solve) {
#pragma GCC unroll 8
    for (int c = 0; c < COLUMNS; c++) {
      const double *l = lt + (j + c) * TILE + j;
#pragma GCC unroll 3
      for (int v = 0; v < vectors; v++) sum[c][v] = DIVIDE(sum[c][v], SPLAT(l[c]));
#pragma GCC unroll 8
      for (int d = 0; d < COLUMNS; d++)
#pragma GCC unroll 3
        for (int v = 0; v < vectors; v++)
          if (d > c) sum[d][v] = SUBTRACT_PRODUCT(SPLAT(l[d]), sum[c][v], sum[d][v]);
    }
  }
#pragma GCC unroll 8
  for (int c = 0; c < COLUMNS; c++)
#pragma GCC unroll 3
    for (int v = 0; v < vectors; v++) STORE(x + (j + c) * stride + v * LANES, sum[c][v]);
}

static void wide_panel(const double *lt, double *x, int64_t stride, int64_t first, int64_t j) {
  panel(lt, x, stride, first, j, VECTORS, 1);
}
static void thin_panel(const double *lt, double *x, int64_t stride, int64_t first, int64_t j) {
  panel(lt, x, stride, first, j, 1, 1);
}
static void thin_update(const double *lt, double *x, int64_t stride, int64_t j) { panel(lt, x, stride, 0, j, 1, 0); }

/* Solve columns j .. for all rows from `from` on. */
static void rest_of_tile(const double *lt, double *x, int64_t j, int64_t from, int64_t n) {
  int64_t i = from;
  for (; i + PANEL <= n; i += PANEL) wide_panel(lt, x + i, TILE, 0, j);
  for (; i < n; i += LANES) thin_panel(lt, x + i, TILE, 0, j);
}

/* The COLUMNS x COLUMNS square on the diagonal, from which earlier columns have been subtracted. */
static int64_t square(double *lt, int64_t first) {
  for (int64_t k = first; k < first + COLUMNS; k++) {
    double pivot = lt[k * TILE + k];
    if (!(pivot > 0 && pivot <= DBL_MAX)) return k;
    double l = sqrt(pivot);
    lt[k * TILE + k] = l;
    for (int64_t i = k + 1; i < first + COLUMNS; i++) lt[k * TILE + i] = lt[k * TILE + i] / l;
    for (int64_t j = k + 1; j < first + COLUMNS; j++)
      for (int64_t i = j; i < first + COLUMNS; i++)
        lt[j * TILE + i] = fma(-lt[k * TILE + i], lt[k * TILE + j], lt[j * TILE + i]);
  }
  return -1;
}

int64_t QD_ISA(qd_factor_diagonal)(double *lt, int64_t n) {
  for (int64_t j = 0; j < n; j += COLUMNS) {
    for (int64_t i = j; i < j + COLUMNS; i += LANES) thin_update(lt, lt + i, TILE, j);
    int64_t failed = square(lt, j);
    if (failed >= 0) return failed;
    rest_of_tile(lt, lt, j, j + COLUMNS, n);
  }
  return -1;
}

/* buffer[k * PANEL + r] <-> tile[r * 256 + k], by squares that stay in the first cache. */
static void load_transposed(double *buffer, const double *tile, int64_t rows) {
  enum { SQUARE = 8 };
  for (int64_t k0 = 0; k0 < TILE; k0 += SQUARE)
    for (int64_t r = 0; r < PANEL; r++)
      for (int64_t k = k0; k < k0 + SQUARE; k++) buffer[k * PANEL + r] = r < rows ? tile[r * TILE + k] : 0;
}

static void store_transposed(double *tile, const double *buffer, int64_t rows) {
  enum { SQUARE = 8 };
  for (int64_t k0 = 0; k0 < TILE; k0 += SQUARE)
    for (int64_t r = 0; r < rows; r++)
      for (int64_t k = k0; k < k0 + SQUARE; k++) tile[r * TILE + k] = buffer[k * PANEL + r];
}

void QD_ISA(qd_factor_below)(const double *lt, double *tile, int64_t rows, double *buffer) {
  for (int64_t first = 0; first < rows; first += PANEL) {
    int64_t count = rows - first < PANEL ? rows - first : PANEL;
    load_transposed(buffer, tile + first * TILE, count);
    for (int64_t j = 0; j < TILE; j += COLUMNS) wide_panel(lt, buffer, PANEL, 0, j);
    store_transposed(tile + first * TILE, buffer, count);
  }
}

void QD_ISA(qd_factor_inverse)(const double *lt, double *x, int64_t n) {
  for (int64_t i = 0; i < n; i++) {
    memset(x + i * TILE, 0, TILE * sizeof *x);
    x[i * TILE + i] = 1;
  }
  int64_t i = 0; /* rows above a column's diagonal stay zero */
  for (; i + PANEL <= n; i += PANEL)
    for (int64_t top = i / COLUMNS * COLUMNS, j = top; j < n; j += COLUMNS) wide_panel(lt, x + i, TILE, top, j);
  for (; i < n; i += LANES)
    for (int64_t top = i / COLUMNS * COLUMNS, j = top; j < n; j += COLUMNS) thin_panel(lt, x + i, TILE, top, j);
}
