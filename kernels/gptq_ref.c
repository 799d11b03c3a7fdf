#include "kernels/rtn_ref.h"
#include "kernels/solvers.h"

/* One row on its way: w overwritten, `began` its values when the block began. */
typedef struct row_state {
  const qd_gptq_args *args;
  int64_t      index;
  qd_real     *w, *began, *e; /* w_c of a column that has its code stays what it was then */
  qd_ref_grid  grid;
  double       loss;
} row_state;

/* U[c][j] or P[c][j], j >= c. */
static qd_real at(qd_tri t, int64_t c, int64_t j) { return ((const qd_real *)t.data)[qd_tri_index(j, c)]; }

/* The grid that column c is quantized with. */
static qd_status take_grid(row_state *row, int64_t c) {
  const qd_gptq_args *args = row->args;
  int64_t g = qd_gptq_group(args, c);
  int64_t scale_at = row->index * args->scale.stride[0] + g, zero_at = row->index * args->zero.stride[0] + g;
  uint8_t *zero = args->zero.data;
  if (!args->fit) {
    row->grid = (qd_ref_grid){.scale = qd_ref_load(args->scale, scale_at), .zero = zero[zero_at]};
  } else if (qd_gptq_begins_group(args, c)) {
    const qd_real *values = args->scheme.compat ? row->began : row->w;
    row->grid = QD_REF(rtn_grid)(values + c, qd_gptq_group_end(args, c) - c, args->scheme);
    if (!isfinite(row->grid.scale)) return qd_rtn_beyond(row->index, g, args->scheme);
    qd_ref_store(args->scale, scale_at, row->grid.scale);
    zero[zero_at] = (uint8_t)row->grid.zero;
  }
  return QD_OK;
}

static qd_status solve_block(row_state *row, int64_t begin, int64_t end) {
  const qd_gptq_args *args = row->args;
  uint8_t *codes = (uint8_t *)args->code.data + row->index * args->code.stride[0];
  memcpy(row->began, row->w, (size_t)args->w.dim[1] * sizeof(qd_real));
  for (int64_t c = begin; c < end; c++) {
    QD_TRY(take_grid(row, c));
    qd_real code = qd_ref_code(row->w[c], row->grid, (qd_real)qd_scheme_max_code(args->scheme));
    codes[qd_gptq_stored(args, c)] = (uint8_t)code;
    qd_real e = (row->w[c] - row->grid.scale * (code - row->grid.zero)) / at(args->u, c, c);
    row->loss = row->loss + (double)e * (double)e / 2;
    for (int64_t j = c + 1; j < end; j++) {
      row->w[j] = qd_real_fma(-e, at(args->u, c, j), row->w[j]);
      if (args->p.n > 0) row->w[j] = qd_real_fma(row->w[c], at(args->p, c, j), row->w[j]);
    }
    row->e[c] = e;
  }
  return QD_OK;
}

/* The chain of x_c t[c][j] over a chunk of the block's columns. */
static qd_real chain_of(const qd_real *x, qd_tri t, int64_t first, int64_t end, int64_t j) {
  qd_real chain = 0;
  for (int64_t c = first; c < end && c < first + QD_PRODUCT_CHUNK; c++) chain = qd_real_fma(x[c], at(t, c, j), chain);
  return chain;
}

static void update_beyond(row_state *row, int64_t begin, int64_t end) {
  const qd_gptq_args *args = row->args;
  for (int64_t j = end; j < args->w.dim[1]; j++) {
    for (int64_t first = begin; first < end; first += QD_PRODUCT_CHUNK)
      row->w[j] = row->w[j] - chain_of(row->e, args->u, first, end, j);
    for (int64_t first = begin; args->p.n > 0 && first < end; first += QD_PRODUCT_CHUNK)
      row->w[j] = row->w[j] + chain_of(row->w, args->p, first, end, j);
  }
}

static qd_status solve_row(row_state *row) {
  int64_t columns = row->args->w.dim[1];
  for (int64_t begin = 0, end; begin < columns; begin = end) {
    end = qd_gptq_block_end(row->args, begin);
    QD_TRY(solve_block(row, begin, end));
    update_beyond(row, begin, end);
  }
  return QD_OK;
}

static qd_status solve_rows(qd_device *device, const qd_gptq_args *args) {
  row_state row = {.args = args};
  QD_TRY(qd_arena_new(&device->scratch, (size_t)args->w.dim[1], sizeof(qd_real), &row.began));
  QD_TRY(qd_arena_new(&device->scratch, (size_t)args->w.dim[1], sizeof(qd_real), &row.e));
  for (row.index = 0; row.index < args->w.dim[0]; row.index++) {
    row.w = (qd_real *)args->w.data + row.index * args->w.stride[0];
    row.loss = 0;
    QD_TRY(solve_row(&row));
    ((double *)args->loss.data)[row.index * args->loss.stride[0]] = row.loss;
  }
  return QD_OK;
}

qd_status QD_REF(gptq)(qd_device *device, const qd_gptq_args *args) {
  size_t mark = qd_arena_mark(&device->scratch);
  qd_status status = solve_rows(device, args);
  qd_arena_rewind(&device->scratch, mark);
  return status;
}
