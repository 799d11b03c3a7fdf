/* Blocking of the matrix product for one core, and its division over threads.
 *
 * Many rows of a: panels of b for some hundred columns stay in the L2 cache for one chunk of k; panels of a come by in blocks,
 * and each stays in L1 while it meets them all.  Few rows (a token or some): panels of a for many chunks stay, and every panel
 * of b is used as soon as it is packed, so that a weight is read once and in its own order.
 *
 * Bound: a vector of multiply-adds per cycle and port; packing costs a few per cent of it. */
#include "kernels/gemm_cpu.h"

#include "kernels/codes.h"
#include "kernels/panels_isa.h"

#include <omp.h>
#include <string.h>

/* A thread's buffers.  A: 126 rows of fp32 over a chunk; B: 640 columns, 0.66 MB, beside A in an L2 of 1 MB. */
enum {
  A_BYTES = 33 * 4096,
  B_BYTES = 20 * (QD_PRODUCT_CHUNK * QD_MAX_TILE_COLUMNS + QD_PANEL_TAIL) * 4,
  SUM_COLUMNS = 640,
  SUMS = 768 * SUM_COLUMNS,              /* fp32 sums of a c that is rounded in the end */
  WEIGHT_STRIDE = QD_PRODUCT_CHUNK + 16, /* of dequantized rows, not a power of two: the rows must not share cache sets */
  WEIGHT_BYTES = QD_MAX_TILE_COLUMNS * WEIGHT_STRIDE * 4,
  THREAD_BYTES = (A_BYTES + B_BYTES + SUMS * 4 + WEIGHT_BYTES + 4095) / 4096 * 4096,
};

/* A rectangle of c, as one thread computes it. */
typedef struct task {
  const qd_gemm_product *product;
  const qd_device *device;
  const qd_gemm_unit *unit;
  qd_panel_kind kind;
  int64_t i, m, j, n, k; /* rows [i, i + m), columns [j, j + n), all k */
  int width;             /* of panels of a */
  unsigned char *a, *b, *weight;
  float *sums;
} task;

/* Part of a job: rows, columns and one chunk. */
typedef struct block {
  int64_t i, m, j, n, k, kc;
} block;

/* Where sums go: c itself, or the thread's fp32 sums. */
typedef struct target {
  unsigned char *data; /* of element (i, j) */
  int64_t i, j, stride;
  size_t bytes;
} target;

size_t qd_cpu_packing_bytes(int threads) { return (size_t)threads * THREAD_BYTES; }

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t chunk_of(int64_t k, int64_t end) { return least(end - k, QD_PRODUCT_CHUNK); }

static const unsigned char *element(qd_tensor t, int64_t i, int64_t k) {
  return (const unsigned char *)t.data + (i * t.stride[0] + k * t.stride[1]) * (int64_t)qd_dtype_bytes(t.dtype);
}

static unsigned char *target_at(const target *t, int64_t i, int64_t j) {
  return t->data + ((i - t->i) * t->stride + (j - t->j)) * (int64_t)t->bytes;
}

/* ---- packing ---- */

static int64_t panel_stride(const task *job, int64_t kc, int width) {
  return qd_panel_stride(qd_panel_steps(job->kind, kc), width) * (int64_t)job->unit->bytes;
}

static qd_gemm_rows rows_of(qd_tensor t, int64_t first, int64_t rows, const block *at) {
  return (qd_gemm_rows){element(t, first, at->k), t.stride[0], t.stride[1], rows, at->kc};
}

/* Rows of the block in panels; the last panel is as narrow as its rows. */
static void pack_a(const task *job, const block *at, unsigned char *to) {
  int64_t whole = at->m / job->width * job->width, rest = at->m - whole;
  qd_gemm_rows rows = rows_of(job->product->a, at->i, whole, at);
  qd_gemm_rows last = rows_of(job->product->a, at->i + whole, rest, at);
  void (*pack)(const qd_gemm_rows *, int, void *) = job->unit->pack_a ? job->unit->pack_a : job->unit->pack;
  if (whole) pack(&rows, job->width, to);
  if (rest) pack(&last, (int)rest, to + whole / job->width * panel_stride(job, at->kc, job->width));
}

