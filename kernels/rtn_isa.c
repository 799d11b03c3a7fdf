/* min/max grids and the clip search of GPTQ's quantizer, a row's weights in lanes.
 *
 * The search costs 80 x n divisions and powers.  Terms are not negative and rounding is monotone, so that a partial error that has
 * reached the least so far decides: the candidate is dropped there, and the result is the same. */
#include "kernels/rtn_cpu.h"

#include "kernels/solvers.h"
#include "kernels/vecmath.h"

#if defined(__F16C__)
#include <immintrin.h>
#endif

enum { LANES = 16, STEP = 4 * LANES };

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

/* The error of a run of up to 4096 weights on top of `before`; may stop early once that has reached `least`. */
static double run_error(const float *w, int64_t n, grid_values grid, double before, double least) {
  float lane[LANES] = {0};
  int64_t i = 0;
  while (n - i >= LANES) {
    int64_t stop = n - i < STEP ? i + (n - i) / LANES * LANES : i + STEP;
    for (; i < stop; i += LANES) add_errors(w + i, grid, lane);
    double error = before + (double)add_lanes(lane);
    if (error >= least) return error;
  }
  if (i < n) { /* zeros add an error of zero */
    float last[LANES] = {0};
    memcpy(last, w + i, (size_t)(n - i) * sizeof *last);
    add_errors(last, grid, lane);
  }
  return before + (double)add_lanes(lane);
}

static double group_error(const float *w, int64_t n, grid_values grid, double least) {
  double error = 0;
  for (int64_t run = 0; run < n && !(error >= least); run += QD_SUM_RUN)
    error = run_error(w + run, n - run < QD_SUM_RUN ? n - run : QD_SUM_RUN, grid, error, least);
  return error;
}

static int best_candidate(const float *w, int64_t n, qd_scheme scheme, const candidates *all) {
  float top = (float)qd_scheme_max_code(scheme);
  int best = 0;
  double least = group_error(w, n, (grid_values){all->scale[0], all->zero[0], top}, (double)INFINITY);
  for (int i = 1; i < QD_RTN_CANDIDATES; i++) {
    double error = group_error(w, n, (grid_values){all->scale[i], all->zero[i], top}, least);
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
