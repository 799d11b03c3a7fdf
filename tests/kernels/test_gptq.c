#include "tests/kernels/solver_fixture.h"
#include "tests/kernels/golden_example.h"

/* ---- a layer in double: Hessian, order, damping, factor ------------------------------------------------------------------ */

enum { MAX_COLUMNS = 200, MAX_ROWS = 16, GOLDEN_TOKENS = 24 };
#define DAMPING 0.01

typedef struct layer {
  int64_t rows, columns;
  double w[MAX_ROWS][MAX_COLUMNS];    /* original order, dead columns not yet zeroed */
  double h[MAX_COLUMNS][MAX_COLUMNS]; /* undamped                                     */
  int32_t order[MAX_COLUMNS];         /* column of each processing position           */
  double lambda;
  double *x; /* of golden layers: (GOLDEN_TOKENS, columns)   */
} layer;

/* What one run gave, by column. */
typedef struct result {
  double q[MAX_ROWS][MAX_COLUMNS];
  uint8_t code[MAX_ROWS][MAX_COLUMNS];
  double loss;
} result;

typedef enum order_kind { NATURAL, ACT_ORDER } order_kind;

/* H = 2/n X^T X. */
static void set_hessian(layer *l, const double *x, int64_t n) {
  for (int64_t i = 0; i < l->columns; i++)
    for (int64_t j = 0; j < l->columns; j++) {
      double sum = 0;
      for (int64_t t = 0; t < n; t++) sum += x[t * l->columns + i] * x[t * l->columns + j];
      l->h[i][j] = 2.0 / (double)n * sum;
    }
}

static bool is_dead(const layer *l, int64_t c) { return l->h[c][c] == 0; }
static double diagonal(const layer *l, int64_t c) { return is_dead(l, c) ? 1 : l->h[c][c]; }

/* Order and damping; a dead column counts with a diagonal of 1. */
static void prepare(layer *l, order_kind kind) {
  double sum = 0;
  for (int64_t c = 0; c < l->columns; c++) {
    l->order[c] = (int32_t)c;
    sum += diagonal(l, c);
  }
  l->lambda = DAMPING * sum / (double)l->columns;
  if (kind == NATURAL) return;
  for (int64_t c = 1; c < l->columns; c++) /* stable, largest first */
    for (int64_t i = c; i > 0 && diagonal(l, l->order[i]) > diagonal(l, l->order[i - 1]); i--) {
      int32_t swap = l->order[i];
      l->order[i] = l->order[i - 1];
      l->order[i - 1] = swap;
    }
}

static double damped(const layer *l, int64_t a, int64_t b) {
  int64_t i = l->order[a], j = l->order[b];
  return i == j ? diagonal(l, i) + l->lambda : l->h[i][j];
}

/* u(j, c) = U[c][j] with H^-1 = U^T U: Cholesky M of the reversed matrix, U the reversed inverse of M. */
static void factor(const layer *l, double *u) {
  static double m[MAX_COLUMNS][MAX_COLUMNS], x[MAX_COLUMNS][MAX_COLUMNS];
  int64_t n = l->columns;
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j <= i; j++) {
      double a = damped(l, n - 1 - i, n - 1 - j);
      for (int64_t k = 0; k < j; k++) a -= m[i][k] * m[j][k];
      m[i][j] = i == j ? sqrt(a) : a / m[j][j];
    }
  for (int64_t j = 0; j < n; j++)
    for (int64_t i = j; i < n; i++) {
      double a = i == j ? 1 : 0;
      for (int64_t k = j; k < i; k++) a -= m[i][k] * x[k][j];
      x[i][j] = a / m[i][i];
    }
  for (int64_t j = 0; j < n; j++)
    for (int64_t c = 0; c <= j; c++) u[qd_tri_index(j, c)] = x[n - 1 - c][n - 1 - j];
}

/* ---- running it on a device ---------------------------------------------------------------------------------------------- */

typedef struct options {
  qd_scheme scheme;
  bool stored_by_column; /* stored positions are columns: static groups; else they are processing positions */
  bool fit;
  int64_t block;
  bool through_ops; /* Hessian and factor by the operations, unscaled: X^T X = GOLDEN_TOKENS / 2 * H */
} options;

