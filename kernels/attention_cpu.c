/* Attention by tiles of queries of one head: scores = q k^T, rows to P, out = P v.
 *
 * A tile's keys are [start, end): those that any of its queries sees, start rounded down to a multiple of 256, so that the
 * chunks of the second product are those of the absolute keys.  A chunk that is left out would have been a chain of zeros:
 * c + 0 is c but for a -0, and the sentence's last + 0 makes -0 and 0 one.  In the same way P = 0 for the unseen keys of a
 * tile changes nothing. */
#include "kernels/forward_isa.h"
#include "kernels/gemm_cpu.h"
#include "kernels/kv_cpu.h"
#include "kernels/ops_table.h"
#include "kernels/scratch.h"

#include <omp.h>

enum { QUERY_TILE = 84 }; /* a multiple of 14 and of 6, the rows of register tiles */

/* Working memory of thread 0, `width` columns a row; that of the next thread lies `bytes` behind. */
typedef struct scratch {
  float    *score, *sum;
  uint16_t *p; /* NULL in fp32 */
  unsigned char *panels; /* for keys that are packed already; else NULL */
  int64_t   width;
  size_t    bytes;
} scratch;

static qd_tensor head_of(qd_tensor t, int64_t head, int64_t first, int64_t n) {
  qd_tensor rows = qd_tensor_rows(t, first, n);
  unsigned char *data = (unsigned char *)rows.data + head * t.stride[1] * (int64_t)qd_dtype_bytes(t.dtype);
  return (qd_tensor){.data = data, .dtype = t.dtype, .rank = 2, .dim = {n, t.dim[2]}, .stride = {t.stride[0], t.stride[2]}};
}

static qd_tensor matrix(void *data, qd_dtype dtype, int64_t rows, int64_t columns, int64_t stride) {
  return (qd_tensor){.data = data, .dtype = dtype, .rank = 2, .dim = {rows, columns}, .stride = {stride, 1}};
}

static int64_t first_seen(const qd_attention_args *args, int64_t position) {
  return args->window > 0 && args->window <= position ? position - args->window + 1 : 0;
}

/* Rows that meet the same keys: queries of one head, or the heads of one query that share a kv head. */
typedef struct tile {
  qd_tensor q, out;         /* (n, D) */
  int64_t   kv_head;
  int64_t   position, step; /* of row i: position + i step */
} tile;

/* What all tiles share.  With a cache the args' k and v are its shape alone. */
typedef struct work {
  qd_device *device;
  const qd_attention_args *args;
  const qd_kv *kv;
} work;

/* Keys [start, end). */
typedef struct span {
  int64_t start, end;
} span;

static void scores(const work *w, int thread, tile t, span seen, scratch s) {
  int64_t n = seen.end - seen.start;
  if (w->kv != NULL) {
    qd_kv_scores(&(qd_kv_keys){w->device, w->kv, t.kv_head, seen.start, seen.end, s.panels}, t.q, s.score, s.width);
    return;
  }
  qd_tensor k = qd_tensor_transposed(head_of(w->args->k, t.kv_head, seen.start, n));
  qd_gemm_serial(w->device, thread, QD_GEMM_SET, t.q, k, matrix(s.score, QD_F32, t.q.dim[0], n, s.width));
}

static void sums(const work *w, int thread, tile t, span seen, scratch s) {
  int64_t rows = t.q.dim[0], n = seen.end - seen.start, d = t.out.dim[1];
  qd_tensor p = s.p ? matrix(s.p, QD_BF16, rows, n, s.width) : matrix(s.score, QD_F32, rows, n, s.width);
  if (w->kv != NULL) {
    qd_kv_sums(&(qd_kv_keys){w->device, w->kv, t.kv_head, seen.start, seen.end, s.panels}, p, s.sum, d);
    return;
  }
  qd_tensor v = head_of(w->args->v, t.kv_head, seen.start, n);
  qd_gemm_serial(w->device, thread, QD_GEMM_SET, p, v, matrix(s.sum, QD_F32, rows, d, d));
}

static void attend(const work *w, int thread, tile t, scratch s) {
  int64_t n = t.q.dim[0], d = t.out.dim[1];
  span seen = {first_seen(w->args, t.position) / QD_PRODUCT_CHUNK * QD_PRODUCT_CHUNK, t.position + (n - 1) * t.step + 1};
  scores(w, thread, t, seen, s);
  for (int64_t i = 0; i < n; i++) {
    int64_t position = t.position + i * t.step, first = first_seen(w->args, position);
    qd_seen_keys row = {.start = seen.start, .end = seen.end, .first_seen = first, .n_seen = position + 1 - first};
    QD_ISA_CALL(w->device, qd_softmax_row, (s.score + i * s.width, s.p ? s.p + i * s.width : NULL, w->args->scale, row));
  }
  sums(w, thread, t, seen, s);
  for (int64_t i = 0; i < n; i++)
    QD_ISA_CALL(w->device, qd_attention_out_row, (s.sum + i * d, qd_tensor_at(t.out, i).data, t.out.dtype, d));
}

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

static int64_t heads_a_key(const qd_attention_args *args) { return args->q.dim[1] / args->k.dim[1]; }

/* One token behind many: its keys are packed once for all heads that look at them. */
static bool heads_together(const qd_attention_args *args) { return args->q.dim[0] == 1 && heads_a_key(args) <= QUERY_TILE; }

