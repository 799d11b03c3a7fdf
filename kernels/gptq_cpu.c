/* GPTQ on the cpu: tiles of rows, each through all columns by one thread; what lies beyond a block is a matrix product. */
#include "kernels/gptq_cpu.h"

#include "kernels/gemm_cpu.h"
#include "kernels/ops_table.h"
#include "kernels/rtn_cpu.h"
#include "kernels/scratch.h"
#include "kernels/solvers.h"

#include <omp.h>

/* One thread's memory and place. */
typedef struct solver {
  qd_device *device;
  const qd_gptq_args *args;
  int          thread;
  int64_t      columns;
  int64_t      row;         /* the tile's first                                                        */
  int64_t      begin, end;  /* the block                                                               */
  qd_gptq_tile tile;
  float       *piece;       /* a piece of U^T, (256, block), where the block crosses a tile of u       */
  int64_t      beyond_row, beyond_group; /* the first row whose scale is infinite; row -1: none       */
} solver;

static float *w_at(const solver *s, int64_t column) {
  return (float *)s->args->w.data + s->row * s->args->w.stride[0] + column;
}

/* U[c][j] (or P[c][j]) for c in [first, first + n), any n, to `to` with a stride: contiguous up to the end of c's tile. */
static void copy_column(qd_tri u, int64_t first, int64_t n, int64_t j, float *to, int64_t stride) {
  for (int64_t c = first, part; c < first + n; c += part) {
    part = QD_TRI_TILE - c % QD_TRI_TILE;
    if (part > first + n - c) part = first + n - c;
    const float *from = (const float *)u.data + qd_tri_index(j, c);
    for (int64_t i = 0; i < part; i++) to[(c - first + i) * stride] = from[i];
  }
}

/* The strip's columns of U or P, rows from the block's first to each column. */
static void load_strip(const solver *s, qd_tri u, int64_t first, int64_t n, float *strip) {
  int64_t last = first + n;
  for (int64_t i = 0; i < QD_GPTQ_STRIP; i++) {
    int64_t known = i < n ? first + i + 1 - s->begin : 0;
    float *to = strip + i;
    if (known > 0) copy_column(u, s->begin, known, first + i, to, QD_GPTQ_STRIP);
    for (int64_t k = known; k < last - s->begin; k++) to[k * QD_GPTQ_STRIP] = 0;
  }
}

/* Columns [first, last) of the block with the errors of columns [from, to). */
static void apply(const solver *s, int64_t first, int64_t last, int64_t from, int64_t to) {
  for (int64_t j = first; j < last; j += QD_GPTQ_STRIP) {
    int64_t n = last - j < QD_GPTQ_STRIP ? last - j : QD_GPTQ_STRIP;
    load_strip(s, s->args->u, j, n, s->tile.u);
    if (s->tile.p != NULL) load_strip(s, s->args->p, j, n, s->tile.p);
    QD_ISA_CALL(s->device, qd_gptq_apply, (&s->tile, j - s->begin, n, from - s->begin, to - s->begin));
  }
}

/* Scales and zero points of one group into a slot of the tile. */
static void load_grid(const solver *s, int64_t group, int64_t slot) {
  const qd_tensor *scale = &s->args->scale, *zero = &s->args->zero;
  const float *scales = (const float *)scale->data + s->row * scale->stride[0] + group;
  const uint8_t *zeros = (const uint8_t *)zero->data + s->row * zero->stride[0] + group;
  float *to_scale = s->tile.scale + slot * s->tile.pitch, *to_zero = s->tile.zero + slot * s->tile.pitch;
  for (int64_t r = 0; r < s->tile.padded; r++) {
    to_scale[r] = r < s->tile.rows ? scales[r * scale->stride[0]] : 1;
    to_zero[r] = r < s->tile.rows ? (float)zeros[r * zero->stride[0]] : 0;
  }
}

/* Fit the group of column c, whose columns are up to date in w. */
static void fit_group(solver *s, int64_t c) {
  const qd_gptq_args *args = s->args;
  int64_t group = qd_gptq_group(args, c);
  qd_rtn_rows job = {.w = w_at(s, c), .w_stride = args->w.stride[0], .rows = s->tile.rows, .n = qd_gptq_group_end(args, c) - c,
                     .scheme = args->scheme,
                     .scale = (float *)args->scale.data + s->row * args->scale.stride[0] + group,
                     .scale_stride = args->scale.stride[0],
                     .zero = (uint8_t *)args->zero.data + s->row * args->zero.stride[0] + group,
                     .zero_stride = args->zero.stride[0]};
  int64_t beyond = QD_ISA_CALL(s->device, qd_rtn_fit_rows, (&job));
  if (beyond >= 0 && (s->beyond_row < 0 || s->row + beyond < s->beyond_row)) {
    s->beyond_row = s->row + beyond;
    s->beyond_group = group;
  }
  load_grid(s, group, 0);
}

/* At the first column of a group: returns the column whose errors are the first that the group's columns in the block lack.
 * compat fits on what the block began with, and so leaves the columns as they are. */
