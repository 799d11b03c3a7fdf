/* The factor in tiles of 256: nearly all of it is the fp64 matrix kernel; what is left to one-at-a-time arithmetic (a diagonal
 * tile and the tiles below it) is vectorized over rows.  Everything happens in `work`, a tile column at a time:
 *   Cholesky   left to right: subtract the columns before, factor the diagonal tile, solve the tiles below; the diagonal tile
 * of L is not needed again, so that its inverse takes its place at once inverse    right to left: column B of X needs column B
 * of L (multiplied into scratch) and the columns of X after it. */
#include "kernels/factor.h"
#include "kernels/gemm_cpu.h"
#include "kernels/ops_table.h"
#include "kernels/scratch.h"

#include <omp.h>
#include <string.h>

enum { TILE = QD_TRI_TILE, HALF = QD_FACTOR_HALF };

typedef struct solver {
  qd_device *device;
  qd_tri   work;
  int64_t  n, side;
  int64_t *column; /* of h, for each row of the reversed matrix */
  double  *lt;     /* the diagonal tile of L, transposed */
  double  *w;      /* a tile column */
  double  *buffer; /* TILE x QD_FACTOR_MAX_PANEL a thread */
} solver;

/* Some rows of a tile. */
typedef struct piece {
  int64_t tile, row, rows;
} piece;

/* How many pieces a tile is cut in when `tiles` of them shall keep all threads busy. */
static int64_t pieces_per_tile(const solver *s, int64_t tiles) {
  int64_t pieces = 1;
  while (tiles * pieces < 2 * s->device->threads && pieces < 4 && s->device->threads > 1) pieces *= 2;
  return pieces;
}

/* Piece `index` of the tiles first, first + 1 ... of a tile column; without rows where the last tile has ended before. */
static piece piece_at(const solver *s, int64_t first, int64_t pieces, int64_t index) {
  piece p = {.tile = first + index / pieces, .row = index % pieces * (TILE / pieces), .rows = TILE / pieces};
  int64_t rows = s->n - p.tile * TILE - p.row;
  if (rows <= 0) return (piece){.tile = p.tile};
  if (rows < p.rows) p.rows = rows;
  return p;
}

static qd_tensor block(qd_tensor t, int64_t row, int64_t rows, int64_t column, int64_t columns) {
  return qd_tensor_columns(qd_tensor_rows(t, row, rows), column, columns);
}

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* ---- the matrix ---- */

static void fill_tile(const solver *s, const qd_factor_args *args, int64_t ti, int64_t tj) {
  const float *h = args->h.data;
  const double *add = args->add.data;
  qd_tensor tile = qd_tri_tile(s->work, ti, tj);
  const int64_t *row = s->column + ti * TILE, *column = s->column + tj * TILE;
  for (int64_t r = 0; r < tile.dim[0]; r++) {
    double *out = (double *)tile.data + r * TILE;
    int64_t n = ti == tj ? r + 1 : tile.dim[1], i = row[r];
    for (int64_t c = 0; c < n; c++) out[c] = (double)h[i > column[c] ? qd_tri_index(i, column[c]) : qd_tri_index(column[c], i)];
    if (ti == tj) out[r] = out[r] + add[i];
  }
}

static void fill(solver *s, const qd_factor_args *args) {
  const int32_t *order = args->order.rank == 0 ? NULL : args->order.data;
  for (int64_t a = 0; a < s->n; a++) s->column[a] = order ? order[s->n - 1 - a] : s->n - 1 - a;
#pragma omp parallel num_threads(s->device->threads)
  {
    qd_flush_denormals();
#pragma omp for schedule(dynamic)
    for (int64_t ti = s->side - 1; ti >= 0; ti--)
      for (int64_t tj = 0; tj <= ti; tj++) fill_tile(s, args, ti, tj);
  }
}

/* ---- Cholesky ---- */

/* Subtract the tile columns before `tj` from some rows of tile (p.tile, tj), its first `columns` only. */
static void subtract_before(const solver *s, piece p, int64_t tj, int64_t columns) {
  qd_tensor c = block(qd_tri_tile(s->work, p.tile, tj), p.row, p.rows, 0, columns);
  for (int64_t tk = 0; tk < tj; tk++) {
    qd_tensor left = qd_tensor_rows(qd_tri_tile(s->work, p.tile, tk), p.row, p.rows);
    qd_tensor right = qd_tensor_rows(qd_tri_tile(s->work, tj, tk), 0, columns);
    qd_gemm_serial(s->device, omp_get_thread_num(), QD_GEMM_SUBTRACT, left, qd_tensor_transposed(right), c);
  }
}