static void pack_quantized(const task *job, const block *at, unsigned char *to) {
  qd_dtype dtype = job->product->a.dtype;
  int width = job->unit->columns;
  size_t row_bytes = WEIGHT_STRIDE * qd_dtype_bytes(dtype);
  for (int64_t j = 0; j < at->n; j += width, to += panel_stride(job, at->kc, width)) {
    int64_t rows = least(at->n - j, width);
    for (int64_t r = 0; r < rows; r++)
      QD_ISA_CALL(job->device, qd_codes_dequantize,
                  (job->product->q, at->j + j + r, at->k, at->kc, dtype, job->weight + (size_t)r * row_bytes));
    job->unit->pack(&(qd_gemm_rows){job->weight, WEIGHT_STRIDE, 1, rows, at->kc}, width, to);
  }
}

/* The kept panels of the block's columns; at->j is the first row of a panel. */
static const unsigned char *kept_panels(const task *job, const block *at) {
  const qd_panels *p = job->product->panels;
  int64_t panels = (p->rows + p->width - 1) / p->width, before = at->j / p->width;
  return (const unsigned char *)p->data + at->k / QD_PRODUCT_CHUNK * panels * panel_stride(job, QD_PRODUCT_CHUNK, p->width) +
         before * panel_stride(job, at->kc, p->width);
}

static qd_code_panels kept_codes(const task *job, const block *at) {
  const qd_panels *p = job->product->panels;
  int64_t width = QD_CODE_PAIR * p->width, pairs = (p->rows + width - 1) / width;
  int64_t runs = (at->kc + QD_CODE_RUN - 1) / QD_CODE_RUN;
  int64_t words = (at->k / QD_CODE_RUN * pairs + at->j / width * runs) * p->q.scheme.bits * width;
  bool spqr = p->q.scheme.spqr;
  qd_dtype scale_dtype = spqr ? QD_F32 : p->q.scheme.scale_dtype;
  return (qd_code_panels){.words = (const uint32_t *)p->data + words, .half = (int)(at->j % width / p->width),
                          .scales = (const unsigned char *)p->scales + (size_t)at->j * qd_dtype_bytes(scale_dtype),
                          .zeros = spqr ? NULL : p->zeros + at->j, .real_zeros = spqr ? p->real_zeros + at->j : NULL,
                          .outliers = spqr ? &p->q : NULL, .row = at->j, .scale_dtype = scale_dtype,
                          .group_stride = pairs * width, .group_size = qd_scheme_group_size(p->q.scheme, p->columns),
                          .first = at->k, .k = at->kc, .positive = p->positive, .bits = p->q.scheme.bits};
}

static void unpack_codes(const task *job, const block *at, unsigned char *to) {
  block part = *at;
  for (int64_t j = 0; j < at->n; j += job->unit->columns, to += panel_stride(job, at->kc, job->unit->columns)) {
    part.j = at->j + j;
    qd_code_panels codes = kept_codes(job, &part);
    QD_ISA_CALL(job->device, qd_code_panel_unpack, (&codes, job->kind, to));
  }
}

/* Panels of the block's columns: packed into `to`, or those that were kept. */
static const unsigned char *panels_of_b(const task *job, const block *at, unsigned char *to) {
  const qd_gemm_product *p = job->product;
  if (p->panels && !p->panels->quantized) return kept_panels(job, at);
  if (p->panels) {
    unpack_codes(job, at, to);
  } else if (p->q) {
    pack_quantized(job, at, to);
  } else {
    qd_gemm_rows columns = rows_of(p->b, at->j, at->n, at);
    job->unit->pack(&columns, job->unit->columns, to);
  }
  return to;
}

/* ---- one core ---- */

/* The rows that follow the block's: what its strips ask for while they compute. */
static void look_ahead(const task *job, const block *at, qd_gemm_strip *strip) {
  qd_tensor a = job->product->a;
  if (a.stride[1] != 1 || at->i + 2 * at->m > job->i + job->m) return;
  int64_t bytes = (int64_t)qd_dtype_bytes(a.dtype);
  strip->ahead = element(a, at->i + at->m, at->k);
  strip->ahead_stride = a.stride[0] * bytes;
  strip->ahead_bytes = at->kc * bytes;
}

/* Does the product begin with its first chunk's chain as it is? */
static bool sets(const task *job) { return job->product->mode == QD_GEMM_SET || job->product->mode == QD_GEMM_LOWER; }

static qd_gemm_strip strip_of(const task *job, const block *at, const target *c) {
  qd_gemm_strip strip = {.steps = qd_panel_steps(job->kind, at->kc), .c_stride = c->stride, .columns = at->n};
  strip.update = job->product->mode == QD_GEMM_SUBTRACT ? QD_TILE_SUBTRACT
                 : sets(job) && at->k == 0              ? QD_TILE_STORE
                                                        : QD_TILE_ADD;
  return strip;
}

