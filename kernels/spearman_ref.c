#include "kernels/spearman.h"

#include <stdlib.h>

static int ascending(const void *a, const void *b) {
  const qd_ranked *x = a, *y = b;
  if (x->value != y->value) return x->value < y->value ? -1 : 1;
  return x->row < y->row ? -1 : x->row > y->row;
}

static void centre(qd_real *x, int64_t n) {
  qd_real squares = 0, middle = (qd_real)(n - 1) / 2;
  for (int64_t i = 0; i < n; i++) x[i] -= middle, squares = qd_real_fma(x[i], x[i], squares);
  qd_real length = qd_real_sqrt(squares);
  for (int64_t i = 0; i < n && length > 0; i++) x[i] = x[i] / length;
}

void QD_REF(spearman_ranks)(qd_tensor w, int64_t c, qd_ranked *work, qd_real *to) {
  int64_t n = w.dim[0];
  for (int64_t r = 0; r < n; r++)
    work[r] = (qd_ranked){((const qd_real *)w.data)[r * w.stride[0] + c], (int32_t)r};
  qsort(work, (size_t)n, sizeof *work, ascending);
  for (int64_t first = 0, end; first < n; first = end) {
    for (end = first + 1; end < n && !(work[end].value > work[first].value);) end++;
    for (int64_t i = first; i < end; i++) to[work[i].row] = (qd_real)(first + end - 1) / 2;
  }
  centre(to, n);
}

qd_real QD_REF(spearman_cosine)(const qd_real *a, const qd_real *b, int64_t n) {
  qd_real chain = 0;
  for (int64_t i = 0; i < n; i++) chain = qd_real_fma(a[i], b[i], chain);
  return chain;
}

void QD_REF(spearman_place)(const qd_real *cosine, int64_t p, int64_t columns, int32_t *order) {
  int64_t best = p + 1;
  for (int64_t q = p + 1; q < columns; q++)
    if (cosine[q] > cosine[best]) best = q;
  int32_t column = order[best];
  order[best] = order[p + 1], order[p + 1] = column;
}

static qd_status order_columns(qd_device *device, qd_tensor w, int32_t *order) {
  int64_t rows = w.dim[0], columns = w.dim[1];
  qd_real *ranks, *cosine;
  qd_ranked *work;
  QD_TRY(qd_arena_new(&device->scratch, (size_t)(rows * columns), sizeof *ranks, &ranks));
  QD_TRY(qd_arena_new(&device->scratch, (size_t)columns, sizeof *cosine, &cosine));
  QD_TRY(qd_arena_new(&device->scratch, (size_t)rows, sizeof *work, &work));
  for (int64_t c = 0; c < columns; c++) order[c] = (int32_t)c, QD_REF(spearman_ranks)(w, c, work, ranks + c * rows);
  for (int64_t p = 0; p + 1 < columns; p++) {
    for (int64_t q = p + 1; q < columns; q++)
      cosine[q] = QD_REF(spearman_cosine)(ranks + order[p] * rows, ranks + order[q] * rows, rows);
    QD_REF(spearman_place)(cosine, p, columns, order);
  }
  return QD_OK;
}

qd_status QD_REF(spearman_order)(qd_device *device, qd_tensor w, qd_tensor order) {
  size_t mark = qd_arena_mark(&device->scratch);
  qd_status status = order_columns(device, w, order.data);
  qd_arena_rewind(&device->scratch, mark);
  return status;
}
