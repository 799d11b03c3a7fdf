#include "kernels/gemm_cpu.h"
#include "tests/kernels/products_support.h"

#include <math.h>
#include <omp.h>

/* The plain-C tiles, which no x86-64 CPU takes by itself. */
#if defined(__x86_64__) && !defined(__AVX2__)
#define QD_ISA_SUFFIX portable
#include "kernels/gemm_unit.h"
void qd_panel_pack_f32_portable(const qd_gemm_rows *from, int width, void *panels);
void qd_panel_pack_f64_portable(const qd_gemm_rows *from, int width, void *panels);
void qd_panel_pack_wide_portable(const qd_gemm_rows *from, int width, void *panels);
void qd_panel_pack_pairs_portable(const qd_gemm_rows *from, int width, void *panels);
const qd_gemm_unit *qd_gemm_find_unit_portable(qd_panel_kind kind);
const qd_gemm_unit *qd_gemm_find_amx_unit_portable(qd_panel_kind kind);
#include "kernels/gemm_pack_isa.c"
#include "kernels/gemm_tile_isa.c"
#include "kernels/gemm_amx_isa.c"
#endif

typedef enum layout { PLAIN, B_TRANSPOSED, A_TRANSPOSED, BOTH_TRANSPOSED, SPARSE, PADDED, LAYOUTS } layout;

/* A rows x columns view of `data` (which has room for 3 rows columns + 3 of each). */
static qd_tensor view(void *data, qd_dtype dtype, int64_t rows, int64_t columns, layout kind, bool is_a) {
  bool turned = kind == BOTH_TRANSPOSED || kind == (is_a ? A_TRANSPOSED : B_TRANSPOSED);
  if (turned) return qd_tensor_transposed(qd_tensor_2d(data, dtype, columns, rows));
  qd_tensor t = qd_tensor_2d(data, dtype, rows, columns);
  if (kind == SPARSE) t.stride[1] = 2, t.stride[0] = 2 * columns + 1;
  if (kind == PADDED) t.stride[0] = columns + 3;
  return t;
}

typedef struct operands {
  void *memory[2];
  qd_tensor a, b;
} operands;

static operands make_operands(qd_dtype dtype, int64_t m, int64_t n, int64_t k, layout kind) {
  operands o;
  o.memory[0] = random_numbers(dtype, 3 * m * k + 3 * m);
  o.memory[1] = random_numbers(dtype, 3 * k * n + 3 * k);
  o.a = view(o.memory[0], dtype, m, k, kind, true);
  o.b = view(o.memory[1], dtype, k, n, kind, false);
  return o;
}

static void free_operands(operands *o) {
  free(o->memory[0]);
  free(o->memory[1]);
}

/* An output of m x n with two more columns a row, filled with the same numbers for each seed. */
static qd_tensor make_output(qd_dtype dtype, int64_t m, int64_t n, uint64_t seed) {
  uint64_t kept = random_state;
  random_state = seed;
  qd_tensor c = qd_tensor_2d(random_numbers(dtype, m * (n + 2)), dtype, m, n + 2);
  random_state = kept;
  c.dim[1] = n;
  return c;
}

static void assert_same(qd_tensor got, qd_tensor expected, const qd_device *device, const char *what) {
  size_t bytes = (size_t)(got.dim[0] * got.stride[0]) * qd_dtype_bytes(got.dtype);
  cr_assert(memcmp(got.data, expected.data, bytes) == 0, "%s: %" PRId64 " x %" PRId64 " differs with %s, %s and %d threads",
            what, got.dim[0], got.dim[1], qd_arithmetic_name(device->arithmetic), qd_isa_name(device->isa), device->threads);
}

