#include "pipeline/run.h"

#include "kernels/base/heap.h"
#include "kernels/base/log.h"
#include "pipeline/keep.h"
#include "pipeline/output.h"
#include "pipeline/progress.h"
#include "pipeline/setup.h"
#include "pipeline/stages.h"
#include "workers/interrupt.h"
#include "workers/team.h"

static qd_status calibrate_stage(qd_run *run, qd_block *block, qd_stage stage, qd_stats *stats) {
  QD_TRY(qd_calibrate(run, block, stage, stats));
  return qd_setup_keep_input(run, stage, stats);
}

static qd_status quantize_stage(qd_run *run, qd_block *block, qd_stage stage) {
  qd_stats stats;
  size_t mark = qd_arena_mark(&run->stats_arena);
  QD_TRY(calibrate_stage(run, block, stage, &stats));
  QD_TRY(qd_advance_original(run, block, stage));
  QD_TRY(qd_quantize(run, block, stage, &stats));
  qd_arena_rewind(&run->stats_arena, mark);
  return QD_OK;
}

static qd_status quantize_routed(qd_run *run, qd_block *block, qd_stage stage) {
  QD_TRY(qd_advance_original(run, block, stage));
  return qd_quantize_experts(run, block, stage);
}

/* True-sequential: each stage sees the quantized stages before it, and after the last one the block is advanced: one pass.  The
 * original stream goes through a stage before its weights are quantized, after its inputs were compared. */
static qd_status block_by_stages(qd_run *run, qd_block *block) {
  QD_TRY(qd_enter(run, block));
  QD_TRY(qd_enter_original(run, block));
  QD_FOR_STAGES(stage, &run->model, block->index) {
    QD_TRY((qd_stage_is_routed(stage) ? quantize_routed : quantize_stage)(run, block, stage));
    QD_TRY(qd_advance(run, block, stage));
  }
  return QD_OK;
}

/* Experts are quantized where their statistics are: the last stage first, as its inputs come from the original gate and up.
 * What they would add to the block is not needed. */
static qd_status experts_at_once(qd_run *run, qd_block *block, qd_stage stage) {
  if (stage == QD_STAGE_EXPERT_DOWN) return QD_OK;
  QD_TRY(qd_quantize_experts(run, block, QD_STAGE_EXPERT_DOWN));
  return qd_quantize_experts(run, block, QD_STAGE_EXPERT_GATE_UP);
}

/* Otherwise all statistics come from the original block; it is then run once more with the quantized weights. */
static qd_status block_at_once(qd_run *run, qd_block *block) {
  qd_stats stats[QD_N_STAGES];
  qd_acts_save(&run->acts.quantized);
  QD_TRY(qd_enter(run, block));
  QD_TRY(qd_enter_original(run, block));
  QD_FOR_STAGES(stage, &run->model, block->index) {
    bool routed = qd_stage_is_routed(stage);
    bool last = qd_stage_next(&run->model, block->index, (qd_stage)(stage + 1)) == QD_N_STAGES;
    if (!routed) QD_TRY(calibrate_stage(run, block, stage, &stats[stage]));
    QD_TRY(qd_advance_original(run, block, stage));
    if (routed) QD_TRY(experts_at_once(run, block, stage));
    else if (!last) QD_TRY(qd_advance(run, block, stage));
  }
  QD_FOR_STAGES(stage, &run->model, block->index)
    if (!qd_stage_is_routed(stage)) QD_TRY(qd_quantize(run, block, stage, &stats[stage]));
  qd_acts_restore(&run->acts.quantized);
  return qd_setup_forward(run, block);
}

/* Without calibration text there is nothing to run: weights alone decide. */
static qd_status block_alone(qd_run *run, qd_block *block) {
  QD_FOR_STAGES(stage, &run->model, block->index)
    QD_TRY(qd_stage_is_routed(stage) ? qd_quantize_experts(run, block, stage) : qd_quantize(run, block, stage, NULL));
  return QD_OK;
}

static qd_status quantize_block(qd_run *run, qd_block *block) {
  qd_arena_rewind(&run->stats_arena, 0);
  if (!qd_run_calibrates(run)) return block_alone(run, block);
  return run->job->true_sequential ? block_by_stages(run, block) : block_at_once(run, block);
}

/* A block that is on disk already only carries the activations on: the original's through the original weights, which come with
 * it where they are needed, then the others through the stored ones. */
static qd_status pass_through(qd_run *run, qd_block *block) {
  if (!qd_run_calibrates(run)) return QD_OK;
  QD_TRY(qd_enter_original(run, block));
  QD_FOR_STAGES(stage, &run->model, block->index) QD_TRY(qd_advance_original(run, block, stage));
  qd_block_use_stored(block);
  return qd_setup_forward(run, block);
}

static qd_status embed(qd_run *run, qd_block *block) {
  QD_TRY(qd_read(run, block));
  return qd_setup_embed(run, block);
}

/* From the embedding on, or from where kept activations stand. */
static qd_status all_blocks(qd_run *run) {
  qd_block block;
  if (run->passed == 0) QD_TRY(embed(run, &block));
  for (int64_t b = run->passed; b < run->model.n_blocks; b++) {
    double start = qd_seconds();
    QD_TRY(qd_read(run, &block));
    if (b < run->first_block) {
      QD_TRY(pass_through(run, &block));
      continue;
    }
    QD_TRY(quantize_block(run, &block));
    QD_TRY(qd_report_block(run, b));
    QD_TRY(qd_write(run, &block, qd_seconds() - start));
    if (b + 1 < run->model.n_blocks) QD_TRY(qd_keep_write(run, b + 1));
    QD_TRY(qd_progress_stop(run, b, qd_seconds() - start));
  }
  return qd_write_wait(run);
}

static qd_status work(qd_run *run) {
  bool blocks_left = run->first_block < run->model.n_blocks;
  qd_budget_resume(&run->budget, &run->stored);
  QD_TRY(qd_progress_begin(run));
  QD_TRY(blocks_left ? qd_setup_open(run) : qd_setup_open_rest(run));
  if (!run->stored.has_rest)
    QD_TRY(qd_write_rest(run)); /* first: what follows depends on the embedding, which a resume must know again */
  if (blocks_left) QD_TRY(all_blocks(run));
  qd_setup_close_arenas(run);
  QD_TRY(qd_output_finish(run));
  QD_TRY(qd_setup_log_peaks(run));
  return qd_progress_end(run);
}

/* What helps when the output itself is damaged. */
static qd_status with_remedy(const qd_job *job, qd_status status) {
  if (status != QD_ECORRUPT) return status;
  return qd_fail(status, __FILE__, __LINE__,
                 "%s; delete that file (of a finished store: the folder %s) and run the same command again", qd_error_text(),
                 job->output);
}

qd_status qd_run_quantize(const qd_job *job, qd_comm *comm, qd_device *device) {
  qd_run run = {.job = job, .comm = comm, .device = device};
  qd_output output = {0};
  qd_interrupt_install();
  qd_times_start(&run);
  qd_status status = qd_setup_load(&run);
  if (status == QD_OK) status = qd_setup_plan(&run);
  if (status == QD_OK) status = qd_output_open(&run, &output);
  if (status == QD_OK && !output.finished) qd_plan_log(&run.plan, qd_team_ranks_on_node(comm));
  if (status == QD_OK && !output.finished) status = qd_setup_log_units(&run);
  if (status == QD_OK && !output.finished) status = work(&run);
  qd_setup_close(&run);
  status = with_remedy(job, status);
  qd_output_close(&output);
  return status;
}
