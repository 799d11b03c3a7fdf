/* total += (original - x)^T x on a fixed-point grid, some rows of it.
 *
 * As the Hessian's sum (hessian_cpu.c), but neither symmetric nor a triangle: rectangles outside, units inside.  The difference
 * is formed a rectangle at a time, and bf16 is widened with it: one element of either meets hundreds of the other. */
#include "kernels/forward_isa.h"
#include "kernels/gemm_cpu.h"
#include "kernels/grid.h"
#include "kernels/ops_table.h"
#include "kernels/scratch.h"
#include "kernels/statistics_isa.h"

#include <omp.h>

enum { MAX_SIDE = 480, UNIT = 32 };

typedef struct rectangle {
  int64_t row, rows, column, columns; /* rows count from the first one asked for */
} rectangle;

typedef struct plan {
  const qd_cross_args *args;
  qd_device *device;
  int64_t side, down, across;
  double *row_scale, *column_scale; /* scale_i scale_j = 2^(42 - f_i - e_j) */
  float *buffer;                    /* a thread: a partial sum, the difference, x widened */
  size_t each;
} plan;

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t parts(int64_t n, int64_t side) { return (n + side - 1) / side; }

static int64_t choose_side(const qd_device *device, int64_t rows, int64_t columns) {
  int64_t side = MAX_SIDE;
  while (side > UNIT && device->threads > 1 && parts(rows, side) * parts(columns, side) < 4 * device->threads)
    side = (side / 2 + UNIT - 1) / UNIT * UNIT;
  return side;
}

static size_t thread_floats(int64_t tokens, qd_dtype act) {
  return (size_t)MAX_SIDE * MAX_SIDE + (act == QD_BF16 ? 2 : 1) * (size_t)(tokens * MAX_SIDE);
}

static const void *at(qd_tensor t, int64_t row, int64_t column) {
  return (const unsigned char *)t.data + (row * t.stride[0] + column) * (int64_t)qd_dtype_bytes(t.dtype);
}

/* Columns [first, first + n) of original - x as (n, T). */
static qd_tensor difference(const plan *p, qd_tensor original, qd_tensor x, int64_t first, int64_t n, float *to) {
  for (int64_t t = 0; t < x.dim[0]; t++)
    QD_ISA_CALL(p->device, qd_subtract_row, (at(original, t, first), at(x, t, first), to + t * MAX_SIDE, x.dtype, n));
  return (qd_tensor){.data = to, .dtype = QD_F32, .rank = 2, .dim = {n, x.dim[0]}, .stride = {1, MAX_SIDE}};
}

static qd_tensor columns_of(qd_tensor x, int64_t first, int64_t n, float *to) {
  qd_tensor columns = qd_tensor_columns(x, first, n);
  if (x.dtype == QD_F32) return columns;
  for (int64_t t = 0; t < x.dim[0]; t++) qd_widen(at(x, t, first), x.dtype, to + t * MAX_SIDE, (size_t)n);
  columns.data = to, columns.dtype = QD_F32, columns.stride[0] = MAX_SIDE;
  return columns;
}

static void sum_piece(const plan *p, rectangle r) {
  const qd_cross_args *args = p->args;
  int thread = omp_get_thread_num();
  float *partial = p->buffer + (size_t)thread * p->each, *d = partial + MAX_SIDE * MAX_SIDE,
        *wide = d + args->x.dim[1] * MAX_SIDE;
  qd_tensor c = {.data = partial, .dtype = QD_F32, .rank = 2, .dim = {r.rows, r.columns}, .stride = {MAX_SIDE, 1}};
  for (int64_t u = 0; u < args->x.dim[0]; u++) {
    qd_tensor original = qd_tensor_at(args->original, u), x = qd_tensor_at(args->x, u);
    qd_gemm_serial(p->device, thread, QD_GEMM_SET, difference(p, original, x, args->first + r.row, r.rows, d),
                   columns_of(x, r.column, r.columns, wide), c);
    for (int64_t i = 0; i < r.rows; i++)
      QD_ISA_CALL(p->device, qd_hessian_add,
                  ((int64_t *)args->total.data + (r.row + i) * args->total.stride[0] + r.column, partial + i * MAX_SIDE,
                   p->row_scale[args->first + r.row + i], p->column_scale + r.column, r.columns));
  }
}

static rectangle piece_at(const plan *p, int64_t index) {
  int64_t row = index / p->across * p->side, column = index % p->across * p->side;
  return (rectangle){row, least(p->args->total.dim[0] - row, p->side), column, least(p->args->total.dim[1] - column, p->side)};
}

static qd_status run(qd_device *device, const qd_cross_args *args) {
  int64_t rows = args->total.dim[0], columns = args->total.dim[1];
  plan p = {.args = args, .device = device, .side = choose_side(device, rows, columns)};
  p.down = parts(rows, p.side), p.across = parts(columns, p.side);
  p.each = thread_floats(args->x.dim[1], args->x.dtype);
  QD_TRY(qd_grid_powers(&device->scratch, args->row_exponent, QD_TO_UNITS, &p.row_scale));
  QD_TRY(qd_grid_powers(&device->scratch, args->column_exponent, QD_TO_UNITS, &p.column_scale));
  QD_TRY(qd_arena_new(&device->scratch, (size_t)device->threads * p.each, sizeof *p.buffer, &p.buffer));
#pragma omp parallel num_threads(device->threads)
  {
    qd_flush_denormals();
#pragma omp for schedule(dynamic)
    for (int64_t i = 0; i < p.down * p.across; i++) sum_piece(&p, piece_at(&p, i));
  }
  return QD_OK;
}

size_t qd_cpu_scratch_cross(const qd_device *device, int64_t columns, int64_t tokens, qd_dtype act) {
  return 2 * qd_arena_cost((size_t)columns, sizeof(double)) +
         qd_arena_cost((size_t)device->threads * thread_floats(tokens, act), sizeof(float));
}

qd_status qd_cpu_cross(qd_device *device, const qd_cross_args *args) {
  size_t mark = qd_arena_mark(&device->scratch);
  if (args->x.dim[0] == 0 || args->x.dim[1] == 0 || args->total.dim[0] == 0) return QD_OK;
  qd_status status = run(device, args);
  qd_arena_rewind(&device->scratch, mark);
  return status;
}

static void convert_row(const int64_t *from, double row, const double *column, int64_t n, float *to) {
  for (int64_t j = 0; j < n; j++) to[j] = (float)((double)from[j] * (row * column[j]));
}

static qd_status convert(qd_device *device, qd_tensor total, qd_tensor row_exponent, qd_tensor column_exponent,
                         qd_tensor values) {
  double *row, *column;
  QD_TRY(qd_grid_powers(&device->scratch, row_exponent, QD_FROM_UNITS, &row));
  QD_TRY(qd_grid_powers(&device->scratch, column_exponent, QD_FROM_UNITS, &column));
#pragma omp parallel num_threads(device->threads)
  {
    qd_flush_denormals();
#pragma omp for schedule(static)
    for (int64_t i = 0; i < total.dim[0]; i++)
      convert_row((const int64_t *)total.data + i * total.stride[0], row[i], column, total.dim[1],
                  (float *)values.data + i * values.stride[0]);
  }
  return QD_OK;
}

qd_status qd_cpu_cross_values(qd_device *device, qd_tensor total, qd_tensor row_exponent, qd_tensor column_exponent,
                              qd_tensor values) {
  size_t mark = qd_arena_mark(&device->scratch);
  qd_status status = convert(device, total, row_exponent, column_exponent, values);
  qd_arena_rewind(&device->scratch, mark);
  return status;
}
