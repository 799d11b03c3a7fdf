/* The strips and panels of the tile unit, by a model of its instructions: so that what runs on a machine with AMX is tested on
 * every machine.  test_gemm_cpu.c compares the unit itself, where it is, and the instructions that take its place elsewhere. */
#define QD_ISA_SUFFIX model
#include "kernels/isa.h"
#include "tests/kernels/products_support.h"

#include <math.h>

/* All that gemm_cpu.c calls is built here in plain C, with the model. */
#undef QD_ISA_CALL
#undef QD_ISA_DECLARE
#define QD_ISA_CALL(device, name, arguments) ((void)(device), name##_model arguments)
#define QD_ISA_DECLARE(type, name, parameters) type name##_model parameters

/* ---- the instructions, as Intel's manual writes them (Architecture Instruction Set Extensions, 319433: LDTILECFG, TILELOADD,
 * TDPBF16PS): registers of at most 16 rows of 64 bytes ---- */

typedef struct model_tile {
  int rows;
  float value[16][16]; /* of sums; pairs of bf16 by their bits */
} model_tile;
static model_tile model[8];

static void model_begin(int rows) {
  for (int t = 0; t < 8; t++) memset(&model[t], 0, sizeof model[t]);
  cr_assert(rows >= 1 && rows <= 32);
  model[0].rows = model[1].rows = model[4].rows = rows < 16 ? rows : 16;
  model[2].rows = model[3].rows = model[5].rows = rows > 16 ? rows - 16 : 1;
  model[6].rows = model[7].rows = 16;
}

static void model_end(void) {
  for (int t = 0; t < 8; t++) model[t].rows = 0;
}

static void model_zero(int t) { memset(model[t].value, 0, sizeof model[t].value); }

static void model_load(int t, const void *from, int bytes) {
  for (int r = 0; r < model[t].rows; r++) memcpy(model[t].value[r], (const char *)from + r * bytes, 64);
}

static void model_store(int t, void *to, int bytes) {
  for (int r = 0; r < model[t].rows; r++) memcpy((char *)to + r * bytes, model[t].value[r], 64);
}

static float half_of(const float *pair, int half) {
  uint16_t halves[2];
  memcpy(halves, pair, sizeof halves);
  return qd_bf16_to_f32(halves[half]);
}

static void model_multiply(int c, int a, int b) {
  cr_assert(model[c].rows == model[a].rows && model[b].rows == 16, "operands of different sizes");
  for (int m = 0; m < model[c].rows; m++) {
    float temp[32] = {0};
    for (int k = 0; k < 16; k++)
      for (int n = 0; n < 16; n++) {
        temp[2 * n] = fmaf(half_of(&model[a].value[m][k], 0), half_of(&model[b].value[k][n], 0), temp[2 * n]);
        temp[2 * n + 1] = fmaf(half_of(&model[a].value[m][k], 1), half_of(&model[b].value[k][n], 1), temp[2 * n + 1]);
      }
    for (int n = 0; n < 16; n++) model[c].value[m][n] += temp[2 * n] + temp[2 * n + 1];
  }
}

#define TILES_TARGET
#define TILES_BEGIN(rows) model_begin(rows)
#define TILES_END() model_end()
#define TILE_ZERO(t) model_zero(t)
#define TILE_LOAD(t, from, bytes) model_load(t, from, bytes)
#define TILE_STORE(t, to, bytes) model_store(t, to, bytes)
#define TILE_MULTIPLY(c, a, b) model_multiply(c, a, b)

#include "kernels/codes.h"
#include "kernels/gemm_unit.h"

#include "kernels/codes_isa.c"
#include "kernels/gemm_pack_isa.c"
#include "kernels/gemm_tile_isa.c"

#include "kernels/gemm_amx_isa.c"

#include "kernels/gemm_cpu.c"

/* Codes in panels are not in this build: no test here has any. */
void qd_code_panel_unpack_model(const qd_code_panels *from, qd_panel_kind kind, void *to) {
  (void)from, (void)kind, (void)to;
  cr_assert_fail("codes in panels");
}

void qd_code_panel_strip_model(const qd_code_panels *b, qd_panel_kind kind, const qd_gemm_strip *strip) {
  (void)b, (void)kind, (void)strip;
  cr_assert_fail("codes in panels");
}

/* ---- tests ---- */

static qd_device open_model(void) {
  qd_device device = open_device("cpu", qd_isa_best() == QD_ISA_PORTABLE ? NULL : "avx2", 1); /* plain C has no pairs */
  device.isa = QD_ISA_AMX;
  memset(device.packing, 0xff, qd_device_packing_bytes(&device)); /* NaNs, wherever a panel is not filled */
  OK(qd_device_use_arithmetic(&device, QD_ARITHMETIC_BF16_AMX));
  cr_assert_eq(device.isa, QD_ISA_AMX, "the model is proven as a unit is");
  return device;
}

static qd_device open_ref(void) {
  qd_device device = open_device("ref", NULL, 1);
  OK(qd_device_use_arithmetic(&device, QD_ARITHMETIC_BF16_AMX));
  return device;
}

/* a (m, k) and b (k, n), each along its rows or along k. */
typedef struct operands {
  void *memory[2];
  qd_tensor a, b;
} operands;

static operands make_operands(const int64_t size[3], bool a_turned, bool b_turned, unsigned least, unsigned most) {
  int64_t m = size[0], n = size[1], k = size[2];
  operands o = {.memory = {random_numbers(QD_BF16, m * k), random_numbers(QD_BF16, k * n)}};
  for (int64_t i = 0; i < m * k; i++) set_element(o.memory[0], QD_BF16, i, random_extreme(least, most));
  for (int64_t i = 0; i < k * n; i++) set_element(o.memory[1], QD_BF16, i, random_extreme(least, most));
  o.a = a_turned ? qd_tensor_transposed(qd_tensor_2d(o.memory[0], QD_BF16, k, m)) : qd_tensor_2d(o.memory[0], QD_BF16, m, k);
  o.b = b_turned ? qd_tensor_transposed(qd_tensor_2d(o.memory[1], QD_BF16, n, k)) : qd_tensor_2d(o.memory[1], QD_BF16, k, n);
  return o;
}

