#include "pipeline/plan_settings.h"
#include "pipeline/probe.h"
#include "pipeline/run.h"

#include "kernels/base/heap.h"
#include "kernels/base/log.h"
#include "pipeline/keep.h"
#include "pipeline/output.h"
#include "pipeline/progress.h"
#include "pipeline/setup.h"
#include "pipeline/stages.h"
#include "workers/team.h"

#include <string.h>

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

/* What follows depends on the embedding, which a resume must know again: it is written first. */
static qd_status embed(qd_run *run, qd_block *block) {
  QD_TRY(qd_read(run, block));
  QD_TRY(qd_quantize_embedding(run, block));
  QD_TRY(qd_setup_embed(run, block));
  bool made = qd_job_quantizes(run->job, QD_EMBEDDING, &run->model);
  return run->stored.has_rest ? QD_OK : qd_write_rest(run, made ? block : NULL);
}

/* A tied head is the embedding, by another name in the store. */
static void name_head(const qd_run *run, qd_block *rest) {
  qd_weight *embedding = qd_block_find(rest, QD_EMBEDDING);
  int n = qd_model_n_slots(&run->stored_model, QD_REST);
  for (int i = 0; embedding != NULL && i < n; i++) {
    qd_slot slot;
    qd_model_slot(&run->stored_model, QD_REST, i, &slot);
    if (slot.role == QD_HEAD) embedding->slot = slot;
  }
}

/* As a stage, but that nothing comes behind it. */
static qd_status quantize_head(qd_run *run) {
  qd_block rest;
  qd_stats stats;
  QD_TRY(qd_read(run, &rest));
  name_head(run, &rest);
  qd_arena_rewind(&run->stats_arena, 0);
  if (qd_run_calibrates(run)) {
    QD_TRY(qd_enter(run, &rest));
    QD_TRY(qd_enter_original(run, &rest));
    QD_TRY(calibrate_stage(run, &rest, QD_STAGE_HEAD, &stats));
  }
  QD_TRY(qd_quantize(run, &rest, QD_STAGE_HEAD, qd_run_calibrates(run) ? &stats : NULL));
  return qd_write_rest(run, &rest);
}

static qd_status one_block(qd_run *run, int64_t b) {
  qd_block block;
  double start = qd_seconds();
  QD_TRY(qd_read(run, &block));
  if (b < run->first_block) return pass_through(run, &block);
  QD_TRY(quantize_block(run, &block));
  QD_TRY(qd_report_block(run, b));
  QD_TRY(qd_write(run, &block, qd_seconds() - start));
  if (b + 1 < run->model.n_blocks || run->head_left) QD_TRY(qd_keep_write(run, b + 1));
  return qd_progress_stop(run, b, qd_seconds() - start);
}

/* From the embedding on, or from where kept activations stand. */
static qd_status all_blocks(qd_run *run) {
  qd_block rest;
  if (run->passed == 0) QD_TRY(embed(run, &rest));
  for (int64_t b = run->passed; b < run->model.n_blocks; b++) QD_TRY(one_block(run, b));
  if (run->head_left) QD_TRY(quantize_head(run));
  return qd_write_wait(run);
}

static qd_status work(qd_run *run) {
  bool embeds = !run->stored.has_rest && qd_job_quantizes(run->job, QD_EMBEDDING, &run->model);
  bool blocks_left = run->first_block < run->model.n_blocks || run->head_left || embeds;
  qd_budget_resume(&run->budget, &run->stored);
  QD_TRY(qd_progress_begin(run));
  QD_TRY(blocks_left ? qd_setup_open(run) : qd_setup_open_rest(run));
  if (blocks_left) QD_TRY(all_blocks(run));
  else if (!run->stored.has_rest) QD_TRY(qd_write_rest(run, NULL));
  qd_setup_close_arenas(run);
  QD_TRY(qd_output_finish(run));
  QD_TRY(qd_setup_log_peaks(run));
  return qd_progress_end(run);
}

/* What helps when the output itself is damaged. */
static qd_status with_remedy(const qd_job *job, qd_status status) {
  if (status != QD_ECORRUPT) return status;
  if (strstr(qd_error_text(), "/partial/job.json") != NULL)
    return qd_fail(status, __FILE__, __LINE__, "%s; without it nobody can tell what the blocks there are: delete the folder %s",
                   qd_error_text(), job->output);
  return qd_fail(status, __FILE__, __LINE__,
                 "%s; delete that file (of a finished store: the folder %s) and run the same command again", qd_error_text(),
                 job->output);
}

/* Where the output is refused another job may be at work there, whose status file it then is. */
static bool tells_of_itself(const qd_output *output, qd_status status) {
  return status != QD_OK && status != QD_ESTOPPED && (output->locked || status != QD_EEXIST);
}

/* An estimate needs a probe of some tenths of a second, more than a small job is worth; it never ends a job. */
static void log_time(qd_run *run) {
  const double worth_probing = 1 << 24;
  qd_probe probe;
  if (!run->job->show_plan && qd_plan_weights(&run->plan) < worth_probing) return;
  if (qd_probe_run(&run->plan, run->comm, run->device, &probe) != QD_OK) {
    qd_log_warning("there is no estimate of the time: %s", qd_error_text());
    qd_error_clear();
    return;
  }
  qd_probe_time time = qd_probe_seconds(&run->plan, &probe);
  double left = (double)(run->model.n_blocks - run->first_block) / (double)run->model.n_blocks;
  qd_log("plan: about %.0f s for the blocks to do, by a short probe of this machine", time.total * left);
}

/* What `plan` tells, before any work. */
static void tell_plan(qd_run *run) {
  qd_plan_setting setting;
  char text[QD_SETTING_BYTES];
  qd_plan_log(&run->plan, qd_team_ranks_on_node(run->comm));
  for (size_t i = 0; run->job->show_plan && qd_plan_setting_at(&run->plan, i, &setting); i++) {
    qd_plan_setting_text(&run->plan, &setting, text);
    qd_log("  %s", text);
  }
  log_time(run);
}

/* Tokenizing can take a while: what can be refused before is. */
static qd_status load(qd_run *run) {
  qd_store_state state;
  QD_TRY(qd_setup_load_model(run));
  QD_TRY_ALL(run->comm, run->comm->rank == 0 ? qd_output_foresee(run, &state) : QD_OK);
  return qd_setup_load_text(run);
}

qd_status qd_run_quantize(const qd_job *job, qd_comm *comm, qd_device *device) {
  qd_run run = {.job = job, .comm = comm, .device = device};
  qd_output output = {0};
  qd_times_start(&run);
  qd_status status = load(&run);
  if (status == QD_OK) status = qd_setup_plan(&run);
  if (status == QD_OK) status = qd_output_open(&run, &output);
  if (status == QD_OK && !output.finished) tell_plan(&run);
  if (status == QD_OK && !output.finished) status = qd_setup_log_units(&run);
  if (status == QD_OK) status = output.finished ? qd_progress_nothing_to_do(&run) : work(&run);
  status = with_remedy(job, status);
  if (tells_of_itself(&output, status)) status = qd_progress_failed(&run, status);
  qd_setup_close(&run);
  qd_output_close(&output);
  return status;
}
