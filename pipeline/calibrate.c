/* Statistics of a linear's input.  The unit is one sequence by its global index: whoever runs it gets the same numbers.
 * Diagonals are kept a unit in double, the grid of the exact sum is decided from all of them, then every rank adds its units as
 * integers (docs/numerics.md). */
#include "kernels/base/heap.h"
#include "kernels/base/log.h"
#include "pipeline/stages.h"

#include <stdio.h>
#include <string.h>

/* A pass over the quantized stream's inputs, with the original's beside them where both are wanted. */
typedef struct pass {
  qd_run *run;
  bool    both;
  qd_acts_window x, original;
} pass;

static pass begin_pass(qd_run *run, int64_t columns, bool both) {
  qd_acts_begin(&run->acts.quantized, (qd_acts_use){.mid_in = columns});
  if (both) qd_acts_begin(&run->acts.original, (qd_acts_use){.mid_in = columns});
  return (pass){.run = run, .both = both};
}

static qd_status next_windows(pass *p) {
  QD_TRY(qd_acts_next(&p->run->acts.quantized, &p->x));
  return p->both ? qd_acts_next(&p->run->acts.original, &p->original) : QD_OK;
}

/* ---- diagonals ----------------------------------------------------------------------------------------------------------- */

/* Of the inputs; with both streams of what the original's exceed them by (`difference`: room for one sequence of it). */
static qd_status window_diagonals(const pass *p, qd_tensor stats, qd_tensor difference, double *diagonals) {
  qd_device *device = p->run->device;
  int64_t columns = p->x.mid.dim[2];
  for (int64_t i = 0; i < p->x.n; i++) {
    qd_tensor x = qd_tensor_at(p->x.mid, i);
    if (p->both) QD_TRY(qd_subtract(device, qd_tensor_at(p->original.mid, i), x, difference));
    QD_TRY(qd_colstats(device, p->both ? difference : x, stats));
    memcpy(diagonals + i * columns, (double *)stats.data + columns, (size_t)columns * sizeof(double));
  }
  return QD_OK;
}

static qd_status local_diagonals(qd_run *run, int64_t columns, bool both, double *diagonals) {
  qd_tensor stats, difference = {0};
  size_t mark = qd_arena_mark(&run->stats_arena);
  QD_TRY(qd_tensor_new_2d(&run->stats_arena, QD_F64, 3, columns, &stats));
  if (both) QD_TRY(qd_tensor_new_2d(&run->stats_arena, QD_F32, run->tokens.sequence_tokens, columns, &difference));
  pass p = begin_pass(run, columns, both);
  for (;;) {
    QD_TRY(next_windows(&p));
    if (p.x.n == 0) break;
    QD_TRY(window_diagonals(&p, stats, difference, diagonals + (run->mine.first + p.x.first) * columns));
  }
  qd_arena_rewind(&run->stats_arena, mark);
  return QD_OK;
}

static qd_status check_finite(const double *diagonals, int64_t units, int64_t columns, const char *input, int64_t block) {
  char label[QD_BLOCK_LABEL_BYTES];
  for (int64_t i = 0; i < units * columns; i++)
    QD_CHECK(diagonals[i] < 1e300, QD_ENUMERIC, "%s: %s of sequence %" PRId64 " is not finite in column %" PRId64,
             qd_block_label(block, label), input, i / columns, i % columns);
  return QD_OK;
}

qd_status qd_units_gather(qd_run *run, void *data, size_t unit_bytes) {
  size_t *bytes;
  QD_TRY_ALL(run->comm, qd_heap_new((size_t)run->comm->size, sizeof *bytes, &bytes));
  for (int r = 0; r < run->comm->size; r++)
    bytes[r] = (size_t)qd_partition_even(run->tokens.rows, r, run->comm->size).n * unit_bytes;
  const unsigned char *mine = (const unsigned char *)data + (size_t)run->mine.first * unit_bytes;
  qd_status status = qd_comm_allgatherv(run->comm, mine, bytes[run->comm->rank], data, bytes);
  qd_heap_free(bytes);
  return status;
}

static void add_units(const double *diagonals, int64_t units, qd_tensor total) {
  double *sum = total.data;
  memset(sum, 0, qd_tensor_bytes(total));
  for (int64_t u = 0; u < units; u++)
    for (int64_t c = 0; c < total.dim[0]; c++) sum[c] += diagonals[u * total.dim[0] + c];
}