/* How many of the block's columns rows up to `end` have: whole tiles of them. */
static int64_t columns_of(const task *job, const block *at, int64_t end) {
  if (job->product->mode != QD_GEMM_LOWER) return at->n;
  int64_t below = end > at->j ? end - at->j : 0, width = job->unit->columns;
  return least(at->n, (below + width - 1) / width * width);
}

static void multiply(const task *job, const block *at, const unsigned char *a, const unsigned char *b, const target *c) {
  qd_gemm_strip strip = strip_of(job, at, c);
  strip.b = b;
  look_ahead(job, at, &strip);
  for (int64_t i = 0; i < at->m; i += job->width, a += panel_stride(job, at->kc, job->width)) {
    strip.a = a;
    strip.c = target_at(c, at->i + i, at->j);
    strip.rows = (int)least(at->m - i, job->width);
    strip.columns = columns_of(job, at, at->i + i + strip.rows);
    job->unit->strip(&strip);
    if (strip.ahead) strip.ahead = (const unsigned char *)strip.ahead + job->width * strip.ahead_stride;
  }
}

/* After the last chunk: bias and rounding. */
static void finish(const task *job, const block *at, const target *sums) {
  const qd_gemm_product *p = job->product;
  if (p->bias == NULL && p->c.dtype != QD_BF16) return;
  for (int64_t i = at->i; i < at->i + at->m; i++) {
    const float *bias = p->bias ? (const float *)p->bias->data + at->j : NULL;
    QD_ISA_CALL(job->device, qd_round_row,
                ((const float *)(const void *)target_at(sums, i, at->j), bias, at->n, p->c.dtype,
                 (unsigned char *)p->c.data + (i * p->c.stride[0] + at->j) * (int64_t)qd_dtype_bytes(p->c.dtype)));
  }
}

/* An empty sum. */
static void clear(const task *job, const block *at, const target *c) {
  if (job->k != 0 || !sets(job)) return;
  for (int64_t i = at->i; i < at->i + at->m; i++) memset(target_at(c, i, at->j), 0, (size_t)at->n * c->bytes);
}

static target target_of(const task *job, const block *at) {
  qd_tensor c = job->product->c;
  if (c.dtype == QD_BF16) return (target){(unsigned char *)job->sums, at->i, at->j, at->n, sizeof(float)};
  return (target){c.data, 0, 0, c.stride[0], qd_dtype_bytes(c.dtype)};
}

/* Rows [at.i, + at.m) and columns [at.j, + at.n), at.n no more than fit into B. */
static void many_rows(const task *job, block at, int64_t rows_at_once) {
  target c = target_of(job, &at);
  block rows = at;
  int64_t end = at.i + at.m;
  clear(job, &at, &c);
  for (at.k = 0; at.k < job->k; at.k += QD_PRODUCT_CHUNK) {
    at.kc = chunk_of(at.k, job->k);
    const unsigned char *b = panels_of_b(job, &at, job->b);
    rows = at;
    for (rows.i = at.i; rows.i < end; rows.i += rows_at_once) {
      rows.m = least(end - rows.i, rows_at_once);
      pack_a(job, &rows, job->a);
      multiply(job, &rows, job->a, b, &c);
      if (at.k + at.kc == job->k) finish(job, &rows, &c);
    }
  }
  if (job->k == 0) finish(job, &at, &c);
}

static void run_many_rows(const task *job) {
  int64_t a_panels = A_BYTES / panel_stride(job, QD_PRODUCT_CHUNK, job->width);
  int64_t columns = B_BYTES / panel_stride(job, QD_PRODUCT_CHUNK, job->unit->columns) * job->unit->columns;
  int64_t rows = job->m;
  if (job->product->c.dtype == QD_BF16) columns = least(columns, SUM_COLUMNS), rows = SUMS / columns;
  for (int64_t i = 0; i < job->m; i += rows)
    for (int64_t j = 0; j < job->n; j += columns) {
      block at = {.i = job->i + i, .m = least(job->m - i, rows), .j = job->j + j, .n = least(job->n - j, columns)};
      many_rows(job, at, a_panels * job->width);
    }
}