static qd_tensor new_real(qd_device *device, int64_t rows, int64_t columns) {
  qd_dtype dtype = strcmp(device->name, "ref64") == 0 ? QD_F64 : QD_F32;
  return qd_tensor_2d(must_alloc((size_t)(rows * columns), qd_dtype_bytes(dtype)), dtype, rows, columns);
}

static double get(qd_tensor t, int64_t r, int64_t c) {
  int64_t at = r * t.stride[0] + c;
  return t.dtype == QD_F64 ? ((double *)t.data)[at] : (double)((float *)t.data)[at];
}

static void set(qd_tensor t, int64_t r, int64_t c, double value) {
  int64_t at = r * t.stride[0] + c;
  if (t.dtype == QD_F64)
    ((double *)t.data)[at] = value;
  else
    ((float *)t.data)[at] = (float)value;
}

static qd_tri device_factor(qd_device *device, const layer *l) {
  size_t n = qd_tri_elements(l->columns);
  double *u = must_alloc(n, sizeof *u);
  factor(l, u);
  if (strcmp(device->name, "ref64") == 0) return (qd_tri){u, QD_F64, l->columns};
  float *narrow = must_alloc(n, sizeof *narrow);
  for (size_t i = 0; i < n; i++) narrow[i] = (float)u[i];
  qd_heap_free(u);
  return (qd_tri){narrow, QD_F32, l->columns};
}

/* X^T X by the operations. */
static qd_tri ops_hessian(qd_device *device, const layer *l) {
  double diagonal[MAX_COLUMNS];
  int32_t e[MAX_COLUMNS];
  qd_tensor exponent = qd_tensor_1d(e, QD_I32, l->columns);
  qd_tri total = {must_alloc(qd_tri_elements(l->columns), 8), QD_I64, l->columns}, h = total;
  for (int64_t c = 0; c < l->columns; c++) diagonal[c] = is_dead(l, c) ? 0 : l->h[c][c] * GOLDEN_TOKENS / 2;
  cr_assert_eq(qd_hessian_grid(device, qd_tensor_2d(diagonal, QD_F64, 1, l->columns), 0x1p62, exponent), QD_OK, "%s",
               qd_error_text());
  cr_assert_eq(qd_hessian(device, qd_tensor_3d(l->x, QD_F64, 1, GOLDEN_TOKENS, l->columns), exponent, total), QD_OK, "%s",
               qd_error_text());
  h.dtype = QD_F64;
  cr_assert_eq(qd_hessian_values(device, total, exponent, h), QD_OK, "%s", qd_error_text());
  return h;
}

static qd_tri ops_factor(qd_device *device, const layer *l) {
  double add[MAX_COLUMNS];
  int64_t pivot, n = l->columns;
  for (int64_t c = 0; c < n; c++) add[c] = (l->lambda + (is_dead(l, c) ? 1 : 0)) * GOLDEN_TOKENS / 2;
  int32_t order[MAX_COLUMNS];
  memcpy(order, l->order, sizeof order);
  qd_factor_args args = {.h = ops_hessian(device, l),
                         .order = qd_tensor_1d(order, QD_I32, n),
                         .add = qd_tensor_1d(add, QD_F64, n),
                         .work = {must_alloc(qd_tri_elements(n), 8), QD_F64, n},
                         .u = {must_alloc(qd_tri_elements(n), 8), QD_F64, n}};
  cr_assert_eq(qd_factor(device, &args, &pivot), QD_OK, "%s", qd_error_text());
  cr_assert_eq(pivot, -1);
  qd_heap_free(args.h.data), qd_heap_free(args.work.data);
  return args.u;
}

/* Weights in processing order, dead columns zeroed. */
static void arrange(const layer *l, qd_tensor w) {
  for (int64_t r = 0; r < l->rows; r++)
    for (int64_t p = 0; p < l->columns; p++) set(w, r, p, is_dead(l, l->order[p]) ? 0 : l->w[r][l->order[p]]);
}

