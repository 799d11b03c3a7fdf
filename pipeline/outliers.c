#include "pipeline/outliers.h"

#include "kernels/base/heap.h"
#include "workers/agree.h"

#include <math.h>
#include <string.h>

/* Row pointers are of 32 bits. */
int64_t qd_outliers_most(int64_t rows, int64_t columns) {
  double most = QD_MOST_OUTLIERS * (double)rows * (double)columns + 1;
  return most < INT32_MAX ? (int64_t)most : INT32_MAX;
}

void qd_outliers_shape(qd_qtensor *q, int64_t n) {
  if (q->scheme.spqr) q->outlier_columns.dim[0] = q->outlier_values.dim[0] = n;
}

void qd_outliers_settle(qd_qtensor *q) { qd_outliers_shape(q, qd_outliers_of(q)); }

qd_status qd_outliers_new(qd_arena *arena, int64_t most, qd_qtensor *q) {
  qd_tensor *parts[] = {&q->outlier_columns, &q->outlier_values};
  if (!q->scheme.spqr) return QD_OK;
  qd_outliers_shape(q, most);
  for (int i = 0; i < 2; i++)
    QD_TRY(qd_arena_new(arena, (size_t)most, qd_dtype_bytes(parts[i]->dtype), &parts[i]->data));
  memset(q->outlier_rows.data, 0, qd_tensor_bytes(q->outlier_rows));
  return QD_OK;
}

size_t qd_outliers_qtensor_cost(qd_scheme scheme, int64_t rows, int64_t columns, int64_t most) {
  qd_part parts[QD_MAX_PARTS];
  qd_qtensor q = qd_qtensor_shape(scheme, rows, columns, true);
  size_t cost = 0;
  qd_outliers_shape(&q, most);
  for (int i = qd_qtensor_parts(&q, parts) - 1; i >= 0; i--) cost += qd_arena_cost(qd_tensor_bytes(parts[i].tensor), 1);
  return cost;
}

int64_t qd_outliers_of(const qd_qtensor *q) {
  const int32_t *rows = q->outlier_rows.data;
  return q->scheme.spqr && q->rows > 0 ? rows[q->rows] - rows[0] : 0;
}

/* ---- the measure --------------------------------------------------------------------------------------------------------- */

static qd_status add_tile(qd_device *device, qd_tensor rows, double *sum, double *square) {
  int64_t columns = rows.dim[1];
  qd_tensor w, stats;
  size_t mark = qd_arena_mark(&device->scratch);
  QD_TRY(qd_tensor_new_2d(&device->scratch, QD_F32, rows.dim[0], columns, &w));
  QD_TRY(qd_tensor_new_2d(&device->scratch, QD_F64, 3, columns, &stats));
  qd_widen(rows.data, rows.dtype, w.data, (size_t)qd_tensor_elements(rows));
  QD_TRY(qd_colstats(device, w, stats));
  const double *tile = stats.data;
  for (int64_t c = 0; c < columns; c++) sum[c] += tile[c], square[c] += tile[columns + c];
  qd_arena_rewind(&device->scratch, mark);
  return QD_OK;
}

static double variance_of(double sum, double square, int64_t n) {
  double value = n > 1 ? (square - sum * sum / (double)n) / (double)(n - 1) : 0;
  return value > 0 ? value : 0;
}

qd_status qd_outliers_variance(qd_device *device, qd_tensor weight, const uint8_t *dead, qd_tensor variance) {
  int64_t rows = weight.dim[0], columns = weight.dim[1];
  double *square = variance.data, *sum;
  size_t mark = qd_arena_mark(&device->scratch);
  QD_TRY(qd_arena_new(&device->scratch, (size_t)columns, sizeof *sum, &sum));
  for (int64_t c = 0; c < columns; c++) sum[c] = square[c] = 0;
  for (int64_t r = 0; r < rows; r += QD_LOSS_TILE)
    QD_TRY(add_tile(device, qd_tensor_rows(weight, r, rows - r < QD_LOSS_TILE ? rows - r : QD_LOSS_TILE), sum, square));
  for (int64_t c = 0; c < columns; c++) square[c] = dead != NULL && dead[c] ? 0 : variance_of(sum[c], square[c], rows);
  qd_arena_rewind(&device->scratch, mark);
  return QD_OK;
}

