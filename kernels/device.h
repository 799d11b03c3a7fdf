/* Where operations run: `ref` (the specification as plain loops), `cpu` (the same bits, fast), `ref64` (test builds: the
 * loops of ref in double).  A device has a table of operations, threads and scratch memory; one thread uses it at a time. */
#ifndef QDIST_KERNELS_DEVICE_H
#define QDIST_KERNELS_DEVICE_H

#include "kernels/base/arena.h"

struct qd_ops; /* kernels/ops_table.h */

/* Units that the cpu device may use.  All give the same bits. */
typedef enum qd_isa { QD_ISA_PORTABLE, QD_ISA_AVX2, QD_ISA_AVX512, QD_ISA_AVX512_BF16, QD_ISA_AMX } qd_isa;

/* What a job computes in (docs/numerics.md): the dtype of activations, the order in which products of BF16 operands are summed,
 * and whether quantized weights meet activations rounded to int8 (ops.h).  Products of F32 and F64 operands with weights that
 * are not quantized are the same in all. */
typedef enum qd_arithmetic {
  QD_ARITHMETIC_F32,
  QD_ARITHMETIC_BF16_PAIRS,
  QD_ARITHMETIC_BF16_AMX,
  QD_ARITHMETIC_INT8 /* never what a store is made with */
} qd_arithmetic;

typedef struct qd_device {
  const char *name;
  const struct qd_ops *ops;
  qd_isa   isa;
  bool     unit_refused;    /* a better one gives other bits than its manual says */
  bool     widens_pairs;    /* VDPBF16PS is there, but slower than widening bf16 for fp32's units (gemm_unit.h) */
  qd_arithmetic arithmetic; /* BF16 operands: QD_ARITHMETIC_BF16_AMX, or pairs with any other */
  int      threads;
  qd_arena scratch; /* operations mark it, use it and rewind it */
  void    *packing; /* the cpu device's packing buffers, one a thread (from the scratch arena) */
} qd_device;

typedef struct qd_device_options {
  const char *name;    /* "cpu", "ref", "ref64"                                                  */
  const char *isa;     /* NULL or "": QDIST_ISA, else the best found; "avx2", "avx512", "avx512_bf16", "amx" limit it */
  int    threads;      /* 0: OMP_NUM_THREADS, else 1                                             */
  size_t scratch_bytes; /* beside the packing buffers; 0: 64 GiB of address space, a reserve for who has no plan */
} qd_device_options;

/* Sets DAZ and FTZ for the calling thread and those it starts.
 * QD_EUNSUPPORTED: a CPU without AVX2 and FMA is refused by name; QD_EUSAGE: an unknown device or isa, or one not found here.
 */
qd_status qd_device_open(qd_device *device, qd_device_options options) QD_MUST_USE;

/* The arithmetic of what follows; bf16-pairs after opening.  The unit that will multiply bf16 is tried against the plain loops
 * (unit_proof.h); one that gives other bits is left out, with a warning in the log. */
qd_status qd_device_use_arithmetic(qd_device *device, qd_arithmetic arithmetic) QD_MUST_USE;

/* Jobs open the device with so much scratch and give it its size when they know it. */
enum { QD_SCRATCH_LATER = 1 };

/* A new scratch of so many bytes beside the packing buffers (kernels/scratch.h says what operations take); none may be in use.
 */
qd_status qd_device_reserve(qd_device *device, size_t scratch_bytes) QD_MUST_USE;

/* What the packing buffers of its threads take. */
size_t    qd_device_packing_bytes(const qd_device *device);

void      qd_device_close(qd_device *device);

const char *qd_isa_name(qd_isa isa);
const char *qd_arithmetic_name(qd_arithmetic arithmetic); /* "f32", "bf16-pairs", "bf16-amx", "int8" */
qd_isa      qd_isa_best(void);     /* of this machine; QD_ISA_PORTABLE where nothing fits or on other architectures */
const char *qd_cpu_model(void);    /* the machine's own name for its CPU */

/* Denormals are zero and are flushed in the calling thread (and in threads it starts later). */
void qd_flush_denormals(void);

#endif
