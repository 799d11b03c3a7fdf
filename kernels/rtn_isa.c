/* min/max grids and the clip search of GPTQ's quantizer, a row's weights in lanes.
 *
 * The search takes the first least of 80 sums of n terms, each a division and a power.  A cheap estimate of every sum, good to
 * a few per cent, leaves only candidates near the least, for which the sum itself is formed: the result is the same. */
#include "kernels/rtn_cpu.h"

#include "kernels/solvers.h"
#include "kernels/vecmath.h"

#if defined(__F16C__)
#include <immintrin.h>
#endif

enum { LANES = 16 };
static const int64_t most_estimated = 1 << 20; /* weights: the margin below does not cover the rounding of longer sums */

typedef struct interval {
  float lo, hi;
} interval;

/* s and z of every candidate */
typedef struct candidates {
  float scale[QD_RTN_CANDIDATES], zero[QD_RTN_CANDIDATES];
} candidates;

static inline float clamp(float x, float top) {
  x = x > 0 ? x : 0;
  return x < top ? x : top;
}

static void round_to_f16(float *x, int n) {
#if defined(__F16C__)
  _Static_assert(QD_RTN_CANDIDATES % 8 == 0, "");
  if (n > 1) {
    for (int i = 0; i < n; i += 8)
      _mm256_storeu_ps(x + i, _mm256_cvtph_ps(_mm256_cvtps_ph(_mm256_loadu_ps(x + i), _MM_FROUND_TO_NEAREST_INT)));
    return;
  }
#endif
  for (int i = 0; i < n; i++) x[i] = qd_f16_to_f32(qd_f16_from_f32(x[i]));
}

/* The grids of the first n candidates, n = 1 or all. */
static void make_candidates(interval range, qd_scheme scheme, int n, candidates *out) {
  float top = (float)qd_scheme_max_code(scheme), least = qd_rtn_least_scale(scheme.scale_dtype);
  for (int i = 0; i < n; i++) {
    float part = (float)qd_rtn_candidate(i);
    out->scale[i] = (part * range.hi - part * range.lo) / top;
  }
  if (scheme.scale_dtype == QD_F16) round_to_f16(out->scale, n);
  for (int i = 0; i < n; i++) {
    out->scale[i] = out->scale[i] > least ? out->scale[i] : least;
    float lo = (float)qd_rtn_candidate(i) * range.lo;
    out->zero[i] = scheme.symmetric ? (top + 1) / 2 : clamp(rintf(-lo / out->scale[i]), top);
  }
}

static interval find_range(const float *w, int64_t n, qd_scheme scheme) {
  float lo[LANES] = {0}, hi[LANES] = {0};
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES)
    for (int l = 0; l < LANES; l++) {
      lo[l] = w[i + l] < lo[l] ? w[i + l] : lo[l];
      hi[l] = w[i + l] > hi[l] ? w[i + l] : hi[l];
    }
  interval all = {0, 0};
  for (; i < n; i++) {
    all.lo = w[i] < all.lo ? w[i] : all.lo;
    all.hi = w[i] > all.hi ? w[i] : all.hi;
  }
  for (int l = 0; l < LANES; l++) {
    all.lo = lo[l] < all.lo ? lo[l] : all.lo;
    all.hi = hi[l] > all.hi ? hi[l] : all.hi;
  }
  if (scheme.symmetric) {
    all.hi = -all.lo > all.hi ? -all.lo : all.hi;
    if (all.lo < 0 || !scheme.compat) all.lo = -all.hi;
  }
  if (all.lo == 0 && all.hi == 0) all.lo = -1, all.hi = 1;
  return all;
}

typedef struct grid_values {
  float scale, zero, top;
} grid_values;

static inline void add_errors(const float *restrict w, grid_values grid, float *restrict lane) {
  for (int l = 0; l < LANES; l++) {
    float code = clamp(rintf(w[l] / grid.scale) + grid.zero, grid.top);
    lane[l] += qd_vm_pow24f(fabsf(grid.scale * (code - grid.zero) - w[l]));
  }
}

static inline float add_lanes(const float *lane) {
  float sum[8];
  for (int l = 0; l < 8; l++) sum[l] = lane[l] + lane[l + 8];
  for (int l = 0; l < 4; l++) sum[l] = sum[l] + sum[l + 4];
  return (sum[0] + sum[2]) + (sum[1] + sum[3]);
}

/* The last n < 16 weights, then zeros: these have an error of zero on every grid. */
static inline void fill_last(const float *w, int64_t n, float last[LANES]) {
  memset(last, 0, LANES * sizeof *last);
  memcpy(last, w, (size_t)n * sizeof *last);
}

