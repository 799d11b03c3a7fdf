/* The cpu's GPTQ against the reference loop, to the bit; what is refused; what damage does. */
#include "tests/kernels/solver_fixture.h"

/* A problem whose factor is made up: the loop does not ask where it came from. */
typedef struct problem {
  int64_t rows, columns;
  qd_tensor w, stored, scale, zero;
  qd_tri u, p; /* p: strictly above the diagonal, as u is stored */
} problem;

typedef enum stored_kind { IN_ORDER, SCATTERED, GROUPS_MOVED } stored_kind;

/* Groups in another order and their columns within them; the short last group comes first. */
static void move_groups(int32_t *stored, int64_t columns, int64_t size) {
  int64_t at = 0, groups = (columns + size - 1) / size;
  for (int64_t i = 0; i < groups; i++) {
    int64_t g = i == 0 ? groups - 1 : i - 1, first = g * size, n = columns - first < size ? columns - first : size;
    for (int64_t c = 0; c < n; c++) stored[at++] = (int32_t)(first + n - 1 - c);
  }
}

static void scatter(int32_t *stored, int64_t columns, uint64_t seed) {
  for (int64_t c = columns - 1; c > 0; c--) {
    int64_t i = (int64_t)(uniform(&seed) * (double)(c + 1));
    int32_t swap = stored[c];
    stored[c] = stored[i];
    stored[i] = swap;
  }
}

static problem make_problem(int64_t rows, int64_t columns, qd_scheme scheme, stored_kind kind) {
  problem p = {.rows = rows, .columns = columns};
  uint64_t seed = (uint64_t)(rows * 1000 + columns);
  int64_t groups = qd_scheme_groups(scheme, columns), gap = 5;
  p.w = qd_tensor_2d(must_alloc((size_t)(rows * (columns + gap)), 4), QD_F32, rows, columns);
  p.w.stride[0] = columns + gap;
  fill_weights(p.w, seed);
  p.u = (qd_tri){must_alloc(qd_tri_elements(columns), 4), QD_F32, columns};
  for (int64_t j = 0; j < columns; j++)
    for (int64_t c = 0; c <= j; c++)
      ((float *)p.u.data)[qd_tri_index(j, c)] =
          (float)(c == j ? 0.5 + uniform(&seed) : 0.3 * normal(&seed) / sqrt((double)columns));
  p.p = (qd_tri){must_alloc(qd_tri_elements(columns), 4), QD_F32, columns};
  for (int64_t j = 0; j < columns; j++)
    for (int64_t c = 0; c < j; c++)
      ((float *)p.p.data)[qd_tri_index(j, c)] = (float)(0.2 * normal(&seed) / sqrt((double)columns));
  int32_t *stored = must_alloc((size_t)columns, sizeof *stored);
  for (int64_t c = 0; c < columns; c++) stored[c] = (int32_t)c;
  if (kind == SCATTERED) scatter(stored, columns, seed);
  if (kind == GROUPS_MOVED) move_groups(stored, columns, qd_scheme_group_size(scheme, columns));
  p.stored = qd_tensor_1d(stored, QD_I32, columns);
  p.scale = qd_tensor_2d(must_alloc((size_t)(rows * groups), 4), QD_F32, rows, groups);
  p.zero = qd_tensor_2d(must_alloc((size_t)(rows * groups), 1), QD_U8, rows, groups);
  for (int64_t i = 0; i < rows * groups; i++) {
    ((float *)p.scale.data)[i] = (float)(0.003 + 0.02 * uniform(&seed));
    ((uint8_t *)p.zero.data)[i] = (uint8_t)(uniform(&seed) * (1 << scheme.bits));
  }
  return p;
}

static void free_problem(problem p) {
  qd_heap_free(p.w.data), qd_heap_free(p.u.data), qd_heap_free(p.p.data), qd_heap_free(p.stored.data),
      qd_heap_free(p.scale.data), qd_heap_free(p.zero.data);
}

