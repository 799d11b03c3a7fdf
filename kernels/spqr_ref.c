/* SpQR (arXiv:2306.03078), a run of rows that share statistics after the other. */
#include "kernels/spqr_run.h"

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

/* ---- all columns, all rows ----------------------------------------------------------------------------------------------- */

static qd_real u_at(const run *r, int64_t c, int64_t j) { return ((const qd_real *)r->args->u.data)[qd_tri_index(j, c)]; }

static qd_real chain_of(const run *r, const qd_real *e, int64_t first, int64_t end, int64_t j) {
  qd_real chain = 0;
  for (int64_t c = first; c < end && c < first + QD_PRODUCT_CHUNK; c++)
    chain = qd_real_fma(e[c - r->begin], u_at(r, c, j), chain);
  return chain;
}

static void update_beyond(const run *r) {
  for (int64_t i = 0; i < r->n; i++)
    for (int64_t j = r->end; j < r->columns; j++)
      for (int64_t first = r->begin; first < r->end; first += QD_PRODUCT_CHUNK)
        w_at(r, i)[j] -= chain_of(r, r->e + i * r->width, first, r->end, j);
}

static void load_block(run *r, qd_real *u) {
  for (int64_t c = r->begin; c < r->end; c++)
    for (int64_t j = c; j < r->end; j++) u[(c - r->begin) * r->width + j - r->begin] = u_at(r, c, j);
}

static int64_t solve_columns(run *r, qd_real *u) {
  for (r->begin = 0; r->begin < r->columns; r->begin = r->end) {
    r->end = qd_spqr_block_end(r->args, r->begin);
    load_block(r, u);
    int64_t group = solve_run(r);
    if (group >= 0) return group;
    update_beyond(r);
  }
  return -1;
}

static qd_status solve(qd_device *device, const qd_spqr_args *args) {
  int64_t columns = args->w.dim[1], width = args->block < columns ? args->block : columns;
  size_t unit = (size_t)qd_spqr_run_rows(args, 0);
  run r = {.args = args, .columns = columns, .group_size = qd_scheme_group_size(args->scheme, columns), .width = width,
           .tau = (qd_real)args->tau};
  qd_real *u;
  QD_TRY(qd_arena_new(&device->scratch, (size_t)(width * width), sizeof *u, &u));
  QD_TRY(qd_arena_new(&device->scratch, unit * (size_t)width, sizeof *u, &r.e));
  QD_TRY(qd_arena_new(&device->scratch, unit, sizeof *u, &r.scale));
  QD_TRY(qd_arena_new(&device->scratch, unit, sizeof *u, &r.zero));
  QD_TRY(qd_arena_new(&device->scratch, (size_t)r.group_size, sizeof *u, &r.values));
  r.u = u;
  for (; r.first < args->w.dim[0]; r.first += r.n) {
    r.n = qd_spqr_run_rows(args, r.first);
    qd_spqr_begin_rows(args, r.first, r.n);
    int64_t group = solve_columns(&r, u);
    if (group >= 0) return qd_spqr_beyond(args, r.first, group);
  }
  return QD_OK;
}

qd_status QD_REF(spqr)(qd_device *device, const qd_spqr_args *args) {
  size_t mark = qd_arena_mark(&device->scratch);
  qd_status status = solve(device, args);
  qd_arena_rewind(&device->scratch, mark);
  return status;
}
