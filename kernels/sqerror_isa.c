/* The last step of x H x^T, for the rows of a block and the columns of one tile. */
#include "kernels/statistics_isa.h"

enum { ROWS = 8, TILE = 256 }; /* rows whose sums run side by side: an addition waits for the one before it */

static void row_terms(qd_tensor x, qd_tensor p, const float *d, int64_t r, double *term) {
  const float *xr = (const float *)x.data + r * x.stride[0], *pr = (const float *)p.data + r * p.stride[0];
  for (int64_t i = 0; i < x.dim[1]; i++) {
    double xi = (double)xr[i * x.stride[1]];
    term[i] = xi * (2 * (double)pr[i] + (double)d[i] * xi);
  }
}

void QD_ISA(qd_sqerror_add)(double *value, qd_tensor x, qd_tensor p, const float *d) {
  double term[ROWS][TILE];
  for (int64_t first = 0; first < x.dim[0]; first += ROWS) {
    int64_t rows = x.dim[0] - first < ROWS ? x.dim[0] - first : ROWS;
    double sum[ROWS] = {0};
    for (int64_t q = 0; q < rows; q++) row_terms(x, p, d, first + q, term[q]), sum[q] = value[first + q];
    for (int64_t q = rows; q < ROWS; q++)
      for (int64_t i = 0; i < x.dim[1]; i++) term[q][i] = 0;
    for (int64_t i = 0; i < x.dim[1]; i++)
      for (int q = 0; q < ROWS; q++) sum[q] = sum[q] + term[q][i];
    for (int64_t q = 0; q < rows; q++) value[first + q] = sum[q];
  }
}