static qd_tensor copy_of(qd_tensor t) {
  size_t bytes = (size_t)((t.dim[0] ? t.dim[0] : 1) * t.stride[0]) * qd_dtype_bytes(t.dtype);
  void *copy = must_alloc(bytes, 1);
  if (t.dim[0] > 0) memcpy(copy, t.data, bytes);
  t.data = copy;
  return t;
}

typedef struct options {
  qd_scheme scheme;
  bool fit;
  int64_t block;
  bool asymmetric;
} options;

typedef struct outcome {
  qd_tensor code, scale, zero, loss;
} outcome;

/* Rows [first, first + n) of the problem, on copies. */
static outcome solve(qd_device *device, const problem *p, options o, int64_t first, int64_t n) {
  qd_tensor w = copy_of(qd_tensor_rows(p->w, first, n));
  outcome out = {.scale = copy_of(qd_tensor_rows(p->scale, first, n)), .zero = copy_of(qd_tensor_rows(p->zero, first, n))};
  out.code = qd_tensor_2d(must_alloc((size_t)(n * (p->columns + 2)), 1), QD_U8, n, p->columns);
  out.code.stride[0] = p->columns + 2;
  out.loss = qd_tensor_1d(must_alloc((size_t)n, 8), QD_F64, n);
  qd_gptq_args args = {w, p->u, p->stored, o.scheme, o.fit, o.block, out.code, out.scale, out.zero, out.loss, {0}};
  if (o.asymmetric) args.p = p->p;
  cr_assert_eq(qd_gptq(device, &args), QD_OK, "%s", qd_error_text());
  qd_heap_free(w.data);
  return out;
}

static void release(outcome o) {
  qd_heap_free(o.code.data), qd_heap_free(o.scale.data), qd_heap_free(o.zero.data), qd_heap_free(o.loss.data);
}

static bool rows_equal(qd_tensor whole, int64_t first, qd_tensor part) {
  size_t stride = (size_t)whole.stride[0] * qd_dtype_bytes(whole.dtype);
  return memcmp((unsigned char *)whole.data + (size_t)first * stride, part.data, (size_t)part.dim[0] * stride) == 0;
}

static bool same(outcome whole, int64_t first, outcome part) {
  return rows_equal(whole.code, first, part.code) && rows_equal(whole.scale, first, part.scale) &&
         rows_equal(whole.zero, first, part.zero) && rows_equal(whole.loss, first, part.loss);
}

static void check_cpu(int64_t rows, int64_t columns, options o, stored_kind kind) {
  problem p = make_problem(rows, columns, o.scheme, kind);
  qd_device ref, cpu;
  variant all[MOST_VARIANTS];
  must_open(&ref, "ref", NULL, 1);
  outcome want = solve(&ref, &p, o, 0, rows);
  for (int v = 0, n = variants(all); v < n; v++) {
    must_open(&cpu, "cpu", qd_isa_name(all[v].isa), all[v].threads);
    outcome got = solve(&cpu, &p, o, 0, rows);
    cr_expect(same(want, 0, got),
              "%" PRId64 " x %" PRId64 ", groups of %" PRId64 ", fit %d, compat %d, mse %d, asymmetric %d, blocks of %" PRId64
              ": %s with %d threads differs",
              rows, columns, o.scheme.group_size, o.fit, o.scheme.compat, o.scheme.mse, o.asymmetric, o.block,
              qd_isa_name(all[v].isa), all[v].threads);
    release(got);
    qd_device_close(&cpu);
  }
  release(want);
  free_problem(p);
  qd_device_close(&ref);
}

static const int64_t group_sizes[] = {-1, 128, 64, 32, 96, 30};

/* Every group size on shapes around the row unit, the block and the tile of u. */
static void check_shapes(bool fit, bool compat) {
  static const int64_t shapes[][2] = {{1, 1}, {7, 64}, {64, 7}, {33, 128}, {5, 200}, {9, 352}, {3, 700}};
  for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
    for (size_t g = 0; g < sizeof group_sizes / sizeof *group_sizes; g++) {
      options o = {.scheme = {2 + (int)(s % 3), group_sizes[g], s & 1, false, compat ? QD_F32 : QD_F16, compat},
                   .fit = fit,
                   .block = 128};
      for (int asymmetric = 0; asymmetric < 2; asymmetric++) {
        o.asymmetric = asymmetric;
        check_cpu(shapes[s][0], shapes[s][1], o, fit ? (g & 1 ? GROUPS_MOVED : IN_ORDER) : SCATTERED);
      }
    }
}