/* The grid of the weights as they came, dead columns and all. */
static void fit_original(qd_device *device, const layer *l, const qd_gptq_args *args) {
  qd_tensor w = new_real(device, l->rows, l->columns);
  for (int64_t r = 0; r < l->rows; r++)
    for (int64_t c = 0; c < l->columns; c++) set(w, r, c, l->w[r][c]);
  cr_assert_eq(qd_rtn_fit(device, w, args->scheme, args->scale, args->zero), QD_OK, "%s", qd_error_text());
  qd_heap_free(w.data);
}

static void collect(const layer *l, const qd_gptq_args *args, const double *loss, result *out) {
  int64_t size = qd_scheme_group_size(args->scheme, l->columns);
  out->loss = 0;
  for (int64_t r = 0; r < l->rows; r++) {
    out->loss += loss[r];
    for (int64_t p = 0; p < l->columns; p++) {
      int64_t at = ((int32_t *)args->stored.data)[p], c = l->order[p];
      uint8_t code = ((uint8_t *)args->code.data)[r * l->columns + at];
      int zero = ((uint8_t *)args->zero.data)[r * args->zero.stride[0] + at / size];
      out->code[r][c] = code;
      out->q[r][c] = get(args->scale, r, at / size) * (code - zero);
    }
  }
}

static void run(const char *name, const layer *l, options o, result *out) {
  qd_device device;
  must_open(&device, name, NULL, 2);
  int64_t groups = qd_scheme_groups(o.scheme, l->columns);
  int32_t stored[MAX_COLUMNS];
  double loss[MAX_ROWS];
  for (int64_t p = 0; p < l->columns; p++) stored[p] = o.stored_by_column ? l->order[p] : (int32_t)p;
  qd_gptq_args args = {.w = new_real(&device, l->rows, l->columns),
                       .u = o.through_ops ? ops_factor(&device, l) : device_factor(&device, l),
                       .scheme = o.scheme,
                       .fit = o.fit,
                       .block = o.block,
                       .stored = qd_tensor_1d(stored, QD_I32, l->columns),
                       .code = qd_tensor_2d(must_alloc((size_t)(l->rows * l->columns), 1), QD_U8, l->rows, l->columns),
                       .scale = new_real(&device, l->rows, groups),
                       .zero = qd_tensor_2d(must_alloc((size_t)(l->rows * groups), 1), QD_U8, l->rows, groups),
                       .loss = qd_tensor_1d(loss, QD_F64, l->rows)};
  arrange(l, args.w);
  if (!o.fit) fit_original(&device, l, &args);
  cr_assert_eq(qd_gptq(&device, &args), QD_OK, "%s", qd_error_text());
  collect(l, &args, loss, out);
  if (o.through_ops) out->loss /= GOLDEN_TOKENS / 2;
  qd_heap_free(args.w.data), qd_heap_free(args.u.data), qd_heap_free(args.code.data), qd_heap_free(args.scale.data),
      qd_heap_free(args.zero.data);
  qd_device_close(&device);
}

/* 1/2 tr(D (H + damping I) D^T), D = W - Q without dead columns. */
static double half_trace(const layer *l, const result *got, double damping) {
  double sum = 0;
  for (int64_t r = 0; r < l->rows; r++)
    for (int64_t i = 0; i < l->columns; i++)
      for (int64_t j = 0; j < l->columns; j++) {
        if (is_dead(l, i) || is_dead(l, j)) continue;
        double h = l->h[i][j] + (i == j ? damping : 0);
        sum += (l->w[r][i] - got->q[r][i]) * h * (l->w[r][j] - got->q[r][j]);
      }
  return sum / 2;
}

/* ---- the published numbers, in double ------------------------------------------------------------------------------------ */

static layer golden_layer(int dead, order_kind kind) {
  static double x[GOLDEN_TOKENS][8];
  layer l = {.rows = 3, .columns = 8, .x = x[0]};
  memcpy(x, golden_x, sizeof x);
  for (int t = 0; t < GOLDEN_TOKENS && dead >= 0; t++) x[t][dead] = 0;
  for (int r = 0; r < 3; r++) memcpy(l.w[r], golden_w[r], sizeof golden_w[r]);
  set_hessian(&l, x[0], GOLDEN_TOKENS);
  prepare(&l, kind);
  return l;
}

