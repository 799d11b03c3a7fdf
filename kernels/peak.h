/* The most that one core's units can do: loops of independent multiply-adds in registers.  The bench's physical yardstick. */
#ifndef QDIST_KERNELS_PEAK_H
#define QDIST_KERNELS_PEAK_H

#include "kernels/base/dtype.h"
#include "kernels/device.h"
#include "kernels/isa.h"

/* Multiply-adds of `dtype` (F32, F64, BF16, or U8 times int8) on the units that the device may use in its arithmetic, by the
 * calling thread; returns the flops done (two a multiply-add), which the caller divides by the time. */
double qd_peak_run(const qd_device *device, qd_dtype dtype, int64_t rounds);

/* Weights of `bits` bits that are unpacked, scaled and multiplied by one token of `act` (F32 or BF16), with words that stay in
 * registers; returns their number. */
double qd_peak_codes(const qd_device *device, qd_dtype act, int bits, int64_t rounds);

/* a = b + s c over all threads of the device; n elements each. */
void qd_peak_triad(const qd_device *device, float *a, const float *b, const float *c, int64_t n);

/* The builds of peak_isa.c. */
QD_ISA_DECLARE(void, qd_peak_triad_part, (float *a, const float *b, const float *c, int64_t n));
QD_ISA_DECLARE(double, qd_peak_f32, (int64_t rounds));
QD_ISA_DECLARE(double, qd_peak_f64, (int64_t rounds));
QD_ISA_DECLARE(double, qd_peak_bytes, (int64_t rounds)); /* without VNNI: sums of 16 bits */

#endif
