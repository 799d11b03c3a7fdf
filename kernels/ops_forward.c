/* The contract's checks of the forward's and the evaluation's operations; the device does the rest. */
#include "kernels/ops_table.h"

#include <string.h>

/* What the contract calls F32 is F64 on the device that computes everything in double; so are its activations. */
static qd_dtype real_dtype(const qd_device *device) { return strcmp(device->name, "ref64") == 0 ? QD_F64 : QD_F32; }

static qd_status check_act(const qd_device *device, const char *op, const char *name, qd_tensor t) {
  qd_dtype real = real_dtype(device);
  QD_CHECK(t.dtype == real || (t.dtype == QD_BF16 && real == QD_F32), QD_EDTYPE, "%s: %s is %s, expected %s", op, name,
           qd_dtype_name(t.dtype), real == QD_F32 ? "F32 or BF16" : "F64");
  return QD_OK;
}

static qd_status check_dtype(const char *op, const char *name, qd_tensor t, qd_dtype expected) {
  QD_CHECK(t.dtype == expected, QD_EDTYPE, "%s: %s is %s, expected %s", op, name, qd_dtype_name(t.dtype),
           qd_dtype_name(expected));
  return QD_OK;
}

/* So many dimensions, the last one without gaps. */
static qd_status check_rank(const char *op, const char *name, qd_tensor t, int rank) {
  QD_CHECK(t.rank == rank, QD_ESHAPE, "%s: %s has %d dimensions, expected %d", op, name, t.rank, rank);
  QD_CHECK(t.dim[rank - 1] <= 1 || t.stride[rank - 1] == 1, QD_ESHAPE, "%s: %s has a last stride of %" PRId64 ", expected 1",
           op, name, t.stride[rank - 1]);
  return QD_OK;
}

static qd_status check_vector(const char *op, const char *name, qd_tensor t, int64_t n) {
  QD_TRY(check_rank(op, name, t, 1));
  QD_CHECK(t.dim[0] == n, QD_ESHAPE, "%s: %s has %" PRId64 " elements, expected %" PRId64, op, name, t.dim[0], n);
  return QD_OK;
}

static qd_status check_matrix(const char *op, const char *name, qd_tensor t, int64_t rows, int64_t columns) {
  QD_TRY(check_rank(op, name, t, 2));
  QD_CHECK(t.dim[0] == rows && t.dim[1] == columns, QD_ESHAPE,
           "%s: %s is %" PRId64 " x %" PRId64 ", expected %" PRId64 " x %" PRId64, op, name, t.dim[0], t.dim[1], rows, columns);
  return QD_OK;
}

static qd_status check_heads(const char *op, const char *name, qd_tensor t, int64_t tokens, int64_t heads, int64_t size) {
  QD_TRY(check_rank(op, name, t, 3));
  QD_CHECK(t.dim[0] == tokens && t.dim[1] == heads && t.dim[2] == size, QD_ESHAPE,
           "%s: %s is %" PRId64 " x %" PRId64 " x %" PRId64 ", expected %" PRId64 " x %" PRId64 " x %" PRId64, op, name,
           t.dim[0], t.dim[1], t.dim[2], tokens, heads, size);
  return QD_OK;
}

/* Queries against so many keys of kv heads. */
static qd_status check_shared(const char *op, qd_tensor q, int64_t kv_heads, int64_t keys) {
  QD_CHECK(kv_heads > 0 && q.dim[1] % kv_heads == 0, QD_ESHAPE,
           "%s: %" PRId64 " heads do not share %" PRId64 " key-value heads evenly", op, q.dim[1], kv_heads);
  QD_CHECK(q.dim[0] <= keys, QD_ESHAPE, "%s: %" PRId64 " queries, but only %" PRId64 " keys", op, q.dim[0], keys);
  return QD_OK;
}