static void compare_matmul(devices *d, qd_tensor a, qd_tensor b, bool accumulate, const char *what) {
  qd_dtype dtype = a.dtype == QD_F64 ? QD_F64 : QD_F32;
  EACH_ARITHMETIC(d, a.dtype) {
    qd_tensor expected = make_output(dtype, a.dim[0], b.dim[1], 1);
    OK(qd_matmul(&d->ref, a, b, accumulate, expected));
    for (int i = 0; i < d->n; i++) {
      qd_tensor got = make_output(dtype, a.dim[0], b.dim[1], 1);
      OK(qd_matmul(&d->cpu[i], a, b, accumulate, got));
      assert_same(got, expected, &d->cpu[i], what);
      free(got.data);
    }
    free(expected.data);
  }
}

static void compare_layouts(devices *d, qd_dtype dtype, const int64_t size[3], int layouts) {
  for (int kind = 0; kind < layouts; kind++)
    for (int accumulate = 0; accumulate < 2; accumulate++) {
      operands o = make_operands(dtype, size[0], size[1], size[2], (layout)kind);
      compare_matmul(d, o.a, o.b, accumulate, qd_dtype_name(dtype));
      free_operands(&o);
    }
}

static const qd_dtype all_dtypes[] = {QD_F32, QD_BF16, QD_F64};

Test(gemm_cpu, small_shapes_equal_ref_in_every_layout) {
  static const int64_t sizes[][3] = {{1, 1, 1},     {2, 3, 2},    {0, 3, 4},    {3, 0, 2},     {2, 3, 0},     {1, 33, 257},
                                     {1, 70, 513},  {2, 65, 300}, {3, 64, 256}, {5, 7, 31},    {13, 31, 255}, {14, 32, 512},
                                     {15, 33, 511}, {6, 16, 17},  {28, 49, 70}, {29, 48, 258}, {8, 24, 9},    {31, 25, 130}};
  devices d = open_devices();
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
    for (int t = 0; t < 3; t++) compare_layouts(&d, all_dtypes[t], sizes[i], LAYOUTS);
  close_devices(&d);
}

/* Beyond one block of rows, of columns and of chunks that lie in cache together. */
Test(gemm_cpu, shapes_beyond_the_blocks_equal_ref) {
  static const int64_t sizes[][3] = {{140, 67, 300}, {30, 1300, 20}, {300, 41, 33}, {20, 40, 9000}, {65, 700, 40}};
  devices d = open_devices();
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
    for (int t = 0; t < 3; t++) compare_layouts(&d, all_dtypes[t], sizes[i], B_TRANSPOSED + 1);
  close_devices(&d);
}

/* Denormals, results that underflow, sums near the largest number: flushed and rounded alike by every instruction. */
Test(gemm_cpu, extreme_numbers_equal_ref) {
  static const unsigned exponents[][4] = {
      {0, 0, 100, 250}, {30, 70, 30, 70}, {60, 68, 58, 66}, {185, 188, 185, 188}, {0, 254, 1, 126}};
  devices d = open_devices();
  for (size_t e = 0; e < sizeof exponents / sizeof *exponents; e++)
    for (int t = 0; t < 2; t++) {
      operands o = make_operands(all_dtypes[t], 17, 40, 300, PLAIN);
      for (int64_t i = 0; i < 17 * 300; i++)
        set_element(o.a.data, o.a.dtype, i, random_extreme(exponents[e][0], exponents[e][1]));
      for (int64_t i = 0; i < 300 * 40; i++)
        set_element(o.b.data, o.b.dtype, i, random_extreme(exponents[e][2], exponents[e][3]));
      compare_matmul(&d, o.a, o.b, e % 2, "extremes");
      free_operands(&o);
    }
  close_devices(&d);
}

