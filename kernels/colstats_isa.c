/* Column statistics: one lane a column, so that each column's sum runs over t ascending. */
#include "kernels/statistics_isa.h"

#include <math.h>

enum { GROUP = 16 }; /* columns that are summed at once: their 48 doubles stay in registers */

/* GROUP values of row t in double; columns past `n` are zeros. */
static inline void widen(qd_tensor x, int64_t t, int64_t first, int64_t n, double value[GROUP]) {
  float wide[GROUP] = {0};
  int64_t offset = t * x.stride[0] + first;
  if (x.dtype == QD_BF16) {
    const uint16_t *from = (const uint16_t *)x.data + offset;
    for (int64_t i = 0; i < n; i++) wide[i] = qd_bf16_to_f32(from[i]);
  } else {
    const float *from = (const float *)x.data + offset;
    for (int64_t i = 0; i < n; i++) wide[i] = from[i];
  }
  for (int i = 0; i < GROUP; i++) value[i] = (double)wide[i];
}

static inline void sum_group(qd_tensor x, qd_tensor stats, int64_t first, int64_t n) {
  double sum[GROUP] = {0}, squares[GROUP] = {0}, largest[GROUP] = {0};
  for (int64_t t = 0; t < x.dim[0]; t++) {
    double value[GROUP];
    widen(x, t, first, n, value);
    for (int i = 0; i < GROUP; i++) {
      double magnitude = fabs(value[i]);
      sum[i] = sum[i] + value[i];
      squares[i] = fma(value[i], value[i], squares[i]);
      largest[i] = magnitude > largest[i] ? magnitude : largest[i];
    }
  }
  double *out = (double *)stats.data + first;
  for (int64_t i = 0; i < n; i++, out++) {
    out[0] = sum[i];
    out[stats.stride[0]] = squares[i];
    out[2 * stats.stride[0]] = largest[i];
  }
}

void QD_ISA(qd_colstats_columns)(qd_tensor x, qd_tensor stats, int64_t first, int64_t n) {
  int64_t c = first, end = first + n;
  for (; c + GROUP <= end; c += GROUP) sum_group(x, stats, c, GROUP);
  if (c < end) sum_group(x, stats, c, end - c);
}
