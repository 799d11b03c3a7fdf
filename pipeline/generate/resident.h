/* A model that stays in memory for generating text: each rank holds a run of consecutive blocks with their part of the KV
 * cache, rank 0 the embedding as well, the last rank norm and head.  Linears are in panels (kernels/panels.h), quantized ones
 * as packed codes that are never expanded.  Tokens go through the ranks in order; so a rank's memory falls with their number,
 * and since every number of a token depends on the tokens before it alone (ops.h), neither ranks nor the cut into passes can
 * show. */
#ifndef QDIST_PIPELINE_GENERATE_RESIDENT_H
#define QDIST_PIPELINE_GENERATE_RESIDENT_H

#include "pipeline/evaluate/subject.h"
#include "pipeline/plan.h"

enum { QD_PASS_TOKENS = 128 }; /* that go through a block together, at most */

typedef struct qd_resident {
  qd_subject subject;     /* its comm is this rank alone once it is loaded: a block and its experts are one rank's */
  qd_comm   *comm;        /* all ranks */
  qd_device *device;
  int64_t    positions;   /* of the cache */
  qd_range   blocks;      /* of this rank */
  qd_block  *block;       /* these */
  qd_block   embedding;   /* rank 0 */
  qd_block   rest;        /* the last rank: final norm and head */
  qd_kv     *kv;          /* of each block */
  qd_tensor  logits;      /* the last rank: F32 (1, V) */
  void      *candidates;  /* the last rank: to choose a token with (sampling.h) */
  qd_arena   weights, cache;
} qd_resident;

/* Opens the model: shapes are known then, nothing is loaded.  Collective. */
qd_status qd_resident_open(qd_resident *resident, const char *path, qd_compute compute, qd_comm *comm,
                           qd_device *device) QD_MUST_USE;

/* The plan of one rank for so many positions, in the parts of pipeline/plan.h: weights and cache are "block in work" and
 * "activations".  _check: QD_ENOMEM as qd_plan_check_memory.  _scratch: the device's beside its packing buffers. */
void      qd_resident_plan(const qd_resident *resident, int64_t positions, int rank, qd_plan_rank *out);
qd_status qd_resident_check(const qd_resident *resident, int64_t positions, int64_t max_host_bytes) QD_MUST_USE;
size_t    qd_resident_scratch(const qd_resident *resident, int64_t positions);

/* Reads every block once, streamed to all ranks, of which each keeps its own.  Collective. */
qd_status qd_resident_load(qd_resident *resident, int64_t positions) QD_MUST_USE;

/* n >= 1 tokens (ids on rank 0) at the positions from `first` on, those before it being in the cache; afterwards the last rank
 * has the logits behind the last of them.  QD_EBADINPUT: an id beyond the vocabulary.  Collective. */
qd_status qd_resident_pass(qd_resident *resident, const int32_t *ids, int64_t n, int64_t first) QD_MUST_USE;

void qd_resident_close(qd_resident *resident); /* a zeroed one is fine */

#endif
