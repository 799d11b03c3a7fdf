/* The most that one core's units can do: loops of independent multiply-adds in registers.  The bench's physical yardstick. */
#ifndef QDIST_KERNELS_PEAK_H
#define QDIST_KERNELS_PEAK_H

#include "kernels/base/dtype.h"
#include "kernels/device.h"
#include "kernels/isa.h"

/* Multiply-adds of `dtype` (F32, F64 or BF16) on the units that the device may use in its arithmetic, by the calling thread; returns the flops
 * done (two a multiply-add), which the caller divides by the time. */
double qd_peak_run(const qd_device *device, qd_dtype dtype, int64_t rounds);

/* The builds of peak_isa.c. */
QD_ISA_DECLARE(double, qd_peak_f32, (int64_t rounds));
QD_ISA_DECLARE(double, qd_peak_f64, (int64_t rounds));

#endif