/* I32 indices within [least, limit). */
static qd_status check_indices(const char *op, const char *name, qd_tensor t, int32_t least, int64_t limit) {
  QD_TRY(check_dtype(op, name, t, QD_I32));
  const int32_t *index = t.data;
  for (int64_t i = 0; i < t.dim[0]; i++)
    QD_CHECK(index[i] >= least && index[i] < limit, QD_EBADINPUT,
             "%s: %s at %" PRId64 " is %" PRId32 ", expected %" PRId32 " to %" PRId64, op, name, i, index[i], least, limit - 1);
  return QD_OK;
}

qd_status qd_embed(qd_device *device, qd_tensor table, qd_tensor ids, qd_tensor y) {
  QD_TRY(check_act(device, "embed", "table", table));
  QD_TRY(check_dtype("embed", "y", y, table.dtype));
  QD_TRY(check_rank("embed", "table", table, 2));
  QD_TRY(check_rank("embed", "ids", ids, 1));
  QD_TRY(check_matrix("embed", "y", y, ids.dim[0], table.dim[1]));
  QD_TRY(check_indices("embed", "the id", ids, 0, table.dim[0]));
  return device->ops->embed(device, table, ids, y);
}

qd_status qd_rmsnorm(qd_device *device, qd_tensor x, qd_tensor w, double eps, qd_tensor y) {
  QD_TRY(check_act(device, "rmsnorm", "x", x));
  QD_TRY(check_dtype("rmsnorm", "w", w, real_dtype(device)));
  QD_TRY(check_dtype("rmsnorm", "y", y, x.dtype));
  QD_TRY(check_rank("rmsnorm", "x", x, 2));
  QD_TRY(check_vector("rmsnorm", "w", w, x.dim[1]));
  QD_TRY(check_matrix("rmsnorm", "y", y, x.dim[0], x.dim[1]));
  return device->ops->rmsnorm(device, x, w, eps, y);
}

qd_status qd_rope_table(qd_device *device, qd_tensor frequency, int64_t first, double factor, qd_tensor cosine,
                        qd_tensor sine) {
  QD_TRY(check_dtype("rope_table", "frequency", frequency, QD_F64));
  QD_TRY(check_dtype("rope_table", "cosine", cosine, real_dtype(device)));
  QD_TRY(check_dtype("rope_table", "sine", sine, real_dtype(device)));
  QD_TRY(check_rank("rope_table", "frequency", frequency, 1));
  QD_TRY(check_matrix("rope_table", "cosine", cosine, cosine.dim[0], frequency.dim[0]));
  QD_TRY(check_matrix("rope_table", "sine", sine, cosine.dim[0], frequency.dim[0]));
  return device->ops->rope_table(device, frequency, first, factor, cosine, sine);
}

qd_status qd_rope(qd_device *device, qd_tensor x, qd_tensor cosine, qd_tensor sine) {
  QD_TRY(check_act(device, "rope", "x", x));
  QD_TRY(check_dtype("rope", "cosine", cosine, real_dtype(device)));
  QD_TRY(check_dtype("rope", "sine", sine, real_dtype(device)));
  QD_TRY(check_rank("rope", "x", x, 3));
  QD_CHECK(x.dim[2] % 2 == 0, QD_ESHAPE, "rope: the head size is %" PRId64 ", expected an even one", x.dim[2]);
  QD_TRY(check_matrix("rope", "cosine", cosine, x.dim[0], x.dim[2] / 2));
  QD_TRY(check_matrix("rope", "sine", sine, x.dim[0], x.dim[2] / 2));
  return device->ops->rope(device, x, cosine, sine);
}

qd_status qd_attention(qd_device *device, const qd_attention_args *args) {
  qd_tensor q = args->q, k = args->k;
  QD_TRY(check_act(device, "attention", "q", q));
  QD_TRY(check_dtype("attention", "k", k, q.dtype));
  QD_TRY(check_dtype("attention", "v", args->v, q.dtype));
  QD_TRY(check_dtype("attention", "out", args->out, q.dtype));
  QD_TRY(check_rank("attention", "q", q, 3));
  QD_TRY(check_heads("attention", "k", k, k.dim[0], k.dim[1], q.dim[2]));
  QD_TRY(check_heads("attention", "v", args->v, k.dim[0], k.dim[1], q.dim[2]));
  QD_TRY(check_heads("attention", "out", args->out, q.dim[0], q.dim[1], q.dim[2]));
  QD_TRY(check_shared("attention", q, k.dim[1], k.dim[0]));
  return device->ops->attention(device, args);
}