/* The tile's lower triangle transposed into lt, made a multiple of QD_FACTOR_PAD by the identity.  Returns the new size. */
static int64_t load_diagonal(const solver *s, qd_tensor tile) {
  int64_t n = tile.dim[0], padded = (n + QD_FACTOR_PAD - 1) / QD_FACTOR_PAD * QD_FACTOR_PAD;
  memset(s->lt, 0, sizeof(double) * (size_t)(padded * TILE));
  for (int64_t i = 0; i < n; i++)
    for (int64_t k = 0; k <= i; k++) s->lt[k * TILE + i] = ((const double *)tile.data)[i * TILE + k];
  for (int64_t i = n; i < padded; i++) s->lt[i * TILE + i] = 1;
  return padded;
}

/* Returns the row of the failed pivot, or -1. */
static int64_t diagonal_tile(const solver *s, int64_t tj) {
  qd_tensor tile = qd_tri_tile(s->work, tj, tj);
  for (int64_t row = 0; row < tile.dim[0]; row += HALF) {
    int64_t rows = least(HALF, tile.dim[0] - row);
    subtract_before(s, (piece){tj, row, rows}, tj, row + rows);
  }
  int64_t padded = load_diagonal(s, tile);
  int64_t failed = QD_ISA_CALL(s->device, qd_factor_diagonal, (s->lt, padded));
  return failed < 0 ? -1 : tj * TILE + failed;
}

static void below_diagonal(const solver *s, piece p, int64_t tj) {
  double *rows = (double *)qd_tri_tile(s->work, p.tile, tj).data + p.row * TILE;
  double *buffer = s->buffer + (int64_t)omp_get_thread_num() * TILE * QD_FACTOR_MAX_PANEL;
  QD_ISA_CALL(s->device, qd_factor_below, (s->lt, rows, p.rows, buffer));
}

static void invert_diagonal(const solver *s, int64_t tj) {
  qd_tensor tile = qd_tri_tile(s->work, tj, tj);
  int64_t padded = (tile.dim[0] + QD_FACTOR_PAD - 1) / QD_FACTOR_PAD * QD_FACTOR_PAD;
  QD_ISA_CALL(s->device, qd_factor_inverse, (s->lt, tile.data, padded));
}

/* Task 0 is the diagonal tile, the others are pieces of the tiles below. */
static int64_t cholesky_column(const solver *s, int64_t tj) {
  int64_t tiles = s->side - 1 - tj, pieces = pieces_per_tile(s, tiles), tasks = 1 + tiles * pieces, failed = -1;
#pragma omp parallel num_threads(s->device->threads)
  {
    qd_flush_denormals();
#pragma omp for schedule(dynamic)
    for (int64_t task = 0; task < tasks; task++) {
      piece p = task == 0 ? (piece){0} : piece_at(s, tj + 1, pieces, task - 1);
      if (task == 0) failed = diagonal_tile(s, tj);
      else subtract_before(s, p, tj, TILE);
    }
    if (failed < 0) {
#pragma omp for schedule(dynamic)
      for (int64_t task = 0; task < tasks; task++)
        if (task == 0) invert_diagonal(s, tj);
        else below_diagonal(s, piece_at(s, tj + 1, pieces, task - 1), tj);
    }
  }
  return failed;
}

/* ---- the inverse ---- */

/* w = (rows of column tj of L) times the inverse of its diagonal tile. */
static void multiply_diagonal(const solver *s, piece p, int64_t tj) {
  qd_tensor l = qd_tensor_rows(qd_tri_tile(s->work, p.tile, tj), p.row, p.rows), x = qd_tri_tile(s->work, tj, tj);
  qd_tensor w = qd_tensor_2d(s->w + ((p.tile - tj - 1) * TILE + p.row) * TILE, QD_F64, p.rows, TILE);
  int thread = omp_get_thread_num();
  qd_gemm_serial(s->device, thread, QD_GEMM_SET, l, qd_tensor_columns(x, 0, HALF), qd_tensor_columns(w, 0, HALF));
  qd_gemm_serial(s->device, thread, QD_GEMM_SET, qd_tensor_columns(l, HALF, HALF), block(x, HALF, HALF, HALF, HALF),
                 qd_tensor_columns(w, HALF, HALF));
}

/* The last tile of a row of X is triangular: its upper half has 128 columns. */
static void subtract_triangular(const solver *s, piece p, qd_tensor x, qd_tensor w, qd_tensor c) {
  int64_t upper = p.row >= HALF ? 0 : least(p.rows, HALF - p.row), wide = x.dim[1], narrow = least(HALF, wide);
  int thread = omp_get_thread_num();
  qd_gemm_serial(s->device, thread, QD_GEMM_SUBTRACT, block(x, 0, upper, 0, narrow), qd_tensor_rows(w, 0, narrow),
                 qd_tensor_rows(c, 0, upper));
  qd_gemm_serial(s->device, thread, QD_GEMM_SUBTRACT, qd_tensor_rows(x, upper, p.rows - upper), qd_tensor_rows(w, 0, wide),
                 qd_tensor_rows(c, upper, p.rows - upper));
}

