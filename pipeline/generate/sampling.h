/* Which token comes next: the likeliest, or one drawn from what the logits promise.  Everything is in double in a stated order,
 * and random numbers are counted, so that the choice depends on logits, settings and the token's number alone. */
#ifndef QDIST_PIPELINE_GENERATE_SAMPLING_H
#define QDIST_PIPELINE_GENERATE_SAMPLING_H

#include "kernels/base/tensor.h"

typedef struct qd_sampling {
  double   temperature;  /* 0: the token of the largest logit, of equals the lowest; the rest means nothing then */
  int64_t  top_k;        /* only the k likeliest; 0: all */
  double   top_p;        /* of these the fewest that have so much of their probability (arXiv:1904.09751); 1: all */
  double   min_p;        /* of these such that are at least so likely, as a part of the likeliest (arXiv:2407.01082); 0: all */
  uint64_t seed;
} qd_sampling;

/* A number in [0, 1), 53 bits, the same for the same three: splitmix64's step (Steele, Lea, Flood 2014) over them in turn. */
double qd_sampling_uniform(uint64_t seed, uint64_t purpose, uint64_t index);

/* The token behind logits F32 (V), V > 0, none NaN; `index` counts the tokens that are drawn.  Likelier comes first, of equals
 * the lower token.  weight = exp((logit - top) / temperature); total: over all in token order, or over the k likeliest in
 * theirs; kept are the first whose weights up to there reach top_p total, and of those weight >= min_p; drawn is the first at
 * which the running sum passes uniform times theirs.  `work`: QD_SAMPLING_WORK_BYTES for each of the V. */
enum { QD_SAMPLING_WORK_BYTES = 16 };
int32_t qd_sampling_choose(const qd_sampling *sampling, qd_tensor logits, uint64_t index, void *work);

#endif
