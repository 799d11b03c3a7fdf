/* What the ref and the cpu device have in common of SpQR's loop (arXiv:2306.03078): the grid of two levels, and one block of
 * columns of a run of rows that share statistics, as loops over qd_real whose order ops.h states.  Who includes this file says
 * how likely outliers are found. */
#ifndef QDIST_KERNELS_SPQR_RUN_H
#define QDIST_KERNELS_SPQR_RUN_H

#include "kernels/ref_real.h"
#include "kernels/spqr.h"

static const qd_real least_divisor = (qd_real)1e-9;

/* A range that is this small beside its values is none: fp16 would round it away as well. */
static const qd_real no_range = (qd_real)0x1p-11;

typedef struct grid {
  qd_real scale, zero;
} grid;

/* Rows that share statistics, in one block of columns. */
typedef struct run {
  const qd_spqr_args *args;
  int64_t  first, n, columns, group_size;
  int64_t  begin, end;   /* the block */
  const qd_real *u;      /* U[begin + i][begin + j] at i * width + j */
  int64_t  width;        /* columns of a block at most */
  qd_real *e;            /* (n, width): errors of the block */
  qd_real *scale, *zero; /* (n): of the group at hand, which may be of an earlier block */
  qd_real *values;       /* (group size): what a row's grid is fitted on */
  qd_real  tau;
} run;

static qd_real *w_at(const run *r, int64_t row) {
  return (qd_real *)r->args->w.data + (r->first + row) * r->args->w.stride[0];
}

static qd_real diagonal_at(const run *r, int64_t c) { return ((const qd_real *)r->args->u.data)[qd_tri_index(c, c)]; }

static inline qd_real clamp_code(qd_real code, int bits) {
  qd_real top = (qd_real)((1 << bits) - 1);
  code = code > 0 ? code : 0;
  return code < top ? code : top;
}

static inline qd_real code_of(qd_real x, grid g, int bits) {
  qd_real divisor = g.scale > least_divisor ? g.scale : least_divisor;
  return clamp_code(qd_real_rint(x / divisor + g.zero), bits);
}

static inline qd_real value_of(qd_real code, grid g) { return g.scale * (code - g.zero); }

/* ---- level 1 ------------------------------------------------------------------------------------------------------------- */

typedef struct range {
  qd_real low, high;
} range;

static range range_of(const qd_real *x, int64_t n, int64_t without) {
  range out = {INFINITY, -INFINITY};
  for (int64_t k = 0; k < n; k++) {
    if (k == without) continue;
    out.low = x[k] < out.low ? x[k] : out.low;
    out.high = x[k] > out.high ? x[k] : out.high;
  }
  return out;
}

static bool has_no_range(range x) {
  qd_real low = qd_real_fabs(x.low), high = qd_real_fabs(x.high);
  return x.high - x.low <= no_range * (low > high ? low : high);
}

/* All weights alike: the grid has the one value, exactly (0 for zeros). */
static grid grid_of_constant(range x) {
  qd_real middle = (x.low + x.high) / 2;
  return (grid){qd_real_fabs(middle), middle > 0 ? -1 : middle < 0 ? 1 : 0};
}

static grid grid_of_range(range x, qd_scheme scheme) {
  qd_real top = (qd_real)qd_scheme_max_code(scheme);
  if (scheme.compat && x.low == x.high) x = (range){-1, 1};
  if (!scheme.compat && !scheme.symmetric && has_no_range(x)) return grid_of_constant(x);
  if (scheme.symmetric) {
    qd_real most = qd_real_fabs(x.low) > x.high ? qd_real_fabs(x.low) : x.high;
    x.high = most;
    if (x.low < 0) x.low = -most;
    return (grid){(x.high - x.low) / top, (top + 1) / 2};
  }
  qd_real scale = (x.high - x.low) / top;
  if (!scheme.compat && !(scale > 0)) return grid_of_constant(x); /* below the normal numbers */
  return (grid){scale, -x.low / scale};
}

/* ---- level 2 ------------------------------------------------------------------------------------------------------------- */

/* ref64 with QD_F32 keeps numbers in double. */
static qd_real stored_real(qd_real value, qd_dtype dtype) {
#ifdef QD_REAL64
  return dtype == QD_F32 ? value : (qd_real)qd_f16_to_f32(qd_f16_from_f32((float)value));
#else
  return dtype == QD_F32 ? value : qd_f16_to_f32(qd_f16_from_f32(value));
#endif
}

static qd_real second_real(qd_real value, qd_scheme scheme) {
#ifdef QD_REAL64
  return stored_real(value, scheme.scale_dtype);
#else
  (void)scheme;
  return stored_real(value, QD_F16);
#endif
}

/* s2 and z2 of a run of scales or zero points; a run that is constant, or that fp16 cannot tell from one, is its own value. */
static grid second_grid(const qd_real *v, int64_t n, int bits, qd_scheme scheme) {
  range x = range_of(v, n, -1);
  qd_real top = (qd_real)((1 << bits) - 1);
  if (scheme.compat && x.low == x.high) x = (range){-1, 1};
  qd_real scale = (x.high - x.low) / top;
  grid g = {second_real(scale, scheme), second_real(-x.low / scale, scheme)};
  if (g.scale > 0 && isfinite(g.zero)) return g;
  return (grid){1, second_real(-(x.low + x.high) / 2, scheme)};
}

