/* SpQR (arXiv:2306.03078) on a run of rows that share statistics: GPTQ's loop, a grid of two levels, and weights that are kept. */
#include "kernels/spqr_rows.h"

static const qd_real least_divisor = (qd_real)1e-9;

/* A range that is this small beside its values is none: fp16 would round it away as well. */
static const qd_real no_range = (qd_real)0x1p-11;

typedef struct grid {
  qd_real scale, zero;
} grid;

typedef struct run {
  const qd_spqr_args *args;
  int64_t  first, n, columns, group_size;
  qd_real *e;            /* (n, C) */
  qd_real *scale, *zero; /* (n): of the group at hand */
  qd_real *values;       /* (group size): what a row's grid is fitted on */
  qd_real  tau;
} run;

static qd_real *w_at(const run *r, int64_t row) {
  return (qd_real *)r->args->w.data + (r->first + row) * r->args->w.stride[0];
}

static qd_real u_at(const run *r, int64_t c, int64_t j) { return ((const qd_real *)r->args->u.data)[qd_tri_index(j, c)]; }

static qd_real clamp_code(qd_real code, int bits) {
  qd_real top = (qd_real)((1 << bits) - 1);
  code = code > 0 ? code : 0;
  return code < top ? code : top;
}

static qd_real code_of(qd_real x, grid g, int bits) {
  qd_real divisor = g.scale > least_divisor ? g.scale : least_divisor;
  return clamp_code(qd_real_rint(x / divisor + g.zero), bits);
}

static qd_real value_of(qd_real code, grid g) { return g.scale * (code - g.zero); }

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
  return (grid){scale, -x.low / scale};
}

/* ---- which weights are likely outliers ----------------------------------------------------------------------------------- */

/* Error of n weights but one on the grid of a range. */
static qd_real error_on(const run *r, const qd_real *x, int64_t n, int64_t without, grid g, const qd_real *u) {
  qd_real sum = 0;
  for (int64_t k = 0; k < n; k++) {
    if (k == without) continue;
    qd_real d = (value_of(code_of(x[k], g, r->args->scheme.bits), g) - x[k]) / u[k];
    sum = qd_real_fma(d, d, sum);
  }
  return sum;
}

/* A weight whose absence makes the others' error smaller by more than tau takes the mean of those that stay. */
static void leave_one_out(const run *r, const qd_real *x, int64_t n, const qd_real *u, qd_real *out) {
  qd_scheme scheme = r->args->scheme;
  qd_real base = error_on(r, x, n, -1, grid_of_range(range_of(x, n, -1), scheme), u), sum = 0;
  int64_t stay = 0;
  bool likely[QD_SPQR_MOST_GROUP];
  for (int64_t o = 0; o < n; o++) {
    qd_real without = error_on(r, x, n, o, grid_of_range(range_of(x, n, o), scheme), u);
    likely[o] = base - without > r->tau;
    if (!likely[o]) sum += x[o], stay++;
  }
  qd_real mean = stay > 0 ? sum / (qd_real)stay : 0;
  for (int64_t k = 0; k < n; k++) out[k] = likely[k] ? mean : x[k];
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
  bool fine = scales ? quantize_run(r, group, r->scale, scheme.scale_bits, 0, args->scale_code) : store_as_they_are(r, r->scale);
  bool also = zeros ? quantize_run(r, group, r->zero, scheme.zero_bits, 2, args->zero_code)
                    : scheme.symmetric || store_as_they_are(r, r->zero);
  for (int64_t i = 0; i < r->n; i++) {
    qd_ref_store(args->scale, (r->first + i) * args->scale.stride[0] + group, r->scale[i]);
    qd_ref_store(args->zero, (r->first + i) * args->zero.stride[0] + group, r->zero[i]);
  }
  return fine && also;
}

/* ---- the loop ------------------------------------------------------------------------------------------------------------ */

/* The grids of the group that begins at column c, from the values that its columns have now. */
static bool fit_group(run *r, int64_t c) {
  const qd_spqr_args *args = r->args;
  int64_t n = r->columns - c < r->group_size ? r->columns - c : r->group_size;
  bool searches = !args->simplified && isfinite(r->tau) && n > 1 && n <= QD_SPQR_MOST_GROUP;
  qd_real u[QD_SPQR_MOST_GROUP];
  for (int64_t k = 0; searches && k < n; k++) u[k] = u_at(r, c + k, c + k);
  for (int64_t i = 0; i < r->n; i++) {
    const qd_real *x = w_at(r, i) + c;
    if (searches) leave_one_out(r, x, n, u, r->values), x = r->values;
    grid g = grid_of_range(range_of(x, n, -1), args->scheme);
    if (args->scheme.round_zero) g.zero = qd_real_rint(g.zero);
    r->scale[i] = g.scale, r->zero[i] = g.zero;
  }
  return second_level(r, c / r->group_size);
}