/* Of the inputs X of one stage, or of what the original's exceed them by. */
typedef struct moment {
  int64_t   block;
  qd_stage  stage;
  bool      of_difference;
  qd_tensor diagonal; /* F64 (C): units added in order */
  qd_tensor exponent; /* I32 (C): the grid */
} moment;

/* Everything that all ranks need before they can add: diagonals of all units, their total, the grid. */
static qd_status decide_grid(qd_run *run, const moment *m) {
  int64_t columns = m->exponent.dim[0], units = run->tokens.rows;
  double *diagonals;
  size_t mark = qd_arena_mark(&run->stats_arena);
  QD_TRY(qd_arena_new(&run->stats_arena, (size_t)(units * columns), sizeof *diagonals, &diagonals));
  QD_TRY_ALL(run->comm, local_diagonals(run, columns, m->of_difference, diagonals));
  QD_TRY(qd_units_gather(run, diagonals, (size_t)columns * sizeof *diagonals));
  QD_TRY_ALL(run->comm, check_finite(diagonals, units, columns, qd_stage_input_name(m->stage), m->block));
  add_units(diagonals, units, m->diagonal);
  QD_TRY(qd_hessian_grid(run->device, qd_tensor_2d(diagonals, QD_F64, units, columns), run->job->hessian_bound, m->exponent));
  qd_arena_rewind(&run->stats_arena, mark);
  return QD_OK;
}

static qd_status new_moment(qd_run *run, int64_t block, qd_stage stage, bool of_difference, moment *m) {
  int64_t columns = qd_decoder_mid_columns(&run->model, stage);
  *m = (moment){.block = block, .stage = stage, .of_difference = of_difference};
  m->diagonal = qd_tensor_1d(NULL, QD_F64, columns);
  m->exponent = qd_tensor_1d(NULL, QD_I32, columns);
  if (of_difference) QD_TRY(qd_arena_new(&run->stats_arena, (size_t)columns, sizeof(double), &m->diagonal.data));
  return qd_arena_new(&run->stats_arena, (size_t)columns, sizeof(int32_t), &m->exponent.data);
}

/* ---- the Hessian --------------------------------------------------------------------------------------------------------- */

/* The sum is exact, so where windows are cut cannot show. */
static qd_status accumulate(qd_run *run, qd_tensor exponent, qd_tri total) {
  memset(total.data, 0, qd_tri_bytes(total.n, QD_I64));
  pass p = begin_pass(run, total.n, false);
  for (;;) {
    QD_TRY(next_windows(&p));
    if (p.x.n == 0) return QD_OK;
    QD_TRY(qd_hessian(run->device, p.x.mid, exponent, total));
  }
}

static qd_status sum_hessian(qd_run *run, int owner, qd_tensor exponent, qd_stats *stats) {
  int64_t columns = stats->columns;
  qd_tri total = {.dtype = QD_I64, .n = columns};
  size_t mark = qd_arena_mark(&run->stats_arena);
  QD_TRY(qd_arena_new(&run->stats_arena, qd_tri_elements(columns), sizeof(int64_t), &total.data));
  QD_TRY_ALL(run->comm, accumulate(run, exponent, total));
  QD_TRY(qd_comm_reduce_i64(run->comm, total.data, qd_tri_elements(columns), owner));
  qd_status status = run->comm->rank == owner ? qd_hessian_values(run->device, total, exponent, stats->h) : QD_OK;
  QD_TRY_ALL(run->comm, status);
  qd_arena_rewind(&run->stats_arena, mark);
  return qd_comm_bcast(run->comm, stats->h.data, qd_tri_bytes(columns, QD_F32), owner);
}

/* ---- the original's input against it ------------------------------------------------------------------------------------- */

static qd_status accumulate_cross(qd_run *run, qd_cross_args *args) {
  memset(args->total.data, 0, qd_tensor_bytes(args->total));
  pass p = begin_pass(run, args->total.dim[1], true);
  for (;;) {
    QD_TRY(next_windows(&p));
    if (p.x.n == 0) return QD_OK;
    args->original = p.original.mid, args->x = p.x.mid;
    QD_TRY(qd_cross(run->device, args));
  }
}

