#include "kernels/rtn_cpu.h"

#include "kernels/ops_table.h"
#include "kernels/solvers.h"

typedef struct place {
  int64_t row, group;
} place;

static bool comes_before(place a, place b) { return a.row < b.row || (a.row == b.row && a.group < b.group); }

static qd_rtn_rows group_of_row(qd_tensor w, qd_scheme scheme, qd_tensor scale, qd_tensor zero, place at) {
  int64_t size = qd_scheme_group_size(scheme, w.dim[1]), first = at.group * size;
  return (qd_rtn_rows){.w = (const float *)w.data + at.row * w.stride[0] + first, .rows = 1,
                       .n = w.dim[1] - first < size ? w.dim[1] - first : size, .scheme = scheme,
                       .scale = (float *)scale.data + at.row * scale.stride[0] + at.group,
                       .zero = (uint8_t *)zero.data + at.row * zero.stride[0] + at.group};
}

qd_status qd_cpu_rtn_fit(qd_device *device, qd_tensor w, qd_scheme scheme, qd_tensor scale, qd_tensor zero) {
  int64_t rows = w.dim[0], groups = qd_scheme_groups(scheme, w.dim[1]);
  place beyond = {.row = rows, .group = 0};
#pragma omp parallel for schedule(dynamic, 4) num_threads(device->threads)
  for (int64_t r = 0; r < rows; r++) {
    qd_flush_denormals();
    for (int64_t g = 0; g < groups; g++) {
      place here = {r, g};
      qd_rtn_rows job = group_of_row(w, scheme, scale, zero, here);
      if (QD_ISA_CALL(device, qd_rtn_fit_rows, (&job)) < 0) continue;
#pragma omp critical(qd_rtn_beyond)
      if (comes_before(here, beyond)) beyond = here;
    }
  }
  return beyond.row < rows ? qd_rtn_beyond(beyond.row, beyond.group, scheme) : QD_OK;
}

qd_status qd_cpu_rtn_quantize(qd_device *device, qd_tensor w, qd_scheme scheme, qd_tensor scale, qd_tensor zero,
                              qd_tensor code) {
  int64_t groups = qd_scheme_groups(scheme, w.dim[1]), size = qd_scheme_group_size(scheme, w.dim[1]);
  float top = (float)qd_scheme_max_code(scheme);
#pragma omp parallel for schedule(static) num_threads(device->threads)
  for (int64_t r = 0; r < w.dim[0]; r++) {
    qd_flush_denormals();
    for (int64_t g = 0; g < groups; g++) {
      qd_rtn_rows job = group_of_row(w, scheme, scale, zero, (place){r, g});
      uint8_t *codes = (uint8_t *)code.data + r * code.stride[0] + g * size;
      QD_ISA_CALL(device, qd_rtn_quantize_group, (job.w, job.n, *job.scale, (float)*job.zero, top, codes));
    }
  }
  return QD_OK;
}
