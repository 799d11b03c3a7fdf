/* The five verbs of the loop (run.c).  All are collective and return the same status on every rank: local part, agreement,
 * communication. */
#ifndef QDIST_PIPELINE_STAGES_H
#define QDIST_PIPELINE_STAGES_H

#include "kernels/base/task.h"
#include "pipeline/acts.h"
#include "pipeline/budget.h"
#include "pipeline/experts.h"
#include "pipeline/feed.h"
#include "pipeline/job.h"
#include "pipeline/plan.h"
#include "pipeline/record.h"
#include "pipeline/report.h"
#include "pipeline/times.h"
#include "storage/kept.h"
#include "workers/agree.h"
#include "workers/partition.h"

/* Streams of activations, side by side. */
typedef struct qd_streams {
  qd_acts quantized; /* through the blocks as they are quantized */
  qd_acts original;  /* through the original blocks; not open unless the job keeps it (qd_job_keeps_original) */
} qd_streams;

/* Statistics of one linear input, over all sequences. */
typedef struct qd_stats {
  char      what[80];   /* "block 3: qkv_input", for messages */
  int64_t   columns, tokens;
  qd_tensor diagonal;   /* F64 (C): of X^T X, units added in order */
  qd_tri    h;          /* F32: X^T X, rounded once from the exact sum; the same on every rank */
  bool      asymmetric; /* GPTAQ's, and the original's input differs: on every rank alike */
  qd_tensor cross;      /* F32 (C, C): (O - X)^T X, O the original's input; on the owner of the stage, else no data */
} qd_stats;

typedef struct qd_run {
  const qd_job *job;
  qd_comm      *comm;
  qd_device    *device;
  qd_model      model;
  qd_model      stored_model;    /* as the store describes it: not tied where the job unties */
  qd_source    *source;
  qd_store      stored;          /* what a killed run left */
  qd_feed       feed;
  qd_decoder    decoder;
  qd_dtype      act;
  qd_plan       plan;
  qd_tokens     tokens;          /* rows 0: no calibration */
  qd_range      mine;            /* this rank's sequences */
  qd_streams    acts;
  qd_arena      acts_arena, block_arena, stats_arena, write_arena;
  qd_task       writer;          /* brings the last block's files to disk */
  void         *writing;         /* what it works on (write.c) */
  qd_experts    experts[2];      /* of the quantized stream and of the original, as far as they are kept */
  qd_input_result  input[QD_N_STAGES]; /* of the block in work; not of experts */
  qd_input_result *expert_input[2];    /* (E) of EXPERT_GATE_UP and EXPERT_DOWN; the owner has the data */
  qd_report        report;       /* --report-kl */
  qd_times      times;           /* work so far (times.h) */
  double        started;         /* qd_seconds() at the start */
  int64_t       first_block;     /* of this run, after a resume */
  int64_t       blocks_done;     /* on disk and in the journal */
  bool          head_left;       /* the head is to be quantized still */
  int64_t       passed;          /* blocks that the activations had passed when they were read back (keep.h); 0: none were */
  qd_budget     budget;          /* for outliers; the same on every rank */
  qd_kept       kept;            /* what was written last, to be noted when the journal has its blocks */
} qd_run;

static inline bool qd_run_calibrates(const qd_run *run) { return run->tokens.rows > 0; }
static inline bool qd_run_keeps_original(const qd_run *run) {
  return qd_run_calibrates(run) && qd_job_keeps_original(run->job);
}

/* Some bytes of each unit (sequence), computed where the unit is run, in global order: everyone gets all.  Collective. */
qd_status qd_units_gather(qd_run *run, void *data, size_t unit_bytes) QD_MUST_USE;

/* The next block of the feed, in the form that is computed with. */
qd_status qd_read(qd_run *run, qd_block *block) QD_MUST_USE;

/* mid of every sequence -> statistics of the stage's input: exact sums, so that ranks cannot show. */
qd_status qd_calibrate(qd_run *run, const qd_block *block, qd_stage stage, qd_stats *stats) QD_MUST_USE;

/* Rows of the cross sum that are added up and sent at once, so that it takes no more memory than the Hessian's own sum. */
static inline int64_t qd_calibrate_panel(int64_t columns) { return (columns + 1) / 2; }

/* The stage's linears -> qtensors; rows over ranks, afterwards whole on every rank. */
qd_status qd_quantize(qd_run *run, qd_block *block, qd_stage stage, const qd_stats *stats) QD_MUST_USE;

/* The embedding -> a qtensor, where the job asks for it; rows over ranks, afterwards whole on every rank. */
qd_status qd_quantize_embedding(qd_run *run, qd_block *rest) QD_MUST_USE;

/* The same for a stage of experts, statistics included: each owner sums the Hessian of its expert, by units of QD_EXPERT_UNIT
 * tokens, and quantizes it; codes stay there, what is measured goes to all.  The inputs of EXPERT_DOWN come from gate and up as
 * they are then. */
qd_status qd_quantize_experts(qd_run *run, qd_block *block, qd_stage stage) QD_MUST_USE;

/* Begin a block; and one stage of its forward, with the weights as they are now. */
qd_status qd_enter(qd_run *run, qd_block *block) QD_MUST_USE;
qd_status qd_advance(qd_run *run, qd_block *block, qd_stage stage) QD_MUST_USE;

/* The same of the original stream, which needs the stage's original weights: before they are quantized.  Nothing where the job
 * does not keep it. */
qd_status qd_enter_original(qd_run *run, qd_block *block) QD_MUST_USE;
qd_status qd_advance_original(qd_run *run, qd_block *block, qd_stage stage) QD_MUST_USE;

/* The block's files, each by one rank, behind the work on the next block.  _wait: until they are on disk and in the journal,
 * which is then told ("4 of 80 blocks on disk", with the seconds that the block took).  So a kill costs the block in work and
 * the one being written. */
qd_status qd_write(qd_run *run, const qd_block *block, double seconds) QD_MUST_USE;
qd_status qd_write_wait(qd_run *run) QD_MUST_USE;
void      qd_write_close(qd_run *run);

/* Embedding, final norm and head, by the coordinator: as they are, but what is quantized in `made` (or NULL) as it is there.  A
 * second call writes them anew, with what was quantized before. */
qd_status qd_write_rest(qd_run *run, qd_block *made) QD_MUST_USE;

#endif
