#include "tests/kernels/forward_support.h"

typedef struct shape {
  int64_t queries, keys, heads, kv_heads, size, window;
} shape;

static const shape shapes[] = {
    {1, 1, 1, 1, 1, 0},       {5, 5, 2, 1, 3, 0},        {17, 17, 4, 2, 16, 0},    {85, 85, 3, 3, 7, 0},
    {300, 300, 2, 1, 33, 0},  {300, 300, 2, 2, 18, 20},  {13, 300, 4, 2, 9, 0},    {3, 600, 1, 1, 8, 100},
    {100, 700, 2, 1, 4, 300}, {2, 4200, 2, 1, 5, 0},     {6, 8200, 1, 1, 3, 4300}, {4, 40, 2, 2, 257, 0},
    {3, 9, 1, 1, 600, 2},     {6, 6, 3, 1, 2, 1},        {0, 5, 2, 1, 4, 0},       {100, 513, 1, 1, 6, 256},
    {257, 257, 1, 1, 1, 17},  {2, 300, 6, 1, 5, 1000},  {1, 530, 6, 2, 9, 0},     {1, 300, 100, 1, 3, 40},
    {1, 33, 9, 3, 16, 33},
};
enum { N_SHAPES = sizeof shapes / sizeof shapes[0] };

/* q, k and v as slices of one projection's output, as a decoder block has them. */
static qd_attention_args random_args(qd_dtype dtype, shape s) {
  qd_attention_args args = {.scale = (float)(3 / sqrt((double)s.size)), .window = s.window};
  qd_tensor fused = random_heads(dtype, s.keys, 2 * s.kv_heads, s.size, 3);
  args.k = args.v = fused;
  args.k.dim[1] = args.v.dim[1] = s.kv_heads;
  args.v.data = (unsigned char *)fused.data + s.kv_heads * fused.stride[1] * (int64_t)qd_dtype_bytes(dtype);
  args.q = random_heads(dtype, s.queries, s.heads, s.size, 2);
  args.out = random_heads(dtype, s.queries, s.heads, s.size, 1);
  return args;
}

static void check_cpu(qd_dtype dtype, shape s) {
  qd_attention_args args = random_args(dtype, s), wanted = args;
  wanted.out = copy(args.out);
  qd_device ref = open_named("ref"), device;
  OK(qd_attention(&ref, &wanted));
  for (int k = 0; open_cpu(&device, k); k++) {
    qd_attention_args got = args;
    got.out = copy(args.out);
    OK(qd_attention(&device, &got));
    cr_assert(same_bits(got.out, wanted.out), "%s, %d threads, %s: %" PRId64 " of %" PRId64 " x %" PRId64 ", window %" PRId64,
              qd_isa_name(device.isa), device.threads, qd_dtype_name(dtype), s.queries, s.keys, s.size, s.window);
    qd_device_close(&device);
  }
  qd_device_close(&ref);
  free_blocks();
}

Test(attention, cpu_equals_ref_in_fp32) {
  for (int i = 0; i < N_SHAPES; i++) check_cpu(QD_F32, shapes[i]);
}

Test(attention, cpu_equals_ref_in_bf16) {
  for (int i = 0; i < N_SHAPES; i++) check_cpu(QD_BF16, shapes[i]);
}

Test(attention, cpu_equals_ref_in_bf16_amx) {
  arithmetic = QD_ARITHMETIC_BF16_AMX;
  for (int i = 0; i < N_SHAPES; i++) check_cpu(QD_BF16, shapes[i]);
}

