/* x H x^T for each row x: a block of rows times one tile row of the strict lower triangle at a time, then double.
 * Blocks of rows over threads. */
#include "kernels/gemm_cpu.h"
#include "kernels/ops_table.h"
#include "kernels/scratch.h"
#include "kernels/statistics_isa.h"

#include <omp.h>
#include <string.h>

enum { TILE = QD_TRI_TILE, ROWS = 256 };

typedef struct scratch { /* of one thread */
  float p[ROWS * TILE];
  float strict[TILE * TILE]; /* the diagonal tile without its diagonal */
  float diagonal[TILE];
  double value[ROWS];
} scratch;

static qd_tensor strict_tile(scratch *s, qd_tensor tile) {
  const float *from = tile.data;
  memset(s->strict, 0, sizeof s->strict);
  for (int64_t i = 0; i < tile.dim[0]; i++) {
    memcpy(s->strict + i * TILE, from + i * TILE, (size_t)i * sizeof(float));
    s->diagonal[i] = from[i * TILE + i];
  }
  tile.data = s->strict;
  return tile;
}

/* Rows x of one block. */
static void block_values(qd_device *device, scratch *s, qd_tensor x, qd_tri h, qd_tensor value) {
  memset(s->value, 0, sizeof s->value);
  for (int64_t first = 0, ti = 0; first < h.n; first += TILE, ti++) {
    int64_t width = h.n - first < TILE ? h.n - first : TILE;
    qd_tensor p = {.data = s->p, .dtype = QD_F32, .rank = 2, .dim = {x.dim[0], width}, .stride = {TILE, 1}};
    for (int64_t tj = 0; tj <= ti; tj++) {
      qd_tensor tile = qd_tri_tile(h, ti, tj);
      if (tj == ti) tile = strict_tile(s, tile);
      qd_tensor part = qd_tensor_columns(x, tj * TILE, tile.dim[1]);
      qd_gemm_mode mode = tj == 0 ? QD_GEMM_SET : QD_GEMM_ADD;
      qd_gemm_serial(device, omp_get_thread_num(), mode, part, qd_tensor_transposed(tile), p);
    }
    QD_ISA_CALL(device, qd_sqerror_add, (s->value, qd_tensor_columns(x, first, width), p, s->diagonal));
  }
  for (int64_t r = 0; r < x.dim[0]; r++) ((double *)value.data)[r * value.stride[0]] = s->value[r];
}

size_t qd_cpu_scratch_sqerror(const qd_device *device) { return qd_arena_cost((size_t)device->threads, sizeof(scratch)); }

qd_status qd_cpu_sqerror(qd_device *device, qd_tensor x, qd_tri h, qd_tensor value) {
  size_t mark = qd_arena_mark(&device->scratch);
  scratch *each;
  QD_TRY(qd_arena_new(&device->scratch, (size_t)device->threads, sizeof *each, &each));
  int64_t blocks = (x.dim[0] + ROWS - 1) / ROWS;
#pragma omp parallel num_threads(device->threads)
  {
    qd_flush_denormals();
#pragma omp for schedule(dynamic)
    for (int64_t block = 0; block < blocks; block++) {
      int64_t first = block * ROWS, rows = x.dim[0] - first < ROWS ? x.dim[0] - first : ROWS;
      block_values(device, each + omp_get_thread_num(), qd_tensor_rows(x, first, rows), h, qd_tensor_rows(value, first, rows));
    }
  }
  qd_arena_rewind(&device->scratch, mark);
  return QD_OK;
}