static double group_error(const float *w, int64_t n, grid_values grid) {
  double error = 0;
  for (int64_t run = 0; run < n; run += QD_SUM_RUN) {
    int64_t end = n - run < QD_SUM_RUN ? n : run + QD_SUM_RUN, i = run;
    float lane[LANES] = {0}, last[LANES];
    for (; i + LANES <= end; i += LANES) add_errors(w + i, grid, lane);
    if (i < end) {
      fill_last(w + i, end - i, last);
      add_errors(last, grid, lane);
    }
    error = error + (double)add_lanes(lane);
  }
  return error;
}

/* About |error|^2.4 as x^2 x^0.4, where x^0.4 takes the bits of x for its logarithm: log2 (1 + m) = m + s(m), 0 <= s <= 0.0861,
 * so that log2 of the estimate is off by s(m') - 0.4 s(m) - 0.02585, at most 0.0603: a factor of 1.0427. */
static inline void add_estimates(const float *restrict w, grid_values grid, float inverse, float *restrict lane) {
  const float offset = 0x1p23f * (0.6f * 127 - 0.02585f);
  for (int l = 0; l < LANES; l++) {
    float code = clamp(rintf(w[l] * inverse) + grid.zero, grid.top);
    float x = fabsf(grid.scale * (code - grid.zero) - w[l]);
    float root = qd_vm_float((uint32_t)(int32_t)fmaf(0.4f, (float)(int32_t)qd_vm_bits32(x), offset));
    lane[l] = fmaf(x * x, root, lane[l]);
  }
}

static float group_estimate(const float *w, int64_t n, grid_values grid) {
  float lane[LANES] = {0}, last[LANES], inverse = 1 / grid.scale;
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES) add_estimates(w + i, grid, inverse, lane);
  if (i < n) {
    fill_last(w + i, n - i, last);
    add_estimates(last, grid, inverse, lane);
  }
  return add_lanes(lane);
}

static grid_values candidate_grid(const candidates *all, int i, qd_scheme scheme) {
  return (grid_values){all->scale[i], all->zero[i], (float)qd_scheme_max_code(scheme)};
}

/* Estimates of every candidate's error; returns the bound above which a candidate cannot be the least: 1.0427 twice, and room
 * for codes on the other side of a tie (5e-4), the power's own error (5e-5) and the sum's (4e-3 for 2^20 weights).  Infinite
 * where numbers come near the ends of the range, or are none. */
static float estimate(const float *w, int64_t n, qd_scheme scheme, const candidates *all, float *error) {
  float least = INFINITY;
  if (n > most_estimated || !(all->scale[0] <= 0x1p100f)) return INFINITY;
  for (int i = 0; i < QD_RTN_CANDIDATES; i++) {
    error[i] = group_estimate(w, n, candidate_grid(all, i, scheme));
    least = error[i] < least ? error[i] : least;
  }
  return least >= 0x1p-90f && least <= 0x1p90f ? 1.1f * least : INFINITY;
}

static int best_candidate(const float *w, int64_t n, qd_scheme scheme, const candidates *all) {
  float estimates[QD_RTN_CANDIDATES], bound = estimate(w, n, scheme, all, estimates);
  double least = (double)INFINITY;
  int best = 0;
  for (int i = 0; i < QD_RTN_CANDIDATES; i++) {
    if (bound < INFINITY && estimates[i] > bound) continue;
    double error = group_error(w, n, candidate_grid(all, i, scheme));
    if (error < least) least = error, best = i;
  }
  return best;
}

int64_t QD_ISA(qd_rtn_fit_rows)(const qd_rtn_rows *job) {
  int64_t beyond = -1;
  for (int64_t r = 0; r < job->rows; r++) {
    const float *w = job->w + r * job->w_stride;
    candidates all;
    interval range = find_range(w, job->n, job->scheme);
    make_candidates(range, job->scheme, 1, &all);
    int best = 0;
    if (job->scheme.mse && all.scale[0] <= FLT_MAX) {
      make_candidates(range, job->scheme, QD_RTN_CANDIDATES, &all);
      best = best_candidate(w, job->n, job->scheme, &all);
    }
    if (!(all.scale[best] <= FLT_MAX) && beyond < 0) beyond = r;
    job->scale[r * job->scale_stride] = all.scale[best];
    job->zero[r * job->zero_stride] = (uint8_t)all.zero[best];
  }
  return beyond;
}

void QD_ISA(qd_rtn_quantize_group)(const float *w, int64_t n, float scale, float zero, float top, uint8_t *code) {
  for (int64_t i = 0; i < n; i++) code[i] = (uint8_t)(int32_t)clamp(rintf(w[i] / scale) + zero, top);
}