static int64_t tiles_a_head(const qd_attention_args *args) { return (args->q.dim[0] + QUERY_TILE - 1) / QUERY_TILE; }

static int64_t n_tiles(const qd_attention_args *args) {
  return heads_together(args) ? args->k.dim[1] : args->q.dim[1] * tiles_a_head(args);
}

/* The longest tiles first: the last queries see the most keys. */
static tile tile_at(const qd_attention_args *args, int64_t index) {
  int64_t queries = args->q.dim[0], keys = args->k.dim[0], heads = args->q.dim[1], group = heads_a_key(args);
  if (heads_together(args))
    return (tile){.q = qd_tensor_rows(qd_tensor_at(args->q, 0), index * group, group),
                  .out = qd_tensor_rows(qd_tensor_at(args->out, 0), index * group, group),
                  .kv_head = index,
                  .position = keys - 1};
  int64_t head = index % heads, first = (tiles_a_head(args) - 1 - index / heads) * QUERY_TILE;
  int64_t n = least(queries - first, QUERY_TILE);
  return (tile){.q = head_of(args->q, head, first, n),
                .out = head_of(args->out, head, first, n),
                .kv_head = head / group,
                .position = keys - queries + first,
                .step = 1};
}

static scratch of_thread(scratch s, int thread) {
  size_t offset = (size_t)thread * s.bytes;
  s.score += offset / sizeof *s.score;
  s.sum += offset / sizeof *s.sum;
  if (s.p) s.p += offset / sizeof *s.p;
  if (s.panels) s.panels += offset;
  return s;
}

static void attend_all(const work *w, scratch s) {
  int64_t n = n_tiles(w->args);
#pragma omp parallel num_threads(w->device->threads)
  {
    qd_flush_denormals();
    int thread = omp_get_thread_num();
#pragma omp for schedule(dynamic, 1)
    for (int64_t i = 0; i < n; i++) attend(w, thread, tile_at(w->args, i), of_thread(s, thread));
  }
}

/* What a thread takes: scores, sums, rounded scores, panels of q and P. */
typedef struct parts {
  int64_t width;
  size_t  score, sum, p, panels;
} parts;

static parts parts_of(const qd_device *device, const qd_attention_args *args, bool packed) {
  int64_t keys = args->k.dim[0], rows = heads_together(args) ? heads_a_key(args) : least(args->q.dim[0], QUERY_TILE);
  const int64_t margin = QUERY_TILE + QD_PRODUCT_CHUNK; /* what a tile's keys may exceed the window by */
  if (args->window > 0 && args->window < keys - margin) keys = args->window + margin;
  parts n = {.width = (keys + 15) / 16 * 16};
  n.score = qd_arena_cost((size_t)(rows * n.width), sizeof(float));
  n.sum = qd_arena_cost((size_t)(rows * args->q.dim[2]), sizeof(float));
  if (args->q.dtype == QD_BF16) n.p = qd_arena_cost((size_t)(rows * n.width), sizeof(uint16_t));
  if (packed) n.panels = qd_arena_cost(qd_kv_panel_bytes(device, args->q.dtype, rows), 1);
  return n;
}

static size_t bytes_of(const parts *n) { return n->score + n->sum + n->p + n->panels; }

static qd_attention_args args_of(const qd_kv_attend_args *args) {
  qd_tensor shape = qd_tensor_3d(NULL, args->kv->act, args->kv->n, args->kv->heads, args->kv->size);
  return (qd_attention_args){.q = args->q, .k = shape, .v = shape, .out = args->out, .scale = args->scale,
                             .window = args->window};
}

size_t qd_cpu_scratch_attention(const qd_device *device, const qd_attention_args *args) {
  parts n = parts_of(device, args, false);
  return qd_arena_cost((size_t)device->threads, bytes_of(&n));
}

size_t qd_cpu_scratch_kv_attend(const qd_device *device, const qd_kv_attend_args *args) {
  qd_attention_args shape = args_of(args);
  parts n = parts_of(device, &shape, true);
  return qd_arena_cost((size_t)device->threads, bytes_of(&n));
}

static qd_status attend_in_scratch(const work *w) {
  parts n = parts_of(w->device, w->args, w->kv != NULL);
  scratch s = {.width = n.width, .bytes = bytes_of(&n)};
  size_t mark = qd_arena_mark(&w->device->scratch);
  unsigned char *memory;
  QD_TRY(qd_arena_new(&w->device->scratch, (size_t)w->device->threads, s.bytes, &memory));
  s.score = (float *)(void *)memory;
  s.sum = (float *)(void *)(memory + n.score);
  if (n.p > 0) s.p = (uint16_t *)(void *)(memory + n.score + n.sum);
  if (n.panels > 0) s.panels = memory + n.score + n.sum + n.p;
  attend_all(w, s);
  qd_arena_rewind(&w->device->scratch, mark);
  return QD_OK;
}

qd_status qd_cpu_attention(qd_device *device, const qd_attention_args *args) {
  return attend_in_scratch(&(work){.device = device, .args = args});
}

qd_status qd_cpu_kv_attend(qd_device *device, const qd_kv_attend_args *args) {
  qd_attention_args shape = args_of(args);
  return attend_in_scratch(&(work){.device = device, .args = &shape, .kv = args->kv});
}
