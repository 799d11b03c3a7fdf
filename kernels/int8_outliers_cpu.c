/* Few tokens one by one; many in vectors of 16, from a transposed copy of theirs.  What an outlier adds to the weight of its
 * code is kept by panels; of other weights it is computed for some rows at a time. */
#include "kernels/int8_isa.h"
#include "kernels/int8_outliers.h"

#include <omp.h>

enum { AT_ONCE = 1 << 16, ROWS_AT_ONCE = 32, SINGLE_TOKENS = 4 };

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

static int64_t begin_of(const qd_qtensor *q, int64_t row) { return ((const int32_t *)q->outlier_rows.data)[row]; }

bool qd_int8_has_outliers(const qd_qtensor *q) {
  return q->rows > 0 && begin_of(q, 0) < qd_qtensor_outlier_end(q, q->rows - 1);
}

/* Room for the longest row. */
static size_t at_once(int64_t columns) { return columns > AT_ONCE ? (size_t)columns : AT_ONCE; }

size_t qd_cpu_int8_outlier_scratch(const qd_device *device, int64_t columns) {
  return qd_arena_cost(at_once(columns), sizeof(float)) +
         qd_arena_cost((size_t)device->threads * (size_t)columns * QD_INT8_SIDE, sizeof(float));
}

qd_status qd_cpu_int8_outlier_room(qd_device *device, int64_t columns, qd_int8_outlier_room *out) {
  QD_TRY(qd_arena_new(&device->scratch, at_once(columns), sizeof *out->steps, &out->steps));
  return qd_arena_new(&device->scratch, (size_t)device->threads * (size_t)columns * QD_INT8_SIDE, sizeof *out->tokens,
                      &out->tokens);
}

static void row_steps(const qd_qtensor *q, int64_t row, float *by) {
  int64_t group = qd_scheme_group_size(q->scheme, q->columns);
  for (int64_t i = begin_of(q, row); i < qd_qtensor_outlier_end(q, row); i++) {
    int64_t p = qd_qtensor_outlier_column(q, i), g = p / group;
    float w = qd_qtensor_scale(q, row, g) * ((float)qd_qtensor_code(q, row, p) - qd_qtensor_zero(q, row, g));
    *by++ = qd_qtensor_outlier_value(q, i) - w;
  }
}

qd_status qd_cpu_int8_keep_outliers(qd_device *device, qd_arena *arena, const qd_qtensor *q, qd_panels *out) {
  if (!q->scheme.spqr) return QD_OK;
  QD_TRY(qd_arena_new(arena, (size_t)q->outlier_values.dim[0], sizeof(float), &out->outlier_steps));
#pragma omp parallel num_threads(device->threads)
  {
    qd_flush_denormals();
#pragma omp for schedule(static)
    for (int64_t r = 0; r < q->rows; r++) row_steps(q, r, out->outlier_steps + begin_of(q, r));
  }
  return QD_OK;
}

/* Up to 16 tokens by columns; lanes without a token are zero. */
static void transpose(qd_tensor x, int64_t first, int64_t tokens, float *to) {
  memset(to, 0, (size_t)x.dim[1] * QD_INT8_SIDE * sizeof *to);
  for (int64_t t = 0; t < tokens; t++) {
    const float *from = (const float *)x.data + (first + t) * x.stride[0];
    for (int64_t p = 0; p < x.dim[1]; p++) to[p * QD_INT8_SIDE + t] = from[p * x.stride[1]];
  }
}

static void add_few(const qd_device *device, const qd_int8_addition *a, qd_int8_outliers o) {
#pragma omp for schedule(static)
  for (int64_t r = o.first; r < o.end; r += ROWS_AT_ONCE) {
    qd_int8_outliers rows = {o.q, r, least(r + ROWS_AT_ONCE, o.end), o.by + (begin_of(o.q, r) - begin_of(o.q, o.first))};
    for (int64_t t = 0; t < a->x.dim[0]; t++)
      QD_ISA_CALL(
          device, qd_int8_add_outliers,
          (&rows, (const float *)a->x.data + t * a->x.stride[0], a->x.stride[1], (float *)a->y.data + t * a->y.stride[0]));
  }
}

static void add_many(const qd_device *device, const qd_int8_addition *a, const qd_int8_outliers *o, float *room) {
  room += (int64_t)omp_get_thread_num() * a->x.dim[1] * QD_INT8_SIDE;
#pragma omp for schedule(dynamic, 1)
  for (int64_t t = 0; t < a->x.dim[0]; t += QD_INT8_SIDE) {
    int64_t n = least(QD_INT8_SIDE, a->x.dim[0] - t);
    transpose(a->x, t, n, room);
    qd_int8_side side = {room, (float *)a->y.data + t * a->y.stride[0], a->y.stride[0], (int)n};
    QD_ISA_CALL(device, qd_int8_add_outliers_16, (o, &side));
  }
}

/* Rows from `first` on whose outliers there is room for. */
static int64_t last_row(const qd_qtensor *q, int64_t first) {
  int64_t end = first + 1, limit = begin_of(q, first) + (int64_t)at_once(q->columns);
  while (end < q->rows && qd_qtensor_outlier_end(q, end) <= limit) end++;
  return end;
}

static void add_rows(qd_device *device, const qd_int8_addition *a, qd_int8_outliers o, float *by, float *room) {
#pragma omp parallel num_threads(device->threads)
  {
    qd_flush_denormals();
    if (by) {
#pragma omp for schedule(static)
      for (int64_t r = o.first; r < o.end; r++) row_steps(o.q, r, by + (begin_of(o.q, r) - begin_of(o.q, o.first)));
    }
    if (a->x.dim[0] <= SINGLE_TOKENS)
      add_few(device, a, o);
    else
      add_many(device, a, &o, room);
  }
}

static void add_bias(const qd_int8_addition *a) {
  const float *bias = a->bias->data;
  for (int64_t t = 0; t < a->y.dim[0]; t++) {
    float *y = (float *)a->y.data + t * a->y.stride[0];
    for (int64_t r = 0; r < a->y.dim[1]; r++) y[r] += bias[r];
  }
}

void qd_cpu_int8_add_outliers(qd_device *device, const qd_int8_addition *a, qd_int8_outlier_room room) {
  const qd_qtensor *q = a->q;
  if (a->panels) {
    add_rows(device, a, (qd_int8_outliers){q, 0, q->rows, a->panels->outlier_steps + begin_of(q, 0)}, NULL, room.tokens);
  } else {
    for (int64_t r = 0, end; r < q->rows; r = end) {
      end = last_row(q, r);
      add_rows(device, a, (qd_int8_outliers){q, r, end, room.steps}, room.steps, room.tokens);
    }
  }
  if (a->bias) add_bias(a);
}
