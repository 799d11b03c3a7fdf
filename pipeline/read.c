#include "kernels/base/log.h"
#include "pipeline/stages.h"

qd_status qd_read(qd_run *run, qd_block *block) {
  double start = qd_seconds();
  qd_arena_rewind(&run->block_arena, 0);
  QD_TRY(qd_feed_next(&run->feed, block));
  QD_TRY_ALL(run->comm, qd_block_check_finite(block, run->device, run->job->model));
  QD_TRY_ALL(run->comm, qd_block_prepare(block, run->act, &run->block_arena));
  run->seconds.read += qd_seconds() - start;
  return QD_OK;
}
