/* For tests of methods: a layer with correlated inputs, its factor, and what came out, read by code of its own. */
#ifndef QDIST_TESTS_PIPELINE_METHOD_SUPPORT_H
#define QDIST_TESTS_PIPELINE_METHOD_SUPPORT_H

#include "pipeline/method.h"
#include "tests/kernels/solver_fixture.h"

#define MUST(call) cr_assert_eq((call), QD_OK, "%s", qd_error_text())

enum { ROWS = 7, COLUMNS = 40, TOKENS = 160 };

typedef struct layer {
  float    w[ROWS][COLUMNS];
  double   x[TOKENS][COLUMNS], h[COLUMNS][COLUMNS]; /* h = x^T x */
  float    diagonal[COLUMNS];
  int32_t  order[COLUMNS];
  uint8_t  dead[COLUMNS];
  float   *u; /* triangle of the factor in processing order */
} layer;

/* Inputs that share a few directions, of unequal size. */
static inline void fill_inputs(layer *l, uint64_t *state) {
  enum { SHARED = 6 };
  double mix[SHARED][COLUMNS], common[SHARED];
  for (int s = 0; s < SHARED; s++)
    for (int c = 0; c < COLUMNS; c++) mix[s][c] = normal(state);
  for (int t = 0; t < TOKENS; t++) {
    for (int s = 0; s < SHARED; s++) common[s] = normal(state);
    for (int c = 0; c < COLUMNS; c++) {
      double sum = 0.3 * normal(state);
      for (int s = 0; s < SHARED; s++) sum += mix[s][c] * common[s];
      l->x[t][c] = sum * (1 + c % 5);
    }
  }
}

static inline void set_hessian(layer *l) {
  for (int i = 0; i < COLUMNS; i++)
    for (int j = 0; j < COLUMNS; j++) {
      l->h[i][j] = 0;
      for (int t = 0; t < TOKENS; t++) l->h[i][j] += l->x[t][i] * l->x[t][j];
    }
  for (int c = 0; c < COLUMNS; c++) {
    l->diagonal[c] = (float)l->h[c][c];
    l->dead[c] = l->h[c][c] == 0;
  }
}

static inline void new_layer(layer *l, uint64_t seed) {
  *l = (layer){0};
  fill_inputs(l, &seed);
  set_hessian(l);
  for (int r = 0; r < ROWS; r++)
    for (int c = 0; c < COLUMNS; c++) l->w[r][c] = (float)(0.05 * normal(&seed));
}

static inline void kill_column(layer *l, int column) {
  for (int t = 0; t < TOKENS; t++) l->x[t][column] = 0;
  set_hessian(l);
}

/* Inputs that do not know each other: the Hessian is a diagonal, so that no error is carried on. */
static inline void uncouple(layer *l) {
  for (int i = 0; i < COLUMNS; i++)
    for (int j = 0; j < COLUMNS; j++)
      if (i != j) l->h[i][j] = 0;
}

static inline void factor_layer(layer *l, qd_device *device, qd_act_order act_order, int64_t group_size) {
  int64_t pivot;
  double mean = 0, add[COLUMNS];
  float *h = must_alloc(qd_tri_elements(COLUMNS), sizeof *h);
  double *work = must_alloc(qd_tri_elements(COLUMNS), sizeof *work);
  if (l->u == NULL) l->u = must_alloc(qd_tri_elements(COLUMNS), sizeof *l->u);
  for (int i = 0; i < COLUMNS; i++)
    for (int j = 0; j <= i; j++) h[qd_tri_index(i, j)] = (float)l->h[i][j];
  for (int c = 0; c < COLUMNS; c++) mean += l->h[c][c] / COLUMNS;
  for (int c = 0; c < COLUMNS; c++) add[c] = 0.01 * mean + (l->dead[c] ? mean : 0);
  MUST(qd_method_order(act_order, group_size, l->diagonal, COLUMNS, l->order));
  qd_factor_args args = {.h = {h, QD_F32, COLUMNS},
                         .order = qd_tensor_1d(l->order, QD_I32, COLUMNS),
                         .add = qd_tensor_1d(add, QD_F64, COLUMNS),
                         .work = {work, QD_F64, COLUMNS},
                         .u = {l->u, QD_F32, COLUMNS}};
  MUST(qd_factor(device, &args, &pivot));
  cr_assert_eq(pivot, -1);
  qd_heap_free(h);
  qd_heap_free(work);
}

/* What is asked of a method, and its answer; rows [first, first + n) of the layer at a time. */
typedef struct trial {
  const qd_method *method;
  qd_scheme    scheme;
  qd_act_order act_order;
  int64_t      block;
  qd_arena     arena;
  qd_qtensor   q;
} trial;

