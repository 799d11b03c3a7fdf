#include "tests/kernels/forward_support.h"

typedef struct sizes {
  int64_t keys, heads, kv_heads, size, window;
} sizes;

/* Sizes within a panel, whole panels, and more than a chunk; keys beyond a chunk; heads that share keys, and more than a tile
 * has rows. */
static const sizes shapes[] = {
    {1, 1, 1, 1, 0},    {40, 2, 2, 16, 0}, {300, 3, 1, 64, 0}, {257, 4, 2, 33, 40}, {600, 1, 1, 20, 300},
    {130, 2, 1, 128, 0}, {35, 2, 1, 256, 7}, {34, 2, 1, 300, 0}, {70, 90, 1, 3, 1000},
};
enum { N_SHAPES = sizeof shapes / sizeof shapes[0] };

/* How many tokens come together, again and again. */
static const int64_t parts[][4] = {{1, 1, 1, 1}, {1000, 1, 1, 1}, {2, 1, 31, 1}, {128, 1, 1, 90}};
enum { N_PARTS = sizeof parts / sizeof parts[0] };

static qd_attention_args random_args(qd_dtype dtype, sizes s) {
  qd_attention_args args = {.scale = (float)(3 / sqrt((double)s.size)), .window = s.window};
  args.q = random_heads(dtype, s.keys, s.heads, s.size, 2);
  args.k = random_heads(dtype, s.keys, s.kv_heads, s.size, 3);
  args.v = random_heads(dtype, s.keys, s.kv_heads, s.size, 1);
  args.out = random_heads(dtype, s.keys, s.heads, s.size, 1);
  return args;
}

/* In memory that is no zeros. */
static qd_kv new_kv(qd_device *device, qd_arena *arena, qd_kv shape) {
  size_t bytes = qd_kv_bytes(device, &shape);
  qd_kv kv;
  void *all;
  OK(qd_arena_open(arena, "cache", bytes + 1));
  OK(qd_arena_new(arena, bytes, 1, &all));
  memset(all, 0xff, bytes);
  qd_arena_rewind(arena, 0);
  OK(qd_kv_new(device, arena, &shape, &kv));
  cr_assert_eq(arena->used_bytes, bytes);
  return kv;
}

/* The tokens [first, first + n) join and look back. */
static void pass(qd_device *device, qd_kv *kv, const qd_attention_args *args, int64_t first, int64_t n) {
  qd_kv_attend_args now = {.kv = kv, .scale = args->scale, .window = args->window, .q = qd_tensor_rows(args->q, first, n),
                           .out = qd_tensor_rows(args->out, first, n)};
  size_t used = device->scratch.used_bytes;
  OK(qd_kv_append(device, kv, first, qd_tensor_rows(args->k, first, n), qd_tensor_rows(args->v, first, n)));
  cr_assert_eq(kv->n, first + n);
  OK(qd_kv_attend(device, &now));
  cr_assert_eq(device->scratch.used_bytes, used, "scratch is not rewound");
}

static void check_parts(qd_device *device, const qd_attention_args *args, qd_tensor wanted, const int64_t *part) {
  qd_attention_args got = *args;
  qd_arena arena;
  int64_t keys = args->k.dim[0], size = args->k.dim[2];
  qd_kv kv = new_kv(device, &arena, qd_kv_shape(device, got.q.dtype, keys + size % 5, args->k.dim[1], size));
  got.out = copy(args->out);
  for (int64_t first = 0, i = 0; first < keys; i++) {
    int64_t n = part[i % 4] < keys - first ? part[i % 4] : keys - first;
    pass(device, &kv, &got, first, n);
    first += n;
  }
  cr_assert(same_bits(got.out, wanted), "%s %s, %d threads, %s: %" PRId64 " keys of %" PRId64 ", parts of %" PRId64,
            device->name, qd_isa_name(device->isa), device->threads, qd_dtype_name(got.q.dtype), keys, size, part[0]);
  qd_arena_close(&arena);
}

static void check(qd_dtype dtype) {
  qd_device ref = open_named("ref"), device;
  for (int i = 0; i < N_SHAPES; i++) {
    qd_attention_args args = random_args(dtype, shapes[i]), plain = args;
    plain.out = copy(args.out);
    OK(qd_attention(&ref, &plain));
    if (i < 2) check_parts(&ref, &args, plain.out, parts[2]);
    for (int k = 0; open_cpu(&device, k); k++) {
      for (int p = k % 2; p < N_PARTS; p += 2) check_parts(&device, &args, plain.out, parts[p]);
      qd_device_close(&device);
    }
    free_blocks();
  }
  qd_device_close(&ref);
}

