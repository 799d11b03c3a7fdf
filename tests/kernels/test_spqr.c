/* SpQR's loop: figures published for a small example, in double; cpu against ref to the bit; what shares statistics and what
 * does not. */
#include "tests/kernels/golden_example.h"
#include "tests/kernels/solver_fixture.h"

#include <stdio.h>

enum { ROWS = 3, COLUMNS = 8, TOKENS = 24 };

/* ---- the example in double ----------------------------------------------------------------------------------------------- */

typedef struct golden {
  const char *name;
  qd_scheme scheme;
  double damping;
  bool act_order, simplified;
  double threshold, tau, sum, raw; /* tau 0: not published */
  int n_outliers;
  const char *outliers; /* "rc rc ..." by column */
} golden;

typedef struct example {
  qd_device device;
  double w[ROWS][COLUMNS], q[ROWS][COLUMNS], h[COLUMNS][COLUMNS];
  int32_t order[COLUMNS];
  qd_tri u;
  double tau;
  qd_spqr_args args;
  uint8_t bytes[5][ROWS * COLUMNS];
  uint16_t second[ROWS * COLUMNS * QD_SECOND], value[ROWS * COLUMNS];
  double scale[ROWS * COLUMNS], zero[ROWS * COLUMNS], loss[ROWS];
} example;

static double mean_diagonal(const example *x) {
  double sum = 0;
  for (int c = 0; c < COLUMNS; c++) sum += x->h[c][c];
  return sum / COLUMNS;
}

static void set_hessian(example *x, bool act_order) {
  for (int i = 0; i < COLUMNS; i++)
    for (int j = 0; j < COLUMNS; j++) {
      x->h[i][j] = 0;
      for (int t = 0; t < TOKENS; t++) x->h[i][j] += 2.0 / TOKENS * golden_x[t][i] * golden_x[t][j];
    }
  for (int c = 0; c < COLUMNS; c++) x->order[c] = c;
  for (int c = 1; act_order && c < COLUMNS; c++)
    for (int i = c; i > 0 && x->h[x->order[i]][x->order[i]] > x->h[x->order[i - 1]][x->order[i - 1]]; i--) {
      int32_t swap = x->order[i];
      x->order[i] = x->order[i - 1], x->order[i - 1] = swap;
    }
}

static void factor(example *x, double damping) {
  static double h[QD_TRI_TILE * QD_TRI_TILE], work[QD_TRI_TILE * QD_TRI_TILE], u[QD_TRI_TILE * QD_TRI_TILE];
  double add[COLUMNS];
  int64_t pivot;
  for (int i = 0; i < COLUMNS; i++) {
    add[i] = damping * mean_diagonal(x);
    for (int j = 0; j <= i; j++) h[qd_tri_index(i, j)] = x->h[i][j];
  }
  x->u = (qd_tri){u, QD_F64, COLUMNS};
  qd_factor_args args = {.h = {h, QD_F64, COLUMNS}, .order = qd_tensor_1d(x->order, QD_I32, COLUMNS),
                         .add = qd_tensor_1d(add, QD_F64, COLUMNS), .work = {work, QD_F64, COLUMNS}, .u = x->u};
  cr_assert_eq(qd_factor(&x->device, &args, &pivot), QD_OK, "%s", qd_error_text());
  cr_assert_eq(pivot, -1);
}

static double scale_of_outliers(const example *x) {
  double mean = 0;
  for (int p = 0; p < COLUMNS; p++) {
    double sum = 0, squares = 0, u = ((const double *)x->u.data)[qd_tri_index(p, p)];
    for (int r = 0; r < ROWS; r++) sum += golden_w[r][x->order[p]] / ROWS;
    for (int r = 0; r < ROWS; r++) squares += pow(golden_w[r][x->order[p]] - sum, 2);
    mean += squares / (ROWS - 1) / (u * u) / COLUMNS;
  }
  return mean;
}

