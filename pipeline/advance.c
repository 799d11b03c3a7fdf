#include "pipeline/stages.h"

/* With one sequence a weight is used once: then it is multiplied as it is stored.  Same bits either way. */
static qd_status expand_quantized(qd_run *run, qd_block *block, qd_stage stage) {
  if (run->mine.n < 2) return QD_OK;
  for (qd_role role = qd_stage_first(stage); role <= qd_stage_last(stage); role++) {
    qd_weight *weight = qd_block_find(block, role);
    if (weight->quantized && weight->compute.rank == 0)
      QD_TRY(qd_weight_expand(run->device, weight, run->act, &run->block_arena));
  }
  return QD_OK;
}

static qd_status enter_all(qd_run *run, qd_acts *acts, qd_block *block) {
  qd_acts_window window;
  qd_acts_begin(acts, (qd_acts_use){.reads_h = true, .mid_out = qd_decoder_mid_columns(&run->model, 0)});
  for (;;) {
    QD_TRY(qd_acts_next(acts, &window));
    if (window.n == 0) return QD_OK;
    for (int64_t i = 0; i < window.n; i++)
      QD_TRY(qd_decoder_enter(&run->decoder, block, qd_tensor_at(window.h, i), qd_tensor_at(window.mid, i).data));
  }
}

static qd_acts_use use_of_stage(const qd_run *run, qd_stage stage) {
  bool last = stage + 1 == QD_N_STAGES, touches_h = qd_decoder_touches_residual(stage);
  return (qd_acts_use){.reads_h = touches_h,
                       .writes_h = touches_h,
                       .mid_in = qd_decoder_mid_columns(&run->model, stage),
                       .mid_out = last ? 0 : qd_decoder_mid_columns(&run->model, stage + 1)};
}

static qd_status advance_all(qd_run *run, qd_acts *acts, qd_block *block, qd_stage stage) {
  qd_acts_window window;
  QD_TRY(expand_quantized(run, block, stage));
  qd_acts_begin(acts, use_of_stage(run, stage));
  for (;;) {
    QD_TRY(qd_acts_next(acts, &window));
    if (window.n == 0) return QD_OK;
    for (int64_t i = 0; i < window.n; i++)
      QD_TRY(
          qd_decoder_advance(&run->decoder, block, stage, qd_tensor_at(window.h, i), qd_tensor_at(window.mid, i).data));
  }
}

static qd_status enter_stream(qd_run *run, qd_acts *acts, qd_block *block) {
  qd_moment begin = qd_times_begin(run);
  QD_TRY_ALL(run->comm, enter_all(run, acts, block));
  qd_times_end(run, begin, QD_TIME_ADVANCE);
  return QD_OK;
}

static qd_status advance_stream(qd_run *run, qd_acts *acts, qd_block *block, qd_stage stage) {
  qd_moment begin = qd_times_begin(run);
  QD_TRY_ALL(run->comm, advance_all(run, acts, block, stage));
  qd_times_end(run, begin, QD_TIME_ADVANCE);
  return QD_OK;
}

qd_status qd_enter(qd_run *run, qd_block *block) { return enter_stream(run, &run->acts.quantized, block); }

qd_status qd_advance(qd_run *run, qd_block *block, qd_stage stage) {
  return advance_stream(run, &run->acts.quantized, block, stage);
}

qd_status qd_enter_original(qd_run *run, qd_block *block) {
  return qd_run_keeps_original(run) ? enter_stream(run, &run->acts.original, block) : QD_OK;
}

qd_status qd_advance_original(qd_run *run, qd_block *block, qd_stage stage) {
  return qd_run_keeps_original(run) ? advance_stream(run, &run->acts.original, block, stage) : QD_OK;
}