static void inverse_tile(const solver *s, piece p, int64_t tj) {
  qd_tensor c = qd_tensor_rows(qd_tri_tile(s->work, p.tile, tj), p.row, p.rows);
  memset(c.data, 0, (size_t)(p.rows * TILE) * sizeof(double));
  for (int64_t tk = tj + 1; tk <= p.tile; tk++) {
    qd_tensor w = qd_tensor_2d(s->w + (tk - tj - 1) * TILE * TILE, QD_F64, least(TILE, s->n - tk * TILE), TILE);
    qd_tensor x = qd_tensor_rows(qd_tri_tile(s->work, p.tile, tk), p.row, p.rows);
    if (tk == p.tile) subtract_triangular(s, p, x, w, c);
    else qd_gemm_serial(s->device, omp_get_thread_num(), QD_GEMM_SUBTRACT, x, w, c);
  }
}

static void inverse_column(const solver *s, int64_t tj) {
  int64_t tiles = s->side - 1 - tj, pieces = pieces_per_tile(s, tiles), tasks = tiles * pieces;
#pragma omp parallel num_threads(s->device->threads)
  {
    qd_flush_denormals();
#pragma omp for schedule(dynamic)
    for (int64_t task = 0; task < tasks; task++) multiply_diagonal(s, piece_at(s, tj + 1, pieces, task), tj);
#pragma omp for schedule(dynamic)
    for (int64_t task = tasks - 1; task >= 0; task--) /* the longest first */
      inverse_tile(s, piece_at(s, tj + 1, pieces, task), tj);
  }
}

/* ---- the result ---- */

/* x is read down its columns: a few of them at a time, so that what a cache line brings is used. */
static void store_tile(const solver *s, qd_tri u, int64_t ti, int64_t tj) {
  enum { SQUARE = 16 };
  const double *x = s->work.data;
  float *out = u.data;
  int64_t last = s->n - 1;
  for (int64_t j0 = ti * TILE; j0 < (ti + 1) * TILE; j0 += SQUARE)
    for (int64_t c0 = tj * TILE; c0 < (tj + 1) * TILE; c0 += SQUARE)
      for (int64_t j = j0; j < j0 + SQUARE; j++)
        for (int64_t c = c0; c < c0 + SQUARE; c++)
          out[qd_tri_index(j, c)] = j <= last && c <= j ? (float)x[qd_tri_index(last - c, last - j)] : 0;
}

static void store(const solver *s, qd_tri u) {
#pragma omp parallel num_threads(s->device->threads)
  {
    qd_flush_denormals();
#pragma omp for schedule(dynamic)
    for (int64_t ti = s->side - 1; ti >= 0; ti--)
      for (int64_t tj = 0; tj <= ti; tj++) store_tile(s, u, ti, tj);
  }
}

static qd_status take_scratch(solver *s) {
  qd_arena *scratch = &s->device->scratch;
  QD_TRY(qd_arena_new(scratch, (size_t)s->n, sizeof *s->column, &s->column));
  QD_TRY(qd_arena_new(scratch, TILE * TILE, sizeof *s->lt, &s->lt));
  QD_TRY(qd_arena_new(scratch, (size_t)s->side * TILE * TILE, sizeof *s->w, &s->w));
  QD_TRY(qd_arena_new(scratch, (size_t)s->device->threads * TILE * QD_FACTOR_MAX_PANEL, sizeof *s->buffer, &s->buffer));
  return QD_OK;
}

size_t qd_cpu_scratch_factor(const qd_device *device, int64_t columns) {
  size_t n = (size_t)columns, side = (n + TILE - 1) / TILE;
  return qd_arena_cost(n, sizeof(int64_t)) + qd_arena_cost(TILE * TILE, sizeof(double)) +
         qd_arena_cost(side * TILE * TILE, sizeof(double)) +
         qd_arena_cost((size_t)device->threads * TILE * QD_FACTOR_MAX_PANEL, sizeof(double));
}

static qd_status solve(solver *s, const qd_factor_args *args, int64_t *pivot) {
  QD_TRY(take_scratch(s));
  fill(s, args);
  for (int64_t tj = 0; tj < s->side; tj++) {
    int64_t failed = cholesky_column(s, tj);
    if (failed >= 0) return *pivot = s->column[failed], QD_OK;
  }
  for (int64_t tj = s->side - 2; tj >= 0; tj--) inverse_column(s, tj);
  store(s, args->u);
  return QD_OK;
}

qd_status qd_cpu_factor(qd_device *device, const qd_factor_args *args, int64_t *pivot) {
  solver s = {.device = device, .work = args->work, .n = args->work.n, .side = (args->work.n + TILE - 1) / TILE};
  size_t mark = qd_arena_mark(&device->scratch);
  *pivot = -1;
  qd_status status = solve(&s, args, pivot);
  qd_arena_rewind(&device->scratch, mark);
  return status;
}