static void run(example *x, const golden *g) {
  int64_t groups = qd_scheme_groups(g->scheme, COLUMNS), unit = g->scheme.stat_group;
  for (int r = 0; r < ROWS; r++)
    for (int p = 0; p < COLUMNS; p++) x->w[r][p] = golden_w[r][x->order[p]];
  x->tau = g->threshold * scale_of_outliers(x);
  x->args = (qd_spqr_args){.w = qd_tensor_2d(x->w, QD_F64, ROWS, COLUMNS), .u = x->u, .scheme = g->scheme, .tau = x->tau,
                           .simplified = g->simplified, .block = 128,
                           .code = qd_tensor_2d(x->bytes[0], QD_U8, ROWS, COLUMNS),
                           .outlier = qd_tensor_2d(x->bytes[1], QD_U8, ROWS, COLUMNS),
                           .value = qd_tensor_2d(x->value, QD_F16, ROWS, COLUMNS),
                           .scale_code = qd_tensor_2d(x->bytes[2], QD_U8, ROWS, groups),
                           .zero_code = qd_tensor_2d(x->bytes[3], QD_U8, ROWS, groups),
                           .second = qd_tensor_3d(x->second, QD_F16, (ROWS + unit - 1) / unit, groups, QD_SECOND),
                           .scale = qd_tensor_2d(x->scale, QD_F64, ROWS, groups),
                           .zero = qd_tensor_2d(x->zero, QD_F64, ROWS, groups), .loss = qd_tensor_1d(x->loss, QD_F64, ROWS)};
  cr_assert_eq(qd_spqr(&x->device, &x->args), QD_OK, "%s", qd_error_text());
  for (int r = 0; r < ROWS; r++)
    for (int p = 0; p < COLUMNS; p++) {
      int64_t grid = r * groups + p / qd_scheme_group_size(g->scheme, COLUMNS);
      bool outlier = x->bytes[1][r * COLUMNS + p];
      x->q[r][x->order[p]] =
          outlier ? x->w[r][p] : x->scale[grid] * ((double)x->bytes[0][r * COLUMNS + p] - x->zero[grid]);
      if (outlier) cr_expect_eq(x->value[r * COLUMNS + p], qd_f16_from_f32((float)x->w[r][p]));
    }
}

static double raw_loss(const example *x) {
  double sum = 0;
  for (int r = 0; r < ROWS; r++)
    for (int i = 0; i < COLUMNS; i++)
      for (int j = 0; j < COLUMNS; j++)
        sum += (golden_w[r][i] - x->q[r][i]) * x->h[i][j] * (golden_w[r][j] - x->q[r][j]) / 2;
  return sum;
}

static void expect_outliers(const example *x, const golden *g) {
  int n = 0;
  for (int r = 0; r < ROWS; r++)
    for (int p = 0; p < COLUMNS; p++) {
      char name[4] = {(char)('0' + r), (char)('0' + x->order[p]), '\0'};
      bool outlier = x->bytes[1][r * COLUMNS + p];
      n += outlier;
      if (g->outliers != NULL) cr_expect_eq(outlier, strstr(g->outliers, name) != NULL, "%s: outlier (%s)", g->name, name);
    }
  cr_expect_eq(n, g->n_outliers, "%s: %d outliers", g->name, n);
}

/* As the reference has them: a group whose weights are all likely outliers is fitted on zeros, by its rule for constants. */
#define BOTH_LEVELS(b)                                                                                                     \
  {.bits = b, .group_size = 4, .scale_dtype = QD_F32, .spqr = true, .compat = true, .scale_bits = 3, .zero_bits = 3,        \
   .stat_group = 3}
#define ONE_LEVEL(b) {.bits = b, .group_size = 4, .scale_dtype = QD_F32, .spqr = true, .stat_group = 3}

/* Where a row's range holds zero and zero points are whole, the grid is GPTQ's, and so is the loop. */
#define AS_GPTQ \
  {.bits = 3, .group_size = QD_PER_CHANNEL, .scale_dtype = QD_F32, .spqr = true, .stat_group = 1, .round_zero = true}

