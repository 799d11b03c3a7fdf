#include "kernels/base/log.h"
#include "pipeline/stages.h"

static qd_status refuse_nonfinite(qd_run *run, const qd_block *block) {
  for (int i = 0; i < block->n; i++) {
    const qd_weight *weight = &block->weight[i];
    int64_t index;
    if (weight->quantized) continue;
    QD_TRY(qd_find_nonfinite(run->device, weight->original, &index));
    QD_CHECK(index < 0, QD_EBADINPUT, "%s: element %" PRId64 " of %s is NaN or infinite", run->job->model, index, weight->slot.name);
  }
  return QD_OK;
}

qd_status qd_read(qd_run *run, qd_block *block) {
  double start = qd_seconds();
  qd_arena_rewind(&run->block_arena, 0);
  QD_TRY(qd_feed_next(&run->feed, block));
  QD_TRY_ALL(run->comm, refuse_nonfinite(run, block));
  QD_TRY_ALL(run->comm, qd_block_prepare(block, run->act, &run->block_arena));
  run->seconds.read += qd_seconds() - start;
  return QD_OK;
}