/* Chunks [at.k, end) of all rows against the columns of `at`, one panel of b at a time; panels of a lie in the large buffer. */
static void few_rows(const task *job, block at, int64_t end, const target *c) {
  int64_t chunk_bytes = (at.m + job->width - 1) / job->width * panel_stride(job, QD_PRODUCT_CHUNK, job->width), first = at.k;
  for (; at.k < end; at.k += QD_PRODUCT_CHUNK) {
    at.kc = chunk_of(at.k, job->k);
    pack_a(job, &at, job->b + (at.k - first) / QD_PRODUCT_CHUNK * chunk_bytes);
  }
  int64_t last = at.j + at.n;
  block part = at;
  for (part.j = at.j; part.j < last; part.j += job->unit->columns) {
    part.n = least(last - part.j, job->unit->columns);
    for (part.k = first; part.k < end; part.k += QD_PRODUCT_CHUNK) {
      part.kc = chunk_of(part.k, job->k);
      const unsigned char *b = panels_of_b(job, &part, job->a);
      multiply(job, &part, job->b + (part.k - first) / QD_PRODUCT_CHUNK * chunk_bytes, b, c);
    }
    if (end == job->k) finish(job, &part, c);
  }
}

/* One chunk of one or two rows and all columns of `at` by codes that are not expanded into memory. */
static bool multiply_codes(const task *job, const block *at, const unsigned char *a, const target *c) {
  if (!job->product->panels->quantized || at->m > QD_CODE_ROWS || qd_panel_in_blocks(job->kind)) return false;
  qd_code_panels codes = kept_codes(job, at);
  if (!qd_code_panels_direct(&codes)) return false;
  qd_gemm_strip strip = strip_of(job, at, c);
  strip.a = a, strip.rows = (int)at->m, strip.c = target_at(c, at->i, at->j);
  QD_ISA_CALL(job->device, qd_code_panel_strip, (&codes, job->kind, &strip));
  return true;
}

/* The same with kept panels, which are read as they lie: chunk by chunk. */
static void few_rows_kept(const task *job, block at, const target *c) {
  for (at.k = 0; at.k < job->k; at.k += QD_PRODUCT_CHUNK) {
    at.kc = chunk_of(at.k, job->k);
    pack_a(job, &at, job->b);
    if (multiply_codes(job, &at, job->b, c)) continue;
    block part = at;
    for (part.j = at.j; part.j < at.j + at.n; part.j += QD_CODE_PAIR * job->unit->columns) {
      part.n = least(at.j + at.n - part.j, QD_CODE_PAIR * job->unit->columns);
      multiply(job, &part, job->b, panels_of_b(job, &part, job->a), c);
    }
  }
  finish(job, &at, c);
}

static void run_few_rows(const task *job) {
  int64_t chunk_bytes = (job->m + job->width - 1) / job->width * panel_stride(job, QD_PRODUCT_CHUNK, job->width);
  int64_t span = B_BYTES / chunk_bytes * QD_PRODUCT_CHUNK;
  int64_t columns = job->product->c.dtype == QD_BF16 ? SUMS / job->m / job->unit->columns * job->unit->columns : job->n;
  for (int64_t j = 0; j < job->n; j += columns) {
    block at = {.i = job->i, .m = job->m, .j = job->j + j, .n = least(job->n - j, columns)};
    target c = target_of(job, &at);
    clear(job, &at, &c);
    if (job->k == 0) finish(job, &at, &c);
    if (job->k > 0 && job->product->panels) few_rows_kept(job, at, &c);
    for (at.k = 0; at.k < job->k && !job->product->panels; at.k += span) few_rows(job, at, least(at.k + span, job->k), &c);
  }
}

static void run(const task *job) {
  if (job->m <= 2 * job->unit->rows)
    run_few_rows(job);
  else
    run_many_rows(job);
}

/* ---- division over threads ---- */

typedef struct grid {
  int64_t m, n; /* rows and columns of a job */
  int64_t down, across;
} grid;

static int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

static grid grid_of(const task *whole, int64_t down, int64_t across) {
  grid g = {.m = round_up((whole->m + down - 1) / down, whole->unit->rows),
            .n = round_up((whole->n + across - 1) / across, whole->unit->columns)};
  g.down = (whole->m + g.m - 1) / g.m;
  g.across = (whole->n + g.n - 1) / g.n;
  return g;
}

/* Time of the busiest thread, in multiply-adds: packing one element costs about as much as six of them. */
static double grid_cost(const grid *g, int threads) {
  int64_t rounds = (g->down * g->across + threads - 1) / threads;
  return (double)rounds *
         ((double)g->m * (double)g->n + 6.0 * (double)g->m * (double)((g->n + 639) / 640) + 8.0 * (double)g->n);
}