Test(kv_cpu, equals_the_attention_in_fp32) { check(QD_F32); }
Test(kv_cpu, equals_the_attention_in_bf16) { check(QD_BF16); }

Test(kv_cpu, equals_the_attention_in_bf16_amx) {
  arithmetic = QD_ARITHMETIC_BF16_AMX;
  check(QD_BF16);
}

/* A text that is gone back in: what was behind is forgotten. */
Test(kv_cpu, other_tokens_take_the_place_of_those_behind) {
  for (int kind = 0; kind < 2; kind++) {
    qd_dtype dtype = kind ? QD_BF16 : QD_F32;
    const sizes s = {300, 2, 1, 24, 0};
    qd_attention_args args = random_args(dtype, s), other = random_args(dtype, s);
    qd_device device;
    qd_arena arena;
    for (int k = 0; open_any(&device, k); k++) {
      qd_kv kv = new_kv(&device, &arena, qd_kv_shape(&device, dtype, 300, 1, 24));
      qd_attention_args plain = args;
      plain.out = copy(args.out);
      OK(qd_attention(&device, &plain));
      pass(&device, &kv, &other, 0, 300);
      pass(&device, &kv, &args, 0, 77);
      pass(&device, &kv, &other, 77, 30);
      pass(&device, &kv, &args, 77, 223);
      cr_assert(same_bits(args.out, plain.out), "%s %s", device.name, qd_isa_name(device.isa));
      qd_arena_close(&arena);
      qd_device_close(&device);
    }
    free_blocks();
  }
}

Test(kv_cpu, refuses_what_does_not_fit, .fini = free_blocks) {
  qd_device device = open_named("cpu"), ref = open_named("ref");
  qd_arena arena, small;
  qd_kv shape = qd_kv_shape(&device, QD_F32, 5, 2, 6), kv = new_kv(&device, &arena, shape), bad = shape;
  qd_tensor k = random_heads(QD_F32, 3, 2, 6, 0), q = random_heads(QD_F32, 3, 4, 6, 0);
  qd_kv_attend_args args = {.kv = &kv, .q = q, .out = copy(q), .scale = 1}, wrong = args;
  OK(qd_kv_append(&device, &kv, 0, k, k));
  OK(qd_kv_attend(&device, &args));
  REFUSED(QD_EINVAL, qd_kv_append(&device, &kv, 3, k, k));
  REFUSED(QD_EINVAL, qd_kv_append(&device, &kv, 4, qd_tensor_rows(k, 0, 1), qd_tensor_rows(k, 0, 1)));
  REFUSED(QD_EINVAL, qd_kv_append(&device, &kv, -1, k, k));
  REFUSED(QD_ESHAPE, qd_kv_append(&device, &kv, 3, qd_tensor_rows(k, 0, 2), k));
  REFUSED(QD_ESHAPE, qd_kv_append(&device, &kv, 3, q, q));
  REFUSED(QD_EDTYPE, qd_kv_append(&device, &kv, 0, copy_as(k, QD_BF16), k));
  cr_assert_eq(kv.n, 3);
  REFUSED(QD_EINVAL, qd_kv_append(&ref, &kv, 0, k, k));
  REFUSED(QD_EINVAL, qd_kv_attend(&ref, &args));
  wrong.q = wrong.out = random_heads(QD_F32, 4, 4, 6, 0);
  REFUSED(QD_ESHAPE, qd_kv_attend(&device, &wrong));
  wrong = args, wrong.q = wrong.out = random_heads(QD_F32, 3, 3, 6, 0);
  REFUSED(QD_ESHAPE, qd_kv_attend(&device, &wrong));
  wrong = args, wrong.out = copy_as(q, QD_BF16);
  REFUSED(QD_EDTYPE, qd_kv_attend(&device, &wrong));
  OK(qd_arena_open(&small, "small", 64));
  REFUSED(QD_ENOMEM, qd_kv_new(&device, &small, &shape, &bad));
  shape.size = 0;
  REFUSED(QD_ESHAPE, qd_kv_new(&device, &arena, &shape, &bad));
  qd_arena_close(&small);
  qd_arena_close(&arena);
  qd_device_close(&device);
  qd_device_close(&ref);
}
