/* Where operations run: `ref` (the specification as plain loops), `cpu` (the same bits, fast), `ref64` (test builds: the
 * loops of ref in double).  A device has a table of operations, threads and scratch memory; one thread uses it at a time. */
#ifndef QDIST_KERNELS_DEVICE_H
#define QDIST_KERNELS_DEVICE_H

#include "kernels/base/arena.h"

struct qd_ops; /* kernels/ops_table.h */

/* Units that the cpu device may use.  All give the same bits. */
typedef enum qd_isa { QD_ISA_PORTABLE, QD_ISA_AVX2, QD_ISA_AVX512, QD_ISA_AVX512_BF16 } qd_isa;

typedef struct qd_device {
  const char *name;
  const struct qd_ops *ops;
  qd_isa   isa;
  int      threads;
  qd_arena scratch; /* operations mark it, use it and rewind it */
  void    *packing; /* the cpu device's packing buffers, one a thread (from the scratch arena) */
} qd_device;

typedef struct qd_device_options {
  const char *name;    /* "cpu", "ref", "ref64"                                                  */
  const char *isa;     /* NULL or "": QDIST_ISA, else the best found; "avx2", "avx512", "avx512_bf16" limit it */
  int    threads;      /* 0: OMP_NUM_THREADS, else 1                                             */
  size_t scratch_bytes; /* beside the packing buffers; 0: 64 GiB of address space, a reserve for who has no plan */
} qd_device_options;

/* Sets DAZ and FTZ for the calling thread and those it starts.
 * QD_EUNSUPPORTED: a CPU without AVX2 and FMA is refused by name; QD_EUSAGE: an unknown device or isa, or one not found here.
 */
qd_status qd_device_open(qd_device *device, qd_device_options options) QD_MUST_USE;

/* Jobs open the device with so much scratch and give it its size when they know it. */
enum { QD_SCRATCH_LATER = 1 };

/* A new scratch of so many bytes beside the packing buffers (kernels/scratch.h says what operations take); none may be in use.
 */
qd_status qd_device_reserve(qd_device *device, size_t scratch_bytes) QD_MUST_USE;

/* What the packing buffers of its threads take. */
size_t    qd_device_packing_bytes(const qd_device *device);

void      qd_device_close(qd_device *device);

const char *qd_isa_name(qd_isa isa);
qd_isa      qd_isa_best(void);     /* of this machine; QD_ISA_PORTABLE where nothing fits or on other architectures */
const char *qd_cpu_model(void);    /* the machine's own name for its CPU */

/* Denormals are zero and are flushed in the calling thread (and in threads it starts later). */
void qd_flush_denormals(void);

#endif