typedef struct golden {
  const char *name;
  options run;
  order_kind order;
  int dead; /* a column of X set to 0, or -1 */
  double loss, raw;
} golden;

/* 3 bits, asymmetric, scales not rounded; `compat` is the reference's stale groups */
#define G3(group, clips, is_compat) \
  {.bits = 3, .group_size = group, .mse = clips, .scale_dtype = QD_F32, .compat = is_compat}

static const golden goldens[] = {
    {"per row", {G3(-1, false, false), true, false, 128, false}, NATURAL, -1, 0.008216456, 0.007732094},
    {"per row, act-order", {G3(-1, false, false), true, false, 128, false}, ACT_ORDER, -1, 0.007235785, 0.006738755},
    {"per row, fitted in the loop", {G3(-1, false, false), true, true, 128, false}, NATURAL, -1, 0.008216456, 0.007732094},
    {"groups of 4, stale", {G3(4, false, true), true, true, 128, false}, NATURAL, -1, 0.010221371, 0.009519934},
    {"groups of 4, fresh", {G3(4, false, false), true, true, 128, false}, NATURAL, -1, 0.006848599, 0.006496530},
    {"groups of 4, blocks of 4", {G3(4, false, true), true, true, 4, false}, NATURAL, -1, 0.006848599, 0.006496530},
    {"groups of 4, act-order, dynamic, stale",
     {G3(4, false, true), false, true, 128, false},
     ACT_ORDER,
     -1,
     0.004493920,
     0.004245717},
    {"groups of 4, act-order, dynamic, fresh",
     {G3(4, false, false), false, true, 128, false},
     ACT_ORDER,
     -1,
     0.005184328,
     0.004741730},
    {"groups of 4, act-order, static", {G3(4, false, false), true, false, 128, false}, ACT_ORDER, -1, 0.008266287, 0.007848531},
    {"per row, clip search", {G3(-1, true, false), true, false, 128, false}, NATURAL, -1, 0.025458967, 0.024528573},
    {"dead column", {G3(-1, false, false), true, false, 128, false}, NATURAL, 6, 0.013737200, 0.013278548},
    {"dead column, act-order", {G3(-1, false, false), true, false, 128, false}, ACT_ORDER, 6, 0.008544809, 0.008071578},
};

static void check_golden(const golden *g, bool through_ops) {
  static result got;
  layer l = golden_layer(g->dead, g->order);
  options o = g->run;
  o.through_ops = through_ops;
  run("ref64", &l, o, &got);
  double raw = half_trace(&l, &got, 0);
  cr_expect_float_eq(got.loss, g->loss, 5.1e-10, "%s: loss %.12f, expected %.9f", g->name, got.loss, g->loss);
  cr_expect_float_eq(raw, g->raw, 5.1e-10, "%s: undamped %.12f, expected %.9f", g->name, raw, g->raw);
  cr_expect_float_eq(half_trace(&l, &got, l.lambda), got.loss, 1e-9 * got.loss, "%s: loss identity", g->name);
  for (int r = 0; r < 3 && g->dead >= 0; r++) cr_expect_eq(got.q[r][g->dead], 0, "%s: row %d of the dead column", g->name, r);
}

Test(gptq, golden_losses) {
  for (size_t i = 0; i < sizeof goldens / sizeof *goldens; i++) check_golden(&goldens[i], false);
}

Test(gptq, golden_losses_through_the_operations) {
  for (size_t i = 0; i < sizeof goldens / sizeof *goldens; i++) check_golden(&goldens[i], true);
}