/* Some rows to the owner. */
static qd_status sum_panel(qd_run *run, int owner, qd_cross_args *args, qd_stats *stats) {
  int64_t rows = args->total.dim[0];
  QD_TRY_ALL(run->comm, accumulate_cross(run, args));
  QD_TRY(qd_comm_reduce_i64(run->comm, args->total.data, (size_t)qd_tensor_elements(args->total), owner));
  qd_status status = QD_OK;
  if (run->comm->rank == owner)
    status = qd_cross_values(run->device, args->total, qd_tensor_rows(args->row_exponent, args->first, rows),
                             args->column_exponent, qd_tensor_rows(stats->cross, args->first, rows));
  return qd_agree(run->comm, status);
}

static bool is_zero(qd_tensor diagonal) {
  const double *value = diagonal.data;
  for (int64_t c = 0; c < diagonal.dim[0]; c++)
    if (value[c] != 0) return false;
  return true;
}

/* Where the streams are the same still (the first stage) there is nothing to correct. */
static qd_status sum_cross(qd_run *run, int owner, const moment *inputs, qd_stats *stats) {
  int64_t columns = stats->columns, panel = qd_calibrate_panel(columns), *total;
  moment difference;
  QD_TRY(new_moment(run, inputs->block, inputs->stage, true, &difference));
  QD_TRY(decide_grid(run, &difference));
  stats->asymmetric = !is_zero(difference.diagonal);
  if (!stats->asymmetric) return QD_OK;
  QD_TRY(qd_arena_new(&run->stats_arena, (size_t)(panel * columns), sizeof *total, &total));
  for (int64_t first = 0; first < columns; first += panel) {
    int64_t rows = columns - first < panel ? columns - first : panel;
    qd_cross_args args = {.row_exponent = difference.exponent,
                          .column_exponent = inputs->exponent,
                          .first = first,
                          .total = qd_tensor_2d(total, QD_I64, rows, columns)};
    QD_TRY(sum_panel(run, owner, &args, stats));
  }
  return QD_OK;
}

/* ---- the stage ----------------------------------------------------------------------------------------------------------- */

static qd_status new_stats(qd_run *run, int64_t block, qd_stage stage, bool owns_cross, qd_stats *stats) {
  char label[QD_BLOCK_LABEL_BYTES];
  int64_t columns = qd_decoder_mid_columns(&run->model, stage);
  *stats = (qd_stats){.columns = columns,
                      .tokens = run->tokens.rows * run->tokens.sequence_tokens,
                      .diagonal = qd_tensor_1d(NULL, QD_F64, columns),
                      .h = {.dtype = QD_F32, .n = columns},
                      .cross = qd_tensor_2d(NULL, QD_F32, columns, columns)};
  snprintf(stats->what, sizeof stats->what, "%s: %s", qd_block_label(block, label), qd_stage_input_name(stage));
  QD_TRY(qd_arena_new(&run->stats_arena, (size_t)columns, sizeof(double), &stats->diagonal.data));
  QD_TRY(qd_arena_new(&run->stats_arena, qd_tri_elements(columns), sizeof(float), &stats->h.data));
  return owns_cross ? qd_arena_new(&run->stats_arena, (size_t)(columns * columns), sizeof(float), &stats->cross.data) : QD_OK;
}

qd_status qd_calibrate(qd_run *run, const qd_block *block, qd_stage stage, qd_stats *stats) {
  qd_moment begin = qd_times_begin(run);
  int owner = qd_stage_owner(block->index, stage, run->comm->size);
  bool asymmetric = qd_job_is_asymmetric(run->job) && !qd_stage_is_routed(stage);
  moment inputs;
  QD_TRY(new_stats(run, block->index, stage, asymmetric && run->comm->rank == owner, stats));
  size_t mark = qd_arena_mark(&run->stats_arena);
  QD_TRY(new_moment(run, block->index, stage, false, &inputs));
  inputs.diagonal = stats->diagonal;
  QD_TRY(decide_grid(run, &inputs));
  QD_TRY(sum_hessian(run, owner, inputs.exponent, stats));
  if (asymmetric) QD_TRY(sum_cross(run, owner, &inputs, stats));
  qd_arena_rewind(&run->stats_arena, mark);
  qd_times_end(run, begin, QD_TIME_CALIBRATE);
  return QD_OK;
}