static grid best_grid(const task *whole, int threads) {
  grid best = grid_of(whole, 1, 1);
  if ((double)whole->m * (double)whole->n * (double)whole->k < 1 << 18) return best; /* starting threads would cost more */
  int64_t most_down = least(threads, (whole->m + whole->unit->rows - 1) / whole->unit->rows);
  for (int64_t down = 1; down <= most_down; down++)
    for (int64_t rounds = 1; rounds <= 4; rounds++) {
      int64_t across = rounds * threads / down;
      grid g = grid_of(whole, down, across < 1 ? 1 : across);
      if (grid_cost(&g, threads) < grid_cost(&best, threads)) best = g;
    }
  return best;
}

qd_panel_kind qd_gemm_kept_kind(const qd_device *device, qd_dtype dtype) {
  if (dtype != QD_BF16) return dtype == QD_F32 ? QD_PANEL_F32 : QD_PANEL_F64;
  if (device->arithmetic == QD_ARITHMETIC_BF16_AMX) return device->isa >= QD_ISA_AMX ? QD_PANEL_TILES : QD_PANEL_BLOCKS;
  return device->isa >= QD_ISA_AVX512_BF16 ? QD_PANEL_PAIRS : QD_PANEL_WIDE;
}

qd_panel_kind qd_gemm_kind(const qd_device *device, qd_dtype dtype) {
  qd_panel_kind kind = qd_gemm_kept_kind(device, dtype);
  return kind == QD_PANEL_PAIRS && device->widens_pairs ? QD_PANEL_WIDE : kind;
}

static task whole_of(const qd_device *device, const qd_gemm_product *product) {
  task whole = {.product = product, .device = device, .m = product->c.dim[0], .n = product->c.dim[1], .k = product->a.dim[1]};
  bool kept = product->panels != NULL && !product->panels->quantized;
  whole.kind = (kept ? qd_gemm_kept_kind : qd_gemm_kind)(device, product->a.dtype);
  whole.unit = QD_ISA_CALL(device, qd_gemm_find_unit, (whole.kind));
  return whole;
}

/* The job of grid cell (row, column), with the buffers of `thread`; panels of a of about equal widths. */
static void run_cell(const task *whole, const grid *g, int64_t cell, int thread) {
  task part = *whole;
  part.i = cell / g->across * g->m;
  part.j = cell % g->across * g->n;
  part.m = least(whole->m - part.i, g->m);
  part.n = least(whole->n - part.j, g->n);
  int64_t panels = (part.m + part.unit->rows - 1) / part.unit->rows;
  part.width = (int)((part.m + panels - 1) / panels);
  part.a = (unsigned char *)whole->device->packing + (size_t)thread * THREAD_BYTES;
  part.b = part.a + A_BYTES;
  part.sums = (float *)(void *)(part.b + B_BYTES);
  part.weight = (unsigned char *)(part.sums + SUMS);
  run(&part);
}

void qd_gemm_run(qd_device *device, const qd_gemm_product *product) {
  task whole = whole_of(device, product);
  if (whole.m == 0 || whole.n == 0) return;
  grid g = best_grid(&whole, device->threads);
  int64_t cells = g.down * g.across;
  if (cells == 1) {
    run_cell(&whole, &g, 0, 0);
    return;
  }
#pragma omp parallel num_threads(device->threads)
  {
    qd_flush_denormals();
#pragma omp for schedule(dynamic, 1)
    for (int64_t cell = 0; cell < cells; cell++) run_cell(&whole, &g, cell, omp_get_thread_num());
  }
}

void qd_gemm(qd_device *device, qd_gemm_mode mode, qd_tensor a, qd_tensor b, qd_tensor c) {
  qd_gemm_run(device, &(qd_gemm_product){.mode = mode, .a = a, .b = qd_tensor_transposed(b), .c = c});
}

void qd_gemm_serial(qd_device *device, int thread, qd_gemm_mode mode, qd_tensor a, qd_tensor b, qd_tensor c) {
  QD_ASSERT(thread >= 0 && thread < device->threads);
  qd_gemm_product product = {.mode = mode, .a = a, .b = qd_tensor_transposed(b), .c = c};
  task whole = whole_of(device, &product);
  if (whole.m == 0 || whole.n == 0) return;
  grid g = grid_of(&whole, 1, 1);
  run_cell(&whole, &g, 0, thread);
}