/* On and below the diagonal the product; what stands above is nobody's, but no more than the tiles it shares. */
static void expect_lower(qd_device *device, qd_dtype dtype, const int64_t size[3]) {
  operands o = make_operands(dtype, size[0], size[1], size[2], PLAIN);
  qd_tensor expected = make_output(dtype == QD_F64 ? QD_F64 : QD_F32, size[0], size[1], 1),
            got = make_output(expected.dtype, size[0], size[1], 2);
  qd_gemm_serial(device, 0, QD_GEMM_SET, o.a, o.b, expected);
  qd_gemm_serial(device, 0, QD_GEMM_LOWER, o.a, o.b, got);
  size_t bytes = qd_dtype_bytes(got.dtype);
  for (int64_t i = 0; i < size[0]; i++) {
    size_t at = (size_t)(i * got.stride[0]) * bytes, n = (size_t)(i < size[1] ? i + 1 : size[1]) * bytes;
    cr_assert_eq(memcmp((char *)got.data + at, (char *)expected.data + at, n), 0, "row %" PRId64 " of %" PRId64 " on %s", i,
                 size[0], qd_isa_name(device->isa));
  }
  free(expected.data);
  free(got.data);
  free_operands(&o);
}

Test(gemm_cpu, the_lower_triangle_equals_the_whole_product) {
  static const int64_t sizes[][3] = {{1, 1, 1},     {40, 40, 300}, {416, 416, 20}, {130, 97, 257},
                                     {33, 700, 30}, {5, 5, 0},     {20, 20, 600}};
  devices d = open_devices();
  for (int i = 0; i < d.n; i++)
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
      for (int t = 0; t < 3; t++) expect_lower(&d.cpu[i], all_dtypes[t], sizes[s]);
  close_devices(&d);
}

/* c - chain is c + chain of the negated operand. */
Test(gemm_cpu, subtracting_equals_adding_the_negative) {
  devices d = open_devices();
  for (int t = 0; t < 3; t += 2) {
    qd_dtype dtype = all_dtypes[t];
    operands o = make_operands(dtype, 40, 70, 600, PLAIN);
    qd_tensor expected = make_output(dtype, 40, 70, 3);
    for (int64_t i = 0; i < 40 * 600; i++)
      if (dtype == QD_F32)
        ((float *)o.a.data)[i] *= -1;
      else
        ((double *)o.a.data)[i] *= -1;
    OK(qd_matmul(&d.ref, o.a, o.b, true, expected));
    for (int64_t i = 0; i < 40 * 600; i++)
      if (dtype == QD_F32)
        ((float *)o.a.data)[i] *= -1;
      else
        ((double *)o.a.data)[i] *= -1;
    for (int i = 0; i < d.n; i++) {
      qd_tensor got = make_output(dtype, 40, 70, 3);
      qd_gemm(&d.cpu[i], QD_GEMM_SUBTRACT, o.a, o.b, got);
      assert_same(got, expected, &d.cpu[i], "subtract");
      free(got.data);
    }
    free(expected.data);
    free_operands(&o);
  }
  close_devices(&d);
}

Test(gemm_cpu, serial_products_run_side_by_side) {
  devices d = open_devices();
  operands o = make_operands(QD_F32, 64, 90, 300, B_TRANSPOSED);
  qd_tensor expected = make_output(QD_F32, 64, 90, 5);
  OK(qd_matmul(&d.ref, o.a, o.b, false, expected));
  for (int i = 0; i < d.n; i++) {
    qd_tensor got = make_output(QD_F32, 64, 90, 5);
    qd_device *device = &d.cpu[i];
#pragma omp parallel for num_threads(device->threads) schedule(dynamic)
    for (int64_t row = 0; row < 64; row += 16) {
      qd_flush_denormals();
      qd_gemm_serial(device, omp_get_thread_num(), QD_GEMM_SET, qd_tensor_rows(o.a, row, 16), o.b,
                     qd_tensor_rows(got, row, 16));
    }
    assert_same(got, expected, device, "side by side");
    free(got.data);
  }
  free(expected.data);
  free_operands(&o);
  close_devices(&d);
}

