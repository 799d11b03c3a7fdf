/* What operations take of a device's scratch at most, beside its packing buffers: who sizes the arena beforehand
 * (qd_device_reserve) asks here. Shapes are those of ops.h; operations that are not listed take nothing. */
#ifndef QDIST_KERNELS_SCRATCH_H
#define QDIST_KERNELS_SCRATCH_H

#include "kernels/ops.h"

/* Only shapes, window and act's dtype are read of args, nothing of their data. */
size_t qd_scratch_attention(const qd_device *device, const qd_attention_args *args);
size_t qd_scratch_kv_attend(const qd_device *device, const qd_kv_attend_args *args);

/* act (tokens, C) times a quantized linear of (rows, C), with an order or without. */
size_t qd_scratch_qlinear(const qd_device *device, qd_tensor x, int64_t rows, bool has_order);

/* The exact sum and its values, C columns. */
size_t qd_scratch_hessian(const qd_device *device, int64_t columns);

/* Rows of the cross sum and their values, of sequences of so many tokens. */
size_t qd_scratch_cross(const qd_device *device, int64_t columns, int64_t tokens, qd_dtype act);

size_t qd_scratch_sqerror(const qd_device *device);
size_t qd_scratch_factor(const qd_device *device, int64_t columns);
size_t qd_scratch_asymmetry(const qd_device *device, int64_t columns);

/* Shapes, scheme, block, fit and the columns of p are read. */
size_t qd_scratch_gptq(const qd_device *device, const qd_gptq_args *args);

/* Shapes, scheme and block are read. */
size_t qd_scratch_spqr(const qd_device *device, const qd_spqr_args *args);
size_t qd_scratch_spearman_order(const qd_device *device, int64_t rows, int64_t columns);

/* The cpu device's, each beside the code that takes it. */
size_t qd_cpu_scratch_attention(const qd_device *device, const qd_attention_args *args);
size_t qd_cpu_scratch_kv_attend(const qd_device *device, const qd_kv_attend_args *args);
size_t qd_cpu_scratch_hessian(const qd_device *device, int64_t columns);
size_t qd_cpu_scratch_cross(const qd_device *device, int64_t columns, int64_t tokens, qd_dtype act);
size_t qd_cpu_scratch_sqerror(const qd_device *device);
size_t qd_cpu_scratch_factor(const qd_device *device, int64_t columns);
size_t qd_cpu_scratch_asymmetry(const qd_device *device, int64_t columns);
size_t qd_cpu_scratch_spqr(const qd_device *device, const qd_spqr_args *args);
size_t qd_cpu_scratch_gptq(const qd_device *device, const qd_gptq_args *args);

#endif
