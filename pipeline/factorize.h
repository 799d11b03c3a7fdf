/* From a stage's statistics to the factor that GPTQ works with: dead columns, order, damping and its ladder. */
#ifndef QDIST_PIPELINE_FACTORIZE_H
#define QDIST_PIPELINE_FACTORIZE_H

#include "pipeline/stages.h"

typedef struct qd_stage_factor {
  qd_tensor dead;      /* U8 (C): 1 where the input is always zero */
  qd_tensor order;     /* I32 (C): column at each processing position */
  qd_tri    u;         /* F32; data NULL if the method needs none */
  qd_tri    p;         /* F32: GPTAQ's, in the same order; of 0 columns: there is none */
  double    damping;   /* as used, relative to the mean diagonal */
  bool      failed;    /* no damping of the ladder helped: round to nearest */
  bool      nearest;   /* round to nearest, as it is asked for */
} qd_stage_factor;

/* For the linears of one order (a group size matters to group-aware order only).  From run->stats_arena.  Collective: the owner
 * factors, then all have the same.  QD_ENUMERIC with --on-hessian-failure stop. */
qd_status qd_factorize(qd_run *run, const qd_block *block, qd_stage stage, const qd_stats *stats, int64_t group_size,
                       qd_stage_factor *factor) QD_MUST_USE;

/* The same by this rank for itself alone: an expert's.  Not collective. */
qd_status qd_factorize_here(qd_run *run, const qd_stats *stats, int64_t group_size, qd_stage_factor *factor) QD_MUST_USE;

/* All rows of one linear on this rank, codes and what is measured, into weight->q and weight->result; nothing is sent.  stats
 * NULL: no token came by.  Not collective. */
qd_status qd_quantize_alone(qd_run *run, const qd_stage_factor *factor, const qd_stats *stats, qd_weight *weight) QD_MUST_USE;

/* The line of the log about a quantized linear. */
void qd_quantize_log(int64_t block, const qd_weight *weight, double seconds);

#endif