static void compare_linear(devices *d, const int64_t size[3], qd_dtype dtype, qd_dtype output, bool has_bias) {
  operands o = make_operands(dtype, size[0], size[1], size[2], B_TRANSPOSED);
  qd_tensor w = qd_tensor_transposed(o.b), bias = qd_tensor_1d(random_numbers(QD_F32, size[1]), QD_F32, size[1]);
  EACH_ARITHMETIC(d, dtype) {
    qd_tensor expected = make_output(output, size[0], size[1], 7);
    OK(qd_linear(&d->ref, o.a, w, has_bias ? &bias : NULL, expected));
    for (int i = 0; i < d->n; i++) {
      qd_tensor got = make_output(output, size[0], size[1], 7);
      OK(qd_linear(&d->cpu[i], o.a, w, has_bias ? &bias : NULL, got));
      assert_same(got, expected, &d->cpu[i], "linear");
      free(got.data);
    }
    free(expected.data);
  }
  free(bias.data);
  free_operands(&o);
}

Test(gemm_cpu, linear_equals_ref) {
  static const int64_t sizes[][3] = {{1, 100, 300},  {3, 65, 513}, {30, 33, 256}, {800, 650, 2},
                                     {29, 1300, 10}, {2, 3, 0},    {0, 2, 3}};
  devices d = open_devices();
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
    for (int choice = 0; choice < 8; choice++)
      compare_linear(&d, sizes[i], choice & 1 ? QD_BF16 : QD_F32, choice & 2 ? QD_BF16 : QD_F32, choice & 4);
  close_devices(&d);
}

/* More columns than a thread has sums for at once. */
Test(gemm_cpu, rounded_outputs_wider_than_the_sums_equal_ref) {
  devices d = open_devices();
  compare_linear(&d, (const int64_t[]){28, 17600, 3}, QD_BF16, QD_BF16, true);
  close_devices(&d);
}

/* Rounding errors of a chain and of the sum of chunks: at most K + K / 256 + 2 roundings of 2^-24 of the sum of magnitudes. */
Test(gemm_cpu, ref_is_near_ref64) {
  enum { M = 7, N = 9, K = 700 };
  qd_device ref = open_device("ref", NULL, 1), ref64 = open_device("ref64", NULL, 1);
  operands o = make_operands(QD_F32, M, N, K, B_TRANSPOSED);
  float c[M * N];
  double exact[M * N];
  qd_tensor a = as_f64(o.a), b = as_f64(o.b);
  OK(qd_matmul(&ref, o.a, o.b, false, qd_tensor_2d(c, QD_F32, M, N)));
  OK(qd_matmul(&ref64, a, b, false, qd_tensor_2d(exact, QD_F64, M, N)));
  for (int i = 0; i < M; i++)
    for (int j = 0; j < N; j++) {
      double magnitude = 0;
      for (int k = 0; k < K; k++) magnitude += fabs(((double *)a.data)[i * K + k] * ((double *)b.data)[k * N + j]);
      double error = fabs((double)c[i * N + j] - exact[i * N + j]);
      cr_assert(error <= (K + K / 256 + 2) * 0x1p-24 * magnitude && error < 1e-3, "element %d, %d is off by %g", i, j, error);
    }
  free(a.data);
  free(b.data);
  free_operands(&o);
  qd_device_close(&ref);
  qd_device_close(&ref64);
}

#if defined(__x86_64__) && !defined(__AVX2__)

/* One chunk by the tiles alone. */
static void portable_product(qd_panel_kind kind, qd_tensor a, qd_tensor b, qd_tensor c) {
  const qd_gemm_unit *unit = qd_gemm_find_unit_portable(kind);
  int64_t steps = qd_panel_steps(kind, a.dim[1]), stride = qd_panel_stride(steps, unit->columns);
  int64_t panels = (c.dim[1] + unit->columns - 1) / unit->columns;
  unsigned char *packed_a = malloc((size_t)qd_panel_stride(steps, unit->rows) * unit->bytes),
                *packed_b = malloc((size_t)(panels * stride) * unit->bytes);
  cr_assert(packed_a && packed_b);
  unit->pack(&(qd_gemm_rows){b.data, b.stride[1], b.stride[0], b.dim[1], b.dim[0]}, unit->columns, packed_b);
  for (int64_t i = 0; i < c.dim[0]; i += unit->rows) {
    qd_tensor rows = qd_tensor_rows(a, i, c.dim[0] - i < unit->rows ? c.dim[0] - i : unit->rows);
    unit->pack(&(qd_gemm_rows){rows.data, a.stride[0], a.stride[1], rows.dim[0], a.dim[1]}, (int)rows.dim[0], packed_a);
    unit->strip(&(qd_gemm_strip){.steps = steps,
                                 .a = packed_a,
                                 .b = packed_b,
                                 .c = qd_tensor_rows(c, i, 1).data,
                                 .c_stride = c.stride[0],
                                 .rows = (int)rows.dim[0],
                                 .columns = c.dim[1],
                                 .update = QD_TILE_STORE});
  }
  free(packed_a);
  free(packed_b);
}

