/* Each operation is called with tensors that fit, then with one of them damaged in one way: nothing may run. */
#include "tests/kernels/forward_support.h"

enum { MAX_TENSORS = 4, T = 4, C = 6 };

typedef struct call {
  const char *name;
  qd_status (*run)(qd_device *device, qd_tensor *t);
  int       n;
  qd_tensor t[MAX_TENSORS];
  int       free_dimension[MAX_TENSORS]; /* one that nothing else depends on, + 1; 0: none */
} call;

static qd_status run_embed(qd_device *device, qd_tensor *t) { return qd_embed(device, t[0], t[1], t[2]); }
static qd_status run_rmsnorm(qd_device *device, qd_tensor *t) { return qd_rmsnorm(device, t[0], t[1], 1e-5, t[2]); }
static qd_status run_rope_table(qd_device *device, qd_tensor *t) { return qd_rope_table(device, t[0], 0, 1, t[1], t[2]); }
static qd_status run_rope(qd_device *device, qd_tensor *t) { return qd_rope(device, t[0], t[1], t[2]); }
static qd_status run_swiglu(qd_device *device, qd_tensor *t) { return qd_swiglu(device, t[0], t[1], t[2]); }
static qd_status run_add(qd_device *device, qd_tensor *t) { return qd_add(device, t[0], t[1], t[2]); }
static qd_status run_gather_columns(qd_device *device, qd_tensor *t) { return qd_gather_columns(device, t[0], t[1], t[2]); }
static qd_status run_nll(qd_device *device, qd_tensor *t) { return qd_nll(device, t[0], t[1], t[2]); }
static qd_status run_kl(qd_device *device, qd_tensor *t) { return qd_kl(device, t[0], t[1], t[2], t[3]); }

static qd_status run_attention(qd_device *device, qd_tensor *t) {
  qd_attention_args args = {.q = t[0], .k = t[1], .v = t[2], .out = t[3], .scale = 1};
  return qd_attention(device, &args);
}

static qd_status run_find_nonfinite(qd_device *device, qd_tensor *t) {
  int64_t index;
  return qd_find_nonfinite(device, t[0], &index);
}

static qd_tensor vector(qd_dtype dtype, int64_t n) { return qd_tensor_1d(new_block((size_t)n, 8), dtype, n); }
static qd_tensor matrix(qd_dtype dtype, int64_t rows, int64_t columns) {
  return qd_tensor_2d(new_block((size_t)(rows * columns), 8), dtype, rows, columns);
}
static qd_tensor heads(qd_dtype dtype, int64_t tokens, int64_t n, int64_t size) {
  return qd_tensor_3d(new_block((size_t)(tokens * n * size), 8), dtype, tokens, n, size);
}

static int every_call(qd_dtype act, call *calls) {
  qd_tensor x = matrix(act, T, C), y = matrix(act, T, C), logits = matrix(QD_F32, T, C), turn = matrix(QD_F32, T, C / 2);
  qd_tensor order = vector(QD_I32, C), ids = vector(QD_I32, T), value = vector(QD_F64, T);
  qd_tensor q = heads(act, T, 4, C), kv = heads(act, 5, 2, C);
  const call all[] = {
      {"embed", run_embed, 3, {matrix(act, 9, C), ids, y}, {1}},
      {"rmsnorm", run_rmsnorm, 3, {x, vector(QD_F32, C), y}, {0}},
      {"rope_table", run_rope_table, 3, {vector(QD_F64, C / 2), turn, turn}, {0}},
      {"rope", run_rope, 3, {heads(act, T, 2, C), turn, turn}, {2}},
      {"attention", run_attention, 4, {q, kv, kv, q}, {0}},
      {"swiglu", run_swiglu, 3, {x, x, y}, {0}},
      {"add", run_add, 3, {x, x, y}, {0}},
      {"gather_columns", run_gather_columns, 3, {x, order, y}, {0}},
      {"nll", run_nll, 3, {logits, ids, value}, {2}},
      {"kl", run_kl, 4, {logits, logits, value, ids}, {0}},
  };
  memcpy(calls, all, sizeof all);
  return sizeof all / sizeof all[0];
}

static void expect(qd_device *device, call c, qd_status status, int i, const char *damage) {
  qd_error_clear();
  cr_assert_eq(c.run(device, c.t), status, "%s: tensor %d, %s", c.name, i, damage);
  cr_assert_eq(strncmp(qd_error_text(), c.name, strlen(c.name)), 0, "%s: %s", c.name, qd_error_text());
}

static void damage_each_tensor(qd_device *device, const call *good) {
  for (int i = 0; i < good->n; i++) {
    call bad = *good;
    qd_tensor *t = &bad.t[i];
    t->dtype = QD_U8;
    expect(device, bad, QD_EDTYPE, i, "another dtype");
    *t = good->t[i], t->dtype = t->dtype == QD_F64 ? QD_F32 : QD_F64;
    expect(device, bad, QD_EDTYPE, i, "another number type");
    *t = good->t[i], t->dim[t->rank] = 1, t->stride[t->rank] = 1, t->rank++;
    expect(device, bad, QD_ESHAPE, i, "one dimension more");
    *t = good->t[i], t->stride[t->rank - 1] = 2;
    expect(device, bad, QD_ESHAPE, i, "gaps in the last dimension");
    for (int d = 0; d < t->rank; d++) {
      if (good->free_dimension[i] == d + 1) continue;
      *t = good->t[i], t->dim[d]++;
      expect(device, bad, QD_ESHAPE, i, "a dimension one larger");
    }
  }
}

