/* SpQR on the cpu: tiles of rows, each through all columns by one thread; what lies beyond a block is a matrix product. */
#include "kernels/spqr_cpu.h"

#include "kernels/gptq_cpu.h"
#include "kernels/ops_table.h"
#include "kernels/scratch.h"
#include "kernels/spqr.h"

#include <omp.h>

enum { TILE_ROWS = 256 };

typedef struct solver {
  qd_spqr_tile     tile;
  qd_gptq_beyond   beyond;
} solver;

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* Whole runs, shared out evenly over the threads. */
static int64_t tile_rows_of(const qd_spqr_args *args, int threads) {
  int64_t rows = args->w.dim[0], unit = qd_scheme_row_unit(args->scheme), each = (rows + threads - 1) / threads;
  each = least(each > 0 ? each : 1, TILE_ROWS);
  return (each + unit - 1) / unit * unit;
}

static int64_t width_of(const qd_spqr_args *args) { return least(args->block, args->w.dim[1]); }

static qd_status solver_init(solver *s, qd_device *device, const qd_spqr_args *args, int64_t tile_rows, int thread) {
  size_t width = (size_t)width_of(args), rows = (size_t)least(tile_rows, args->w.dim[0]),
         group = (size_t)qd_scheme_group_size(args->scheme, args->w.dim[1]);
  *s = (solver){.tile = {.args = args, .width = (int64_t)width, .beyond_row = -1},
                .beyond = {.device = device, .thread = thread, .u = args->u, .mode = QD_GEMM_SUBTRACT}};
  QD_TRY(qd_arena_new(&device->scratch, width * width, sizeof(float), &s->tile.u));
  QD_TRY(qd_arena_new(&device->scratch, rows * width, sizeof(float), &s->tile.e));
  QD_TRY(qd_arena_new(&device->scratch, rows, sizeof(float), &s->tile.scale));
  QD_TRY(qd_arena_new(&device->scratch, rows, sizeof(float), &s->tile.zero));
  QD_TRY(qd_arena_new(&device->scratch, group, sizeof(float), &s->tile.values));
  return qd_arena_new(&device->scratch, width * QD_TRI_TILE, sizeof(float), &s->beyond.piece);
}

size_t qd_cpu_scratch_spqr(const qd_device *device, const qd_spqr_args *args) {
  size_t width = (size_t)width_of(args), rows = (size_t)least(tile_rows_of(args, device->threads), args->w.dim[0]),
         group = (size_t)qd_scheme_group_size(args->scheme, args->w.dim[1]);
  size_t one = qd_arena_cost(width * width, sizeof(float)) + qd_arena_cost(rows * width, sizeof(float)) +
               2 * qd_arena_cost(rows, sizeof(float)) + qd_arena_cost(group, sizeof(float)) +
               qd_arena_cost(width * QD_TRI_TILE, sizeof(float));
  return qd_arena_cost((size_t)device->threads, sizeof(solver)) + (size_t)device->threads * one;
}

static void solve_tile(solver *s, int64_t row, int64_t rows) {
  qd_spqr_tile *tile = &s->tile;
  const qd_tensor *w = &tile->args->w;
  if (tile->beyond_row >= 0) return;
  tile->row = row, tile->rows = rows;
  qd_spqr_begin_rows(tile->args, row, rows);
  for (tile->begin = 0; tile->begin < w->dim[1]; tile->begin = tile->end) {
    tile->end = qd_spqr_block_end(tile->args, tile->begin);
    for (int64_t c = tile->begin; c < tile->end; c++)
      for (int64_t j = c; j < tile->end; j++)
        tile->u[(c - tile->begin) * tile->width + j - tile->begin] = ((const float *)tile->args->u.data)[qd_tri_index(j, c)];
    QD_ISA_CALL(s->beyond.device, qd_spqr_solve_block, (tile));
    if (tile->beyond_row >= 0) return;
    s->beyond.begin = tile->begin, s->beyond.end = tile->end;
    s->beyond.x = (qd_tensor){.data = tile->e, .dtype = QD_F32, .rank = 2, .dim = {rows, tile->end - tile->begin},
                              .stride = {tile->width, 1}};
    qd_gptq_update_beyond(&s->beyond, qd_tensor_rows(*w, row, rows));
  }
}

static qd_status solve(qd_device *device, const qd_spqr_args *args) {
  int64_t rows = args->w.dim[0], tile_rows = tile_rows_of(args, device->threads);
  solver *solvers, *first = NULL;
  QD_TRY(qd_arena_new(&device->scratch, (size_t)device->threads, sizeof *solvers, &solvers));
  for (int t = 0; t < device->threads; t++) QD_TRY(solver_init(&solvers[t], device, args, tile_rows, t));
#pragma omp parallel num_threads(device->threads)
  {
    solver *mine = &solvers[omp_get_thread_num()];
    qd_flush_denormals();
#pragma omp for schedule(monotonic : dynamic)
    for (int64_t row = 0; row < rows; row += tile_rows) solve_tile(mine, row, least(rows - row, tile_rows));
  }
  for (solver *s = solvers; s < solvers + device->threads; s++)
    if (s->tile.beyond_row >= 0 && (first == NULL || s->tile.beyond_row < first->tile.beyond_row)) first = s;
  return first != NULL ? qd_spqr_beyond(args, first->tile.beyond_row, first->tile.beyond_group) : QD_OK;
}

qd_status qd_cpu_spqr(qd_device *device, const qd_spqr_args *args) {
  size_t mark = qd_arena_mark(&device->scratch);
  qd_status status = solve(device, args);
  qd_arena_rewind(&device->scratch, mark);
  return status;
}