static int64_t enter_group(solver *s, int64_t c) {
  int64_t from = s->begin;
  if (c > s->begin && !s->args->scheme.compat) {
    int64_t last = qd_gptq_group_end(s->args, c);
    apply(s, c, last, s->begin, c);
    QD_ISA_CALL(s->device, qd_gptq_give_columns, (&s->tile, w_at(s, c), s->args->w.stride[0], c - s->begin, last - c));
    from = c;
  }
  fit_group(s, c);
  return from;
}

static void solve_block(solver *s) {
  const qd_gptq_args *args = s->args;
  float top = (float)qd_scheme_max_code(args->scheme);
  int64_t from = s->begin;
  QD_ISA_CALL(s->device, qd_gptq_take_columns, (&s->tile, w_at(s, s->begin), args->w.stride[0], 0, s->end - s->begin));
  for (int64_t c = s->begin, last; c < s->end; c = last) {
    if (args->fit && qd_gptq_begins_group(args, c)) from = enter_group(s, c);
    last = c + 1;
    while (last < s->end && last - c < QD_GPTQ_STRIP && !(args->fit && qd_gptq_begins_group(args, last))) last++;
    apply(s, c, last, from, c);
    for (int64_t j = c; j < last; j++) {
      int64_t slot = args->fit ? 0 : qd_gptq_group(args, j);
      QD_ISA_CALL(s->device, qd_gptq_column, (&s->tile, c - s->begin, j - s->begin, slot, top));
    }
  }
}

static void write_codes(const solver *s) {
  const qd_gptq_tile *tile = &s->tile;
  for (int64_t r = 0; r < tile->rows; r++) {
    uint8_t *to = (uint8_t *)s->args->code.data + (s->row + r) * s->args->code.stride[0];
    for (int64_t c = s->begin; c < s->end; c++) to[qd_gptq_stored(s->args, c)] = tile->code[(c - s->begin) * tile->pitch + r];
  }
}

/* U[begin..end)[j..j + n) as (block, n), n within one tile of u. */
static qd_tensor piece_of(const qd_gptq_beyond *b, int64_t j, int64_t n) {
  int64_t width = b->end - b->begin;
  qd_tensor piece = {.dtype = QD_F32, .rank = 2, .dim = {width, n}, .stride = {1, QD_TRI_TILE}};
  if (b->begin / QD_TRI_TILE == (b->end - 1) / QD_TRI_TILE) {
    piece.data = (float *)b->u.data + qd_tri_index(j, b->begin);
    return piece;
  }
  for (int64_t i = 0; i < n; i++) copy_column(b->u, b->begin, width, j + i, b->piece + i * width, 1);
  piece.data = b->piece;
  piece.stride[1] = width;
  return piece;
}

void qd_gptq_update_beyond(const qd_gptq_beyond *b, qd_tensor w) {
  int64_t columns = w.dim[1];
  for (int64_t j = b->end, last; j < columns; j = last) {
    last = (j / QD_TRI_TILE + 1) * QD_TRI_TILE;
    if (last > columns) last = columns;
    qd_gemm_serial(b->device, b->thread, b->mode, b->x, piece_of(b, j, last - j), qd_tensor_columns(w, j, last - j));
  }
}

static void update_beyond(const solver *s) {
  const qd_gptq_tile *tile = &s->tile;
  qd_tensor w = qd_tensor_rows(s->args->w, s->row, tile->rows);
  qd_gptq_beyond b = {.device = s->device, .thread = s->thread, .u = s->args->u, .begin = s->begin, .end = s->end,
                      .piece = s->piece, .mode = QD_GEMM_SUBTRACT,
                      .x = {.data = tile->e, .dtype = QD_F32, .rank = 2, .dim = {tile->rows, s->end - s->begin},
                            .stride = {1, tile->pitch}}};
  qd_gptq_update_beyond(&b, w);
  if (tile->p == NULL) return;
  b.u = s->args->p, b.mode = QD_GEMM_ADD, b.x.data = tile->w;
  qd_gptq_update_beyond(&b, w);
}

static void solve_tile(solver *s, int64_t row, int64_t rows) {
  s->row = row;
  s->tile.rows = rows;
  s->tile.padded = (rows + QD_GPTQ_ROW_UNIT - 1) / QD_GPTQ_ROW_UNIT * QD_GPTQ_ROW_UNIT;
  memset(s->tile.loss, 0, (size_t)s->tile.padded * sizeof *s->tile.loss);
  if (!s->args->fit)
    for (int64_t g = 0; g < s->args->scale.dim[1]; g++) load_grid(s, g, g);
  for (s->begin = 0; s->begin < s->columns; s->begin = s->end) {
    s->end = qd_gptq_block_end(s->args, s->begin);
    solve_block(s);
    write_codes(s);
    update_beyond(s);
  }
  double *loss = s->args->loss.data;
  for (int64_t r = 0; r < rows; r++) loss[(row + r) * s->args->loss.stride[0]] = s->tile.loss[r];
}

