/* oneDNN's matrix product of the same precision and shape, held to the same units: what a rate is compared with.  Absent where
 * the library was not there when qdist was built. */
#ifndef QDIST_JOBS_YARDSTICK_H
#define QDIST_JOBS_YARDSTICK_H

#include "kernels/base/tensor.h"
#include "kernels/device.h"

const char *qd_yardstick_name(void); /* "oneDNN 2.6.3 (avx512_core)", or NULL: there is none */

/* Before the first product: no more than the device's units and threads. */
void qd_yardstick_limit(const qd_device *device);

/* c (M, N) F32 = x (M, K) w (N, K)^T, both F32 or both BF16, contiguous; prepared once, then run as often as wanted. */
typedef struct qd_yardstick qd_yardstick;
qd_status qd_yardstick_open(qd_tensor x, qd_tensor w, qd_tensor c, qd_yardstick **out) QD_MUST_USE;
void      qd_yardstick_run(qd_yardstick *yardstick);
void      qd_yardstick_close(qd_yardstick *yardstick);

#endif
