#include "pipeline/outliers.h"
#include "tests/pipeline/method_support.h"

static const qd_scheme schemes[] = {
    {.bits = 3, .group_size = 16, .scale_dtype = QD_F16, .spqr = true, .scale_bits = 3, .zero_bits = 3, .stat_group = 4},
    {.bits = 2, .group_size = 7, .scale_dtype = QD_F32, .spqr = true, .scale_bits = 0, .zero_bits = 2, .stat_group = 4},
    {.bits = 4, .group_size = QD_PER_CHANNEL, .scale_dtype = QD_F16, .spqr = true, .stat_group = 16, .round_zero = true}};
enum { N_SCHEMES = sizeof schemes / sizeof *schemes };

static layer l;
static qd_arena arena;
static qd_device device;
static float identity[QD_TRI_TILE * QD_TRI_TILE];

static void open_fixture(void) {
  new_layer(&l, 5);
  kill_column(&l, 9);
  must_open(&device, "cpu", NULL, 1);
  MUST(qd_arena_open(&arena, "test", (size_t)4 << 20));
  for (int c = 0; c < COLUMNS; c++) l.order[c] = (c + 3) % COLUMNS, identity[qd_tri_index(c, c)] = 1;
}
static void close_fixture(void) {
  qd_device_close(&device);
  qd_arena_close(&arena);
}
TestSuite(method_spqr, .init = open_fixture, .fini = close_fixture);

Test(method_spqr, is_what_it_says_it_is) {
  cr_expect_eq(qd_method_find("spqr"), &qd_method_spqr);
  cr_expect(qd_method_spqr.needs_factor && qd_method_spqr.has_outliers && !qd_method_spqr.default_mse);
}

static qd_status quantize(qd_scheme scheme, int64_t first, int64_t n, double tau, qd_qtensor *q) {
  float w[ROWS][COLUMNS];
  memcpy(w, l.w, sizeof w);
  qd_method_input input = {.device = &device, .scheme = scheme, .act_order = QD_ORDER_DYNAMIC, .block = 128,
                           .w = qd_tensor_2d(w[first], QD_F32, n, COLUMNS), .u = {identity, QD_F32, COLUMNS},
                           .order = qd_tensor_1d(l.order, QD_I32, COLUMNS), .dead = qd_tensor_1d(l.dead, QD_U8, COLUMNS),
                           .tau = tau};
  size_t mark = qd_arena_mark(&device.scratch), before = mark, bound = qd_method_spqr.scratch_bytes(&input);
  qd_status status = qd_method_spqr.quantize(&input, q);
  cr_expect_leq(qd_arena_mark(&device.scratch) - before, bound);
  qd_arena_rewind(&device.scratch, mark);
  return status;
}

static qd_qtensor new_q(qd_scheme scheme) {
  qd_qtensor q;
  MUST(qd_qtensor_new(&arena, scheme, ROWS, COLUMNS, true, &q));
  MUST(qd_outliers_new(&arena, ROWS * COLUMNS, &q));
  memcpy(q.order.data, l.order, sizeof l.order);
  return q;
}

/* Row by row or in pieces: outliers of a piece follow those before it. */
Test(method_spqr, any_cut_between_runs_gives_the_same_bytes) {
  for (int i = 0; i < N_SCHEMES; i++) {
    qd_qtensor whole = new_q(schemes[i]), cut = new_q(schemes[i]), part = qd_qtensor_rows(&cut, 0, 4);
    MUST(quantize(schemes[i], 0, ROWS, 1e-6, &whole));
    MUST(quantize(schemes[i], 0, 4, 1e-6, &part));
    part = qd_qtensor_rows(&cut, 4, ROWS - 4);
    MUST(quantize(schemes[i], 4, ROWS - 4, 1e-6, &part));
    qd_outliers_settle(&whole), qd_outliers_settle(&cut);
    qd_part a[QD_MAX_PARTS], b[QD_MAX_PARTS];
    int n = qd_qtensor_parts(&whole, a);
    cr_assert(qd_qtensor_parts(&cut, b) == n && qd_outliers_of(&whole) > 0);
    for (int k = 0; k < n; k++)
      cr_expect_eq(memcmp(a[k].tensor.data, b[k].tensor.data, qd_tensor_bytes(a[k].tensor)), 0, "%d: %s", i, a[k].name);
    MUST(qd_qtensor_check(&whole));
  }
}

