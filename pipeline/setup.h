/* What a quantizing run needs before, between and after its stages. */
#ifndef QDIST_PIPELINE_SETUP_H
#define QDIST_PIPELINE_SETUP_H

#include "pipeline/stages.h"

/* Open the model; then tokenizer and text.  All are checked against each other.  Collective. */
qd_status qd_setup_load_model(qd_run *run) QD_MUST_USE;
qd_status qd_setup_load_text(qd_run *run) QD_MUST_USE;

/* The plan, and whether it fits: nothing has been written yet.  Collective.  QD_ENOMEM, QD_EIO (plan.h). */
qd_status qd_setup_plan(qd_run *run) QD_MUST_USE;

/* Arenas, decoder, the stream of blocks.  Collective.  _rest: only what writing the rest needs. */
qd_status qd_setup_open(qd_run *run) QD_MUST_USE;
qd_status qd_setup_open_rest(qd_run *run) QD_MUST_USE;
void      qd_setup_close(qd_run *run);

/* Give back what only blocks and the rest need: the manifest, which grows with the number of blocks, is put together in its
 * room. */
void qd_setup_close_arenas(qd_run *run);

/* h of this rank's sequences = their embeddings. */
qd_status qd_setup_embed(qd_run *run, qd_block *rest) QD_MUST_USE;

/* All stages of a block with its weights as they are. */
qd_status qd_setup_forward(qd_run *run, qd_block *block) QD_MUST_USE;

/* Remember a stage's diagonal for the store. */
qd_status qd_setup_keep_input(qd_run *run, qd_stage stage, const qd_stats *stats) QD_MUST_USE;

/* Into the log file: the arithmetic, and on how many ranks each unit computes in it (nothing of it is part of the job).
 * Collective. */
qd_status qd_setup_log_units(qd_run *run) QD_MUST_USE;

/* Into the log file: what memory every rank took at most, beside its plan.  Collective. */
qd_status qd_setup_log_peaks(qd_run *run) QD_MUST_USE;

#endif
