/* RTN: every weight to the nearest point of its group's grid (rtn card of docs/methods.md). */
#include "pipeline/method.h"
#include "pipeline/method_codes.h"

static qd_status quantize(const qd_method_input *input, qd_qtensor *q) {
  qd_method_grid grid;
  QD_TRY(qd_method_grid_new(input, &grid));
  QD_TRY(qd_rtn_fit(input->device, input->w, input->scheme, grid.scale, grid.zero));
  QD_TRY(qd_rtn_quantize(input->device, input->w, input->scheme, grid.scale, grid.zero, grid.code));
  return qd_method_grid_store(input, &grid, q);
}

const qd_method qd_method_rtn = {
    .name = "rtn",
    .summary = "round to nearest; needs no calibration text (with one it reports each linear's output error)",
    .default_act_order = QD_ORDER_NONE,
    .quantize = quantize,
    .scratch_bytes = qd_method_grid_bytes,
};