static const golden goldens[] = {
    {"GPTQ per row", AS_GPTQ, .01, false, false, INFINITY, 0, .008216456, .007732094, 0, ""},
    {"GPTQ per row, act-order", AS_GPTQ, .01, true, false, INFINITY, 0, .007235785, .006738755, 0, ""},
    {"3 bits, threshold .15", BOTH_LEVELS(3), 1, false, false, .15, .028423056, .028778777, .010645058, 0, ""},
    {"the same, simplified", BOTH_LEVELS(3), 1, false, true, .15, .028423056, .028778777, .010645058, 0, ""},
    {"3 bits, act-order", BOTH_LEVELS(3), 1, true, false, .15, .028470786, .015406420, .002421147, 0, ""},
    {"2 bits, threshold .05", BOTH_LEVELS(2), 1, false, false, .05, .009474352, .005777066, .002101967, 14,
     "03 04 05 06 07 10 12 13 14 15 16 17 24 27"},
    {"2 bits, simplified", BOTH_LEVELS(2), 1, false, true, .05, .009474352, .010073597, .003292794, 6, "04 06 10 14 15 27"},
    {"2 bits, one level, little damping", ONE_LEVEL(2), .01, false, false, INFINITY, 0, .089544105, .087606989, 0, ""},
    {"2 bits, one level", ONE_LEVEL(2), 1, false, false, INFINITY, 0, .187213373, .094020781, 0, ""},
    {"2 bits, two levels", BOTH_LEVELS(2), 1, false, false, INFINITY, 0, .197892199, .104115581, 0, ""},
};

static void open_example(example *x, const golden *g) {
  must_open(&x->device, "ref64", NULL, 1);
  set_hessian(x, g->act_order);
  factor(x, g->damping);
  run(x, g);
}

Test(spqr, published_figures_in_double) {
  static example x;
  for (size_t i = 0; i < sizeof goldens / sizeof goldens[0]; i++) {
    const golden *g = &goldens[i];
    open_example(&x, g);
    if (g->tau > 0) cr_expect(fabs(x.tau / g->tau - 1) < 1e-7, "%s: tau %.9f", g->name, x.tau);
    double sum = x.loss[0] + x.loss[1] + x.loss[2];
    cr_expect(fabs(sum - g->sum) < 2e-9, "%s: sum %.9f, expected %.9f", g->name, sum, g->sum);
    cr_expect(fabs(raw_loss(&x) - g->raw) < 2e-9, "%s: loss %.9f, expected %.9f", g->name, raw_loss(&x), g->raw);
    expect_outliers(&x, g);
    qd_device_close(&x.device);
  }
}

Test(spqr, published_row_in_double) {
  static const double row[COLUMNS] = {.198571, .020857, -.068, .554, -.047241, -.932816, -.268635, .616940};
  static example x;
  open_example(&x, &goldens[2]);
  for (int c = 0; c < COLUMNS; c++) cr_expect(fabs(x.q[0][c] - row[c]) < 1e-6, "column %d: %.6f", c, x.q[0][c]);
  qd_device_close(&x.device);
}

/* ---- ref and cpu --------------------------------------------------------------------------------------------------------- */

typedef struct problem {
  qd_arena arena;
  qd_tensor w;
  qd_tri u;
} problem;

static void open_problem(problem *p, int64_t rows, int64_t columns) {
  uint64_t seed = 7;
  cr_assert_eq(qd_arena_open(&p->arena, "test", (size_t)64 << 20), QD_OK);
  cr_assert_eq(qd_tensor_new_2d(&p->arena, QD_F32, rows, columns, &p->w), QD_OK);
  fill_weights(p->w, 3);
  for (int64_t r = 0; r < rows; r++) ((float *)p->w.data)[r * columns + columns / 2] = 0; /* a dead column */
  for (int64_t c = 0; rows > 2 && c < columns; c++) ((float *)p->w.data)[2 * columns + c] = 0.25f; /* a constant row */
  p->u = (qd_tri){.dtype = QD_F32, .n = columns};
  cr_assert_eq(qd_arena_new(&p->arena, qd_tri_elements(columns), sizeof(float), &p->u.data), QD_OK);
  for (int64_t j = 0; j < columns; j++)
    for (int64_t c = 0; c <= j; c++)
      ((float *)p->u.data)[qd_tri_index(j, c)] = (float)(c == j ? 1 + uniform(&seed) : 0.1 * (uniform(&seed) - 0.5));
}

/* Everything that one call gives, from the arena. */
typedef struct given {
  qd_spqr_args args;
  qd_tensor *part[9];
} given;

