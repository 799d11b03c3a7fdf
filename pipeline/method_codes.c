#include "pipeline/method_codes.h"

#include <string.h>

size_t qd_method_grid_bytes(const qd_method_input *input) {
  size_t rows = (size_t)input->w.dim[0], columns = (size_t)input->w.dim[1],
         groups = (size_t)qd_scheme_groups(input->scheme, input->w.dim[1]);
  return qd_arena_cost(rows * columns, 1) + qd_arena_cost(rows * groups, sizeof(float)) + qd_arena_cost(rows * groups, 1);
}

qd_status qd_method_grid_new(const qd_method_input *input, qd_method_grid *grid) {
  qd_arena *scratch = &input->device->scratch;
  int64_t rows = input->w.dim[0], columns = input->w.dim[1], groups = qd_scheme_groups(input->scheme, columns);
  QD_TRY(qd_tensor_new_2d(scratch, QD_U8, rows, columns, &grid->code));
  QD_TRY(qd_tensor_new_2d(scratch, QD_F32, rows, groups, &grid->scale));
  return qd_tensor_new_2d(scratch, QD_U8, rows, groups, &grid->zero);
}

qd_status qd_method_grid_store(const qd_method_input *input, const qd_method_grid *grid, qd_qtensor *q) {
  size_t n = (size_t)qd_tensor_elements(grid->scale);
  const float *scale = grid->scale.data;
  if (q->scheme.scale_dtype == QD_F16) {
    uint16_t *half = q->scales.data; /* exact: scales were rounded to fp16 before any code was chosen */
    for (size_t i = 0; i < n; i++) half[i] = qd_f16_from_f32(scale[i]);
  } else {
    memcpy(q->scales.data, scale, n * sizeof *scale);
  }
  if (!q->scheme.symmetric) memcpy(q->zeros.data, grid->zero.data, n);
  return qd_pack(input->device, grid->code, input->scheme.bits, q->codes);
}
