/* Column statistics: blocks of columns over threads.  Bound by reading x once. */
#include "kernels/ops_table.h"
#include "kernels/statistics_isa.h"

#include <math.h>

enum { BLOCK = 64 }; /* columns: a whole number of vectors and of cache lines */

static double element(qd_tensor x, int64_t index) {
  if (x.dtype == QD_BF16) return (double)qd_bf16_to_f32(((const uint16_t *)x.data)[index]);
  return (double)((const float *)x.data)[index];
}

/* Columns that do not lie side by side. */
static void strided_column(qd_tensor x, qd_tensor stats, int64_t c) {
  double sum = 0, squares = 0, largest = 0, *out = (double *)stats.data + c * stats.stride[1];
  for (int64_t t = 0; t < x.dim[0]; t++) {
    double value = element(x, t * x.stride[0] + c * x.stride[1]);
    sum = sum + value;
    squares = fma(value, value, squares);
    largest = fabs(value) > largest ? fabs(value) : largest;
  }
  out[0] = sum, out[stats.stride[0]] = squares, out[2 * stats.stride[0]] = largest;
}

qd_status qd_cpu_colstats(qd_device *device, qd_tensor x, qd_tensor stats) {
  bool dense = x.stride[1] == 1 && stats.stride[1] == 1;
  int64_t columns = x.dim[1], blocks = (columns + BLOCK - 1) / BLOCK;
#pragma omp parallel num_threads(device->threads)
  {
    qd_flush_denormals();
#pragma omp for schedule(static)
    for (int64_t block = 0; block < blocks; block++) {
      int64_t first = block * BLOCK, n = columns - first < BLOCK ? columns - first : BLOCK;
      if (dense) QD_ISA_CALL(device, qd_colstats_columns, (x, stats, first, n));
      else
        for (int64_t c = first; c < first + n; c++) strided_column(x, stats, c);
    }
  }
  return QD_OK;
}