/* With a tau of 0 every weight that errs is kept, as fp16 has it; dead columns are 0. */
Test(method_spqr, outliers_are_the_weights_themselves) {
  qd_qtensor q = new_q(schemes[0]);
  float w[ROWS * COLUMNS];
  MUST(quantize(schemes[0], 0, ROWS, 0, &q));
  qd_outliers_settle(&q);
  MUST(qd_qtensor_check(&q));
  MUST(qd_dequant(&device, &q, qd_tensor_2d(w, QD_F32, ROWS, COLUMNS)));
  for (int r = 0; r < ROWS; r++)
    for (int p = 0; p < COLUMNS; p++) {
      int c = l.order[p];
      float wanted = l.dead[c] ? 0 : l.w[r][c];
      cr_expect(fabsf(w[r * COLUMNS + p] - wanted) <= fabsf(wanted) * 0x1p-11f + 1e-7f, "%d, %d: %g", r, c,
                (double)(w[r * COLUMNS + p] - wanted));
    }
}

Test(method_spqr, more_than_there_is_room_for_are_refused) {
  qd_qtensor q = new_q(schemes[0]);
  qd_outliers_shape(&q, 3);
  cr_expect_eq(quantize(schemes[0], 0, ROWS, 0, &q), QD_ENUMERIC);
  cr_expect(strstr(qd_error_text(), "--outlier-threshold") != NULL, "%s", qd_error_text());
}

/* Multiplied by its codes, by panels, or expanded: the same bits. */
static void expect_one_product(const qd_qtensor *q, qd_dtype act) {
  enum { N = 3 };
  qd_tensor x, gathered, w, y[3];
  qd_panels panels;
  MUST(qd_tensor_new_2d(&arena, act, N, COLUMNS, &x));
  MUST(qd_tensor_new_2d(&arena, act, N, COLUMNS, &gathered));
  MUST(qd_tensor_new_2d(&arena, act, ROWS, COLUMNS, &w));
  for (int i = 0; i < 3; i++) MUST(qd_tensor_new_2d(&arena, act, N, ROWS, &y[i]));
  for (int t = 0; t < N; t++)
    for (int c = 0; c < COLUMNS; c++) {
      float value = (float)l.x[t][c];
      if (act == QD_BF16) ((uint16_t *)x.data)[t * COLUMNS + c] = qd_bf16_from_f32(value);
      else ((float *)x.data)[t * COLUMNS + c] = value;
    }
  MUST(qd_dequant(&device, q, w));
  for (int t = 0; t < N; t++)
    for (int p = 0; p < COLUMNS; p++)
      memcpy((unsigned char *)gathered.data + (size_t)(t * COLUMNS + p) * qd_dtype_bytes(act),
             (unsigned char *)x.data + (size_t)(t * COLUMNS + l.order[p]) * qd_dtype_bytes(act), qd_dtype_bytes(act));
  MUST(qd_linear(&device, gathered, w, NULL, y[0]));
  MUST(qd_qlinear(&device, x, q, NULL, y[1]));
  MUST(qd_panels_quantized(&device, &arena, q, act, &panels));
  MUST(qd_panels_linear(&device, x, &panels, NULL, y[2]));
  for (int i = 1; i < 3; i++)
    cr_expect_eq(memcmp(y[0].data, y[i].data, qd_tensor_bytes(y[0])), 0, "%s: way %d", qd_dtype_name(act), i);
}

Test(method_spqr, fused_equals_expanded) {
  for (int i = 0; i < N_SCHEMES; i++) {
    qd_qtensor q = new_q(schemes[i]);
    MUST(quantize(schemes[i], 0, ROWS, 1e-6, &q));
    qd_outliers_settle(&q);
    expect_one_product(&q, QD_F32);
    expect_one_product(&q, QD_BF16);
  }
}