/* ---- keys and values that are kept ---- */

static bool is_cpu(const qd_device *device) { return strcmp(device->name, "cpu") == 0; }

qd_kv qd_kv_shape(const qd_device *device, qd_dtype act, int64_t positions, int64_t heads, int64_t size) {
  return (qd_kv){.act = act, .arithmetic = device->arithmetic, .isa = device->isa, .positions = positions, .heads = heads,
                 .size = size, .packed = is_cpu(device)};
}

size_t qd_kv_bytes(const qd_device *device, const qd_kv *shape) {
  size_t n = (size_t)(shape->positions * shape->heads * shape->size);
  if (!is_cpu(device)) return 2 * qd_arena_cost(n, qd_dtype_bytes(shape->act));
  return qd_arena_cost(qd_cpu_kv_side_bytes(device, shape, false), 1) +
         qd_arena_cost(qd_cpu_kv_side_bytes(device, shape, true), 1);
}

static qd_status check_kv(const qd_device *device, const char *op, const qd_kv *kv) {
  QD_CHECK(kv->packed == is_cpu(device) && kv->isa == device->isa && kv->arithmetic == device->arithmetic, QD_EINVAL,
           "%s: the cache was made by a device with other units or another arithmetic (%s, %s; here %s, %s)", op,
           qd_isa_name(kv->isa), qd_arithmetic_name(kv->arithmetic), qd_isa_name(device->isa),
           qd_arithmetic_name(device->arithmetic));
  return QD_OK;
}

qd_status qd_kv_new(qd_device *device, qd_arena *arena, const qd_kv *shape, qd_kv *out) {
  *out = *shape;
  QD_TRY(check_act(device, "kv_new", "the cache", (qd_tensor){.dtype = shape->act}));
  QD_TRY(check_kv(device, "kv_new", shape));
  QD_CHECK(shape->positions >= 0 && shape->heads > 0 && shape->size > 0, QD_ESHAPE,
           "kv_new: %" PRId64 " positions of %" PRId64 " heads of %" PRId64 ", expected heads and a size", shape->positions,
           shape->heads, shape->size);
  return device->ops->kv_new(device, arena, out);
}

qd_status qd_kv_append(qd_device *device, qd_kv *kv, int64_t first, qd_tensor k, qd_tensor v) {
  QD_TRY(check_kv(device, "kv_append", kv));
  QD_TRY(check_dtype("kv_append", "k", k, kv->act));
  QD_TRY(check_dtype("kv_append", "v", v, kv->act));
  QD_TRY(check_heads("kv_append", "k", k, k.dim[0], kv->heads, kv->size));
  QD_TRY(check_heads("kv_append", "v", v, k.dim[0], kv->heads, kv->size));
  QD_CHECK(first >= 0 && first <= kv->n && k.dim[0] <= kv->positions - first, QD_EINVAL,
           "kv_append: %" PRId64 " tokens from position %" PRId64 " on, where %" PRId64 " of %" PRId64 " are there", k.dim[0],
           first, kv->n, kv->positions);
  kv->n = first + k.dim[0];
  return device->ops->kv_append(device, kv, first, k, v);
}

qd_status qd_kv_attend(qd_device *device, const qd_kv_attend_args *args) {
  qd_tensor q = args->q;
  const qd_kv *kv = args->kv;
  QD_TRY(check_kv(device, "kv_attend", kv));
  QD_TRY(check_dtype("kv_attend", "q", q, kv->act));
  QD_TRY(check_dtype("kv_attend", "out", args->out, kv->act));
  QD_TRY(check_heads("kv_attend", "q", q, q.dim[0], q.dim[1], kv->size));
  QD_TRY(check_heads("kv_attend", "out", args->out, q.dim[0], q.dim[1], kv->size));
  QD_TRY(check_shared("kv_attend", q, kv->heads, kv->n));
  return device->ops->kv_attend(device, args);
}

