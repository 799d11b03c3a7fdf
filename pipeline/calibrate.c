/* Statistics of a linear's input.  The unit is one sequence by its global index: whoever runs it gets the same numbers.
 * Diagonals are kept a unit in double, the grid of the exact sum is decided from all of them, then every rank adds its units as
 * integers (docs/numerics.md). */
#include "kernels/base/heap.h"
#include "kernels/base/log.h"
#include "pipeline/stages.h"

#include <string.h>

static qd_status window_diagonals(qd_run *run, qd_tensor x, qd_tensor stats, double *diagonals) {
  int64_t columns = x.dim[2];
  for (int64_t i = 0; i < x.dim[0]; i++) {
    QD_TRY(qd_colstats(run->device, qd_tensor_at(x, i), stats));
    memcpy(diagonals + i * columns, (double *)stats.data + columns, (size_t)columns * sizeof(double));
  }
  return QD_OK;
}

static qd_status local_diagonals(qd_run *run, int64_t columns, double *diagonals) {
  qd_tensor stats;
  qd_acts_window window;
  qd_acts *acts = &run->acts.quantized;
  size_t mark = qd_arena_mark(&run->stats_arena);
  QD_TRY(qd_tensor_new_2d(&run->stats_arena, QD_F64, 3, columns, &stats));
  qd_acts_begin(acts, (qd_acts_use){.mid_in = columns});
  for (;;) {
    QD_TRY(qd_acts_next(acts, &window));
    if (window.n == 0) break;
    QD_TRY(window_diagonals(run, window.mid, stats, diagonals + (run->mine.first + window.first) * columns));
  }
  qd_arena_rewind(&run->stats_arena, mark);
  return QD_OK;
}

static qd_status check_finite(const double *diagonals, int64_t units, int64_t columns, const char *input, int64_t block) {
  for (int64_t i = 0; i < units * columns; i++)
    QD_CHECK(diagonals[i] < 1e300, QD_ENUMERIC,
             "block %" PRId64 ": %s of sequence %" PRId64 " is not finite in column %" PRId64, block, input, i / columns,
             i % columns);
  return QD_OK;
}

static qd_status gather_units(qd_run *run, double *diagonals, int64_t columns) {
  size_t *bytes;
  QD_TRY(qd_heap_new((size_t)run->comm->size, sizeof *bytes, &bytes));
  for (int r = 0; r < run->comm->size; r++)
    bytes[r] = (size_t)(qd_partition_even(run->tokens.rows, r, run->comm->size).n * columns) * sizeof *diagonals;
  qd_status status =
      qd_comm_allgatherv(run->comm, diagonals + run->mine.first * columns, bytes[run->comm->rank], diagonals, bytes);
  qd_heap_free(bytes);
  return status;
}

static void add_units(const double *diagonals, int64_t units, qd_tensor total) {
  double *sum = total.data;
  memset(sum, 0, qd_tensor_bytes(total));
  for (int64_t u = 0; u < units; u++)
    for (int64_t c = 0; c < total.dim[0]; c++) sum[c] += diagonals[u * total.dim[0] + c];
}

/* Everything that all ranks need before they can add: diagonals of all units, their total, the grid. */
static qd_status decide_grid(qd_run *run, int64_t block, qd_stage stage, qd_stats *stats, qd_tensor *exponent) {
  int64_t columns = stats->columns, units = run->tokens.rows;
  double *diagonals;
  int32_t *exponents;
  QD_TRY(qd_arena_new(&run->stats_arena, (size_t)columns, sizeof *exponents, &exponents));
  QD_TRY(qd_arena_new(&run->stats_arena, (size_t)(units * columns), sizeof *diagonals, &diagonals));
  QD_TRY_ALL(run->comm, local_diagonals(run, columns, diagonals));
  QD_TRY(gather_units(run, diagonals, columns));
  QD_TRY(check_finite(diagonals, units, columns, qd_stage_input_name(stage), block));
  add_units(diagonals, units, stats->diagonal);
  *exponent = qd_tensor_1d(exponents, QD_I32, columns);
  return qd_hessian_grid(run->device, qd_tensor_2d(diagonals, QD_F64, units, columns), run->job->hessian_bound, *exponent);
}

/* The sum is exact, so where windows are cut cannot show. */
static qd_status accumulate(qd_run *run, qd_tensor exponent, qd_tri total) {
  qd_acts_window window;
  qd_acts *acts = &run->acts.quantized;
  memset(total.data, 0, qd_tri_bytes(total.n, QD_I64));
  qd_acts_begin(acts, (qd_acts_use){.mid_in = total.n});
  for (;;) {
    QD_TRY(qd_acts_next(acts, &window));
    if (window.n == 0) return QD_OK;
    QD_TRY(qd_hessian(run->device, window.mid, exponent, total));
  }
}

static qd_status sum_hessian(qd_run *run, int owner, qd_tensor exponent, qd_stats *stats) {
  int64_t columns = stats->columns;
  qd_tri total = {.dtype = QD_I64, .n = columns};
  QD_TRY(qd_arena_new(&run->stats_arena, qd_tri_elements(columns), sizeof(int64_t), &total.data));
  QD_TRY_ALL(run->comm, accumulate(run, exponent, total));
  QD_TRY(qd_comm_reduce_i64(run->comm, total.data, qd_tri_elements(columns), owner));
  qd_status status = run->comm->rank == owner ? qd_hessian_values(run->device, total, exponent, stats->h) : QD_OK;
  QD_TRY_ALL(run->comm, status);
  return qd_comm_bcast(run->comm, stats->h.data, qd_tri_bytes(columns, QD_F32), owner);
}

qd_status qd_calibrate(qd_run *run, const qd_block *block, qd_stage stage, qd_stats *stats) {
  qd_moment begin = qd_times_begin(run);
  double *diagonal;
  int64_t columns = qd_decoder_mid_columns(&run->model, stage);
  *stats = (qd_stats){
      .columns = columns, .tokens = run->tokens.rows * run->tokens.sequence_tokens, .h = {.dtype = QD_F32, .n = columns}};
  QD_TRY(qd_arena_new(&run->stats_arena, (size_t)columns, sizeof *diagonal, &diagonal));
  QD_TRY(qd_arena_new(&run->stats_arena, qd_tri_elements(columns), sizeof(float), &stats->h.data));
  stats->diagonal = qd_tensor_1d(diagonal, QD_F64, columns);
  size_t mark = qd_arena_mark(&run->stats_arena);
  qd_tensor exponent;
  int owner = (int)((block->index * QD_N_STAGES + (int64_t)stage) % run->comm->size);
  QD_TRY(decide_grid(run, block->index, stage, stats, &exponent));
  QD_TRY(sum_hessian(run, owner, exponent, stats));
  qd_arena_rewind(&run->stats_arena, mark);
  qd_times_end(run, begin, QD_TIME_CALIBRATE);
  return QD_OK;
}