/* The undamped error by sqerror. */
Test(gptq, golden_error_through_the_operations) {
  static result got;
  qd_device device;
  layer l = golden_layer(-1, ACT_ORDER);
  double difference[3][8], value[3];
  run("ref64", &l, goldens[1].run, &got);
  for (int r = 0; r < 3; r++)
    for (int c = 0; c < 8; c++) difference[r][c] = l.w[r][c] - got.q[r][c];
  must_open(&device, "ref64", NULL, 1);
  qd_tri h = ops_hessian(&device, &l);
  cr_assert_eq(qd_sqerror(&device, qd_tensor_2d(difference, QD_F64, 3, 8), h, qd_tensor_1d(value, QD_F64, 3)), QD_OK, "%s",
               qd_error_text());
  cr_expect_float_eq((value[0] + value[1] + value[2]) / GOLDEN_TOKENS, goldens[1].raw, 5.1e-10);
  qd_heap_free(h.data);
  qd_device_close(&device);
}

/* Groups of 6 with blocks of 4: a group that reaches beyond the block in which it begins. */
Test(gptq, golden_groups_across_blocks) {
  static result got;
  layer l = golden_layer(-1, NATURAL);
  run("ref64", &l, (options){G3(6, false, true), true, true, 4, false}, &got);
  cr_expect_float_eq(got.loss, 0.021853, 5.1e-7, "stale: loss %.9f", got.loss);
  run("ref64", &l, (options){G3(6, false, false), true, true, 4, false}, &got);
  cr_expect_float_eq(got.loss, 0.015787, 5.1e-7, "fresh: loss %.9f", got.loss);
}

Test(gptq, golden_weights) {
  static const double want[3][8] = {{.221429, 0, 0, .442857, -.221429, -.885714, -.221429, .664286},
                                    {.231, .462, -.693, 0, .231, -.462, .693, -.693},
                                    {.224857, -.224857, -.674571, .449714, .674571, -.674571, -.224857, .674571}};
  static result got;
  layer l = golden_layer(-1, NATURAL);
  run("ref64", &l, goldens[0].run, &got);
  for (int r = 0; r < 3; r++)
    for (int c = 0; c < 8; c++) cr_expect_float_eq(got.q[r][c], want[r][c], 5.1e-7);
}

static void round_to_nearest(const char *name, const layer *l, qd_scheme scheme, result *out) {
  qd_device device;
  must_open(&device, name, NULL, 1);
  uint8_t zero[MAX_ROWS];
  qd_tensor w = new_real(&device, l->rows, l->columns), scale = new_real(&device, l->rows, 1),
            z = qd_tensor_2d(zero, QD_U8, l->rows, 1);
  qd_tensor code = qd_tensor_2d(out->code, QD_U8, l->rows, l->columns);
  code.stride[0] = MAX_COLUMNS;
  for (int64_t r = 0; r < l->rows; r++)
    for (int64_t c = 0; c < l->columns; c++) set(w, r, c, l->w[r][c]);
  cr_assert_eq(qd_rtn_fit(&device, w, scheme, scale, z), QD_OK, "%s", qd_error_text());
  cr_assert_eq(qd_rtn_quantize(&device, w, scheme, scale, z, code), QD_OK, "%s", qd_error_text());
  for (int64_t r = 0; r < l->rows; r++)
    for (int64_t c = 0; c < l->columns; c++) out->q[r][c] = get(scale, r, 0) * (out->code[r][c] - zero[r]);
  qd_heap_free(w.data), qd_heap_free(scale.data);
  qd_device_close(&device);
}

Test(gptq, golden_rounding_to_nearest) {
  static result got;
  layer l = golden_layer(-1, NATURAL);
  round_to_nearest("ref64", &l, (qd_scheme)G3(-1, false, false), &got);
  cr_expect_float_eq(half_trace(&l, &got, 0), 0.036853952, 5.1e-10);
}

/* ---- what must hold for any layer ---------------------------------------------------------------------------------------- */

