/* From a stage's statistics to the factor that GPTQ works with: dead columns, order, damping and its ladder. */
#ifndef QDIST_PIPELINE_FACTORIZE_H
#define QDIST_PIPELINE_FACTORIZE_H

#include "pipeline/stages.h"

/* The linears that one factor serves. */
typedef struct qd_linears {
  int        n;
  qd_weight *weight[QD_N_LINEARS];
} qd_linears;

typedef struct qd_stage_factor {
  qd_linears linears;
  qd_tensor dead;      /* U8 (C): 1 where the input is always zero */
  qd_tensor order;     /* I32 (C): column at each processing position */
  qd_tri    u;         /* F32; data NULL if the method needs none */
  qd_tri    p;         /* F32: GPTAQ's, in the same order; of 0 columns: there is none */
  double    damping;   /* as used, relative to the mean diagonal */
  bool      failed;    /* no damping of the ladder helped: round to nearest */
  qd_tensor variance;  /* F64 (linears, C), where the method has outliers: of each column over rows, 0 where it is dead */
  double    threshold; /* of outliers, relative to the linear's scale; INFINITY: none */
  bool      nearest;   /* round to nearest, as it is asked for */
} qd_stage_factor;

/* The dampings of --damp auto: what GPTQ's authors use, and up to what SpQR's do. */
enum { QD_N_DAMPINGS = 3 };
extern const double qd_dampings[QD_N_DAMPINGS];

/* For the linears in factor->linears, the rest of which is filled.  From run->stats_arena.  Collective: the owner factors, then
 * all have the same.  Of several dampings each is tried by another rank, the owner first, on a sample of rows (sample.h), and
 * the best factor is sent; where the job has a budget for outliers, the threshold that it wants is found alike.  QD_ENUMERIC
 * with --on-hessian-failure stop. */
qd_status qd_factorize(qd_run *run, const qd_block *block, qd_stage stage, const qd_stats *stats,
                       qd_stage_factor *factor) QD_MUST_USE;

/* The same by this rank for itself alone: an expert's.  stats NULL: the factor is one that failed, for an input that nobody
 * knows.  Not collective. */
qd_status qd_factorize_here(qd_run *run, const qd_stats *stats, qd_stage_factor *factor) QD_MUST_USE;

/* All rows of one of the factor's linears on this rank, codes and what is measured, into its q and result; nothing is sent.
 * stats NULL: no token came by.  Not collective. */
qd_status qd_quantize_alone(qd_run *run, const qd_stage_factor *factor, const qd_stats *stats, int index) QD_MUST_USE;

/* The line of the log about a quantized linear. */
void qd_quantize_log(int64_t block, const qd_weight *weight, double seconds);

#endif