Test(gemm_cpu, portable_tiles_equal_ref) {
  static const int64_t sizes[][3] = {{1, 1, 1}, {9, 17, 255}, {16, 24, 256}, {30, 13, 33}};
  static const qd_panel_kind kinds[] = {QD_PANEL_F32, QD_PANEL_WIDE, QD_PANEL_F64, QD_PANEL_BLOCKS};
  static const qd_dtype dtypes[] = {QD_F32, QD_BF16, QD_F64, QD_BF16};
  qd_device ref = open_device("ref", NULL, 1);
  for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
    for (int t = 0; t < 4; t++)
      for (int kind = 0; kind < LAYOUTS; kind++) {
        operands o = make_operands(dtypes[t], sizes[s][0], sizes[s][1], sizes[s][2], (layout)kind);
        qd_dtype dtype = dtypes[t] == QD_F64 ? QD_F64 : QD_F32;
        ref.arithmetic = kinds[t] == QD_PANEL_BLOCKS ? QD_ARITHMETIC_BF16_AMX : QD_ARITHMETIC_BF16_PAIRS;
        qd_tensor expected = make_output(dtype, sizes[s][0], sizes[s][1], 9),
                  got = make_output(dtype, sizes[s][0], sizes[s][1], 9);
        OK(qd_matmul(&ref, o.a, o.b, false, expected));
        portable_product(kinds[t], o.a, o.b, got);
        assert_same(got, expected, &ref, "portable");
        free(got.data);
        free(expected.data);
        free_operands(&o);
      }
  qd_device_close(&ref);
}

#endif

Test(gemm_cpu, wrong_shapes_and_dtypes_are_refused) {
  qd_device cpu = open_device("cpu", NULL, 1);
  float x[64] = {0};
  qd_tensor t = qd_tensor_2d(x, QD_F32, 4, 4), wide = qd_tensor_2d(x, QD_F32, 4, 5), half = qd_tensor_2d(x, QD_BF16, 4, 4);
  qd_tensor turned = qd_tensor_transposed(t), line = qd_tensor_1d(x, QD_F32, 5), flat = qd_tensor_1d(x, QD_F32, 16);
  FAILS(QD_ESHAPE, qd_matmul(&cpu, wide, t, false, t));
  FAILS(QD_ESHAPE, qd_matmul(&cpu, t, t, false, wide));
  FAILS(QD_ESHAPE, qd_matmul(&cpu, flat, t, false, t));
  FAILS(QD_ESHAPE, qd_matmul(&cpu, t, t, false, turned));
  FAILS(QD_EDTYPE, qd_matmul(&cpu, t, half, false, t));
  FAILS(QD_EDTYPE, qd_matmul(&cpu, half, half, false, half));
  FAILS(QD_ESHAPE, qd_linear(&cpu, t, wide, NULL, t));
  FAILS(QD_ESHAPE, qd_linear(&cpu, t, t, NULL, wide));
  FAILS(QD_ESHAPE, qd_linear(&cpu, t, t, &line, t));
  FAILS(QD_EDTYPE, qd_linear(&cpu, t, half, NULL, t));
  FAILS(QD_EDTYPE, qd_linear(&cpu, qd_tensor_2d(x, QD_F64, 4, 4), qd_tensor_2d(x, QD_F64, 4, 4), NULL, t));
  qd_device_close(&cpu);
}
