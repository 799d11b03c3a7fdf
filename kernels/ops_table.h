/* The operations of one device.  an ops_*.c checks the contract once and then calls through this table.
 * Functions are named qd_ref_<op>, qd_cpu_<op>; ref files are compiled once more in double, as qd_ref64_<op> (ref_real.h). */
#ifndef QDIST_KERNELS_OPS_TABLE_H
#define QDIST_KERNELS_OPS_TABLE_H

#include "kernels/ops.h"

#define QD_OPS_LIST(X)                                                                                                     \
  X(matmul, (qd_device *device, qd_tensor a, qd_tensor b, bool accumulate, qd_tensor c))                                   \
  X(linear, (qd_device *device, qd_tensor x, qd_tensor w, const qd_tensor *bias, qd_tensor y))                             \
  X(qlinear, (qd_device *device, qd_tensor x, const qd_qtensor *w, const qd_tensor *bias, qd_tensor y))                    \
  X(panels_dense, (qd_device *device, qd_arena *arena, qd_tensor w, qd_panels *out))                                       \
  X(panels_quantized, (qd_device *device, qd_arena *arena, const qd_qtensor *q, qd_panels *out))                           \
  X(panels_linear, (qd_device *device, qd_tensor x, const qd_panels *w, const qd_tensor *bias, qd_tensor y))               \
  X(embed, (qd_device *device, qd_tensor table, qd_tensor ids, qd_tensor y))                                               \
  X(rmsnorm, (qd_device *device, qd_tensor x, qd_tensor w, double eps, qd_tensor y))                                       \
  X(rope_table, (qd_device *device, qd_tensor frequency, int64_t first, double factor, qd_tensor cosine, qd_tensor sine))  \
  X(rope, (qd_device *device, qd_tensor x, qd_tensor cosine, qd_tensor sine))                                              \
  X(attention, (qd_device *device, const qd_attention_args *args))                                                         \
  X(swiglu, (qd_device *device, qd_tensor gate, qd_tensor up, qd_tensor y))                                                \
  X(add, (qd_device *device, qd_tensor a, qd_tensor b, qd_tensor y))                                                       \
  X(route, (qd_device *device, const qd_route_args *args))                                                                 \
  X(scatter_add, (qd_device *device, qd_tensor y, qd_tensor weight, qd_tensor index, qd_tensor x))                         \
  X(sigmoid, (qd_device *device, qd_tensor x, qd_tensor y))                                                                \
  X(subtract, (qd_device *device, qd_tensor a, qd_tensor b, qd_tensor y))                                                  \
  X(gather_columns, (qd_device *device, qd_tensor x, qd_tensor order, qd_tensor y))                                        \
  X(nll, (qd_device *device, qd_tensor logits, qd_tensor target, qd_tensor nll))                                           \
  X(kl, (qd_device *device, qd_tensor p, qd_tensor q, qd_tensor kl, qd_tensor same))                                       \
  X(colstats, (qd_device *device, qd_tensor x, qd_tensor stats))                                                           \
  X(hessian_grid, (qd_device *device, qd_tensor diagonal, double bound, qd_tensor exponent))                               \
  X(hessian, (qd_device *device, qd_tensor x, qd_tensor exponent, qd_tri total))                                           \
  X(hessian_values, (qd_device *device, qd_tri total, qd_tensor exponent, qd_tri h))                                       \
  X(cross, (qd_device *device, const qd_cross_args *args))                                                                 \
  X(cross_values,                                                                                                          \
    (qd_device *device, qd_tensor total, qd_tensor row_exponent, qd_tensor column_exponent, qd_tensor values))             \
  X(sqerror, (qd_device *device, qd_tensor x, qd_tri h, qd_tensor value))                                                  \
  X(factor, (qd_device *device, const qd_factor_args *args, int64_t *pivot))                                               \
  X(asymmetry, (qd_device *device, const qd_asymmetry_args *args))                                                         \
  X(rtn_fit, (qd_device *device, qd_tensor w, qd_scheme scheme, qd_tensor scale, qd_tensor zero))                          \
  X(rtn_quantize, (qd_device *device, qd_tensor w, qd_scheme scheme, qd_tensor scale, qd_tensor zero, qd_tensor code))     \
  X(gptq, (qd_device *device, const qd_gptq_args *args))                                                                   \
  X(spqr, (qd_device *device, const qd_spqr_args *args))                                                                   \
  X(spearman_order, (qd_device *device, qd_tensor w, qd_tensor order))                                                     \
  X(pack, (qd_device *device, qd_tensor code, int bits, qd_tensor packed))                                                 \
  X(unpack, (qd_device *device, qd_tensor packed, int bits, qd_tensor code))                                               \
  X(dequant, (qd_device *device, const qd_qtensor *q, qd_tensor w))                                                        \
  X(find_nonfinite, (qd_device *device, qd_tensor x, int64_t *index))

typedef struct qd_ops {
#define QD_OPS_MEMBER(name, parameters) qd_status (*name) parameters;
  QD_OPS_LIST(QD_OPS_MEMBER)
#undef QD_OPS_MEMBER
} qd_ops;

#define QD_OPS_DECLARE(name, parameters)            \
  qd_status qd_ref_##name parameters QD_MUST_USE;   \
  qd_status qd_ref64_##name parameters QD_MUST_USE; \
  qd_status qd_cpu_##name parameters QD_MUST_USE;
QD_OPS_LIST(QD_OPS_DECLARE)
#undef QD_OPS_DECLARE

/* What every product with a weight checks: y (tokens, rows) and its bias, as for qd_linear; `op` for the message. */
qd_status qd_linear_check_output(const qd_device *device, const char *op, const qd_tensor *bias, qd_tensor y, int64_t tokens,
                                 int64_t rows) QD_MUST_USE;

/* The arithmetic int8 has no BF16 beside quantized weights; any other takes what there is. */
qd_status qd_int8_check(const qd_device *device, const char *op, qd_dtype x, qd_dtype y) QD_MUST_USE;

extern const qd_ops qd_ops_ref, qd_ops_cpu;
#ifdef QDIST_REF64
extern const qd_ops qd_ops_ref64;
#endif

#endif
