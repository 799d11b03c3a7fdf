#include "kernels/scratch.h"

#include "kernels/int8.h"
#include "kernels/spearman.h"
#include "kernels/spqr.h"

#include <string.h>

static bool is_cpu(const qd_device *device) { return strcmp(device->name, "cpu") == 0; }

/* The plain loops', in fp32 (attention_ref.c, gptq_ref.c, factor_ref.c, qmatmul_ref.c). */

static size_t plain_attention(const qd_attention_args *args) {
  int64_t keys = args->k.dim[0], head = args->q.dim[2];
  return qd_arena_cost((size_t)(keys > head ? keys : head), 3 * sizeof(float));
}

static size_t matrix_cost(qd_dtype dtype, int64_t rows, int64_t columns) {
  return qd_arena_cost((size_t)(rows * columns), qd_dtype_bytes(dtype));
}

size_t qd_scratch_attention(const qd_device *device, const qd_attention_args *args) {
  return is_cpu(device) ? qd_cpu_scratch_attention(device, args) : plain_attention(args);
}

size_t qd_scratch_qlinear(const qd_device *device, qd_tensor x, int64_t rows, bool has_order) {
  size_t gathered = has_order ? matrix_cost(x.dtype, x.dim[0], x.dim[1]) : 0;
  if (device->arithmetic == QD_ARITHMETIC_INT8)
    return gathered + (is_cpu(device) ? qd_cpu_int8_scratch(device, x.dim[0], rows, x.dim[1]) : qd_ref_int8_scratch(x.dim[1]));
  return is_cpu(device) ? gathered : gathered + matrix_cost(x.dtype, rows, x.dim[1]);
}

size_t qd_scratch_hessian(const qd_device *device, int64_t columns) {
  return is_cpu(device) ? qd_cpu_scratch_hessian(device, columns) : 0;
}

size_t qd_scratch_cross(const qd_device *device, int64_t columns, int64_t tokens, qd_dtype act) {
  return is_cpu(device) ? qd_cpu_scratch_cross(device, columns, tokens, act) : 0;
}

size_t qd_scratch_sqerror(const qd_device *device) { return is_cpu(device) ? qd_cpu_scratch_sqerror(device) : 0; }

/* The check of an order takes a byte a column before the work begins, far less than the work. */
size_t qd_scratch_factor(const qd_device *device, int64_t columns) {
  if (is_cpu(device)) return qd_cpu_scratch_factor(device, columns);
  return qd_arena_cost((size_t)(columns + 1) * QD_TRI_TILE, sizeof(double));
}

size_t qd_scratch_asymmetry(const qd_device *device, int64_t columns) {
  if (is_cpu(device)) return qd_cpu_scratch_asymmetry(device, columns);
  return qd_arena_cost((size_t)((columns + QD_TRI_TILE - 1) / QD_TRI_TILE * QD_TRI_TILE), sizeof(double));
}

size_t qd_scratch_gptq(const qd_device *device, const qd_gptq_args *args) {
  if (is_cpu(device)) return qd_cpu_scratch_gptq(device, args);
  return 2 * qd_arena_cost((size_t)args->w.dim[1], sizeof(float));
}

size_t qd_scratch_spqr(const qd_device *device, const qd_spqr_args *args) {
  if (is_cpu(device)) return qd_cpu_scratch_spqr(device, args);
  int64_t columns = args->w.dim[1], width = args->block < columns ? args->block : columns, unit = qd_spqr_run_rows(args, 0);
  return matrix_cost(QD_F32, width, width) + matrix_cost(QD_F32, unit, width) + 2 * matrix_cost(QD_F32, unit, 1) +
         matrix_cost(QD_F32, qd_scheme_group_size(args->scheme, columns), 1);
}

size_t qd_scratch_spearman_order(const qd_device *device, int64_t rows, int64_t columns) {
  size_t threads = is_cpu(device) ? (size_t)device->threads : 1;
  return matrix_cost(QD_F32, columns, rows) + qd_arena_cost((size_t)columns, sizeof(float)) +
         qd_arena_cost(threads * (size_t)rows, sizeof(qd_ranked));
}
