/* Rates of operations, by the best of some runs (CPU time with one thread, else time on the wall).  Flops are counted as
 * docs/performance.md says: product 2 M N K, Hessian T C (C + 1), factor with inverse 2 C^3 / 3, GPTQ's loop R C^2, attention
 * over the keys that are seen, the MSE grid one "flop" a weight and candidate. */
#ifndef QDIST_JOBS_BENCH_H
#define QDIST_JOBS_BENCH_H

#include "kernels/device.h"

typedef struct qd_bench_request {
  uint64_t selected;   /* bits over the operations; 0: all */
  int64_t  shape[3];   /* M, N, K; 0: each operation's own */
  int64_t  group_size; /* of quantized weights */
  int      repeats;
} qd_bench_request;

/* Shares are 0 where there is nothing to compare with. */
typedef struct qd_bench_row {
  const char *op, *dtype;
  int         bits;              /* of codes; 0: none */
  char        shape[48];
  double      seconds, gflops, gbytes_per_second, share_of_peak;
  double      share_of_yardstick; /* of the yardstick's rate, measured in turns with the operation */
  double      share_of_triad;     /* gbytes_per_second of the triad's (codes, one token) */
  double      share_of_loop;      /* of a register loop of the same instructions (codes, one token) */
  double      times_dense;        /* the rate of the dense product in panels, in turns (codes) */
  double      times_f32;          /* the rate of the same codes in fp32, in turns (int8) */
} qd_bench_row;

enum { QD_BENCH_ROWS = 48 };
typedef struct qd_bench {
  const char  *isa;
  int          threads, n;
  double       peak[3], yardstick[3]; /* GFLOP/s: fp32, bf16, bytes; the yardstick: fp64 (our own product) instead */
  double       triad;                 /* GB/s: a = b + s c in fp32, three arrays beyond the caches, their bytes counted once */
  qd_bench_row row[QD_BENCH_ROWS];
} qd_bench;

const char *qd_bench_names(void);
bool        qd_bench_select(qd_bench_request *request, const char *name);
bool        qd_bench_shape(const char *text, int64_t shape[3]);
qd_status   qd_bench_run(qd_device *device, const qd_bench_request *request, qd_bench *out) QD_MUST_USE;

#endif
