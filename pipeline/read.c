#include "pipeline/stages.h"

qd_status qd_read(qd_run *run, qd_block *block) {
  qd_moment begin = qd_times_begin(run);
  qd_arena_rewind(&run->block_arena, 0);
  QD_TRY(qd_feed_next(&run->feed, block));
  QD_TRY_ALL(run->comm, qd_block_check_finite(block, run->device, run->job->model));
  QD_TRY_ALL(run->comm, qd_block_prepare(block, run->act, &run->block_arena));
  qd_times_end(run, begin, QD_TIME_PREPARE);
  return QD_OK;
}
