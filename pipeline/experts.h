/* Experts of a sparse block: who has which, and how tokens reach them and come back.
 *
 * Experts belong to ranks in turn and are worked on in rounds of one expert a rank (workers/partition.h); in a round tokens
 * travel to the owners in windows of bounded size, in (sequence, position) order whatever rank has the sequence, and outputs
 * travel back, where each token adds them by ascending expert.  So nothing depends on the number of ranks, and no buffer on how
 * tokens choose.
 *
 * All functions are collective unless they say otherwise. */
#ifndef QDIST_PIPELINE_EXPERTS_H
#define QDIST_PIPELINE_EXPERTS_H

#include "pipeline/acts.h"
#include "pipeline/decoder.h"
#include "workers/comm.h"

/* Tokens of one unit of an expert's exact sums; and of a window, at most (a whole number of units). */
enum { QD_EXPERT_UNIT = 2048, QD_EXPERT_WINDOW = 8 * QD_EXPERT_UNIT };

typedef struct qd_experts_shape {
  const qd_model *model;
  qd_dtype act;
  int64_t  tokens;                   /* T of a sequence */
  int64_t  sequences, all_sequences; /* of this rank and of all, at most */
  int      ranks;
} qd_experts_shape;

typedef struct qd_experts {
  qd_experts_shape shape;
  qd_comm    *comm;
  qd_decoder *decoder;
  qd_acts    *acts;
  qd_arena    arena;
  int64_t *first;                /* (ranks + 1): global number of each rank's first sequence */
  int64_t *start;                /* (all sequences + 1, E): tokens of each expert in the sequences before */
  int32_t *inside;               /* (sequences, E): where an expert's tokens begin in the list of its sequence */
  int32_t *list;                 /* (sequences, T k): tokens of a sequence, by expert, ascending in each */
  float   *weight;               /* what their outputs are multiplied by */
  int64_t *low, *high;           /* (ranks): the window of each expert of the round, in its list of all tokens */
  size_t  *there_bytes, *here_bytes; /* (ranks): what goes to each owner, what comes to this one */
  unsigned char *travelling, *rows;  /* tokens on their way; those of this rank's expert */
  void    *inner[2];                 /* (rows, expert_ffn) */
  int64_t  loaded_round, loaded_window; /* what `rows` holds; -1: something else */
} qd_experts;

/* Rows of a window at most; the arena; a message between two ranks at most. */
int64_t qd_experts_window_rows(const qd_experts_shape *shape);
size_t  qd_experts_bytes(const qd_experts_shape *shape);

qd_status qd_experts_open(qd_experts *experts, const qd_experts_shape *shape, qd_comm *comm, qd_decoder *decoder,
                          qd_acts *acts) QD_MUST_USE;
void      qd_experts_close(qd_experts *experts); /* a zeroed one is fine */

/* Choose experts for every token of x = norm(h), where the O stage left it.  Until the next call the choice stands. */
qd_status qd_experts_route(qd_experts *experts, qd_block *block) QD_MUST_USE;

/* Not collective.  Tokens of an expert; windows of a round. */
int64_t qd_experts_tokens(const qd_experts *experts, int64_t expert);
int64_t qd_experts_windows(const qd_experts *experts, int64_t round);

/* Tokens window * QD_EXPERT_WINDOW ... of this rank's expert: x (n, hidden), n 0 when it has no more.  What is there already is
 * not sent again. */
qd_status qd_experts_fetch(qd_experts *experts, int64_t round, int64_t window, qd_tensor *x) QD_MUST_USE;

/* silu(gate(x)) * up(x) of an expert, with its weights as they are.  Not collective. */
qd_status qd_experts_inner(qd_experts *experts, qd_block *block, int64_t expert, qd_tensor x, qd_tensor *inner) QD_MUST_USE;

/* The stage EXPERT_DOWN of the forward: sum = weighted outputs of all experts; h = h + sum unless a shared expert follows. */
qd_status qd_experts_advance(qd_experts *experts, qd_block *block) QD_MUST_USE;

#endif