Test(gptq_cpu, equals_ref_with_static_groups) { check_shapes(false, false); }
Test(gptq_cpu, equals_ref_with_fresh_groups) { check_shapes(true, false); }
Test(gptq_cpu, equals_ref_with_stale_groups) { check_shapes(true, true); }

/* Several tiles of rows; blocks of other widths, wider than a chunk too; groups larger than a block; the clip search. */
Test(gptq_cpu, equals_ref_on_odd_blocks) {
  static const int64_t blocks[] = {1, 3, 32, 200, 256, 300, 1000};
  for (size_t b = 0; b < sizeof blocks / sizeof *blocks; b++)
    for (int flags = 0; flags < 4; flags++) {
      options o = {.scheme = {4, flags & 1 ? 96 : 30, false, flags & 1, QD_F16, flags & 2}, .fit = true, .block = blocks[b]};
      o.asymmetric = (b + (size_t)flags) % 2;
      check_cpu(3, 700, o, GROUPS_MOVED);
    }
  check_cpu(700, 40, (options){.scheme = {4, 16, false, false, QD_F16, false}, .fit = true, .block = 32}, GROUPS_MOVED);
  check_cpu(700, 40, (options){.scheme = {4, 16, false, false, QD_F16, false}, .block = 32, .asymmetric = true}, SCATTERED);
  check_cpu(0, 40, (options){.scheme = {4, 16, false, false, QD_F16, false}, .fit = true, .block = 32}, IN_ORDER);
  check_cpu(3, 0, (options){.scheme = {4, 16, false, false, QD_F16, false}, .fit = true, .block = 32}, IN_ORDER);
}

Test(gptq_cpu, rows_do_not_know_each_other) {
  enum { ROWS = 77 };
  options o = {.scheme = {4, 32, false, false, QD_F16, false}, .fit = true, .block = 128};
  problem p = make_problem(ROWS, 300, o.scheme, IN_ORDER);
  qd_device cpu;
  must_open(&cpu, "cpu", NULL, 2);
  outcome whole = solve(&cpu, &p, o, 0, ROWS);
  for (int64_t first = 0, n = 1; first < ROWS; first += n, n = n * 2 + 1) {
    if (n > ROWS - first) n = ROWS - first;
    outcome part = solve(&cpu, &p, o, first, n);
    cr_expect(same(whole, first, part), "rows %" PRId64 " and %" PRId64 " more", first, n - 1);
    release(part);
  }
  release(whole);
  free_problem(p);
  qd_device_close(&cpu);
}

/* Of zeros nothing follows. */
Test(gptq_cpu, without_asymmetry_it_is_gptq) {
  problem p = make_problem(40, 300, (qd_scheme){.bits = 3, .group_size = 32, .mse = true, .scale_dtype = QD_F16}, IN_ORDER);
  memset(p.p.data, 0, qd_tri_bytes(300, QD_F32));
  qd_device cpu;
  must_open(&cpu, "cpu", NULL, 1);
  options o = {.scheme = {3, 32, false, true, QD_F16, false}, .fit = true, .block = 128};
  outcome plain = solve(&cpu, &p, o, 0, 40);
  o.asymmetric = true;
  outcome zeros = solve(&cpu, &p, o, 0, 40);
  cr_expect(same(plain, 0, zeros));
  release(plain), release(zeros);
  free_problem(p);
  qd_device_close(&cpu);
}

/* ---- refusals and bad numbers -------------------------------------------------------------------------------------------- */

static void set_weight(qd_tensor w, int64_t r, int64_t c, float value) { ((float *)w.data)[r * w.stride[0] + c] = value; }

static qd_status solve_status(qd_device *device, qd_gptq_args args, qd_tensor w) {
  args.w = copy_of(w);
  qd_status status = qd_gptq(device, &args);
  qd_heap_free(args.w.data);
  return status;
}

