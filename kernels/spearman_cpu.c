/* The plain loop's columns, over threads: each cosine by itself. */
#include "kernels/spearman.h"

#include <omp.h>

static qd_status order_columns(qd_device *device, qd_tensor w, int32_t *order) {
  int64_t rows = w.dim[0], columns = w.dim[1];
  float *ranks, *cosine;
  qd_ranked *work;
  QD_TRY(qd_arena_new(&device->scratch, (size_t)(rows * columns), sizeof *ranks, &ranks));
  QD_TRY(qd_arena_new(&device->scratch, (size_t)columns, sizeof *cosine, &cosine));
  QD_TRY(qd_arena_new(&device->scratch, (size_t)device->threads * (size_t)rows, sizeof *work, &work));
#pragma omp parallel num_threads(device->threads)
  {
    qd_flush_denormals();
#pragma omp for schedule(static)
    for (int64_t c = 0; c < columns; c++) {
      order[c] = (int32_t)c;
      qd_ref_spearman_ranks(w, c, work + omp_get_thread_num() * rows, ranks + c * rows);
    }
    for (int64_t p = 0; p + 1 < columns; p++) {
#pragma omp for schedule(static)
      for (int64_t q = p + 1; q < columns; q++)
        cosine[q] = qd_ref_spearman_cosine(ranks + order[p] * rows, ranks + order[q] * rows, rows);
#pragma omp single
      qd_ref_spearman_place(cosine, p, columns, order);
    }
  }
  return QD_OK;
}

qd_status qd_cpu_spearman_order(qd_device *device, qd_tensor w, qd_tensor order) {
  size_t mark = qd_arena_mark(&device->scratch);
  qd_status status = order_columns(device, w, order.data);
  qd_arena_rewind(&device->scratch, mark);
  return status;
}