static inline void open_trial(trial *t, const layer *l) {
  bool has_order = qd_method_stores_order(t->act_order, t->scheme, COLUMNS);
  MUST(qd_arena_open(&t->arena, "trial", 1 << 20));
  MUST(qd_qtensor_new(&t->arena, t->scheme, ROWS, COLUMNS, has_order, &t->q));
  if (has_order) memcpy(t->q.order.data, l->order, sizeof l->order);
}

static inline qd_status quantize_rows(trial *t, const layer *l, qd_device *device, int first, int n) {
  static float w[ROWS][COLUMNS];
  static layer copy;
  copy = *l; /* a method may write to the weights, to nothing else */
  memcpy(w, l->w, sizeof w);
  qd_qtensor rows = qd_qtensor_rows(&t->q, first, n);
  qd_method_input input = {.device = device,
                           .scheme = t->scheme,
                           .act_order = t->act_order,
                           .block = t->block ? t->block : QD_GPTQ_BLOCK,
                           .w = qd_tensor_2d(w[first], QD_F32, n, COLUMNS),
                           .u = {copy.u, QD_F32, COLUMNS},
                           .order = qd_tensor_1d(copy.order, QD_I32, COLUMNS),
                           .dead = qd_tensor_1d(copy.dead, QD_U8, COLUMNS)};
  size_t mark = qd_arena_mark(&device->scratch);
  qd_status status = t->method->quantize(&input, &rows);
  qd_arena_rewind(&device->scratch, mark);
  cr_assert_eq(memcmp(copy.order, l->order, sizeof l->order), 0);
  cr_assert_eq(memcmp(copy.dead, l->dead, sizeof l->dead), 0);
  return status;
}

static inline void run_trial(trial *t, const layer *l, qd_device *device) {
  open_trial(t, l);
  MUST(quantize_rows(t, l, device, 0, ROWS));
  cr_assert_eq(qd_qtensor_check(&t->q), QD_OK, "%s", qd_error_text());
}

/* ---- reading ---------------------------------------------------------------------------------------------------------- */

static inline int code_of(const qd_qtensor *q, int64_t row, int64_t position) {
  const uint8_t *bytes = (const uint8_t *)q->codes.data + row * q->codes.dim[1];
  int code = 0;
  for (int b = 0; b < q->scheme.bits; b++) {
    int64_t bit = position * q->scheme.bits + b;
    code |= (bytes[bit / 8] >> (bit % 8) & 1) << b;
  }
  return code;
}

static inline float scale_of(const qd_qtensor *q, int64_t row, int64_t position) {
  int64_t at = row * q->scales.dim[1] + position / qd_scheme_group_size(q->scheme, q->columns);
  return q->scales.dtype == QD_F16 ? qd_f16_to_f32(((const uint16_t *)q->scales.data)[at])
                                   : ((const float *)q->scales.data)[at];
}

static inline int zero_of(const qd_qtensor *q, int64_t row, int64_t position) {
  int64_t at = row * q->scales.dim[1] + position / qd_scheme_group_size(q->scheme, q->columns);
  return q->scheme.symmetric ? 1 << (q->scheme.bits - 1) : ((const uint8_t *)q->zeros.data)[at];
}

/* Where a column is stored. */
static inline int64_t position_of(const qd_qtensor *q, int64_t column) {
  int64_t p = 0;
  if (!qd_qtensor_has_order(q)) return column;
  while (((const int32_t *)q->order.data)[p] != column) p++;
  return p;
}

static inline double weight_of(const qd_qtensor *q, int64_t row, int64_t column) {
  int64_t p = position_of(q, column);
  return (double)scale_of(q, row, p) * (code_of(q, row, p) - zero_of(q, row, p));
}

/* tr((W - Q) H (W - Q)^T). */
static inline double loss_of(const trial *t, const layer *l) {
  double loss = 0, d[COLUMNS];
  for (int r = 0; r < ROWS; r++) {
    for (int c = 0; c < COLUMNS; c++) d[c] = (double)l->w[r][c] - weight_of(&t->q, r, c);
    for (int i = 0; i < COLUMNS; i++)
      for (int j = 0; j < COLUMNS; j++) loss += d[i] * l->h[i][j] * d[j];
  }
  return loss;
}

static inline bool same_parts(const qd_qtensor *a, const qd_qtensor *b) {
  qd_part x[QD_MAX_PARTS], y[QD_MAX_PARTS];
  int n = qd_qtensor_parts(a, x);
  if (n != qd_qtensor_parts(b, y)) return false;
  for (int i = 0; i < n; i++)
    if (memcmp(x[i].tensor.data, y[i].tensor.data, qd_tensor_bytes(x[i].tensor)) != 0) return false;
  return true;
}

#endif
