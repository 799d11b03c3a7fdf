/* The operations of the bench: each prepares operands in an arena and runs once.  bench.c chooses and measures. */
#ifndef QDIST_JOBS_BENCH_CASE_H
#define QDIST_JOBS_BENCH_CASE_H

#include "jobs/bench.h"
#include "kernels/ops.h"

/* What an operation is measured in turns with. */
typedef enum qd_beside {
  QD_BESIDE_NOTHING,
  QD_BESIDE_SQUARE, /* the yardstick's product of the op's dtype, 2048 x 2048 x 2048 (F64: our own product, 1024) */
  QD_BESIDE_LIKE,   /* the yardstick's product of the op's own shape */
  QD_BESIDE_DENSE,  /* our product with a dense weight in panels, of the same shape and dtype */
  QD_BESIDE_F32,    /* our product with the same codes in panels, in fp32 */
} qd_beside;

typedef struct qd_bench_case {
  qd_device *device;
  qd_arena  *arena;
  qd_dtype   dtype;
  qd_scheme  scheme;         /* bits of the operation, group size of the request */
  int64_t    m, n, k;
  qd_tensor  x, w, y, extra[5];
  qd_tri     tri[3];
  qd_panels  panels;
  qd_qtensor q;
  void      *state;          /* whatever else the operation has */
  double     flops, bytes;   /* of one run; bytes: what is read or written at least once */
} qd_bench_case;

typedef struct qd_bench_op {
  const char *name;
  qd_dtype    dtype;            /* U8: the arithmetic int8 */
  int         bits;             /* of codes; 0: none */
  int64_t     m, n, k;          /* the shape of the plain bench; 0: the operation has no such size */
  int64_t     large_m, large_n, large_k; /* of the operation asked for by name; 0: the same */
  qd_beside   beside;
  qd_status (*prepare)(qd_bench_case *c);
  qd_status (*run)(qd_bench_case *c);
  void      (*finish)(qd_bench_case *c); /* NULL: everything is in the arena; also after a prepare that failed */
} qd_bench_op;

enum { QD_BENCH_GROUPS = 4 };
typedef struct qd_bench_group {
  const qd_bench_op *op;
  int n;
} qd_bench_group;
extern const qd_bench_group qd_bench_products, qd_bench_solvers, qd_bench_forward, qd_bench_storage;
#define QD_BENCH_GROUP(table) {table, (int)(sizeof(table) / sizeof((table)[0]))}

/* Numbers between -1 and 1 without a pattern that matters to a rate; F32, F64 or BF16. */
void qd_bench_fill(qd_tensor t);

/* A matrix from the case's arena: numbers, or zeros of another dtype. */
qd_status qd_bench_matrix(qd_bench_case *c, qd_dtype dtype, int64_t rows, int64_t columns, qd_tensor *out) QD_MUST_USE;

/* Operands of y = x w^T, for a product of the case's shape and dtype. */
qd_status qd_bench_product(qd_bench_case *c) QD_MUST_USE;
qd_status qd_bench_run_product(qd_bench_case *c) QD_MUST_USE;
qd_status qd_bench_dense_panels(qd_bench_case *c) QD_MUST_USE;
qd_status qd_bench_run_panels(qd_bench_case *c) QD_MUST_USE;

/* Codes in panels for x in fp32. */
qd_status qd_bench_code_panels(qd_bench_case *c) QD_MUST_USE;

#endif