static void new_given(problem *p, qd_scheme scheme, double tau, bool simplified, int64_t block, given *g) {
  int64_t rows = p->w.dim[0], columns = p->w.dim[1], groups = qd_scheme_groups(scheme, columns), unit = scheme.stat_group;
  g->args = (qd_spqr_args){.u = p->u, .scheme = scheme, .tau = tau, .simplified = simplified, .block = block};
  qd_spqr_args *a = &g->args;
  const struct { qd_tensor *to; qd_tensor shape; } all[9] = {
      {&a->w, qd_tensor_2d(NULL, QD_F32, rows, columns)},          {&a->code, qd_tensor_2d(NULL, QD_U8, rows, columns)},
      {&a->outlier, qd_tensor_2d(NULL, QD_U8, rows, columns)},     {&a->value, qd_tensor_2d(NULL, QD_F16, rows, columns)},
      {&a->scale_code, qd_tensor_2d(NULL, QD_U8, rows, groups)},   {&a->zero_code, qd_tensor_2d(NULL, QD_U8, rows, groups)},
      {&a->second, qd_tensor_3d(NULL, QD_F16, (rows + unit - 1) / unit, groups, QD_SECOND)},
      {&a->scale, qd_tensor_2d(NULL, QD_F32, rows, groups)},       {&a->zero, qd_tensor_2d(NULL, QD_F32, rows, groups)}};
  for (int i = 0; i < 9; i++) {
    *all[i].to = all[i].shape, g->part[i] = all[i].to;
    cr_assert_eq(qd_arena_new(&p->arena, qd_tensor_bytes(all[i].shape), 1, &all[i].to->data), QD_OK);
    memset(all[i].to->data, 0, qd_tensor_bytes(all[i].shape));
  }
  memcpy(a->w.data, p->w.data, qd_tensor_bytes(p->w));
  a->loss = qd_tensor_1d(NULL, QD_F64, rows);
  cr_assert_eq(qd_arena_new(&p->arena, (size_t)rows, sizeof(double), &a->loss.data), QD_OK);
}

static void expect_equal(const given *a, const given *b, const char *what) {
  for (int i = 1; i < 9; i++)
    cr_expect_eq(memcmp(a->part[i]->data, b->part[i]->data, qd_tensor_bytes(*a->part[i])), 0, "%s: part %d differs", what, i);
  cr_expect_eq(memcmp(a->args.loss.data, b->args.loss.data, qd_tensor_bytes(a->args.loss)), 0, "%s: the loss differs", what);
}

static void compare(int64_t rows, int64_t columns, qd_scheme scheme, double tau, int64_t block) {
  problem p;
  given wanted, got;
  variant all[MOST_VARIANTS];
  char what[160];
  open_problem(&p, rows, columns);
  for (int simplified = 0; simplified < 2; simplified++) {
    qd_device device;
    must_open(&device, "ref", NULL, 1);
    new_given(&p, scheme, tau, simplified, block, &wanted);
    cr_assert_eq(qd_spqr(&device, &wanted.args), QD_OK, "%s", qd_error_text());
    qd_device_close(&device);
    for (int i = variants(all) - 1; i >= 0; i--) {
      must_open(&device, "cpu", qd_isa_name(all[i].isa), all[i].threads);
      new_given(&p, scheme, tau, simplified, block, &got);
      cr_assert_eq(qd_spqr(&device, &got.args), QD_OK, "%s", qd_error_text());
      snprintf(what, sizeof what, "%d x %d, %d bits, groups of %d, %s, %d threads", (int)rows, (int)columns, scheme.bits,
               (int)scheme.group_size, qd_isa_name(all[i].isa), all[i].threads);
      expect_equal(&wanted, &got, what);
      qd_device_close(&device);
    }
  }
  qd_arena_close(&p.arena);
}

static const qd_scheme usual = {.bits = 3, .group_size = 16, .scale_dtype = QD_F16, .spqr = true, .scale_bits = 3,
                                .zero_bits = 3, .stat_group = 16};

Test(spqr, cpu_equals_ref) {
  qd_scheme scheme = usual;
  compare(1, 1, scheme, 1e-4, 128);
  compare(37, 301, scheme, 1e-4, 128);
  compare(0, 20, scheme, 1e-4, 128);
  scheme.compat = true;
  compare(33, 200, scheme, INFINITY, 128);
  scheme = usual, scheme.scale_bits = 0, scheme.stat_group = 5, scheme.round_zero = true, scheme.zero_bits = 2;
  compare(23, 130, scheme, 1e-4, 48);
  scheme = usual, scheme.zero_bits = 0, scheme.group_size = 100, scheme.bits = 4, scheme.scale_dtype = QD_F32;
  compare(300, 290, scheme, 1e-3, 128);
  scheme = usual, scheme.group_size = QD_PER_CHANNEL, scheme.symmetric = true;
  compare(20, 270, scheme, 1e-3, 256);
}