qd_status qd_swiglu(qd_device *device, qd_tensor gate, qd_tensor up, qd_tensor y) {
  QD_TRY(check_act(device, "swiglu", "gate", gate));
  QD_TRY(check_dtype("swiglu", "up", up, gate.dtype));
  QD_TRY(check_dtype("swiglu", "y", y, gate.dtype));
  QD_TRY(check_rank("swiglu", "gate", gate, 2));
  QD_TRY(check_matrix("swiglu", "up", up, gate.dim[0], gate.dim[1]));
  QD_TRY(check_matrix("swiglu", "y", y, gate.dim[0], gate.dim[1]));
  return device->ops->swiglu(device, gate, up, y);
}

qd_status qd_add(qd_device *device, qd_tensor a, qd_tensor b, qd_tensor y) {
  QD_TRY(check_act(device, "add", "a", a));
  QD_TRY(check_dtype("add", "b", b, a.dtype));
  QD_TRY(check_dtype("add", "y", y, a.dtype));
  QD_TRY(check_rank("add", "a", a, 2));
  QD_TRY(check_matrix("add", "b", b, a.dim[0], a.dim[1]));
  QD_TRY(check_matrix("add", "y", y, a.dim[0], a.dim[1]));
  return device->ops->add(device, a, b, y);
}

qd_status qd_route(qd_device *device, const qd_route_args *args) {
  qd_tensor logits = args->logits, index = args->index;
  QD_TRY(check_dtype("route", "logits", logits, real_dtype(device)));
  QD_TRY(check_dtype("route", "weight", args->weight, real_dtype(device)));
  QD_TRY(check_dtype("route", "index", index, QD_I32));
  QD_TRY(check_rank("route", "logits", logits, 2));
  QD_TRY(check_rank("route", "index", index, 2));
  int64_t experts = logits.dim[1], k = index.dim[1];
  QD_CHECK(k >= 1 && k <= experts && experts <= QD_MAX_EXPERTS, QD_ESHAPE,
           "route: %" PRId64 " of %" PRId64 " experts are to be chosen, expected 1 of 1 to %d of %d", k, experts,
           QD_MAX_EXPERTS, QD_MAX_EXPERTS);
  QD_TRY(check_matrix("route", "index", index, logits.dim[0], k));
  QD_TRY(check_matrix("route", "weight", args->weight, logits.dim[0], k));
  QD_CHECK(args->weights == QD_F32 || args->weights == QD_BF16, QD_EDTYPE,
           "route: weights are rounded to %s, expected F32 or BF16", qd_dtype_name(args->weights));
  return device->ops->route(device, args);
}

static qd_status check_ascending(qd_tensor index, int64_t limit) {
  const int32_t *at = index.data;
  QD_TRY(check_indices("scatter_add", "the index", index, 0, limit));
  for (int64_t n = 1; n < index.dim[0]; n++)
    QD_CHECK(at[n - 1] < at[n], QD_EBADINPUT,
             "scatter_add: index %" PRId64 " is %" PRId32 " behind %" PRId32 ", expected more", n, at[n], at[n - 1]);
  return QD_OK;
}

qd_status qd_scatter_add(qd_device *device, qd_tensor y, qd_tensor weight, qd_tensor index, qd_tensor x) {
  QD_TRY(check_act(device, "scatter_add", "x", x));
  QD_TRY(check_dtype("scatter_add", "y", y, x.dtype));
  if (weight.dtype != x.dtype) QD_TRY(check_dtype("scatter_add", "weight", weight, real_dtype(device)));
  QD_TRY(check_rank("scatter_add", "x", x, 2));
  QD_TRY(check_rank("scatter_add", "y", y, 2));
  QD_TRY(check_matrix("scatter_add", "y", y, index.rank == 0 ? x.dim[0] : y.dim[0], x.dim[1]));
  QD_TRY(check_vector("scatter_add", "weight", weight, y.dim[0]));
  if (index.rank != 0) {
    QD_TRY(check_vector("scatter_add", "index", index, y.dim[0]));
    QD_TRY(check_ascending(index, x.dim[0]));
  }
  return device->ops->scatter_add(device, y, weight, index, x);
}