/* A layer with correlated inputs: few directions and noise. */
static layer *random_layer(int64_t rows, int64_t columns, uint64_t seed, order_kind kind) {
  enum { TOKENS = 300, DIRECTIONS = 12 };
  layer *l = must_alloc(1, sizeof *l);
  double *x = must_alloc((size_t)(TOKENS * columns), sizeof *x), *mix = must_alloc((size_t)(DIRECTIONS * columns), sizeof *mix);
  l->rows = rows, l->columns = columns;
  for (int64_t i = 0; i < DIRECTIONS * columns; i++) mix[i] = normal(&seed);
  for (int t = 0; t < TOKENS; t++)
    for (int d = 0; d <= DIRECTIONS; d++) {
      double part = normal(&seed);
      for (int64_t c = 0; c < columns; c++) x[t * columns + c] += d < DIRECTIONS ? part * mix[d * columns + c] : normal(&seed);
    }
  for (int64_t r = 0; r < rows; r++)
    for (int64_t c = 0; c < columns; c++) l->w[r][c] = (double)(float)(0.02 * normal(&seed));
  set_hessian(l, x, TOKENS);
  prepare(l, kind);
  qd_heap_free(x), qd_heap_free(mix);
  return l;
}

Test(gptq, loss_is_the_damped_trace) {
  static result got;
  static const struct {
    const char *device;
    double bound;
  } devices[] = {{"ref64", 1e-9}, {"ref", 1e-4}, {"cpu", 1e-4}};
  for (int act = 0; act < 2; act++) {
    layer *l = random_layer(16, 200, 11, act ? ACT_ORDER : NATURAL);
    for (int d = 0; d < 3; d++)
      for (int64_t group = -1; group < 64; group += 33) {
        options o = {.scheme = {4, group, act, group > 0, QD_F16, false}, .fit = group > 0, .block = 48};
        run(devices[d].device, l, o, &got);
        double trace = half_trace(l, &got, l->lambda);
        cr_expect_float_eq(got.loss, trace, devices[d].bound * trace, "%s, groups of %" PRId64 ": loss %.12g, trace %.12g",
                           devices[d].device, group, got.loss, trace);
      }
    qd_heap_free(l);
  }
}

Test(gptq, better_than_rounding) {
  static result got, rounded;
  layer *l = random_layer(16, 128, 5, ACT_ORDER);
  options o = {.scheme = {3, QD_PER_CHANNEL, false, false, QD_F16, false}, .stored_by_column = true, .block = 128};
  run("cpu", l, o, &got);
  round_to_nearest("cpu", l, o.scheme, &rounded);
  cr_expect_lt(half_trace(l, &got, 0), 0.6 * half_trace(l, &rounded, 0));
  qd_heap_free(l);
}

/* A diagonal Hessian carries no error from column to column. */
Test(gptq, diagonal_hessian_gives_rounding) {
  static result got, rounded;
  for (int act = 0; act < 2; act++) {
    layer *l = random_layer(9, 150, 17, NATURAL);
    for (int i = 0; i < 150; i++)
      for (int j = 0; j < 150; j++) l->h[i][j] = i == j ? 1 + act * (i * 37 % 11) : 0;
    prepare(l, act ? ACT_ORDER : NATURAL);
    options o = {.scheme = {4, QD_PER_CHANNEL, act, false, QD_F16, false}, .stored_by_column = true, .block = 64};
    round_to_nearest("cpu", l, o.scheme, &rounded);
    run("cpu", l, o, &got);
    for (int r = 0; r < 9; r++) cr_expect_arr_eq(got.code[r], rounded.code[r], 150);
    qd_heap_free(l);
  }
}

/* In double the width of a block shows in no code: per channel, and for groups fitted on fresh values, short last group or not.
 */
Test(gptq, block_size_does_not_matter_in_double) {
  static result want, got;
  static const int64_t groups[] = {-1, 32, 30}, blocks[] = {1, 2, 64, 128, 200, 1000};
  layer *l = random_layer(5, 200, 23, ACT_ORDER);
  for (int g = 0; g < 3; g++)
    for (int b = 0; b < 6; b++) {
      options o = {.scheme = {3, groups[g], false, false, QD_F16, false}, .fit = groups[g] > 0, .block = blocks[b]};
      run("ref64", l, o, b == 0 ? &want : &got);
      if (b > 0)
        cr_expect_arr_eq(got.code, want.code, sizeof want.code, "groups of %" PRId64 ", blocks of %" PRId64, groups[g],
                         blocks[b]);
    }
  qd_heap_free(l);
}