/* The formula in double; returns the largest difference. */
static double worst_against_formula(const qd_attention_args *args, qd_tensor out, shape s) {
  double *p = new_block((size_t)s.keys, sizeof *p), worst = 0;
  for (int64_t h = 0; h < s.heads; h++)
    for (int64_t i = 0; i < s.queries; i++) {
      int64_t position = s.keys - s.queries + i, kv = h / (s.heads / s.kv_heads);
      double sum = 0;
      for (int64_t j = 0; j <= position; j++) {
        double dot = 0;
        for (int64_t d = 0; d < s.size; d++)
          dot += get(args->q, i * args->q.stride[0] + h * args->q.stride[1] + d) *
                 get(args->k, j * args->k.stride[0] + kv * args->k.stride[1] + d);
        bool seen = s.window <= 0 || position - j < s.window;
        sum += p[j] = seen ? exp(dot * (double)args->scale) : 0;
      }
      for (int64_t d = 0; d < s.size; d++) {
        double value = 0;
        for (int64_t j = 0; j <= position; j++)
          value += p[j] / sum * get(args->v, j * args->v.stride[0] + kv * args->v.stride[1] + d);
        worst = fmax(worst, fabs(value - get(out, i * out.stride[0] + h * out.stride[1] + d)));
      }
    }
  return worst;
}

/* |v| is at most 1, so errors are absolute: a few units of 2^-24 in fp32, 2^-9 of P and of out in bf16. */
Test(attention, ref_and_ref64_compute_the_formula) {
  qd_device ref = open_named("ref"), ref64 = open_named("ref64");
  for (int i = 0; i < N_SHAPES; i++) {
    if (shapes[i].keys > 1000) continue;
    qd_attention_args args = random_args(QD_F32, shapes[i]), half = random_args(QD_BF16, shapes[i]), wide = args;
    OK(qd_attention(&ref, &args));
    OK(qd_attention(&ref, &half));
    cr_assert_leq(worst_against_formula(&args, args.out, shapes[i]), 32 * 0x1p-24);
    cr_assert_leq(worst_against_formula(&half, half.out, shapes[i]), 2 * 0x1p-9);
    wide.q = copy_as(args.q, QD_F64), wide.k = copy_as(args.k, QD_F64);
    wide.v = copy_as(args.v, QD_F64), wide.out = copy_as(args.out, QD_F64);
    OK(qd_attention(&ref64, &wide));
    cr_assert_leq(worst_against_formula(&wide, wide.out, shapes[i]), 1e-13);
    free_blocks();
  }
  qd_device_close(&ref);
  qd_device_close(&ref64);
}

/* A cache of keys and values: the last n queries alone give the rows of the full pass. */
static void check_cache(qd_dtype dtype, int64_t keys, int64_t window) {
  qd_attention_args full = random_args(dtype, (shape){keys, keys, 2, 1, 12, window});
  const int64_t counts[] = {1, 2, 29, 84, 85, 200};
  qd_device device;
  for (int k = 0; open_cpu(&device, k); k++) {
    OK(qd_attention(&device, &full));
    for (int c = 0; c < 6; c++)
      for (int64_t have = keys; have >= counts[c]; have -= 193) {
        qd_attention_args part = full;
        part.k = qd_tensor_rows(full.k, 0, have);
        part.v = qd_tensor_rows(full.v, 0, have);
        part.q = qd_tensor_rows(full.q, have - counts[c], counts[c]);
        part.out = copy(qd_tensor_rows(full.out, have - counts[c], counts[c]));
        qd_tensor wanted = copy(part.out);
        memset(part.out.data, 0x7f, (size_t)extent(part.out) * qd_dtype_bytes(dtype));
        OK(qd_attention(&device, &part));
        for (int64_t i = 0; i < counts[c]; i++)
          for (int64_t h = 0; h < 2; h++)
            for (int64_t d = 0; d < 12; d++) {
              int64_t at = i * wanted.stride[0] + h * wanted.stride[1] + d;
              cr_assert_eq(get(part.out, at), get(wanted, at));
            }
      }
    qd_device_close(&device);
  }
  free_blocks();
}

Test(attention, with_a_cache_equals_the_full_pass) {
  check_cache(QD_F32, 500, 0);
  check_cache(QD_BF16, 500, 0);
  check_cache(QD_F32, 400, 37);
  check_cache(QD_BF16, 600, 300);
}

Test(attention, with_a_cache_equals_the_full_pass_in_bf16_amx) {
  arithmetic = QD_ARITHMETIC_BF16_AMX;
  check_cache(QD_BF16, 500, 0);
  check_cache(QD_BF16, 600, 300);
}

