/* The Hessian as numbers: tiles over threads. */
#include "kernels/grid.h"
#include "kernels/ops_table.h"

#include <string.h>

enum { TILE = QD_TRI_TILE };

/* One row of a tile: the first n elements are numbers, the rest becomes zero.   `to` may be `from` (F64). */
static void convert_row(const int64_t *from, double row, const double *column, int64_t n, qd_dtype dtype, void *to) {
  if (dtype == QD_F64) {
    double *out = to;
    for (int64_t j = 0; j < n; j++) out[j] = (double)from[j] * (row * column[j]);
    memset(out + n, 0, (size_t)(TILE - n) * sizeof *out);
  } else {
    float *out = to;
    for (int64_t j = 0; j < n; j++) out[j] = (float)((double)from[j] * (row * column[j]));
    memset(out + n, 0, (size_t)(TILE - n) * sizeof *out);
  }
}

static void convert_tile(qd_tri total, const double *unit, qd_tri h, int64_t ti, int64_t tj) {
  for (int64_t r = 0; r < TILE; r++) {
    int64_t i = ti * TILE + r, n = i >= h.n ? 0 : ti == tj ? r + 1 : TILE;
    size_t at = qd_tri_index(i, tj * TILE);
    convert_row((const int64_t *)total.data + at, n > 0 ? unit[i] : 0, unit + tj * TILE, n, h.dtype,
                (unsigned char *)h.data + at * qd_dtype_bytes(h.dtype));
  }
}

qd_status qd_cpu_hessian_values(qd_device *device, qd_tri total, qd_tensor exponent, qd_tri h) {
  size_t mark = qd_arena_mark(&device->scratch);
  double *unit;
  QD_TRY(qd_grid_powers(&device->scratch, exponent, QD_FROM_UNITS, &unit));
  int64_t side = (h.n + TILE - 1) / TILE;
#pragma omp parallel num_threads(device->threads)
  {
    qd_flush_denormals();
#pragma omp for schedule(dynamic)
    for (int64_t ti = side - 1; ti >= 0; ti--)
      for (int64_t tj = 0; tj <= ti; tj++) convert_tile(total, unit, h, ti, tj);
  }
  qd_arena_rewind(&device->scratch, mark);
  return QD_OK;
}
