/* SpQR on the cpu: runs of rows over threads, each by the plain loop. */
#include "kernels/scratch.h"
#include "kernels/spqr_rows.h"

#include <omp.h>

static size_t work_of_thread(const qd_spqr_args *args) {
  return qd_arena_cost((size_t)qd_spqr_work_elements(args->scheme, args->w.dim[0], args->w.dim[1]), sizeof(float));
}

size_t qd_cpu_scratch_spqr(const qd_device *device, const qd_spqr_args *args) {
  return (size_t)device->threads * work_of_thread(args);
}

/* The first run that fails, in the order of rows, is what a loop over all would have named. */
qd_status qd_cpu_spqr(qd_device *device, const qd_spqr_args *args) {
  int64_t rows = args->w.dim[0], unit = qd_scheme_row_unit(args->scheme), failed = INT64_MAX, failed_group = -1;
  unsigned char *work;
  size_t mark = qd_arena_mark(&device->scratch), own = work_of_thread(args);
  QD_TRY(qd_arena_new(&device->scratch, (size_t)device->threads * own, 1, &work));
#pragma omp parallel num_threads(device->threads)
  {
    qd_flush_denormals();
    float *mine = (float *)(void *)(work + (size_t)omp_get_thread_num() * own);
#pragma omp for schedule(dynamic, 1)
    for (int64_t first = 0; first < rows; first += unit) {
      int64_t group = qd_ref_spqr_run(args, first, rows - first < unit ? rows - first : unit, mine);
      if (group < 0) continue;
#pragma omp critical(spqr_failed)
      if (first < failed) failed = first, failed_group = group;
    }
  }
  qd_arena_rewind(&device->scratch, mark);
  if (failed == INT64_MAX) return QD_OK;
  return qd_spqr_beyond(failed, rows - failed < unit ? rows - failed : unit, failed_group);
}