Test(attention, a_window_of_one_gives_the_values, .fini = free_blocks) {
  qd_attention_args args = random_args(QD_F32, (shape){300, 300, 2, 2, 4, 1});
  qd_device device = open_named("cpu");
  OK(qd_attention(&device, &args));
  for (int64_t i = 0; i < 300; i++)
    for (int64_t h = 0; h < 2; h++)
      for (int64_t d = 0; d < 4; d++)
        cr_assert_eq(get(args.out, i * args.out.stride[0] + h * args.out.stride[1] + d),
                     get(args.v, i * args.v.stride[0] + h * args.v.stride[1] + d));
  qd_device_close(&device);
}

Test(attention, equal_scores_average_the_values_seen, .fini = free_blocks) {
  float q[4] = {0}, k[4] = {1, 2, 3, 4}, v[4] = {8, 4, 0, 20}, out[4];
  qd_attention_args args = {.q = qd_tensor_3d(q, QD_F32, 4, 1, 1), .k = qd_tensor_3d(k, QD_F32, 4, 1, 1),
                            .v = qd_tensor_3d(v, QD_F32, 4, 1, 1), .out = qd_tensor_3d(out, QD_F32, 4, 1, 1), .scale = 1};
  qd_device device;
  for (int n = 0; open_any(&device, n); n++) {
    OK(qd_attention(&device, &args));
    cr_assert_eq(out[0], 8);
    cr_assert_eq(out[1], 6);
    cr_assert_float_eq(out[2], 4, 1e-6);
    cr_assert_eq(out[3], 8);
    qd_device_close(&device);
  }
}

/* A product that is flushed leaves -0, which a zero for an unseen key would turn: the result has no -0 anywhere. */
Test(attention, has_no_negative_zero, .fini = free_blocks) {
  enum { T = 300 };
  for (int64_t window = 0; window < 60; window += 29) {
    qd_attention_args args = random_args(QD_F32, (shape){T, T, 1, 1, 3, window}), wanted = args;
    for (int64_t i = 0; i < T; i++)
      for (int64_t d = 0; d < 3; d++) set(args.v, i * args.v.stride[0] + d, -1.5 * (double)0x1p-126f);
    memset(args.q.data, 0, (size_t)extent(args.q) * sizeof(float));
    wanted.out = copy(args.out);
    qd_device ref = open_named("ref"), device;
    OK(qd_attention(&ref, &wanted));
    cr_assert(!signbit(get(wanted.out, 250 * args.out.stride[0])));
    for (int n = 0; open_cpu(&device, n); n++) {
      OK(qd_attention(&device, &args));
      cr_assert(same_bits(args.out, wanted.out));
      qd_device_close(&device);
    }
    qd_device_close(&ref);
  }
}

Test(attention, refuses_what_does_not_fit, .fini = free_blocks) {
  qd_device device = open_named("cpu");
  qd_attention_args good = random_args(QD_F32, (shape){3, 5, 4, 2, 6, 0}), bad = good;
  bad.k = random_heads(QD_F32, 5, 3, 6, 0), bad.v = bad.k;
  REFUSED(QD_ESHAPE, qd_attention(&device, &bad));
  bad = good, bad.v = random_heads(QD_F32, 4, 2, 6, 0);
  REFUSED(QD_ESHAPE, qd_attention(&device, &bad));
  bad = good, bad.k = random_heads(QD_F32, 5, 2, 7, 0);
  REFUSED(QD_ESHAPE, qd_attention(&device, &bad));
  bad = good, bad.q = bad.out = random_heads(QD_F32, 6, 4, 6, 0);
  REFUSED(QD_ESHAPE, qd_attention(&device, &bad));
  bad = good, bad.out = random_heads(QD_F32, 2, 4, 6, 0);
  REFUSED(QD_ESHAPE, qd_attention(&device, &bad));
  bad = good, bad.k.dim[1] = bad.v.dim[1] = 0;
  REFUSED(QD_ESHAPE, qd_attention(&device, &bad));
  bad = good, bad.v = copy_as(good.v, QD_BF16);
  REFUSED(QD_EDTYPE, qd_attention(&device, &bad));
  bad = good, bad.q.stride[2] = 2;
  REFUSED(QD_ESHAPE, qd_attention(&device, &bad));
  qd_device_close(&device);
}
