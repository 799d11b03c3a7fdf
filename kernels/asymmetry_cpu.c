/* GPTAQ's P by tiles of 256: a row of tiles at a time, first T = triu(cross U^T), then alpha T U; nearly all of it is the fp64
 * matrix kernel, over the tiles that are not zero only, C^3 / 3 multiply-adds together. */
#include "kernels/gemm_cpu.h"
#include "kernels/ops_table.h"
#include "kernels/scratch.h"

#include <omp.h>

enum { TILE = QD_TRI_TILE, SQUARE = TILE * TILE };

typedef struct work {
  qd_device *device;
  const qd_asymmetry_args *args;
  int64_t n, side;
  double *cross, *t; /* a row of tiles: (256, n) from the matrix's first column on, those before the row's own unused */
  double *tiles;     /* two a thread: one of U widened, one of P */
} work;

static int64_t width(const work *w, int64_t tile) { return w->n - tile * TILE < TILE ? w->n - tile * TILE : TILE; }

/* Rows of cross in the order of processing. */
static void gather_row(const work *w, int64_t row_tile, int64_t r) {
  const int32_t *order = w->args->order.rank == 0 ? NULL : w->args->order.data;
  int64_t a = row_tile * TILE + r;
  const float *from = (const float *)w->args->cross.data + (order ? order[a] : a) * w->args->cross.stride[0];
  double *to = w->cross + r * w->n;
  for (int64_t b = row_tile * TILE; b < w->n; b++) to[b] = (double)from[order ? order[b] : b];
}

/* Some columns of a row of tiles. */
static qd_tensor part_of(const work *w, double *panel, int64_t row_tile, int64_t tile) {
  return (qd_tensor){.data = panel + tile * TILE,
                     .dtype = QD_F64,
                     .rank = 2,
                     .dim = {width(w, row_tile), width(w, tile)},
                     .stride = {w->n, 1}};
}

/* Tile (tj, tc) of the triangle, which holds U[c][j] at (j, c), in double. */
static qd_tensor widen_u(const work *w, int64_t tj, int64_t tc) {
  double *to = w->tiles + (size_t)omp_get_thread_num() * 2 * SQUARE;
  qd_tensor from = qd_tri_tile(w->args->u, tj, tc);
  const float *value = from.data;
  for (int64_t i = 0; i < from.dim[0] * TILE; i++) to[i] = (double)value[i];
  from.data = to, from.dtype = QD_F64;
  return from;
}

static void left_tile(const work *w, int64_t row_tile, int64_t k) {
  qd_tensor t = part_of(w, w->t, row_tile, k);
  for (int64_t b = k; b < w->side; b++)
    qd_gemm_serial(w->device, omp_get_thread_num(), b == k ? QD_GEMM_SET : QD_GEMM_ADD, part_of(w, w->cross, row_tile, b),
                   widen_u(w, b, k), t);
  for (int64_t a = 0; k == row_tile && a < t.dim[0]; a++)
    memset((double *)t.data + a * w->n, 0, (size_t)(a + 1) * sizeof(double));
}

static void right_tile(const work *w, int64_t row_tile, int64_t j) {
  double *p = w->tiles + (size_t)omp_get_thread_num() * 2 * SQUARE + SQUARE;
  int64_t rows = width(w, row_tile), columns = width(w, j);
  qd_tensor sum = {.data = p, .dtype = QD_F64, .rank = 2, .dim = {rows, columns}, .stride = {TILE, 1}};
  for (int64_t k = row_tile; k <= j; k++)
    qd_gemm_serial(w->device, omp_get_thread_num(), k == row_tile ? QD_GEMM_SET : QD_GEMM_ADD, part_of(w, w->t, row_tile, k),
                   qd_tensor_transposed(widen_u(w, j, k)), sum);
  float *to = qd_tri_tile(w->args->p, j, row_tile).data;
  for (int64_t y = 0; y < TILE; y++)
    for (int64_t a = 0; a < TILE; a++)
      to[y * TILE + a] = y < columns && a < rows && (j > row_tile || y > a) ? (float)(w->args->alpha * p[a * TILE + y]) : 0;
}

static void run(const work *w) {
#pragma omp parallel num_threads(w->device->threads)
  {
    qd_flush_denormals();
    for (int64_t row_tile = 0; row_tile < w->side; row_tile++) {
#pragma omp for schedule(static)
      for (int64_t r = 0; r < width(w, row_tile); r++) gather_row(w, row_tile, r);
#pragma omp for schedule(dynamic)
      for (int64_t k = row_tile; k < w->side; k++) left_tile(w, row_tile, k);
#pragma omp for schedule(dynamic)
      for (int64_t j = w->side - 1; j >= row_tile; j--) right_tile(w, row_tile, j);
    }
  }
}

size_t qd_cpu_scratch_asymmetry(const qd_device *device, int64_t columns) {
  return 2 * qd_arena_cost((size_t)(columns * TILE), sizeof(double)) +
         qd_arena_cost((size_t)device->threads * 2 * SQUARE, sizeof(double));
}

static qd_status open_work(work *w) {
  QD_TRY(qd_arena_new(&w->device->scratch, (size_t)(w->n * TILE), sizeof *w->cross, &w->cross));
  QD_TRY(qd_arena_new(&w->device->scratch, (size_t)(w->n * TILE), sizeof *w->t, &w->t));
  return qd_arena_new(&w->device->scratch, (size_t)w->device->threads * 2 * SQUARE, sizeof *w->tiles, &w->tiles);
}

qd_status qd_cpu_asymmetry(qd_device *device, const qd_asymmetry_args *args) {
  work w = {.device = device, .args = args, .n = args->u.n, .side = (args->u.n + TILE - 1) / TILE};
  size_t mark = qd_arena_mark(&device->scratch);
  qd_status status = open_work(&w);
  if (status == QD_OK) run(&w);
  qd_arena_rewind(&device->scratch, mark);
  return status;
}
