/* total += X^T X on a fixed-point grid.
 *
 * The lower triangle is cut in rectangles, which threads take one after the other; inside a rectangle the units follow each
 * other, so that its int64 sums stay in cache.  One unit's rectangle is one product over all tokens in fp32, then converted and
 * added: a few per cent of the product.  Bound by the rate of the matrix kernel. */
#include "kernels/gemm_cpu.h"
#include "kernels/grid.h"
#include "kernels/ops_table.h"
#include "kernels/scratch.h"
#include "kernels/statistics_isa.h"

#include <omp.h>

enum { TILE = QD_TRI_TILE, MAX_SIDE = 480, UNIT = 32 };

typedef struct rectangle {
  int64_t row, rows, column, columns;
} rectangle;

typedef struct plan {
  double *scale;       /* by column: scale_i scale_j = 2^(42 - e_i - e_j) */
  const rectangle *piece;
  int64_t n_pieces;
  float *partial; /* MAX_SIDE x MAX_SIDE a thread */
} plan;

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

static int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

/* Squares on and below the diagonal, the long rows first.  Returns how many there are, and stores them unless `out` is NULL. */
static int64_t cut(int64_t n, int64_t side, rectangle *out) {
  int64_t count = 0;
  for (int64_t row = (n - 1) / side * side; row >= 0; row -= side)
    for (int64_t column = 0; column <= row; column += side, count++)
      if (out != NULL) out[count] = (rectangle){row, least(side, n - row), column, least(side, n - column)};
  return count;
}

/* Squares of about equal size, no larger than the matrix kernel keeps packed, and enough for all threads. */
static int64_t choose_side(const qd_device *device, int64_t n) {
  int64_t parts = (n + MAX_SIDE - 1) / MAX_SIDE, side = round_up((n + parts - 1) / parts, UNIT);
  while (side > UNIT && device->threads > 1 && cut(n, side, NULL) < 4 * device->threads) side = round_up(side / 2, UNIT);
  return side;
}

static qd_status plan_pieces(qd_device *device, int64_t n, plan *p) {
  int64_t side = choose_side(device, n);
  p->n_pieces = cut(n, side, NULL);
  rectangle *piece;
  QD_TRY(qd_arena_new(&device->scratch, (size_t)p->n_pieces, sizeof *piece, &piece));
  cut(n, side, piece);
  p->piece = piece;
  return QD_OK;
}

static void add_piece(qd_device *device, const plan *p, rectangle r, const float *partial, qd_tri total) {
  for (int64_t i = r.row; i < r.row + r.rows; i++) {
    const float *from = partial + (i - r.row) * MAX_SIDE;
    int64_t end = least(r.column + r.columns, i + 1);
    for (int64_t j = r.column, n; j < end; j += n) {
      n = least(end - j, TILE - j % TILE);
      QD_ISA_CALL(device, qd_hessian_add,
                  ((int64_t *)total.data + qd_tri_index(i, j), from + (j - r.column), p->scale[i], p->scale + j, n));
    }
  }
}

static void sum_piece(qd_device *device, const plan *p, rectangle r, qd_tensor x, qd_tri total) {
  int thread = omp_get_thread_num();
  float *partial = p->partial + (size_t)thread * MAX_SIDE * MAX_SIDE;
  qd_tensor c = {.data = partial, .dtype = QD_F32, .rank = 2, .dim = {r.rows, r.columns}, .stride = {MAX_SIDE, 1}};
  for (int64_t u = 0; u < x.dim[0]; u++) {
    qd_tensor unit = qd_tensor_at(x, u);
    qd_gemm_serial(device, thread, r.row == r.column ? QD_GEMM_LOWER : QD_GEMM_SET,
                   qd_tensor_transposed(qd_tensor_columns(unit, r.row, r.rows)), qd_tensor_columns(unit, r.column, r.columns),
                   c);
    add_piece(device, p, r, partial, total);
  }
}

static qd_status run(qd_device *device, qd_tensor x, qd_tensor exponent, qd_tri total) {
  plan p;
  QD_TRY(plan_pieces(device, total.n, &p));
  QD_TRY(qd_grid_powers(&device->scratch, exponent, QD_TO_UNITS, &p.scale));
  QD_TRY(qd_arena_new(&device->scratch, (size_t)device->threads, sizeof(float) * MAX_SIDE * MAX_SIDE, &p.partial));
#pragma omp parallel num_threads(device->threads)
  {
    qd_flush_denormals();
#pragma omp for schedule(dynamic)
    for (int64_t i = 0; i < p.n_pieces; i++) sum_piece(device, &p, p.piece[i], x, total);
  }
  return QD_OK;
}

size_t qd_cpu_scratch_hessian(const qd_device *device, int64_t columns) {
  if (columns == 0) return 0;
  size_t pieces = (size_t)cut(columns, choose_side(device, columns), NULL);
  return qd_arena_cost(pieces, sizeof(rectangle)) + qd_arena_cost((size_t)columns, sizeof(double)) +
         qd_arena_cost((size_t)device->threads, sizeof(float) * MAX_SIDE * MAX_SIDE);
}

qd_status qd_cpu_hessian(qd_device *device, qd_tensor x, qd_tensor exponent, qd_tri total) {
  size_t mark = qd_arena_mark(&device->scratch);
  if (x.dim[0] == 0 || x.dim[1] == 0 || total.n == 0) return QD_OK;
  qd_status status = run(device, x, exponent, total);
  qd_arena_rewind(&device->scratch, mark);
  return status;
}