/* Rows know each other within a run only. */
Test(spqr, rows_may_be_cut_between_runs) {
  problem p;
  given whole;
  qd_device device;
  open_problem(&p, 48, 64);
  must_open(&device, "cpu", NULL, 1);
  new_given(&p, usual, 1e-4, false, 128, &whole);
  cr_assert_eq(qd_spqr(&device, &whole.args), QD_OK, "%s", qd_error_text());
  problem part = p;
  part.w = qd_tensor_rows(p.w, 16, 32);
  given lower;
  new_given(&part, usual, 1e-4, false, 128, &lower);
  cr_assert_eq(qd_spqr(&device, &lower.args), QD_OK, "%s", qd_error_text());
  for (int i = 1; i < 9; i++) {
    qd_tensor rows = i == 6 ? qd_tensor_rows(*whole.part[i], 1, 2) : qd_tensor_rows(*whole.part[i], 16, 32);
    cr_expect_eq(memcmp(rows.data, lower.part[i]->data, qd_tensor_bytes(*lower.part[i])), 0, "part %d", i);
  }
  qd_device_close(&device);
  qd_arena_close(&p.arena);
}

/* Zeros stay zeros and constants stay what they are, alone or in a run of their like. */
Test(spqr, constants_are_exact) {
  problem p;
  given g;
  qd_device device;
  open_problem(&p, 16, 32);
  float *w = p.w.data;
  for (int r = 0; r < 16; r++)
    for (int c = 0; c < 32; c++) w[r * 32 + c] = c < 16 ? 0 : 0.375f;
  must_open(&device, "cpu", NULL, 1);
  new_given(&p, usual, INFINITY, false, 128, &g);
  for (int64_t i = 0; i < 32; i++)
    for (int64_t j = 0; j < i; j++) ((float *)p.u.data)[qd_tri_index(i, j)] = 0;
  cr_assert_eq(qd_spqr(&device, &g.args), QD_OK, "%s", qd_error_text());
  const float *scale = g.args.scale.data, *zero = g.args.zero.data;
  const uint8_t *code = g.args.code.data;
  for (int r = 0; r < 16; r++)
    for (int c = 0; c < 32; c++)
      cr_expect_eq(scale[r * 2 + c / 16] * ((float)code[r * 32 + c] - zero[r * 2 + c / 16]), w[r * 32 + c], "%d, %d", r, c);
  qd_device_close(&device);
  qd_arena_close(&p.arena);
}

/* A grid whose scale is below the normal numbers is that of zeros, not one that nothing can hold. */
Test(spqr, weights_next_to_nothing_are_zeros) {
  static const char *const names[] = {"ref", "cpu"};
  problem p;
  given g;
  qd_device device;
  open_problem(&p, 20, 32);
  for (int64_t i = 0; i < 20 * 32; i++) ((float *)p.w.data)[i] *= 1e-37f;
  for (int d = 0; d < 2; d++) {
    must_open(&device, names[d], NULL, 1);
    new_given(&p, usual, 1e-4, false, 128, &g);
    cr_assert_eq(qd_spqr(&device, &g.args), QD_OK, "%s", qd_error_text());
    for (int i = 0; i < 20 * 2; i++) cr_expect_eq(((const float *)g.args.scale.data)[i], 0);
    qd_device_close(&device);
  }
  qd_arena_close(&p.arena);
}

Test(spqr, refuses_what_it_cannot_store) {
  problem p;
  given g;
  qd_device device;
  open_problem(&p, 20, 32);
  for (int64_t i = 0; i < 20 * 32; i++) ((float *)p.w.data)[i] *= (i / 32 == 17 ? 1e9f : 1);
  must_open(&device, "cpu", NULL, 2);
  new_given(&p, usual, INFINITY, false, 128, &g);
  cr_expect_eq(qd_spqr(&device, &g.args), QD_ENUMERIC);
  cr_expect(strstr(qd_error_text(), "rows 16 to 19, group 0") != NULL, "%s", qd_error_text());
  g.args.tau = -1;
  cr_expect_eq(qd_spqr(&device, &g.args), QD_EINVAL);
  qd_device_close(&device);
  qd_arena_close(&p.arena);
}