static void quantize_weight(run *r, int64_t i, int64_t c, int64_t end) {
  const qd_spqr_args *args = r->args;
  int64_t row = r->first + i, at = row * args->outlier.stride[0] + c;
  grid g = {r->scale[i], r->zero[i]};
  qd_real *w = w_at(r, i), code = code_of(w[c], g, args->scheme.bits);
  qd_real e = (w[c] - value_of(code, g)) / u_at(r, c, c);
  uint16_t kept = qd_f16_from_f32((float)w[c]);
  bool outlier = e * e > r->tau && isfinite(qd_f16_to_f32(kept));
  if (outlier) code = code_of(0, g, args->scheme.bits), e = 0;
  ((uint8_t *)args->code.data)[row * args->code.stride[0] + c] = (uint8_t)code;
  ((uint8_t *)args->outlier.data)[at] = outlier;
  ((uint16_t *)args->value.data)[row * args->value.stride[0] + c] = outlier ? kept : 0;
  double *loss = (double *)args->loss.data + row * args->loss.stride[0];
  *loss = *loss + (double)e * (double)e / 2;
  for (int64_t j = c + 1; j < end; j++) w[j] = qd_real_fma(-e, u_at(r, c, j), w[j]);
  r->e[i * r->columns + c] = e;
}

static qd_real chain_of(const run *r, const qd_real *e, int64_t first, int64_t end, int64_t j) {
  qd_real chain = 0;
  for (int64_t c = first; c < end && c < first + QD_PRODUCT_CHUNK; c++) chain = qd_real_fma(e[c], u_at(r, c, j), chain);
  return chain;
}

static void update_beyond(const run *r, int64_t begin, int64_t end) {
  for (int64_t i = 0; i < r->n; i++)
    for (int64_t j = end; j < r->columns; j++)
      for (int64_t first = begin; first < end; first += QD_PRODUCT_CHUNK)
        w_at(r, i)[j] -= chain_of(r, r->e + i * r->columns, first, end, j);
}

/* Behind the block that begins at `begin`: before a group that it would cut. */
static int64_t block_end(const run *r, int64_t begin) {
  int64_t left = r->columns - begin, end = begin + (left < r->args->block ? left : r->args->block);
  int64_t group = (end - 1) / r->group_size * r->group_size, group_end = group + r->group_size;
  return group > begin && group_end > end && end < r->columns ? group : end;
}

int64_t QD_REF(spqr_run)(const qd_spqr_args *args, int64_t first, int64_t n, qd_real *work) {
  int64_t columns = args->w.dim[1], size = qd_scheme_group_size(args->scheme, columns);
  run r = {.args = args, .first = first, .n = n, .columns = columns, .group_size = size, .tau = (qd_real)args->tau};
  r.e = work, r.scale = r.e + n * columns, r.zero = r.scale + n, r.values = r.zero + n;
  for (int64_t i = 0; i < n; i++) ((double *)args->loss.data)[(first + i) * args->loss.stride[0]] = 0;
  for (int64_t begin = 0, end; begin < columns; begin = end) {
    end = block_end(&r, begin);
    for (int64_t c = begin; c < end; c++) {
      if (c % size == 0 && !fit_group(&r, c)) return c / size;
      for (int64_t i = 0; i < n; i++) quantize_weight(&r, i, c, end);
    }
    update_beyond(&r, begin, end);
  }
  return -1;
}

qd_status QD_REF(spqr)(qd_device *device, const qd_spqr_args *args) {
  int64_t rows = args->w.dim[0], unit = qd_scheme_row_unit(args->scheme);
  qd_status status = QD_OK;
  qd_real *work;
  size_t mark = qd_arena_mark(&device->scratch);
  QD_TRY(qd_arena_new(&device->scratch, (size_t)qd_spqr_work_elements(args->scheme, rows, args->w.dim[1]), sizeof *work, &work));
  for (int64_t first = 0; status == QD_OK && first < rows; first += unit) {
    int64_t n = rows - first < unit ? rows - first : unit, group = QD_REF(spqr_run)(args, first, n, work);
    if (group >= 0) status = qd_spqr_beyond(first, n, group);
  }
  qd_arena_rewind(&device->scratch, mark);
  return status;
}
