#include "kernels/int8.h"
#include "kernels/ref_real.h"

/* One token: a and s_a of its runs.  In double too it is x rounded to fp32 that is rounded to int8: so that ref64 tells how far
 * sums are from exact ones, not how near to a half some x was. */
static void round_token(qd_tensor x, int64_t t, int8_t *a, float *scale) {
  int64_t columns = x.dim[1];
  for (int64_t p = 0; p < columns; p += QD_INT8_RUN) {
    float run[QD_INT8_RUN];
    int64_t n = columns - p < QD_INT8_RUN ? columns - p : QD_INT8_RUN;
    for (int64_t i = 0; i < n; i++) run[i] = (float)qd_ref_load(x, t * x.stride[0] + (p + i) * x.stride[1]);
    scale[p / QD_INT8_RUN] = qd_int8_round_run(run, n, a + p);
  }
}

/* Positions of a piece that begins at p: up to where its run, its group or the row ends. */
static int64_t piece_size(int64_t p, int64_t group, int64_t columns) {
  int64_t run_end = (p / QD_INT8_RUN + 1) * QD_INT8_RUN, group_end = (p / group + 1) * group;
  int64_t end = run_end < group_end ? run_end : group_end;
  return (end < columns ? end : columns) - p;
}

static qd_real dense(const qd_qtensor *q, int64_t r, const int8_t *a, const float *scale) {
  int64_t group = qd_scheme_group_size(q->scheme, q->columns);
  qd_real acc = 0;
  for (int64_t p = 0, n; p < q->columns; p += n) {
    int32_t dot = 0, sum = 0;
    n = piece_size(p, group, q->columns);
    for (int64_t i = p; i < p + n; i++) dot += qd_qtensor_code(q, r, i) * a[i], sum += a[i];
    qd_real d = qd_real_fma(-(qd_real)qd_qtensor_zero(q, r, p / group), (qd_real)sum, (qd_real)dot);
    acc = qd_real_fma(d, (qd_real)qd_qtensor_scale(q, r, p / group) * (qd_real)scale[p / QD_INT8_RUN], acc);
  }
  return acc;
}

static qd_real outliers(const qd_qtensor *q, int64_t r, qd_tensor x, int64_t t) {
  int64_t group = qd_scheme_group_size(q->scheme, q->columns);
  qd_real sum = 0;
  for (int64_t i = qd_qtensor_find_outlier(q, r, 0); i < qd_qtensor_outlier_end(q, r); i++) {
    int64_t p = qd_qtensor_outlier_column(q, i), g = p / group;
    qd_real code = (qd_real)qd_qtensor_code(q, r, p), zero = (qd_real)qd_qtensor_zero(q, r, g);
    qd_real more = (qd_real)qd_qtensor_outlier_value(q, i) - (qd_real)qd_qtensor_scale(q, r, g) * (code - zero);
    sum = qd_real_fma(more, qd_ref_load(x, t * x.stride[0] + p * x.stride[1]), sum);
  }
  return sum;
}

qd_status QD_REF(int8_linear)(qd_device *device, qd_tensor x, const qd_qtensor *w, const qd_tensor *bias, qd_tensor y) {
  int8_t *a;
  float *scale;
  QD_TRY(qd_arena_new(&device->scratch, (size_t)w->columns, sizeof *a, &a));
  QD_TRY(qd_arena_new(&device->scratch, (size_t)qd_int8_runs(w->columns), sizeof *scale, &scale));
  for (int64_t t = 0; t < x.dim[0]; t++) {
    round_token(x, t, a, scale);
    for (int64_t r = 0; r < w->rows; r++) {
      qd_real sum = dense(w, r, a, scale);
      if (w->scheme.spqr && qd_qtensor_find_outlier(w, r, 0) < qd_qtensor_outlier_end(w, r)) sum += outliers(w, r, x, t);
      if (bias) sum += qd_ref_load(*bias, r * bias->stride[0]);
      qd_ref_store(y, t * y.stride[0] + r, sum);
    }
  }
  return QD_OK;
}