Test(gptq_cpu, bad_arguments_are_refused) {
  qd_scheme scheme = {.bits = 4, .group_size = 16, .scale_dtype = QD_F16};
  problem p = make_problem(4, 40, scheme, IN_ORDER);
  qd_device cpu;
  must_open(&cpu, "cpu", NULL, 1);
  uint8_t code[4 * 40];
  double loss[4];
  int32_t *stored = p.stored.data;
  const qd_gptq_args good = {
      p.w, p.u, p.stored, scheme, true, 128, qd_tensor_2d(code, QD_U8, 4, 40), p.scale, p.zero, qd_tensor_1d(loss, QD_F64, 4),
      {0}};
  qd_gptq_args bad = good;
  cr_expect_eq(solve_status(&cpu, good, p.w), QD_OK);
  bad.block = 0;
  cr_expect_eq(solve_status(&cpu, bad, p.w), QD_EINVAL);
  bad = good, bad.u.n = 39;
  cr_expect_eq(solve_status(&cpu, bad, p.w), QD_ESHAPE);
  bad = good, bad.u.dtype = QD_F64;
  cr_expect_eq(solve_status(&cpu, bad, p.w), QD_EDTYPE);
  bad = good, bad.p = p.p, bad.p.n = 39;
  cr_expect_eq(solve_status(&cpu, bad, p.w), QD_ESHAPE);
  bad = good, bad.p = p.p, bad.p.dtype = QD_F64;
  cr_expect_eq(solve_status(&cpu, bad, p.w), QD_EDTYPE);
  bad = good, bad.loss.dtype = QD_F32;
  cr_expect_eq(solve_status(&cpu, bad, p.w), QD_EDTYPE);
  bad = good, bad.code.dim[1] = 39;
  cr_expect_eq(solve_status(&cpu, bad, p.w), QD_ESHAPE);
  bad = good, bad.stored.dim[0] = 39;
  cr_expect_eq(solve_status(&cpu, bad, p.w), QD_ESHAPE);
  stored[3] = 40;
  cr_expect_eq(solve_status(&cpu, good, p.w), QD_EINVAL);
  stored[3] = -1;
  cr_expect_eq(solve_status(&cpu, good, p.w), QD_EINVAL);
  stored[3] = 4;
  cr_expect_eq(solve_status(&cpu, good, p.w), QD_EINVAL, "a position twice");
  stored[3] = 20, stored[20] = 3;
  cr_expect_eq(solve_status(&cpu, good, p.w), QD_EINVAL, "a scattered group");
  bad = good, bad.fit = false;
  cr_expect_eq(solve_status(&cpu, bad, p.w), QD_OK, "static groups may be scattered");
  free_problem(p);
  qd_device_close(&cpu);
}

/* The grid of group g of the weights as they are. */
static void fit_group(qd_device *device, const problem *p, int64_t g, qd_scheme scheme, qd_tensor scale, qd_tensor zero) {
  qd_tensor w = qd_tensor_columns(p->w, g * scheme.group_size, scheme.group_size);
  cr_assert_eq(qd_rtn_fit(device, w, scheme, qd_tensor_columns(scale, g, 1), qd_tensor_columns(zero, g, 1)), QD_OK, "%s",
               qd_error_text());
}

/* Group 1 begins inside the first block and ends beyond it: stale, it is fitted on what came in; fresh, the block ends before
 * it. */
Test(gptq_cpu, stale_groups_are_fitted_on_what_the_block_began_with) {
  for (int compat = 0; compat < 2; compat++) {
    options o = {.scheme = {4, 96, false, false, QD_F32, compat}, .fit = true, .block = 128};
    problem p = make_problem(33, 192, o.scheme, IN_ORDER);
    qd_device cpu;
    must_open(&cpu, "cpu", NULL, 1);
    outcome got = solve(&cpu, &p, o, 0, p.rows);
    for (int64_t g = 0; g < 2; g++) fit_group(&cpu, &p, g, o.scheme, p.scale, p.zero);
    const float *fitted = got.scale.data, *original = p.scale.data;
    int same_scales = 0;
    for (int64_t r = 0; r < p.rows; r++) {
      cr_expect_eq(fitted[2 * r], original[2 * r]);
      same_scales += fitted[2 * r + 1] == original[2 * r + 1];
    }
    if (compat)
      cr_expect_eq(same_scales, 33);
    else
      cr_expect_lt(same_scales, 5);
    release(got);
    free_problem(p);
    qd_device_close(&cpu);
  }
}

