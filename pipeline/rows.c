#include "pipeline/rows.h"

#include "kernels/scratch.h"
#include "pipeline/outliers.h"

#include <math.h>
#include <string.h>

static bool rounds(const qd_stage_factor *factor) { return factor->failed || factor->nearest; }

qd_act_order qd_rows_order(const qd_run *run, const qd_stage_factor *factor) {
  return rounds(factor) || !run->job->method->needs_factor ? QD_ORDER_NONE : run->job->act_order;
}

qd_status qd_rows_new(const qd_run *run, qd_arena *arena, const qd_stage_factor *factor, qd_scheme scheme, qd_rows_shape shape,
                      qd_qtensor *q) {
  bool has_order = qd_method_stores_order(qd_rows_order(run, factor), scheme, shape.columns);
  QD_TRY(qd_qtensor_new(arena, scheme, shape.rows, shape.columns, has_order, q));
  if (has_order) memcpy(q->order.data, factor->order.data, (size_t)shape.columns * sizeof(int32_t));
  return qd_outliers_new(arena, shape.most_outliers, q);
}

static void widen_rows(const qd_weight *weight, qd_row_set rows, qd_tensor w) {
  float *to = w.data;
  int64_t columns = w.dim[1];
  for (int64_t done = 0, first = rows.first; done < rows.n; done += rows.run, first += rows.step) {
    int64_t n = rows.n - done < rows.run ? rows.n - done : rows.run;
    qd_tensor from = qd_tensor_rows(weight->original, first, n);
    qd_widen(from.data, from.dtype, to + done * columns, (size_t)(n * columns));
  }
}

/* d = w - q, columns in their own order. */
static qd_status difference(qd_run *run, const qd_qtensor *q, qd_tensor w, qd_tensor *d) {
  QD_TRY(qd_tensor_new_2d(&run->device->scratch, QD_F32, q->rows, q->columns, d));
  QD_TRY(qd_dequant(run->device, q, *d));
  const int32_t *order = qd_qtensor_has_order(q) ? q->order.data : NULL;
  const float *original = w.data;
  float *row_of_d = d->data, *row;
  QD_TRY(qd_arena_new(&run->device->scratch, (size_t)q->columns, sizeof *row, &row));
  for (int64_t r = 0; r < q->rows; r++, row_of_d += q->columns, original += q->columns) {
    memcpy(row, row_of_d, (size_t)q->columns * sizeof *row);
    for (int64_t p = 0; p < q->columns; p++) {
      int64_t c = order ? order[p] : p;
      row_of_d[c] = original[c] - row[p];
    }
  }
  return QD_OK;
}

static void squares_of_rows(qd_tensor x, double *out) {
  const float *value = x.data;
  for (int64_t r = 0; r < x.dim[0]; r++) {
    double sum = 0;
    for (int64_t c = 0; c < x.dim[1]; c++, value++) sum += (double)*value * (double)*value;
    out[r] = sum;
  }
}

static qd_status measure(qd_run *run, const qd_stats *stats, qd_tensor x, double *out) {
  if (out == NULL) return QD_OK;
  if (stats == NULL) return squares_of_rows(x, out), QD_OK;
  return qd_sqerror(run->device, x, stats->h, qd_tensor_1d(out, QD_F64, x.dim[0]));
}

static double tau_of(const qd_stage_factor *factor, int index) {
  if (factor->variance.rank == 0) return INFINITY;
  return qd_outliers_tau(factor->threshold, qd_tensor_at(factor->variance, index), factor->u, factor->order.data);
}

static qd_status choose_codes(qd_run *run, const qd_stage_factor *factor, int index, qd_tensor w, qd_qtensor *q) {
  const qd_method *method = rounds(factor) && !run->job->method->has_outliers ? &qd_method_rtn : run->job->method;
  size_t mark = qd_arena_mark(&run->device->scratch);
  qd_method_input input = {.device = run->device,
                           .scheme = q->scheme,
                           .act_order = qd_rows_order(run, factor),
                           .block = run->job->block,
                           .w = w,
                           .u = factor->u,
                           .p = factor->p,
                           .order = factor->order,
                           .dead = factor->dead,
                           .tau = tau_of(factor, index),
                           .simplified = run->job->simplified_outliers};
  QD_TRY(method->quantize(&input, q));
  qd_arena_rewind(&run->device->scratch, mark);
  return QD_OK;
}

/* The method may overwrite what it gets: the weights are fetched once more to be measured. */
qd_status qd_rows_quantize(qd_run *run, const qd_stage_factor *factor, const qd_stats *stats, int index, qd_row_set rows,
                           qd_qtensor *q, double *error, double *norm) {
  const qd_weight *weight = factor->linears.weight[index];
  qd_tensor w, d;
  size_t mark = qd_arena_mark(&run->device->scratch);
  QD_TRY(qd_tensor_new_2d(&run->device->scratch, QD_F32, rows.n, q->columns, &w));
  widen_rows(weight, rows, w);
  QD_TRY(choose_codes(run, factor, index, w, q));
  widen_rows(weight, rows, w);
  QD_TRY(difference(run, q, w, &d));
  QD_TRY(measure(run, stats, d, error));
  QD_TRY(measure(run, stats, w, norm));
  qd_arena_rewind(&run->device->scratch, mark);
  return QD_OK;
}

/* The weights; then the method's work, afterwards the difference and one row. */
size_t qd_rows_scratch(const qd_device *device, const qd_job *job, qd_scheme scheme, int64_t n, int64_t columns) {
  size_t matrix = qd_arena_cost((size_t)(n * columns), sizeof(float));
  qd_method_input input = {.device = &(qd_device){.name = device->name, .threads = device->threads},
                           .scheme = scheme,
                           .act_order = job->act_order,
                           .block = job->block,
                           .w = qd_tensor_2d(NULL, QD_F32, n, columns),
                           .p = {.n = qd_job_is_asymmetric(job) ? columns : 0}};
  size_t method = job->method->scratch_bytes(&input), plain = qd_method_rtn.scratch_bytes(&input);
  size_t measuring = matrix + qd_arena_cost((size_t)columns, sizeof(float)) + qd_scratch_sqerror(device);
  if (plain > method) method = plain;
  return matrix + (method > measuring ? method : measuring);
}
