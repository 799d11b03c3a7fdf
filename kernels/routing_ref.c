#include "kernels/lanes_ref.h"
#include "kernels/vecmath.h"

#ifdef QD_REAL64
#define real_exp exp
#else
#define real_exp qd_vm_expf
#endif

/* The softmax of a row. */
static void probabilities(qd_tensor logits, int64_t at, qd_real *p) {
  int64_t n = logits.dim[1];
  qd_real top = -(qd_real)INFINITY, lane[QD_LANES] = {0};
  for (int64_t j = 0; j < n; j++) {
    qd_real value = qd_ref_load(logits, at + j);
    top = value > top ? value : top;
  }
  for (int64_t j = 0; j < n; j++) {
    p[j] = real_exp(qd_ref_load(logits, at + j) - top);
    lane[j % QD_LANES] += p[j];
  }
  qd_real sum = qd_ref_lanes_total(lane);
  for (int64_t j = 0; j < n; j++) p[j] = p[j] / sum;
}

static bool is_taken(const int32_t *index, int64_t taken, int64_t j) {
  for (int64_t i = 0; i < taken; i++)
    if (index[i] == j) return true;
  return false;
}

/* The largest that is not taken yet; of equals the first, and the first of all where nothing compares. */
static int64_t next_best(const qd_real *p, int64_t n, const int32_t *index, int64_t taken) {
  int64_t best = -1;
  for (int64_t j = 0; j < n; j++)
    if (!is_taken(index, taken, j) && (best < 0 || p[j] > p[best])) best = j;
  return best;
}

static void sort_ascending(int32_t *index, int64_t k) {
  for (int64_t i = 1; i < k; i++)
    for (int64_t j = i; j > 0 && index[j] < index[j - 1]; j--) {
      int32_t other = index[j];
      index[j] = index[j - 1], index[j - 1] = other;
    }
}

qd_status QD_REF(route)(qd_device *device, const qd_route_args *args) {
  (void)device;
  int64_t k = args->index.dim[1];
  qd_real p[QD_MAX_EXPERTS];
  for (int64_t t = 0; t < args->logits.dim[0]; t++) {
    int32_t *index = qd_tensor_at(args->index, t).data;
    qd_real sum = 0;
    probabilities(args->logits, t * args->logits.stride[0], p);
    for (int64_t i = 0; i < k; i++) {
      index[i] = (int32_t)next_best(p, args->logits.dim[1], index, i);
      sum = i == 0 ? p[index[i]] : sum + p[index[i]];
    }
    sort_ascending(index, k);
    for (int64_t i = 0; i < k; i++) {
      qd_real weight = args->renormalise ? p[index[i]] / sum : p[index[i]];
      qd_ref_store(args->weight, t * args->weight.stride[0] + i, qd_ref_round(weight, args->weights));
    }
  }
  return QD_OK;
}

qd_status QD_REF(scatter_add)(qd_device *device, qd_tensor y, qd_tensor weight, qd_tensor index, qd_tensor x) {
  (void)device;
  const int32_t *row = index.data;
  for (int64_t n = 0; n < y.dim[0]; n++) {
    int64_t to = (index.rank == 0 ? n : row[n]) * x.stride[0];
    for (int64_t c = 0; c < y.dim[1]; c++)
      qd_ref_store(x, to + c, qd_real_fma(qd_ref_load(weight, n), qd_ref_load(y, n * y.stride[0] + c), qd_ref_load(x, to + c)));
  }
  return QD_OK;
}

qd_status QD_REF(sigmoid)(qd_device *device, qd_tensor x, qd_tensor y) {
  (void)device;
  for (int64_t n = 0; n < x.dim[0]; n++) qd_ref_store(y, n, 1 / (1 + real_exp(-qd_ref_load(x, n))));
  return QD_OK;
}