typedef struct place {
  const char *name;
  int threads;
} place;
static const place places[] = {{"ref", 1}, {"cpu", 1}, {"cpu", 2}};

enum { BAD_ROWS = 70, BAD_COLUMNS = 40 };
static uint8_t bad_code[BAD_ROWS * BAD_COLUMNS];
static double bad_loss[BAD_ROWS];

static qd_gptq_args bad_args(const problem *p, qd_scheme scheme) {
  return (qd_gptq_args){.w = p->w,
                        .u = p->u,
                        .stored = p->stored,
                        .scheme = scheme,
                        .fit = true,
                        .block = 128,
                        .code = qd_tensor_2d(bad_code, QD_U8, BAD_ROWS, BAD_COLUMNS),
                        .scale = p->scale,
                        .zero = p->zero,
                        .loss = qd_tensor_1d(bad_loss, QD_F64, BAD_ROWS)};
}

/* Damage stays in its row and shows in the loss. */
Test(gptq_cpu, bad_numbers_show_in_the_loss) {
  problem p = make_problem(BAD_ROWS, BAD_COLUMNS,
                           (qd_scheme){.bits = 4, .group_size = 16, .scale_dtype = QD_F32}, IN_ORDER);
  qd_gptq_args args = bad_args(&p, (qd_scheme){.bits = 4, .group_size = 16, .scale_dtype = QD_F32});
  set_weight(p.w, 40, 20, NAN);
  for (int d = 0; d < 3; d++) {
    qd_device device;
    must_open(&device, places[d].name, NULL, places[d].threads);
    cr_assert_eq(solve_status(&device, args, p.w), QD_OK, "%s", qd_error_text());
    for (int r = 0; r < BAD_ROWS; r++)
      cr_expect_eq(isfinite(bad_loss[r]) != 0, r != 40, "%s, row %d: loss %g", places[d].name, r, bad_loss[r]);
    for (int c = 20; c < BAD_COLUMNS; c++) cr_expect_eq(bad_code[40 * BAD_COLUMNS + c], 0);
    qd_device_close(&device);
  }
  free_problem(p);
}

/* The first row with a scale beyond fp16, and its first such group, on every device: rows in one tile and in two, in one group
 * and in several. */
Test(gptq_cpu, scale_beyond_fp16_names_row_and_group) {
  static const struct {
    int row, column;
    const char *expected;
  } steps[] = {{69, 0, "row 69, group 0"},  {66, 39, "row 66, group 2"}, {68, 36, "row 66, group 2"},
               {66, 17, "row 66, group 1"}, {63, 38, "row 63, group 2"}, {5, 18, "row 5, group 1"}};
  problem p = make_problem(BAD_ROWS, BAD_COLUMNS,
                           (qd_scheme){.bits = 4, .group_size = 16, .scale_dtype = QD_F16}, IN_ORDER);
  qd_gptq_args args = bad_args(&p, (qd_scheme){.bits = 4, .group_size = 16, .scale_dtype = QD_F16});
  for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
    set_weight(p.w, steps[i].row, steps[i].column, 1e9f);
    for (int d = 0; d < 3; d++) {
      qd_device device;
      must_open(&device, places[d].name, NULL, places[d].threads);
      cr_expect_eq(solve_status(&device, args, p.w), QD_ENUMERIC);
      cr_expect_not_null(strstr(qd_error_text(), steps[i].expected), "%s: %s, expected %s", places[d].name, qd_error_text(),
                         steps[i].expected);
      qd_device_close(&device);
    }
  }
  free_problem(p);
}
