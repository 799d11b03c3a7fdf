#include "kernels/chain_ref.h"
#include "kernels/lanes_ref.h"
#include "kernels/vecmath.h"

#ifdef QD_REAL64
#define real_exp exp
#else
#define real_exp qd_vm_expf
#endif

/* One query of one head: keys [first, end) are seen.  a and b are the operands of the next product. */
typedef struct query {
  const qd_attention_args *args;
  qd_ref_order order;
  int64_t  i, head, kv_head, first, end;
  qd_real *p, *a, *b;
} query;

static qd_real product(const query *q, int64_t n) {
  qd_tensor a = qd_tensor_1d(q->a, QD_REAL_DTYPE, n), b = qd_tensor_1d(q->b, QD_REAL_DTYPE, n);
  qd_real c = 0;
  for (int64_t k = 0; k < n; k += QD_PRODUCT_CHUNK) {
    int64_t size = n - k < QD_PRODUCT_CHUNK ? n - k : QD_PRODUCT_CHUNK;
    qd_real s = qd_ref_chain(q->order, (qd_ref_operand){a, k, 1, size}, (qd_ref_operand){b, k, 1, size});
    c = k == 0 ? s : c + s;
  }
  return c;
}

static qd_real score(const query *q, int64_t j) {
  qd_tensor qs = q->args->q, ks = q->args->k;
  for (int64_t d = 0; d < qs.dim[2]; d++) {
    q->a[d] = qd_ref_load(qs, q->i * qs.stride[0] + q->head * qs.stride[1] + d);
    q->b[d] = qd_ref_load(ks, j * ks.stride[0] + q->kv_head * ks.stride[1] + d);
  }
  return product(q, qs.dim[2]) * (qd_real)q->args->scale;
}

/* e_j into p; returns s. */
static qd_real exponentials(const query *q) {
  qd_real top = -(qd_real)INFINITY;
  for (int64_t j = q->first; j < q->end; j++) {
    q->p[j] = score(q, j);
    top = q->p[j] > top ? q->p[j] : top;
  }
  double total = 0;
  for (int64_t run = 0; run < q->end; run += QD_SUM_RUN) {
    qd_real lane[QD_LANES] = {0};
    for (int64_t j = run; j < run + QD_SUM_RUN && j < q->end; j++) {
      if (j < q->first) continue;
      q->p[j] = real_exp(q->p[j] - top);
      lane[j % QD_LANES] += q->p[j];
    }
    total += qd_ref_lanes_total(lane);
  }
  return (qd_real)total;
}

static void attend(const query *q) {
  qd_tensor v = q->args->v, out = q->args->out;
  qd_real inverse = 1 / exponentials(q);
  for (int64_t j = q->first; j < q->end; j++) q->p[j] = qd_ref_round(q->p[j] * inverse, out.dtype);
  for (int64_t d = 0; d < out.dim[2]; d++) {
    for (int64_t j = 0; j < v.dim[0]; j++) {
      bool seen = j >= q->first && j < q->end;
      q->a[j] = seen ? q->p[j] : 0;
      q->b[j] = seen ? qd_ref_load(v, j * v.stride[0] + q->kv_head * v.stride[1] + d) : 0;
    }
    qd_ref_store(out, q->i * out.stride[0] + q->head * out.stride[1] + d, product(q, v.dim[0]) + 0);
  }
}

static void attend_all(const qd_attention_args *args, query q) {
  int64_t queries = args->q.dim[0], keys = args->k.dim[0], heads = args->q.dim[1];
  for (q.head = 0; q.head < heads; q.head++)
    for (q.i = 0; q.i < queries; q.i++) {
      int64_t position = keys - queries + q.i;
      q.kv_head = q.head / (heads / args->k.dim[1]);
      q.end = position + 1;
      q.first = args->window > 0 && args->window <= position ? position - args->window + 1 : 0;
      attend(&q);
    }
}

qd_status QD_REF(attention)(qd_device *device, const qd_attention_args *args) {
  int64_t keys = args->k.dim[0], size = args->q.dim[2] > keys ? args->q.dim[2] : keys;
  size_t mark = qd_arena_mark(&device->scratch);
  qd_real *memory;
  QD_TRY(qd_arena_new(&device->scratch, (size_t)size, 3 * sizeof *memory, &memory));
  attend_all(args, (query){.args = args, .order = qd_ref_order_of(device, args->q.dtype), .p = memory, .a = memory + size,
                           .b = memory + 2 * size});
  qd_arena_rewind(&device->scratch, mark);
  return QD_OK;
}
