#include "kernels/forward_isa.h"
#include "kernels/ops_table.h"

static void *row_of(qd_tensor t, int64_t row) {
  return (unsigned char *)t.data + row * t.stride[0] * (int64_t)qd_dtype_bytes(t.dtype);
}

qd_status qd_cpu_embed(qd_device *device, qd_tensor table, qd_tensor ids, qd_tensor y) {
  size_t bytes = (size_t)y.dim[1] * qd_dtype_bytes(y.dtype);
  const int32_t *id = ids.data;
#pragma omp parallel for num_threads(device->threads) schedule(static)
  for (int64_t t = 0; t < y.dim[0]; t++) memcpy(row_of(y, t), row_of(table, id[t]), bytes);
  return QD_OK;
}

qd_status qd_cpu_swiglu(qd_device *device, qd_tensor gate, qd_tensor up, qd_tensor y) {
#pragma omp parallel num_threads(device->threads)
  {
    qd_flush_denormals();
#pragma omp for schedule(static)
    for (int64_t t = 0; t < y.dim[0]; t++)
      QD_ISA_CALL(device, qd_swiglu_row, (row_of(gate, t), row_of(up, t), row_of(y, t), y.dtype, y.dim[1]));
  }
  return QD_OK;
}

qd_status qd_cpu_add(qd_device *device, qd_tensor a, qd_tensor b, qd_tensor y) {
#pragma omp parallel num_threads(device->threads)
  {
    qd_flush_denormals();
#pragma omp for schedule(static)
    for (int64_t t = 0; t < y.dim[0]; t++)
      QD_ISA_CALL(device, qd_add_row, (row_of(a, t), row_of(b, t), row_of(y, t), y.dtype, y.dim[1]));
  }
  return QD_OK;
}

qd_status qd_cpu_subtract(qd_device *device, qd_tensor a, qd_tensor b, qd_tensor y) {
#pragma omp parallel num_threads(device->threads)
  {
    qd_flush_denormals();
#pragma omp for schedule(static)
    for (int64_t t = 0; t < y.dim[0]; t++)
      QD_ISA_CALL(device, qd_subtract_row, (row_of(a, t), row_of(b, t), row_of(y, t), a.dtype, y.dim[1]));
  }
  return QD_OK;
}

/* Elements are moved as bits. */
static void gather_row(const void *x, const int32_t *column, void *y, qd_dtype dtype, int64_t n) {
  if (dtype == QD_BF16)
    for (int64_t p = 0; p < n; p++) ((uint16_t *)y)[p] = ((const uint16_t *)x)[column[p]];
  else
    for (int64_t p = 0; p < n; p++) ((uint32_t *)y)[p] = ((const uint32_t *)x)[column[p]];
}

qd_status qd_cpu_gather_columns(qd_device *device, qd_tensor x, qd_tensor order, qd_tensor y) {
#pragma omp parallel for num_threads(device->threads) schedule(static)
  for (int64_t t = 0; t < y.dim[0]; t++) gather_row(row_of(x, t), order.data, row_of(y, t), y.dtype, y.dim[1]);
  return QD_OK;
}

/* By segments, so that the first of all is the least of the segments' first. */
qd_status qd_cpu_find_nonfinite(qd_device *device, qd_tensor x, int64_t *index) {
  enum { SEGMENT = 1 << 16 };
  int64_t n = qd_tensor_elements(x), first = INT64_MAX;
  size_t bytes = qd_dtype_bytes(x.dtype);
#pragma omp parallel for num_threads(device->threads) schedule(static) reduction(min : first)
  for (int64_t at = 0; at < n; at += SEGMENT) {
    int64_t size = n - at < SEGMENT ? n - at : SEGMENT;
    int64_t found = QD_ISA_CALL(device, qd_nonfinite_row, ((const unsigned char *)x.data + (size_t)at * bytes, x.dtype, size));
    if (found >= 0 && at + found < first) first = at + found;
  }
  *index = first == INT64_MAX ? -1 : first;
  return QD_OK;
}
