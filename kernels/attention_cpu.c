/* Attention by tiles of queries of one head: scores = q k^T, rows to P, out = P v.
 *
 * A tile's keys are [start, end): those that any of its queries sees, start rounded down to a multiple of 256, so that the
 * chunks of the second product are those of the absolute keys.  A chunk that is left out would have been a chain of zeros:
 * c + 0 is c but for a -0, and the sentence's last + 0 makes -0 and 0 one.  In the same way P = 0 for the unseen keys of a
 * tile changes nothing. */
#include "kernels/forward_isa.h"
#include "kernels/gemm_cpu.h"
#include "kernels/ops_table.h"
#include "kernels/scratch.h"

#include <omp.h>

enum { QUERY_TILE = 84 }; /* a multiple of 14 and of 6, the rows of register tiles */

/* Working memory of thread 0, `width` columns a row; that of the next thread lies `bytes` behind. */
typedef struct scratch {
  float    *score, *sum;
  uint16_t *p; /* NULL in fp32 */
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

static void attend(qd_device *device, int thread, const qd_attention_args *args, tile t, scratch s) {
  int64_t n = t.q.dim[0], d = t.out.dim[1], start = first_seen(args, t.position) / QD_PRODUCT_CHUNK * QD_PRODUCT_CHUNK;
  int64_t end = t.position + (n - 1) * t.step + 1;
  qd_tensor k = head_of(args->k, t.kv_head, start, end - start), v = head_of(args->v, t.kv_head, start, end - start);

  qd_gemm_serial(device, thread, QD_GEMM_SET, t.q, qd_tensor_transposed(k), matrix(s.score, QD_F32, n, end - start, s.width));
  for (int64_t i = 0; i < n; i++) {
    int64_t position = t.position + i * t.step, seen = first_seen(args, position);
    qd_seen_keys keys = {.start = start, .end = end, .first_seen = seen, .n_seen = position + 1 - seen};
    QD_ISA_CALL(device, qd_softmax_row, (s.score + i * s.width, s.p ? s.p + i * s.width : NULL, args->scale, keys));
  }
  qd_tensor p = s.p ? matrix(s.p, QD_BF16, n, end - start, s.width) : matrix(s.score, QD_F32, n, end - start, s.width);
  qd_gemm_serial(device, thread, QD_GEMM_SET, p, v, matrix(s.sum, QD_F32, n, d, d));
  for (int64_t i = 0; i < n; i++)
    QD_ISA_CALL(device, qd_attention_out_row, (s.sum + i * d, qd_tensor_at(t.out, i).data, t.out.dtype, d));
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
  return s;
}

static void attend_all(qd_device *device, const qd_attention_args *args, scratch s) {
  int64_t n = n_tiles(args);
#pragma omp parallel num_threads(device->threads)
  {
    qd_flush_denormals();
    int thread = omp_get_thread_num();
#pragma omp for schedule(dynamic, 1)
    for (int64_t i = 0; i < n; i++) attend(device, thread, args, tile_at(args, i), of_thread(s, thread));
  }
}

/* What a thread takes: scores, sums, rounded scores. */
typedef struct parts {
  int64_t width;
  size_t  score, sum, p;
} parts;

static parts parts_of(const qd_attention_args *args) {
  int64_t keys = args->k.dim[0], rows = heads_together(args) ? heads_a_key(args) : least(args->q.dim[0], QUERY_TILE);
  const int64_t margin = QUERY_TILE + QD_PRODUCT_CHUNK; /* what a tile's keys may exceed the window by */
  if (args->window > 0 && args->window < keys - margin) keys = args->window + margin;
  parts n = {.width = (keys + 15) / 16 * 16};
  n.score = qd_arena_cost((size_t)(rows * n.width), sizeof(float));
  n.sum = qd_arena_cost((size_t)(rows * args->q.dim[2]), sizeof(float));
  if (args->q.dtype == QD_BF16) n.p = qd_arena_cost((size_t)(rows * n.width), sizeof(uint16_t));
  return n;
}

size_t qd_cpu_scratch_attention(const qd_device *device, const qd_attention_args *args) {
  parts n = parts_of(args);
  return qd_arena_cost((size_t)device->threads, n.score + n.sum + n.p);
}

qd_status qd_cpu_attention(qd_device *device, const qd_attention_args *args) {
  parts n = parts_of(args);
  scratch s = {.width = n.width, .bytes = n.score + n.sum + n.p};
  size_t mark = qd_arena_mark(&device->scratch);
  unsigned char *memory;
  QD_TRY(qd_arena_new(&device->scratch, (size_t)device->threads, s.bytes, &memory));
  s.score = (float *)(void *)memory;
  s.sum = (float *)(void *)(memory + n.score);
  if (n.p > 0) s.p = (uint16_t *)(void *)(memory + n.score + n.sum);
  attend_all(device, args, s);
  qd_arena_rewind(&device->scratch, mark);
  return QD_OK;
}
