/* SpQR's loop in one block: columns of a row lie in lanes where its later columns are brought up to date, and weights that are
 * left out lie in lanes where outliers are looked for.
 *
 * Leaving out any weight but the smallest and the largest changes no range: then each other weight's error is what it was, and
 * only the sums differ, n chains side by side.  Two weights at most need a grid of their own. */
#include "kernels/spqr_cpu.h"
#include "kernels/spqr_run.h"

static float error_of(const run *r, float x, grid g, float u) {
  return (value_of(code_of(x, g, r->args->scheme.bits), g) - x) / u;
}

/* As the definition has it: for the two weights that bound the range. */
static float error_without(const run *r, const float *x, int64_t n, int64_t without, const float *u) {
  grid g = grid_of_range(range_of(x, n, without), r->args->scheme);
  float sum = 0;
  for (int64_t k = 0; k < n; k++) {
    if (k == without) continue;
    float d = error_of(r, x[k], g, u[k]);
    sum = fmaf(d, d, sum);
  }
  return sum;
}

/* sum[o]: the chain over all k but o of d_k d_k; returns the one over all. */
static float chains(const float *restrict d, int64_t n, float *restrict sum) {
  float base = 0;
  for (int64_t o = 0; o < n; o++) sum[o] = 0;
  for (int64_t k = 0; k < n; k++) {
    float x = d[k];
    base = fmaf(x, x, base);
    for (int64_t o = 0; o < n; o++) {
      float with = fmaf(x, x, sum[o]);
      sum[o] = o == k ? sum[o] : with;
    }
  }
  return base;
}

static void leave_one_out(const run *r, const float *x, int64_t n, const float *u, float *out) {
  float d[QD_SPQR_MOST_GROUP], sum[QD_SPQR_MOST_GROUP], stay_sum = 0;
  range all = range_of(x, n, -1);
  grid g = grid_of_range(all, r->args->scheme);
  for (int64_t k = 0; k < n; k++) d[k] = error_of(r, x[k], g, u[k]);
  float base = chains(d, n, sum);
  for (int64_t o = 0; o < n; o++)
    if (x[o] == all.low || x[o] == all.high) sum[o] = error_without(r, x, n, o, u);
  int64_t stay = 0;
  for (int64_t o = 0; o < n; o++)
    if (!(base - sum[o] > r->tau)) stay_sum += x[o], stay++;
  float mean = stay > 0 ? stay_sum / (float)stay : 0;
  for (int64_t k = 0; k < n; k++) out[k] = base - sum[k] > r->tau ? mean : x[k];
}

void QD_ISA(qd_spqr_solve_block)(qd_spqr_tile *tile) {
  const qd_spqr_args *args = tile->args;
  int64_t columns = args->w.dim[1];
  run r = {.args = args, .columns = columns, .group_size = qd_scheme_group_size(args->scheme, columns), .begin = tile->begin,
           .end = tile->end, .u = tile->u, .width = tile->width, .values = tile->values, .tau = (float)args->tau};
  for (int64_t done = 0; done < tile->rows; done += r.n) {
    r.first = tile->row + done, r.n = qd_spqr_run_rows(args, r.first);
    r.e = tile->e + done * tile->width, r.scale = tile->scale + done, r.zero = tile->zero + done;
    int64_t group = solve_run(&r);
    if (group < 0) continue;
    tile->beyond_row = r.first, tile->beyond_group = group;
    return;
  }
}
