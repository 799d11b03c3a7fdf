#include "pipeline/generate/sampling.h"

#include "kernels/vecmath.h"

static uint64_t mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

double qd_sampling_uniform(uint64_t seed, uint64_t purpose, uint64_t index) {
  return (double)(mix(mix(mix(seed) + purpose) + index) >> 11) * 0x1p-53;
}

typedef struct candidate {
  double  weight;
  int64_t token;
} candidate;
_Static_assert(sizeof(candidate) == QD_SAMPLING_WORK_BYTES, "the work of a candidate");

static bool before(const candidate *a, const candidate *b) {
  return a->weight > b->weight || (a->weight == b->weight && a->token < b->token);
}

static void swap(candidate *a, candidate *b) {
  candidate t = *a;
  *a = *b, *b = t;
}

/* A heap whose root comes first; what is taken lies behind it, the first of all at the very end. */
typedef struct heap {
  candidate *at;
  int64_t    n, all;
} heap;

static void sink(heap *h, int64_t i) {
  for (int64_t child; (child = 2 * i + 1) < h->n; i = child) {
    if (child + 1 < h->n && before(&h->at[child + 1], &h->at[child])) child++;
    if (before(&h->at[i], &h->at[child])) return;
    swap(&h->at[i], &h->at[child]);
  }
}

/* The candidate of a place in the order; those before it were asked for. */
static const candidate *take(heap *h, int64_t place) {
  while (h->all - h->n <= place) {
    swap(&h->at[0], &h->at[--h->n]);
    sink(h, 0);
  }
  return &h->at[h->all - 1 - place];
}

static int32_t largest(const float *logit, int64_t n) {
  int64_t best = 0;
  for (int64_t i = 1; i < n; i++)
    if (logit[i] > logit[best]) best = i;
  return (int32_t)best;
}

/* How many are kept, and the sum of their weights. */
static int64_t keep(const qd_sampling *s, heap *h, double total, double *sum) {
  int64_t most = s->top_k > 0 && s->top_k < h->all ? s->top_k : h->all, n = 0;
  *sum = 0;
  if (most < h->all) {
    total = 0;
    for (int64_t i = 0; i < most; i++) total += take(h, i)->weight;
  }
  if (s->top_p >= 1 && s->min_p <= 0) return *sum = total, most;
  while (n < most && (s->top_p >= 1 || *sum < s->top_p * total || n == 0)) {
    double weight = take(h, n)->weight;
    if (weight < s->min_p) break; /* the first has the weight 1 */
    *sum += weight, n++;
  }
  return n;
}

int32_t qd_sampling_choose(const qd_sampling *s, qd_tensor logits, uint64_t index, void *work) {
  enum { NEXT_TOKEN = 1 };
  const float *logit = logits.data;
  int64_t n = qd_tensor_elements(logits);
  int32_t best = largest(logit, n);
  if (s->temperature <= 0) return best;
  heap h = {.at = work, .n = n, .all = n};
  double total = 0, sum, so_far = 0, top = (double)logit[best];
  for (int64_t i = 0; i < n; i++) {
    h.at[i] = (candidate){qd_vm_exp(((double)logit[i] - top) / s->temperature), i};
    total += h.at[i].weight;
  }
  for (int64_t i = n / 2 - 1; i >= 0; i--) sink(&h, i);
  int64_t kept = keep(s, &h, total, &sum), i = 0;
  double aim = qd_sampling_uniform(s->seed, NEXT_TOKEN, index) * sum;
  for (; i + 1 < kept; i++) {
    so_far += take(&h, i)->weight;
    if (so_far > aim) break;
  }
  return (int32_t)take(&h, i)->token;
}
