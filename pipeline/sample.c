#include "pipeline/sample.h"

#include "kernels/vecmath.h"
#include "pipeline/outliers.h"

#include <math.h>

enum { PASSES_BY_LAW = 4, PASSES = 12 };

/* How a share of outliers falls with the threshold, measured on the linears of small models from 0.5 to 15 per cent. */
static const double law = 2.3, close_enough = 0.1, largest_step = 8;

qd_row_set qd_sample_rows(int64_t rows, int64_t unit) {
  int64_t runs = (rows + unit - 1) / unit, most = unit < QD_SAMPLE_ROWS ? QD_SAMPLE_ROWS / unit : 1;
  if (runs <= most) return qd_rows_together(0, rows);
  return (qd_row_set){.first = 0, .n = most * unit, .run = unit, .step = runs / most * unit};
}

/* One linear: loss and outliers as of all its rows. */
static qd_status add_linear(qd_run *run, const qd_stage_factor *factor, const qd_stats *stats, int index, double *loss,
                            double *outliers) {
  const qd_weight *weight = factor->linears.weight[index];
  qd_row_set rows = qd_sample_rows(weight->slot.dim[0], qd_scheme_row_unit(weight->q.scheme));
  qd_qtensor q;
  double *error, sum = 0, scale = (double)weight->slot.dim[0] / (double)rows.n;
  qd_rows_shape shape = {rows.n, weight->slot.dim[1], rows.n * weight->slot.dim[1]};
  QD_TRY(qd_rows_new(run, &run->device->scratch, factor, weight->q.scheme, shape, &q));
  QD_TRY(qd_arena_new(&run->device->scratch, (size_t)rows.n, sizeof *error, &error));
  qd_status status = qd_rows_quantize(run, factor, stats, index, rows, &q, error, NULL);
  if (status == QD_ENUMERIC) QD_FAIL(status, "%s, a sample of its rows: %s", weight->slot.name, qd_error_text());
  QD_TRY(status);
  for (int64_t r = 0; r < rows.n; r++) sum += error[r];
  *loss += scale * sum;
  *outliers += scale * (double)qd_outliers_of(&q);
  return QD_OK;
}

qd_status qd_sample(qd_run *run, const qd_stage_factor *factor, const qd_stats *stats, qd_sampled *out) {
  double loss = 0, outliers = 0, weights = 0;
  for (int i = 0; i < factor->linears.n; i++) {
    size_t mark = qd_arena_mark(&run->device->scratch);
    QD_TRY(add_linear(run, factor, stats, i, &loss, &outliers));
    qd_arena_rewind(&run->device->scratch, mark);
    weights += (double)qd_tensor_elements(factor->linears.weight[i]->original);
  }
  out->threshold = factor->threshold;
  out->share = weights > 0 ? outliers / weights : 0;
  out->cost = loss * qd_vm_exp2(2 * QD_OUTLIER_BITS * out->share);
  return QD_OK;
}

/* Where the search stands: below `low` there are too many outliers, above `high` too few. */
typedef struct bracket {
  double low, high;
} bracket;

static double smallest_share(const qd_stage_factor *factor) {
  double weights = 0;
  for (int i = 0; i < factor->linears.n; i++) weights += (double)qd_tensor_elements(factor->linears.weight[i]->original);
  return 0.5 / weights;
}

/* By the law as long as that helps, then by halves: errors that end abruptly know no law. */
static double next_threshold(double threshold, double ratio, int pass, const bracket *b) {
  double step = qd_vm_pow(ratio, 1 / law), next = threshold * fmin(fmax(step, 1 / largest_step), largest_step);
  bool helps = pass < PASSES_BY_LAW && next > b->low && next < b->high;
  if (helps) return next;
  if (isinf(b->high)) return b->low * largest_step;
  return b->low > 0 ? sqrt(b->low * b->high) : b->high / largest_step;
}

qd_status qd_sample_find(qd_run *run, qd_stage_factor *factor, const qd_stats *stats, double share, qd_sampled *out) {
  bracket b = {0, INFINITY};
  double least = smallest_share(factor);
  factor->threshold = share > 0 ? QD_FIRST_THRESHOLD : INFINITY;
  for (int pass = 0; pass < PASSES; pass++) {
    QD_TRY(qd_sample(run, factor, stats, out));
    if (share <= 0) return QD_OK;
    if (out->share > share) b.low = factor->threshold;
    else b.high = factor->threshold;
    bool near = fabs(out->share / share - 1) < close_enough;
    factor->threshold = next_threshold(factor->threshold, fmax(out->share, least) / share, near ? 0 : pass, &b);
    if (near) break;
    if (pass + 1 == PASSES) factor->threshold = b.high; /* rather too few */
  }
  out->threshold = factor->threshold;
  return QD_OK;
}

size_t qd_sample_scratch(const qd_device *device, const qd_job *job, qd_scheme scheme, int64_t rows, int64_t columns) {
  int64_t n = qd_sample_rows(rows, qd_scheme_row_unit(scheme)).n;
  return qd_outliers_qtensor_cost(scheme, n, columns, n * columns) + qd_arena_cost((size_t)n, sizeof(double)) +
         qd_rows_scratch(device, job, scheme, n, columns);
}