Test(ops_forward, refuses_every_tensor_that_does_not_fit, .fini = free_blocks) {
  const qd_dtype acts[] = {QD_F32, QD_BF16};
  qd_device device = open_named("cpu");
  for (int a = 0; a < 2; a++) {
    call calls[16];
    int n = every_call(acts[a], calls);
    for (int i = 0; i < n; i++) {
      OK(calls[i].run(&device, calls[i].t));
      damage_each_tensor(&device, &calls[i]);
    }
  }
  qd_device_close(&device);
}

Test(ops_forward, refuses_activations_of_another_type, .fini = free_blocks) {
  const qd_dtype others[] = {QD_F16, QD_F64, QD_I32};
  qd_device device = open_named("cpu");
  for (int o = 0; o < 3; o++) {
    call calls[16];
    int n = every_call(others[o], calls);
    for (int i = 0; i < n; i++)
      if (calls[i].t[0].dtype == others[o] && calls[i].run != run_rope_table)
        expect(&device, calls[i], QD_EDTYPE, -1, "all activations of it");
  }
  qd_device_close(&device);
}

Test(ops_forward, ref64_takes_doubles_only, .fini = free_blocks) {
  qd_device device = open_named("ref64");
  qd_tensor x = matrix(QD_F64, T, C), narrow = matrix(QD_BF16, T, C), single = matrix(QD_F32, T, C);
  OK(qd_add(&device, x, x, x));
  REFUSED(QD_EDTYPE, qd_add(&device, narrow, narrow, narrow));
  REFUSED(QD_EDTYPE, qd_add(&device, single, single, single));
  qd_device_close(&device);
}

static void refuse_index(qd_device *device, call c, int i, int32_t index, const char *text) {
  ((int32_t *)c.t[i].data)[2] = index;
  REFUSED(QD_EBADINPUT, c.run(device, c.t));
  cr_assert_str_eq(qd_error_text(), text);
  ((int32_t *)c.t[i].data)[2] = 0;
}

Test(ops_forward, refuses_indices_out_of_range, .fini = free_blocks) {
  call calls[16];
  qd_device device = open_named("cpu");
  every_call(QD_F32, calls);
  refuse_index(&device, calls[0], 1, 9, "embed: the id at 2 is 9, expected 0 to 8");
  refuse_index(&device, calls[0], 1, -1, "embed: the id at 2 is -1, expected 0 to 8");
  refuse_index(&device, calls[7], 1, 6, "gather_columns: the column at 2 is 6, expected 0 to 5");
  refuse_index(&device, calls[7], 1, -1, "gather_columns: the column at 2 is -1, expected 0 to 5");
  refuse_index(&device, calls[8], 1, 6, "nll: the target at 2 is 6, expected -1 to 5");
  refuse_index(&device, calls[8], 1, -2, "nll: the target at 2 is -2, expected -1 to 5");
  qd_device_close(&device);
}

Test(ops_forward, refuses_heads_that_do_not_fit, .fini = free_blocks) {
  qd_device device = open_named("cpu");
  qd_tensor q = heads(QD_F32, T, 4, C), kv = heads(QD_F32, T, 3, C), none = heads(QD_F32, T, 0, C);
  qd_tensor few = heads(QD_F32, 3, 2, C), odd = heads(QD_F32, T, 1, 5), turn = matrix(QD_F32, T, 2);
  REFUSED(QD_ESHAPE, run_attention(&device, (qd_tensor[]){q, kv, kv, q}));
  REFUSED(QD_ESHAPE, run_attention(&device, (qd_tensor[]){q, none, none, q}));
  REFUSED(QD_ESHAPE, run_attention(&device, (qd_tensor[]){q, few, few, q}));
  REFUSED(QD_ESHAPE, run_rope(&device, (qd_tensor[]){odd, turn, turn}));
  qd_device_close(&device);
}

Test(ops_forward, find_nonfinite_takes_contiguous_numbers, .fini = free_blocks) {
  qd_device device = open_named("cpu");
  qd_tensor x = matrix(QD_F32, T, C);
  OK(run_find_nonfinite(&device, &x));
  qd_tensor gap = qd_tensor_columns(x, 0, 3), integers = matrix(QD_I64, T, C), wide = matrix(QD_F64, T, C);
  REFUSED(QD_ESHAPE, run_find_nonfinite(&device, &gap));
  REFUSED(QD_EDTYPE, run_find_nonfinite(&device, &integers));
  REFUSED(QD_EDTYPE, run_find_nonfinite(&device, &wide));
  qd_device_close(&device);
}
