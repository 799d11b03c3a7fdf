/* The arithmetic int8 on the cpu device: activations are rounded once, each row's codes are unpacked once for all tokens. */
#include "kernels/codes.h"
#include "kernels/gemm_cpu.h"
#include "kernels/int8.h"
#include "kernels/ops_table.h"

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* Tokens as int8: a (T, C) and s_a (T, runs). */
typedef struct rounded {
  int64_t tokens, columns, runs;
  int8_t *a;
  float *scale;
} rounded;

size_t qd_cpu_int8_scratch(const qd_device *device, int64_t tokens, int64_t rows, int64_t columns) {
  (void)device, (void)rows;
  return qd_arena_cost((size_t)(tokens * columns), sizeof(int8_t)) +
         qd_arena_cost((size_t)(tokens * qd_int8_runs(columns)), sizeof(float));
}

static qd_status round_tokens(qd_device *device, qd_tensor x, rounded *out) {
  rounded to = {.tokens = x.dim[0], .columns = x.dim[1], .runs = qd_int8_runs(x.dim[1])};
  QD_TRY(qd_arena_new(&device->scratch, (size_t)(to.tokens * to.columns), sizeof *to.a, &to.a));
  QD_TRY(qd_arena_new(&device->scratch, (size_t)(to.tokens * to.runs), sizeof *to.scale, &to.scale));
#pragma omp parallel num_threads(device->threads)
  {
    qd_flush_denormals();
#pragma omp for schedule(static)
    for (int64_t t = 0; t < to.tokens; t++)
      for (int64_t r = 0; r < to.runs; r++) {
        float run[QD_INT8_RUN];
        int64_t p = r * QD_INT8_RUN, n = least(to.columns - p, QD_INT8_RUN);
        for (int64_t i = 0; i < n; i++) run[i] = ((const float *)x.data)[t * x.stride[0] + (p + i) * x.stride[1]];
        to.scale[t * to.runs + r] = qd_int8_round_run(run, n, to.a + t * to.columns + p);
      }
  }
  *out = to;
  return QD_OK;
}

/* A piece of a row, its codes unpacked: acc of every token goes on. */
typedef struct piece {
  int64_t at, n; /* positions */
  const uint8_t *code;
  float scale, zero;
} piece;

static void add_piece(const rounded *x, const piece *w, float *acc, int64_t stride) {
  for (int64_t t = 0; t < x->tokens; t++) {
    const int8_t *a = x->a + t * x->columns + w->at;
    int32_t dot = 0, sum = 0;
    for (int64_t i = 0; i < w->n; i++) dot += w->code[i] * a[i], sum += a[i];
    float d = fmaf(-w->zero, (float)sum, (float)dot);
    acc[t * stride] = fmaf(d, w->scale * x->scale[t * x->runs + w->at / QD_INT8_RUN], acc[t * stride]);
  }
}

static void add_dense(const qd_device *device, const rounded *x, const qd_qtensor *q, int64_t row, qd_tensor y) {
  uint8_t code[QD_CODES_RUN]; /* whole runs */
  int64_t group = qd_scheme_group_size(q->scheme, q->columns);
  for (int64_t first = 0; first < q->columns; first += QD_CODES_RUN) {
    int64_t end = least(first + QD_CODES_RUN, q->columns);
    const uint8_t *packed = (const uint8_t *)q->codes.data + row * q->codes.stride[0] + first / 8 * q->scheme.bits;
    QD_ISA_CALL(device, qd_codes_unpack, (packed, end - first, q->scheme.bits, code));
    for (int64_t p = first, n; p < end; p += n) {
      int64_t g = p / group, run_end = (p / QD_INT8_RUN + 1) * QD_INT8_RUN;
      n = least(least(run_end, (g + 1) * group), end) - p;
      add_piece(x, &(piece){p, n, code + (p - first), qd_qtensor_scale(q, row, g), qd_qtensor_zero(q, row, g)},
                (float *)y.data + row, y.stride[0]);
    }
  }
}

static void add_outliers(const qd_qtensor *q, int64_t row, qd_tensor x, qd_tensor y) {
  int64_t first = qd_qtensor_find_outlier(q, row, 0), end = qd_qtensor_outlier_end(q, row);
  int64_t group = qd_scheme_group_size(q->scheme, q->columns);
  for (int64_t t = 0; first < end && t < x.dim[0]; t++) {
    float sum = 0;
    for (int64_t i = first; i < end; i++) {
      int64_t p = qd_qtensor_outlier_column(q, i), g = p / group;
      float w = qd_qtensor_scale(q, row, g) * ((float)qd_qtensor_code(q, row, p) - qd_qtensor_zero(q, row, g));
      sum = fmaf(qd_qtensor_outlier_value(q, i) - w, ((const float *)x.data)[t * x.stride[0] + p * x.stride[1]], sum);
    }
    ((float *)y.data)[t * y.stride[0] + row] += sum;
  }
}

qd_status qd_cpu_int8_linear(qd_device *device, qd_tensor x, const qd_qtensor *w, const qd_tensor *bias, qd_tensor y) {
  rounded tokens;
  QD_TRY(round_tokens(device, x, &tokens));
#pragma omp parallel num_threads(device->threads)
  {
    qd_flush_denormals();
#pragma omp for schedule(static)
    for (int64_t r = 0; r < w->rows; r++) {
      float *column = (float *)y.data + r;
      for (int64_t t = 0; t < y.dim[0]; t++) column[t * y.stride[0]] = 0;
      add_dense(device, &tokens, w, r, y);
      if (w->scheme.spqr) add_outliers(w, r, x, y);
      for (int64_t t = 0; bias != NULL && t < y.dim[0]; t++)
        column[t * y.stride[0]] += ((const float *)bias->data)[r * bias->stride[0]];
    }
  }
  return QD_OK;
}

/* ---- panels: copies of the parts ---- */

size_t qd_cpu_int8_panels_bytes(const qd_device *device, int64_t rows, int64_t columns, qd_scheme scheme) {
  (void)device;
  return qd_panels_copies_bytes(rows, columns, scheme);
}

qd_status qd_cpu_int8_panels(qd_device *device, qd_arena *arena, const qd_qtensor *q, qd_panels *out) {
  out->width = qd_cpu_panel_width(device);
  return qd_ref_panels_quantized(device, arena, q, out);
}

qd_status qd_cpu_int8_panels_linear(qd_device *device, qd_tensor x, const qd_panels *w, const qd_tensor *bias, qd_tensor y) {
  return qd_cpu_int8_linear(device, x, &w->q, bias, y);
}