/* Rows a tile, so that the tiles share out evenly over the threads. */
static int64_t choose_tile_rows(int64_t rows, int threads) {
  int64_t rounds = (rows + (int64_t)QD_GPTQ_TILE_ROWS * threads - 1) / ((int64_t)QD_GPTQ_TILE_ROWS * threads);
  int64_t tiles = rounds > 0 ? rounds * threads : 1, each = (rows + tiles - 1) / tiles;
  each = (each + QD_GPTQ_ROW_UNIT - 1) / QD_GPTQ_ROW_UNIT * QD_GPTQ_ROW_UNIT;
  return each > 0 ? each : QD_GPTQ_ROW_UNIT;
}

static qd_status solver_init(solver *s, qd_device *device, const qd_gptq_args *args, int64_t tile_rows, int thread) {
  int64_t columns = args->w.dim[1], block = args->block < columns ? args->block : columns;
  int64_t slots = args->fit ? 1 : args->scale.dim[1];
  *s = (solver){.device = device, .args = args, .thread = thread, .columns = columns, .beyond_row = -1};
  qd_gptq_tile *tile = &s->tile;
  tile->pitch = tile_rows + QD_GPTQ_ROW_GAP;
  size_t pitch = (size_t)tile->pitch, width = (size_t)block;
  QD_TRY(qd_arena_new(&device->scratch, width * pitch, sizeof *tile->w, &tile->w));
  QD_TRY(qd_arena_new(&device->scratch, width * pitch, sizeof *tile->e, &tile->e));
  QD_TRY(qd_arena_new(&device->scratch, width * pitch, sizeof *tile->code, &tile->code));
  QD_TRY(qd_arena_new(&device->scratch, width * QD_GPTQ_STRIP, sizeof *tile->u, &tile->u));
  if (args->p.n > 0) QD_TRY(qd_arena_new(&device->scratch, width * QD_GPTQ_STRIP, sizeof *tile->p, &tile->p));
  QD_TRY(qd_arena_new(&device->scratch, (size_t)slots * pitch, sizeof *tile->scale, &tile->scale));
  QD_TRY(qd_arena_new(&device->scratch, (size_t)slots * pitch, sizeof *tile->zero, &tile->zero));
  QD_TRY(qd_arena_new(&device->scratch, pitch, sizeof *tile->loss, &tile->loss));
  QD_TRY(qd_arena_new(&device->scratch, width * QD_TRI_TILE, sizeof *s->piece, &s->piece));
  return QD_OK;
}

/* As solver_init takes it. */
static size_t solver_bytes(const qd_gptq_args *args, int64_t tile_rows) {
  int64_t columns = args->w.dim[1];
  size_t width = (size_t)(args->block < columns ? args->block : columns), pitch = (size_t)(tile_rows + QD_GPTQ_ROW_GAP);
  size_t slots = args->fit ? 1 : (size_t)args->scale.dim[1];
  return 2 * qd_arena_cost(width * pitch, sizeof(float)) + qd_arena_cost(width * pitch, sizeof(uint8_t)) +
         (args->p.n > 0 ? 2 : 1) * qd_arena_cost(width * QD_GPTQ_STRIP, sizeof(float)) +
         2 * qd_arena_cost(slots * pitch, sizeof(float)) +
         qd_arena_cost(pitch, sizeof(double)) + qd_arena_cost(width * QD_TRI_TILE, sizeof(float));
}

size_t qd_cpu_scratch_gptq(const qd_device *device, const qd_gptq_args *args) {
  size_t threads = (size_t)device->threads,
         seen = qd_arena_cost((size_t)args->w.dim[1], 1); /* the check of the stored positions */
  size_t work =
      qd_arena_cost(threads, sizeof(solver)) + threads * solver_bytes(args, choose_tile_rows(args->w.dim[0], device->threads));
  return work > seen ? work : seen;
}

static qd_status solve(qd_device *device, const qd_gptq_args *args) {
  int64_t rows = args->w.dim[0], tile_rows = choose_tile_rows(rows, device->threads);
  solver *solvers;
  QD_TRY(qd_arena_new(&device->scratch, (size_t)device->threads, sizeof *solvers, &solvers));
  for (int t = 0; t < device->threads; t++) QD_TRY(solver_init(&solvers[t], device, args, tile_rows, t));
#pragma omp parallel num_threads(device->threads)
  {
    solver *mine = &solvers[omp_get_thread_num()];
    qd_flush_denormals();
#pragma omp for schedule(dynamic)
    for (int64_t row = 0; row < rows; row += tile_rows) solve_tile(mine, row, rows - row < tile_rows ? rows - row : tile_rows);
  }
  const solver *first = NULL;
  for (int t = 0; t < device->threads; t++)
    if (solvers[t].beyond_row >= 0 && (first == NULL || solvers[t].beyond_row < first->beyond_row)) first = &solvers[t];
  return first ? qd_rtn_beyond(first->beyond_row, first->beyond_group, args->scheme) : QD_OK;
}

qd_status qd_cpu_gptq(qd_device *device, const qd_gptq_args *args) {
  size_t mark = qd_arena_mark(&device->scratch);
  qd_status status = solve(device, args);
  qd_arena_rewind(&device->scratch, mark);
  return status;
}
