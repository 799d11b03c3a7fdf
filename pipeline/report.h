/* --report-kl: how far the quantized model has come from the original one, a block at a time.
 *
 * After each block both residual streams, the original's and the quantized one's, are taken through the final norm and the head
 * as if the block were the last ("logit lens"), and the distributions of the next token are compared at some positions of each
 * sequence: the Kullback-Leibler divergence of the quantized stream's from the original's, in nats, a mean over positions.
 * After the last block it is the models' own divergence on the calibration text.
 *
 * Positions of T tokens, P of them: (i + 1) T / P - 1 rounded down, i = 0 .. P - 1, all when P >= T; the last one is always
 * among them.  Logits in fp32, the divergence in double (ops.h); summed over positions ascending, then over sequences in global
 * order, so that ranks cannot show. */
#ifndef QDIST_PIPELINE_REPORT_H
#define QDIST_PIPELINE_REPORT_H

#include "pipeline/block.h"

enum { QD_KL_POSITIONS = 64 }; /* of a sequence, unless said otherwise */

struct qd_run;
struct qd_plan_request;

typedef struct qd_block_report {
  double  kl;           /* nats, mean over positions */
  int64_t positions;    /* over all sequences */
  double  stream_error; /* sum |o - x|^2 / sum |o|^2 over all positions of the residual streams, o the original's */
} qd_block_report;

typedef struct qd_report {
  qd_arena  arena;
  qd_block  head;                 /* final norm, and head or embedding, as they are computed with */
  qd_tensor rows[2], logits[2];   /* of the original and the quantized stream: act (P, hidden), F32 (some rows, V) */
  qd_tensor kl, same;             /* F64, I32 (some rows) */
  qd_tensor difference, stats;    /* F32 (T, hidden), F64 (3, hidden) */
  struct qd_report_sums *sums;    /* a sequence, in global order */
  bool            measured;
  qd_block_report block;          /* the last one */
} qd_report;

/* What qd_report_open takes on a rank that has so many sequences. */
size_t qd_report_bytes(const struct qd_plan_request *request, int64_t sequences);

/* Nothing where the job asks for no report.  _open reads the head, before the stream of blocks is opened: until then its image
 * takes the room planned for that stream; QD_EBADINPUT: it is not finite.  _block measures `run->report.block`, after the block
 * has been advanced, and tells the log; QD_ENUMERIC: the divergence is not finite.  Both are collective. */
qd_status qd_report_open(struct qd_run *run, size_t arena_bytes) QD_MUST_USE;
qd_status qd_report_block(struct qd_run *run, int64_t block) QD_MUST_USE;
void      qd_report_close(qd_report *report); /* a zeroed one is fine */

/* The last block's for the manifest (the caller's to free); NULL: nothing was measured. */
qd_json *qd_report_facts(const qd_report *report);

#endif