size_t qd_outliers_variance_scratch(int64_t columns) {
  return qd_arena_cost((size_t)columns, sizeof(double)) + qd_arena_cost((size_t)(QD_LOSS_TILE * columns), sizeof(float)) +
         qd_arena_cost((size_t)(3 * columns), sizeof(double));
}

double qd_outliers_tau(double threshold, qd_tensor variance, qd_tri u, const int32_t *order) {
  const double *of = variance.data;
  double sum = 0;
  if (isinf(threshold)) return threshold;
  for (int64_t p = 0; p < u.n; p++) {
    double diagonal = (double)((const float *)u.data)[qd_tri_index(p, p)];
    sum += of[order[p]] / (diagonal * diagonal);
  }
  return sum > 0 ? threshold * (sum / (double)u.n) : INFINITY;
}

/* ---- everyone's outliers to everyone ------------------------------------------------------------------------------------- */

static void pointers_to_counts(int32_t *pointer, qd_range rows) {
  for (int64_t r = rows.first + rows.n; r > rows.first; r--) pointer[r] -= pointer[r - 1];
}

static int64_t counts_to_pointers(int32_t *pointer, int64_t rows) {
  int64_t sum = 0;
  pointer[0] = 0;
  for (int64_t r = 1; r <= rows; r++) sum += pointer[r], pointer[r] = (int32_t)sum;
  return sum;
}

static qd_status gather_rows(qd_comm *comm, const qd_range *rows_of, size_t *bytes, int32_t *pointer) {
  qd_range mine = rows_of[comm->rank];
  for (int r = 0; r < comm->size; r++) bytes[r] = (size_t)rows_of[r].n * sizeof *pointer;
  pointers_to_counts(pointer, mine);
  return qd_comm_allgatherv(comm, pointer + 1 + mine.first, bytes[comm->rank], pointer + 1, bytes);
}

/* From where this rank's lie, at the first place, to where all have them. */
static qd_status gather_part(qd_comm *comm, const qd_range *rows_of, const int32_t *pointer, size_t *bytes, qd_tensor part) {
  size_t size = qd_dtype_bytes(part.dtype), own = (size_t)pointer[rows_of[comm->rank].first] * size;
  unsigned char *data = part.data;
  for (int r = 0; r < comm->size; r++)
    bytes[r] = (size_t)(pointer[rows_of[r].first + rows_of[r].n] - pointer[rows_of[r].first]) * size;
  memmove(data + own, data, bytes[comm->rank]);
  return qd_comm_allgatherv(comm, data + own, bytes[comm->rank], data, bytes);
}

static qd_status check_most(int64_t n, int64_t most) {
  QD_CHECK(n <= most, QD_ENUMERIC, "more than %g %% of the weights are outliers: a larger --outlier-threshold is wanted",
           100 * QD_MOST_OUTLIERS);
  return QD_OK;
}

static qd_status share(qd_comm *comm, const qd_range *rows_of, int64_t most, size_t *bytes, qd_qtensor *q) {
  int32_t *pointer = q->outlier_rows.data;
  QD_TRY(gather_rows(comm, rows_of, bytes, pointer));
  int64_t n = counts_to_pointers(pointer, q->rows);
  QD_TRY_ALL(comm, check_most(n, most)); /* all know it: it is told once */
  QD_TRY(gather_part(comm, rows_of, pointer, bytes, q->outlier_columns));
  QD_TRY(gather_part(comm, rows_of, pointer, bytes, q->outlier_values));
  qd_outliers_settle(q);
  return QD_OK;
}

qd_status qd_outliers_share(qd_comm *comm, const qd_range *rows_of, int64_t most, qd_qtensor *q) {
  size_t *bytes;
  QD_TRY_ALL(comm, qd_heap_new((size_t)comm->size, sizeof *bytes, &bytes));
  qd_status status = share(comm, rows_of, most, bytes, q);
  qd_heap_free(bytes);
  return status;
}
