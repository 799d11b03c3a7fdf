#include "pipeline/stages.h"

static void *mid_of(const qd_run *run, int64_t i) { return run->acts.mid + (size_t)i * run->acts.mid_bytes; }

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

static qd_status enter_all(qd_run *run, qd_block *block) {
  for (int64_t i = 0; i < run->mine.n; i++)
    QD_TRY(qd_decoder_enter(&run->decoder, block, qd_tensor_at(run->acts.h, i), mid_of(run, i)));
  return QD_OK;
}

static qd_status advance_all(qd_run *run, qd_block *block, qd_stage stage) {
  QD_TRY(expand_quantized(run, block, stage));
  for (int64_t i = 0; i < run->mine.n; i++)
    QD_TRY(qd_decoder_advance(&run->decoder, block, stage, qd_tensor_at(run->acts.h, i), mid_of(run, i)));
  return QD_OK;
}

qd_status qd_enter(qd_run *run, qd_block *block) {
  qd_moment begin = qd_times_begin(run);
  QD_TRY_ALL(run->comm, enter_all(run, block));
  qd_times_end(run, begin, QD_TIME_ADVANCE);
  return QD_OK;
}

qd_status qd_advance(qd_run *run, qd_block *block, qd_stage stage) {
  qd_moment begin = qd_times_begin(run);
  QD_TRY_ALL(run->comm, advance_all(run, block, stage));
  qd_times_end(run, begin, QD_TIME_ADVANCE);
  return QD_OK;
}
