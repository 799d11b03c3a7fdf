/* GPTQ (arXiv:2210.17323): columns one after the other, each error spread over the columns to come by the factor of the inverse
 * Hessian.  With P (GPTAQ, arXiv:2504.02692) also what the columns' own inputs have lost against the original model's.
 *
 * Order of steps, as the reference's: the grid of a whole row is fitted on the original weights (dead columns included), then
 * dead columns are zeroed, then static groups are fitted, then the columns are brought into processing order. */
#include "pipeline/method.h"
#include "pipeline/method_codes.h"

#include "kernels/scratch.h"

#include <string.h>

static void zero_dead_columns(const qd_method_input *input) {
  const uint8_t *dead = input->dead.data;
  for (int64_t r = 0; r < input->w.dim[0]; r++) {
    float *row = (float *)input->w.data + r * input->w.stride[0];
    for (int64_t c = 0; c < input->w.dim[1]; c++)
      if (dead[c]) row[c] = 0;
  }
}

static bool groups_are_fitted_in_the_loop(const qd_method_input *input) {
  return qd_scheme_groups(input->scheme, input->w.dim[1]) > 1 && input->act_order != QD_ORDER_STATIC;
}

/* Stored position of each processing position: the column itself, or the position where the order is stored. */
static void stored_positions(const qd_method_input *input, int32_t *stored) {
  int64_t columns = input->w.dim[1];
  if (!qd_method_stores_order(input->act_order, input->scheme, columns)) {
    memcpy(stored, input->order.data, (size_t)columns * sizeof *stored);
    return;
  }
  for (int64_t c = 0; c < columns; c++) stored[c] = (int32_t)c;
}

static qd_status quantize(const qd_method_input *input, qd_qtensor *q) {
  qd_device *device = input->device;
  int64_t rows = input->w.dim[0], columns = input->w.dim[1];
  bool per_channel = qd_scheme_groups(input->scheme, columns) == 1, fit = groups_are_fitted_in_the_loop(input);
  qd_method_grid grid;
  QD_TRY(qd_method_grid_new(input, &grid));
  if (per_channel) QD_TRY(qd_rtn_fit(device, input->w, input->scheme, grid.scale, grid.zero));
  zero_dead_columns(input);
  if (!per_channel && !fit) QD_TRY(qd_rtn_fit(device, input->w, input->scheme, grid.scale, grid.zero));
  qd_tensor w, loss;
  int32_t *stored;
  QD_TRY(qd_tensor_new_2d(&device->scratch, QD_F32, rows, columns, &w));
  QD_TRY(qd_tensor_new_2d(&device->scratch, QD_F64, 1, rows, &loss));
  QD_TRY(qd_arena_new(&device->scratch, (size_t)columns, sizeof *stored, &stored));
  QD_TRY(qd_gather_columns(device, input->w, input->order, w));
  stored_positions(input, stored);
  qd_gptq_args args = {.w = w,
                       .u = input->u,
                       .stored = qd_tensor_1d(stored, QD_I32, columns),
                       .scheme = input->scheme,
                       .fit = fit,
                       .block = input->block,
                       .code = grid.code,
                       .scale = grid.scale,
                       .zero = grid.zero,
                       .loss = qd_tensor_1d(loss.data, QD_F64, rows),
                       .p = input->p};
  QD_TRY(qd_gptq(device, &args));
  return qd_method_grid_store(input, &grid, q);
}

static size_t scratch_bytes(const qd_method_input *input) {
  int64_t rows = input->w.dim[0], columns = input->w.dim[1];
  qd_gptq_args args = {.w = input->w,
                       .scheme = input->scheme,
                       .fit = groups_are_fitted_in_the_loop(input),
                       .block = input->block,
                       .scale = qd_tensor_2d(NULL, QD_F32, rows, qd_scheme_groups(input->scheme, columns)),
                       .p = input->p};
  return qd_method_grid_bytes(input) + qd_arena_cost((size_t)(rows * columns), sizeof(float)) +
         qd_arena_cost((size_t)rows, sizeof(double)) + qd_arena_cost((size_t)columns, sizeof(int32_t)) +
         qd_scratch_gptq(input->device, &args);
}

const qd_method qd_method_gptq = {
    .name = "gptq",
    .summary = "second-order, with calibration text; act-order static and the MSE clip grid by default",
    .needs_factor = true,
    .default_mse = true,
    .default_act_order = QD_ORDER_STATIC,
    .quantize = quantize,
    .scratch_bytes = scratch_bytes,
};