static void store_second(const run *r, int64_t group, int at, grid g) {
  int64_t index = r->first / r->args->scheme.stat_group * r->args->second.stride[0] + group * QD_SECOND + at;
  uint16_t *to = (uint16_t *)r->args->second.data + index;
  to[0] = qd_f16_from_f32((float)g.scale);
  to[1] = qd_f16_from_f32((float)g.zero);
}

/* Replace a run of scales or zero points by what is stored of it. */
static bool quantize_run(const run *r, int64_t group, qd_real *v, int bits, int at, qd_tensor codes) {
  grid g = second_grid(v, r->n, bits, r->args->scheme);
  uint8_t *code = (uint8_t *)codes.data + r->first * codes.stride[0] + group;
  for (int64_t i = 0; i < r->n; i++) {
    qd_real c = clamp_code(qd_real_rint(v[i] / g.scale + g.zero), bits);
    code[i * codes.stride[0]] = (uint8_t)c;
    v[i] = g.scale * (c - g.zero);
  }
  store_second(r, group, at, g);
  return isfinite(g.scale) && isfinite(g.zero);
}

static bool store_as_they_are(const run *r, qd_real *v) {
  bool fine = true;
  for (int64_t i = 0; i < r->n; i++) {
    v[i] = stored_real(v[i], r->args->scheme.scale_dtype);
    fine = fine && isfinite(v[i]);
  }
  return fine;
}

static bool second_level(const run *r, int64_t group) {
  const qd_spqr_args *args = r->args;
  qd_scheme scheme = args->scheme;
  bool scales = qd_scheme_quantizes_scales(scheme), zeros = qd_scheme_quantizes_zeros(scheme);
  if (scales || zeros) store_second(r, group, 0, (grid){0, 0}), store_second(r, group, 2, (grid){0, 0});
  bool fine = scales ? quantize_run(r, group, r->scale, scheme.scale_bits, 0, args->scale_code)
                     : store_as_they_are(r, r->scale);
  bool also = zeros ? quantize_run(r, group, r->zero, scheme.zero_bits, 2, args->zero_code)
                    : scheme.symmetric || store_as_they_are(r, r->zero);
  for (int64_t i = 0; i < r->n; i++) {
    qd_ref_store(args->scale, (r->first + i) * args->scale.stride[0] + group, r->scale[i]);
    qd_ref_store(args->zero, (r->first + i) * args->zero.stride[0] + group, r->zero[i]);
  }
  return fine && also;
}

/* ---- the loop ------------------------------------------------------------------------------------------------------------ */

/* A weight whose absence makes the others' error smaller by more than tau takes the mean of those that stay: x (n), u (n) the
 * factor's diagonal, to `out`. */
static void leave_one_out(const run *r, const qd_real *x, int64_t n, const qd_real *u, qd_real *out);

/* The grids of the group that begins at column c, from the values that its columns have now. */
static bool fit_group(run *r, int64_t c) {
  const qd_spqr_args *args = r->args;
  int64_t n = r->columns - c < r->group_size ? r->columns - c : r->group_size;
  bool searches = !args->simplified && isfinite(r->tau) && n > 1 && n <= QD_SPQR_MOST_GROUP;
  qd_real u[QD_SPQR_MOST_GROUP];
  for (int64_t k = 0; searches && k < n; k++) u[k] = diagonal_at(r, c + k);
  for (int64_t i = 0; i < r->n; i++) {
    const qd_real *x = w_at(r, i) + c;
    if (searches) leave_one_out(r, x, n, u, r->values), x = r->values;
    grid g = grid_of_range(range_of(x, n, -1), args->scheme);
    if (args->scheme.round_zero) g.zero = qd_real_rint(g.zero);
    r->scale[i] = g.scale, r->zero[i] = g.zero;
  }
  return second_level(r, c / r->group_size);
}

/* Kept as it is, if fp16 can. */
static bool keep(const run *r, int64_t row, int64_t c, qd_real w) {
  uint16_t value = qd_f16_from_f32((float)w);
  if (!isfinite(qd_f16_to_f32(value))) return false;
  ((uint8_t *)r->args->outlier.data)[row * r->args->outlier.stride[0] + c] = 1;
  ((uint16_t *)r->args->value.data)[row * r->args->value.stride[0] + c] = value;
  return true;
}

static void quantize_weight(run *r, int64_t i, int64_t c) {
  const qd_spqr_args *args = r->args;
  int64_t row = r->first + i, left = r->end - c - 1;
  grid g = {r->scale[i], r->zero[i]};
  const qd_real *u = r->u + (c - r->begin) * (r->width + 1);
  qd_real *w = w_at(r, i) + c, code = code_of(*w, g, args->scheme.bits), e = (*w - value_of(code, g)) / *u;
  if (e * e > r->tau && keep(r, row, c, *w)) code = code_of(0, g, args->scheme.bits), e = 0;
  ((uint8_t *)args->code.data)[row * args->code.stride[0] + c] = (uint8_t)code;
  double *loss = (double *)args->loss.data + row * args->loss.stride[0];
  *loss = *loss + (double)e * (double)e / 2;
  r->e[i * r->width + c - r->begin] = e;
  for (int64_t j = 1; j <= left; j++) w[j] = qd_real_fma(-e, u[j], w[j]);
}

/* -1, or the group whose grids are beyond what stores them. */
static int64_t solve_run(run *r) {
  for (int64_t c = r->begin; c < r->end; c++) {
    if (c % r->group_size == 0 && !fit_group(r, c)) return c / r->group_size;
    for (int64_t i = 0; i < r->n; i++) quantize_weight(r, i, c);
  }
  return -1;
}

#endif