qd_status qd_sigmoid(qd_device *device, qd_tensor x, qd_tensor y) {
  QD_TRY(check_dtype("sigmoid", "x", x, real_dtype(device)));
  QD_TRY(check_act(device, "sigmoid", "y", y));
  QD_TRY(check_rank("sigmoid", "x", x, 1));
  QD_TRY(check_vector("sigmoid", "y", y, x.dim[0]));
  return device->ops->sigmoid(device, x, y);
}

qd_status qd_subtract(qd_device *device, qd_tensor a, qd_tensor b, qd_tensor y) {
  QD_TRY(check_act(device, "subtract", "a", a));
  QD_TRY(check_dtype("subtract", "b", b, a.dtype));
  QD_TRY(check_dtype("subtract", "y", y, real_dtype(device)));
  QD_TRY(check_rank("subtract", "a", a, 2));
  QD_TRY(check_matrix("subtract", "b", b, a.dim[0], a.dim[1]));
  QD_TRY(check_matrix("subtract", "y", y, a.dim[0], a.dim[1]));
  return device->ops->subtract(device, a, b, y);
}

qd_status qd_gather_columns(qd_device *device, qd_tensor x, qd_tensor order, qd_tensor y) {
  QD_TRY(check_act(device, "gather_columns", "x", x));
  QD_TRY(check_dtype("gather_columns", "y", y, x.dtype));
  QD_TRY(check_rank("gather_columns", "x", x, 2));
  QD_TRY(check_vector("gather_columns", "order", order, x.dim[1]));
  QD_TRY(check_matrix("gather_columns", "y", y, x.dim[0], x.dim[1]));
  QD_TRY(check_indices("gather_columns", "the column", order, 0, x.dim[1]));
  return device->ops->gather_columns(device, x, order, y);
}

qd_status qd_nll(qd_device *device, qd_tensor logits, qd_tensor target, qd_tensor nll) {
  QD_TRY(check_dtype("nll", "logits", logits, real_dtype(device)));
  QD_TRY(check_dtype("nll", "nll", nll, QD_F64));
  QD_TRY(check_rank("nll", "logits", logits, 2));
  QD_TRY(check_vector("nll", "target", target, logits.dim[0]));
  QD_TRY(check_vector("nll", "nll", nll, logits.dim[0]));
  QD_TRY(check_indices("nll", "the target", target, -1, logits.dim[1]));
  return device->ops->nll(device, logits, target, nll);
}

qd_status qd_kl(qd_device *device, qd_tensor p, qd_tensor q, qd_tensor kl, qd_tensor same) {
  QD_TRY(check_dtype("kl", "p", p, real_dtype(device)));
  QD_TRY(check_dtype("kl", "q", q, real_dtype(device)));
  QD_TRY(check_dtype("kl", "kl", kl, QD_F64));
  QD_TRY(check_dtype("kl", "same", same, QD_I32));
  QD_TRY(check_rank("kl", "p", p, 2));
  QD_TRY(check_matrix("kl", "q", q, p.dim[0], p.dim[1]));
  QD_TRY(check_vector("kl", "kl", kl, p.dim[0]));
  QD_TRY(check_vector("kl", "same", same, p.dim[0]));
  return device->ops->kl(device, p, q, kl, same);
}

qd_status qd_find_nonfinite(qd_device *device, qd_tensor x, int64_t *index) {
  bool fits = x.dtype == real_dtype(device) || x.dtype == QD_F16 || x.dtype == QD_BF16;
  QD_CHECK(fits, QD_EDTYPE, "find_nonfinite: x is %s, expected F32, F16 or BF16", qd_dtype_name(x.dtype));
  QD_CHECK(qd_tensor_is_contiguous(x), QD_ESHAPE, "find_nonfinite: x has gaps, expected a contiguous tensor");
  return device->ops->find_nonfinite(device, x, index);
}
