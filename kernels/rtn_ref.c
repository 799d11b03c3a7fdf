#include "kernels/rtn_ref.h"

#include "kernels/solvers.h"
#include "kernels/vecmath.h"

/* x^2.4 of x >= 0 */
static qd_real power(qd_real x) {
#ifdef QD_REAL64
  return x > 0 ? qd_vm_pow(x, 2.4) : 0;
#else
  return qd_vm_pow24f(x);
#endif
}

static qd_real stored_scale(qd_real scale, qd_dtype dtype) {
  if (dtype == QD_F16) scale = (qd_real)qd_f16_to_f32(qd_f16_from_f32((float)scale));
  qd_real least = (qd_real)qd_rtn_least_scale(dtype);
  return scale > least ? scale : least;
}

static qd_ref_grid grid_of_range(qd_real lo, qd_real hi, qd_scheme scheme) {
  qd_real top = (qd_real)qd_scheme_max_code(scheme);
  qd_ref_grid grid = {.scale = stored_scale((hi - lo) / top, scheme.scale_dtype)};
  if (scheme.symmetric) {
    grid.zero = (top + 1) / 2;
    return grid;
  }
  qd_real zero = qd_real_rint(-lo / grid.scale);
  zero = zero > 0 ? zero : 0;
  grid.zero = zero < top ? zero : top;
  return grid;
}

/* Lanes: element i of a run of 4096 in lane i mod 16, lanes added as a tree, runs in double. */
static double clip_error(const qd_real *w, int64_t n, qd_scheme scheme, qd_ref_grid grid) {
  qd_real top = (qd_real)qd_scheme_max_code(scheme);
  double total = 0;
  for (int64_t run = 0; run < n; run += QD_SUM_RUN) {
    qd_real lane[16] = {0};
    for (int64_t i = run; i < n && i < run + QD_SUM_RUN; i++) {
      qd_real value = grid.scale * (qd_ref_code(w[i], grid, top) - grid.zero);
      lane[i % 16] = lane[i % 16] + power(qd_real_fabs(value - w[i]));
    }
    for (int half = 8; half > 0; half /= 2)
      for (int l = 0; l < half; l++) lane[l] = lane[l] + lane[l + half];
    total = total + (double)lane[0];
  }
  return total;
}

static qd_ref_grid search(const qd_real *w, int64_t n, qd_scheme scheme, qd_real lo, qd_real hi) {
  qd_ref_grid best = grid_of_range(lo, hi, scheme);
  double least = clip_error(w, n, scheme, best);
  for (int i = 1; i < QD_RTN_CANDIDATES; i++) {
    qd_real part = (qd_real)qd_rtn_candidate(i);
    qd_ref_grid grid = grid_of_range(part * lo, part * hi, scheme);
    double error = clip_error(w, n, scheme, grid);
    if (error < least) least = error, best = grid;
  }
  return best;
}

qd_ref_grid QD_REF(rtn_grid)(const qd_real *w, int64_t n, qd_scheme scheme) {
  qd_real lo = 0, hi = 0;
  for (int64_t i = 0; i < n; i++) {
    lo = w[i] < lo ? w[i] : lo;
    hi = w[i] > hi ? w[i] : hi;
  }
  if (scheme.symmetric) {
    hi = -lo > hi ? -lo : hi;
    if (lo < 0 || !scheme.compat) lo = -hi;
  }
  if (lo == 0 && hi == 0) lo = -1, hi = 1;
  qd_ref_grid whole = grid_of_range(lo, hi, scheme);
  return scheme.mse && isfinite(whole.scale) ? search(w, n, scheme, lo, hi) : whole;
}

qd_status QD_REF(rtn_fit)(qd_device *device, qd_tensor w, qd_scheme scheme, qd_tensor scale, qd_tensor zero) {
  (void)device;
  int64_t columns = w.dim[1], size = qd_scheme_group_size(scheme, columns), groups = qd_scheme_groups(scheme, columns);
  for (int64_t r = 0; r < w.dim[0]; r++)
    for (int64_t g = 0; g < groups; g++) {
      int64_t first = g * size, n = columns - first < size ? columns - first : size;
      qd_ref_grid grid = QD_REF(rtn_grid)((const qd_real *)w.data + r * w.stride[0] + first, n, scheme);
      if (!isfinite(grid.scale)) return qd_rtn_beyond(r, g, scheme);
      qd_ref_store(scale, r * scale.stride[0] + g, grid.scale);
      ((uint8_t *)zero.data)[r * zero.stride[0] + g] = (uint8_t)grid.zero;
    }
  return QD_OK;
}

qd_status QD_REF(rtn_quantize)(qd_device *device, qd_tensor w, qd_scheme scheme, qd_tensor scale, qd_tensor zero,
                               qd_tensor code) {
  (void)device;
  int64_t size = qd_scheme_group_size(scheme, w.dim[1]);
  for (int64_t r = 0; r < w.dim[0]; r++)
    for (int64_t c = 0; c < w.dim[1]; c++) {
      qd_ref_grid grid = {.scale = qd_ref_load(scale, r * scale.stride[0] + c / size),
                          .zero = ((const uint8_t *)zero.data)[r * zero.stride[0] + c / size]};
      qd_real value = qd_ref_load(w, r * w.stride[0] + c);
      ((uint8_t *)code.data)[r * code.stride[0] + c] = (uint8_t)qd_ref_code(value, grid, (qd_real)qd_scheme_max_code(scheme));
    }
  return QD_OK;
}
