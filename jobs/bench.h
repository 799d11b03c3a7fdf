/* Rates of operations, by the best of some runs (CPU time with one thread, else time on the wall); flops are counted as
 * docs/numerics.md says: product 2 M N K, Hessian T C (C + 1), factor with inverse 2 C^3 / 3, GPTQ's loop R C^2, the MSE grid
 * one "flop" a weight and candidate. */
#ifndef QDIST_JOBS_BENCH_H
#define QDIST_JOBS_BENCH_H

#include "kernels/device.h"

typedef struct qd_bench_request {
  unsigned selected;  /* bits over the operations; 0: all */
  int64_t  shape[3];  /* M, N, K; 0: each operation's own */
  int      repeats;
} qd_bench_request;

typedef struct qd_bench_row {
  const char *op, *dtype;
  char        shape[48];
  double      seconds, gflops, gbytes_per_second, share_of_peak, share_of_yardstick; /* share 0: nothing to compare with */
} qd_bench_row;

enum { QD_BENCH_ROWS = 16 };
typedef struct qd_bench {
  const char  *isa;
  int          threads, n;
  double       peak[2], yardstick[2]; /* GFLOP/s: fp32, bf16 */
  qd_bench_row row[QD_BENCH_ROWS];
} qd_bench;

const char *qd_bench_names(void);
bool        qd_bench_select(qd_bench_request *request, const char *name);
bool        qd_bench_shape(const char *text, int64_t shape[3]);
qd_status   qd_bench_run(qd_device *device, const qd_bench_request *request, qd_bench *out) QD_MUST_USE;

#endif
