/* The contract's checks of the forward's and the evaluation's operations; the device does the rest. */
#include "kernels/ops_table.h"


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

static qd_status check_heads(const char *name, qd_tensor t, int64_t tokens, int64_t heads, int64_t size) {
  QD_TRY(check_rank("attention", name, t, 3));
  QD_CHECK(t.dim[0] == tokens && t.dim[1] == heads && t.dim[2] == size, QD_ESHAPE,
           "attention: %s is %" PRId64 " x %" PRId64 " x %" PRId64 ", expected %" PRId64 " x %" PRId64 " x %" PRId64, name,
           t.dim[0], t.dim[1], t.dim[2], tokens, heads, size);
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
  QD_TRY(check_heads("k", k, k.dim[0], k.dim[1], q.dim[2]));
  QD_TRY(check_heads("v", args->v, k.dim[0], k.dim[1], q.dim[2]));
  QD_TRY(check_heads("out", args->out, q.dim[0], q.dim[1], q.dim[2]));
  QD_CHECK(k.dim[1] > 0 && q.dim[1] % k.dim[1] == 0, QD_ESHAPE,
           "attention: %" PRId64 " heads do not share %" PRId64 " key-value heads evenly", q.dim[1], k.dim[1]);
  QD_CHECK(q.dim[0] <= k.dim[0], QD_ESHAPE, "attention: %" PRId64 " queries, but only %" PRId64 " keys", q.dim[0], k.dim[0]);
  return device->ops->attention(device, args);
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
