/* The one matrix kernel of the cpu device: packing, register tiles for AVX2, AVX-512, AVX512_BF16 and fp64, chosen at run time.
 * Other _cpu files build on it; nobody outside kernels/ includes it. */
#ifndef QDIST_KERNELS_GEMM_CPU_H
#define QDIST_KERNELS_GEMM_CPU_H

#include "kernels/ops.h"

typedef enum qd_gemm_mode {
  QD_GEMM_SET,      /* c = a b:      the first chunk's chain as it is, then c = c + chain */
  QD_GEMM_ADD,      /* c = c + a b:  c = c + chain for every chunk                        */
  QD_GEMM_SUBTRACT, /* c = c - a b:  c = c - chain for every chunk                        */
  QD_GEMM_LOWER,    /* as SET where column <= row; above, c is undefined                  */
} qd_gemm_mode;

/* What the packing buffers of so many threads take (qd_device_open reserves it as device->packing). */
size_t qd_cpu_packing_bytes(int threads);

/* One product by the calling thread alone, with packing buffers of thread `thread` (0 .. device->threads - 1).  Operands as in
 * qd_matmul: a (M, K), b (K, N) any strides, one dtype of F32, BF16, F64; c (M, N) F32 (F64), unit column stride.
 * Chunks of 256 are counted from k = 0 of the operands given.  Any size, zero too. */
void qd_gemm_serial(qd_device *device, int thread, qd_gemm_mode mode, qd_tensor a, qd_tensor b, qd_tensor c);

/* The same over all threads of the device, by tiles of c. */
void qd_gemm(qd_device *device, qd_gemm_mode mode, qd_tensor a, qd_tensor b, qd_tensor c);

/* c = round(a b^T + bias), b with rows along k as weights have; q instead of b: its effective weight, dequantized while it is
 * packed; panels: packed before. */
typedef struct qd_gemm_product {
  qd_gemm_mode mode;     /* QD_GEMM_SET where there is a bias or c is BF16 */
  qd_tensor a;           /* (M, K) */
  qd_tensor b;           /* (N, K) */
  const qd_qtensor *q;   /* (N, K) */
  const qd_panels *panels; /* (N, K) */
  const qd_tensor *bias; /* F32 (N), or NULL */
  qd_tensor c;           /* (M, N) */
} qd_gemm_product;
void qd_gemm_run(qd_device *device, const qd_gemm_product *product);

/* The columns of x in stored order, in the device's scratch (what qd_scratch_qlinear counts). */
qd_status qd_cpu_gather(qd_device *device, qd_tensor x, qd_tensor order, qd_tensor *out) QD_MUST_USE;

#endif
