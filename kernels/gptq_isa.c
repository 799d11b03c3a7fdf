/* GPTQ inside a block.  Rows lie in lanes; an error is applied to later columns not when it is found but when a strip of
 * columns is reached: the chain of one element is the same, and accumulators stay in registers (4 columns x 32 or 16 rows). */
#include "kernels/gptq_cpu.h"
#include "kernels/rows16.h"

#include <string.h>

#if defined(__AVX512F__)
enum { ROW_VECTORS = 2 };
#else
enum { ROW_VECTORS = 1 };
#endif
enum { LANES = 16, COLUMNS = 4 };

_Static_assert(QD_GPTQ_ROW_UNIT % (LANES * ROW_VECTORS) == 0 && QD_GPTQ_STRIP % COLUMNS == 0, "");

void QD_ISA(qd_gptq_take_columns)(const qd_gptq_tile *tile, const float *from, int64_t stride, int64_t first, int64_t n) {
  float *to = tile->w + first * tile->pitch;
  for (int64_t r = 0; r < tile->rows; r++)
    for (int64_t c = 0; c < n; c++) to[c * tile->pitch + r] = from[r * stride + c];
  for (int64_t c = 0; c < n; c++)
    memset(to + c * tile->pitch + tile->rows, 0, (size_t)(tile->padded - tile->rows) * sizeof *to);
}

void QD_ISA(qd_gptq_give_columns)(const qd_gptq_tile *tile, float *to, int64_t stride, int64_t first, int64_t n) {
  const float *from = tile->w + first * tile->pitch;
  for (int64_t r = 0; r < tile->rows; r++)
    for (int64_t c = 0; c < n; c++) to[r * stride + c] = from[c * tile->pitch + r];
}

typedef struct columns {
  int64_t first, n;   /* n may reach beyond COLUMNS: the rest is left alone */
  const float *u, *p; /* U[k][first] at k * QD_GPTQ_STRIP; and P's, or NULL */
} columns;

/* Rows [row, row + 16 ROW_VECTORS). */
static inline void apply_tile(const qd_gptq_tile *tile, columns at, int64_t row, int64_t from, int64_t to) {
  int64_t pitch = tile->pitch, first = at.first, n = at.n;
  v16 sum[COLUMNS][ROW_VECTORS];
  for (int j = 0; j < COLUMNS; j++)
    for (int v = 0; v < ROW_VECTORS; v++)
      sum[j][v] = j < n ? v16_load(tile->w + (first + j) * pitch + row + v * LANES) : v16_set(0);
  for (int64_t k = from; k < to; k++) {
    v16 e[ROW_VECTORS], w[ROW_VECTORS];
    for (int v = 0; v < ROW_VECTORS; v++) e[v] = v16_load(tile->e + k * pitch + row + v * LANES);
    for (int v = 0; at.p != NULL && v < ROW_VECTORS; v++) w[v] = v16_load(tile->w + k * pitch + row + v * LANES);
    for (int j = 0; j < COLUMNS; j++) {
      v16 factor = v16_set(at.u[k * QD_GPTQ_STRIP + j]);
      for (int v = 0; v < ROW_VECTORS; v++) sum[j][v] = v16_fnma(e[v], factor, sum[j][v]);
      if (at.p == NULL) continue;
      factor = v16_set(at.p[k * QD_GPTQ_STRIP + j]);
      for (int v = 0; v < ROW_VECTORS; v++) sum[j][v] = v16_fma(w[v], factor, sum[j][v]);
    }
  }
  for (int j = 0; j < COLUMNS && j < n; j++)
    for (int v = 0; v < ROW_VECTORS; v++) v16_store(tile->w + (first + j) * pitch + row + v * LANES, sum[j][v]);
}

void QD_ISA(qd_gptq_apply)(const qd_gptq_tile *tile, int64_t first, int64_t n, int64_t from, int64_t to) {
  for (int64_t row = 0; row < tile->padded; row += LANES * ROW_VECTORS)
    for (int64_t j = 0; j < n; j += COLUMNS) {
      if (tile->p == NULL) apply_tile(tile, (columns){first + j, n - j, tile->u + j, NULL}, row, from, to);
      else apply_tile(tile, (columns){first + j, n - j, tile->u + j, tile->p + j}, row, from, to);
    }
}

void QD_ISA(qd_gptq_column)(const qd_gptq_tile *tile, int64_t first, int64_t c, int64_t slot, float top) {
  int64_t pitch = tile->pitch;
  const float *u = tile->u + (c - first), *p = tile->p ? tile->p + (c - first) : NULL;
  v16 pivot = v16_set(u[c * QD_GPTQ_STRIP]), most = v16_set(top);
  for (int64_t row = 0; row < tile->padded; row += LANES) {
    v16 w = v16_load(tile->w + c * pitch + row);
    for (int64_t k = first; k < c; k++) {
      w = v16_fnma(v16_load(tile->e + k * pitch + row), v16_set(u[k * QD_GPTQ_STRIP]), w);
      if (p != NULL) w = v16_fma(v16_load(tile->w + k * pitch + row), v16_set(p[k * QD_GPTQ_STRIP]), w);
    }
    v16_store(tile->w + c * pitch + row, w);
    v16 scale = v16_load(tile->scale + slot * pitch + row), zero = v16_load(tile->zero + slot * pitch + row);
    v16 code = v16_code(w, scale, zero, most);
    v16 error = v16_div(v16_sub(w, v16_mul(scale, v16_sub(code, zero))), pivot);
    float codes[LANES], errors[LANES];
    v16_store(codes, code);
    v16_store(errors, error);
    v16_store(tile->e + c * pitch + row, error);
    for (int l = 0; l < LANES; l++) tile->code[c * pitch + row + l] = (uint8_t)(int32_t)codes[l];
    for (int l = 0; l < LANES; l++) tile->loss[row + l] += (double)errors[l] * (double)errors[l] * 0.5;
  }
}