static void compare(qd_device *device, qd_device *ref, const operands *o, bool accumulate) {
  qd_tensor c[2];
  for (int i = 0; i < 2; i++) {
    int64_t n = o->a.dim[0] * (o->b.dim[1] + 1);
    c[i] = qd_tensor_2d(random_numbers(QD_F32, n), QD_F32, o->a.dim[0], o->b.dim[1] + 1);
    for (int64_t j = 0; j < n; j++) ((float *)c[i].data)[j] = (float)(j % 7) - 3;
    c[i].dim[1] = o->b.dim[1];
    OK(qd_matmul(i ? ref : device, o->a, o->b, accumulate, c[i]));
  }
  cr_assert(memcmp(c[0].data, c[1].data, (size_t)(c[0].dim[0] * c[0].stride[0]) * sizeof(float)) == 0,
            "%" PRId64 " x %" PRId64 " x %" PRId64 " differs", o->a.dim[0], o->b.dim[1], o->a.dim[1]);
  free(c[0].data);
  free(c[1].data);
}

/* One row and column, a row more and less than a tile and than two, blocks and chunks that are not whole, few rows and many. */
static void compare_shapes(qd_device *device) {
  static const int64_t sizes[][3] = {{1, 1, 1},     {1, 33, 257},  {15, 17, 31},   {16, 16, 32},  {17, 31, 33},  {31, 32, 64},
                                     {32, 33, 255}, {33, 64, 256}, {65, 40, 288},  {70, 50, 513}, {0, 3, 4},     {3, 0, 2},
                                     {2, 3, 0},     {128, 5, 3},   {9, 1300, 40},  {5, 8, 2700}};
  qd_device ref = open_ref();
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
    for (int layout = 0; layout < 8; layout++) {
      operands o = make_operands(sizes[i], layout & 1, layout & 2, 120, 130);
      compare(device, &ref, &o, layout & 4);
      free(o.memory[0]);
      free(o.memory[1]);
    }
  qd_device_close(&ref);
}

/* Denormals in, denormals out, infinities: {least, most} exponents. */
static void compare_extremes(qd_device *device) {
  static const unsigned exponents[][2] = {{0, 1}, {50, 70}, {60, 66}, {185, 190}};
  qd_device ref = open_ref();
  for (size_t e = 0; e < sizeof exponents / sizeof *exponents; e++) {
    operands o = make_operands((const int64_t[]){35, 37, 300}, false, true, exponents[e][0], exponents[e][1]);
    compare(device, &ref, &o, e % 2);
    free(o.memory[0]);
    free(o.memory[1]);
  }
  qd_device_close(&ref);
}

Test(gemm_amx, the_strips_equal_ref_in_the_manuals_model) {
  qd_device device = open_model();
  compare_shapes(&device);
  compare_extremes(&device);
  qd_device_close(&device);
}

/* Even and odd products apart, blocks of 32: three sums that no other order gives. */
Test(gemm_amx, the_order_is_the_sentence) {
  enum { K = 64 };
  float big = 0x1p24f, c;
  qd_device device = open_model(), ref = open_ref();
  uint16_t a[K], b[K];
  for (int k = 0; k < K; k++) a[k] = qd_bf16_from_f32(1), b[k] = qd_bf16_from_f32(k < 32 ? 1 : 0);
  qd_tensor x = qd_tensor_2d(a, QD_BF16, 1, K), y = qd_tensor_2d(b, QD_BF16, K, 1), z = qd_tensor_2d(&c, QD_F32, 1, 1);
  for (int i = 0; i < 2; i++) {
    qd_device *here = i ? &ref : &device;
    b[0] = qd_bf16_from_f32(big), b[1] = qd_bf16_from_f32(1), b[32] = 0;
    OK(qd_matmul(here, x, y, false, z)); /* the even ones are lost beside 2^24, the 16 odd ones are not */
    cr_expect_eq(c, big + 16);
    b[1] = qd_bf16_from_f32(big), b[0] = qd_bf16_from_f32(1);
    OK(qd_matmul(here, x, y, false, z));
    cr_expect_eq(c, big + 16);
    b[0] = qd_bf16_from_f32(big), b[1] = qd_bf16_from_f32(1), b[32] = qd_bf16_from_f32(-big);
    OK(qd_matmul(here, x, y, false, z)); /* a block is closed before the next one begins */
    cr_expect_eq(c, 16.0f);
  }
  qd_device_close(&device);
  qd_device_close(&ref);
}

/* The three orders are not the same by chance: a product on the wrong path would show. */
Test(gemm_amx, each_arithmetic_gives_bits_of_its_own) {
  qd_device device = open_ref();
  operands o = make_operands((const int64_t[]){8, 8, 300}, false, false, 120, 130);
  float amx[64], pairs[64];
  OK(qd_matmul(&device, o.a, o.b, false, qd_tensor_2d(amx, QD_F32, 8, 8)));
  OK(qd_device_use_arithmetic(&device, QD_ARITHMETIC_BF16_PAIRS));
  OK(qd_matmul(&device, o.a, o.b, false, qd_tensor_2d(pairs, QD_F32, 8, 8)));
  cr_expect_neq(memcmp(amx, pairs, sizeof amx), 0);
  free(o.memory[0]);
  free(o.memory[1]);
  qd_device_close(&device);
}
