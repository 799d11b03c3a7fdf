#include "kernels/kv_cpu.h"

#include "kernels/ops_table.h"

#include <string.h>

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t chunk_of(int64_t k, int64_t end) { return least(end - k, QD_PRODUCT_CHUNK); }
static int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

/* Keys or values: of each head so many lanes over so many k. */
typedef struct side {
  qd_panel_kind kind;
  const qd_gemm_unit *unit;
  unsigned char *data;
  int64_t lanes, k;
} side;

/* Positions along k are filled up to whole blocks, as every kind has them. */
static side side_of(const qd_device *device, const qd_kv *kv, bool values) {
  side s = {.kind = qd_gemm_kept_kind(device, kv->act)};
  s.unit = QD_ISA_CALL(device, qd_gemm_find_unit, (s.kind));
  s.data = values ? kv->values : kv->keys;
  s.lanes = values ? kv->size : kv->positions;
  s.k = values ? round_up(kv->positions, QD_AMX_BLOCK) : kv->size;
  return s;
}

static size_t panel_bytes(const side *s, int64_t k, int64_t width) {
  return (size_t)qd_panel_stride(qd_panel_steps(s->kind, k), (int)width) * s->unit->bytes;
}

static size_t chunk_bytes(const side *s, int64_t k) {
  return (size_t)((s->lanes + s->unit->columns - 1) / s->unit->columns) * panel_bytes(s, chunk_of(k, s->k), s->unit->columns);
}

static size_t head_bytes(const side *s) {
  size_t last = s->k % QD_PRODUCT_CHUNK != 0 ? chunk_bytes(s, s->k / QD_PRODUCT_CHUNK * QD_PRODUCT_CHUNK) : 0;
  return last + (s->k >= QD_PRODUCT_CHUNK ? (size_t)(s->k / QD_PRODUCT_CHUNK) * chunk_bytes(s, 0) : 0);
}

/* The panel that begins with `lane`, in the chunk that begins with k. */
static unsigned char *panel_at(const side *s, int64_t head, int64_t k, int64_t lane) {
  return s->data + (size_t)head * head_bytes(s) + (size_t)(k / QD_PRODUCT_CHUNK) * chunk_bytes(s, 0) +
         (size_t)(lane / s->unit->columns) * panel_bytes(s, chunk_of(k, s->k), s->unit->columns);
}

size_t qd_cpu_kv_side_bytes(const qd_device *device, const qd_kv *shape, bool values) {
  side s = side_of(device, shape, values);
  return (size_t)shape->heads * head_bytes(&s);
}

qd_status qd_cpu_kv_new(qd_device *device, qd_arena *arena, qd_kv *kv) {
  kv->packed = true;
  QD_TRY(qd_arena_new(arena, qd_cpu_kv_side_bytes(device, kv, false), 1, &kv->keys));
  return qd_arena_new(arena, qd_cpu_kv_side_bytes(device, kv, true), 1, &kv->values);
}

/* ---- appending ----------------------------------------------------------------------------------------------------------- */

/* Where elements go in a panel: the first one's k and lane, and how far apart the next ones are. */
typedef struct way {
  int64_t k, lane, k_step, lane_step;
} way;

static void lay(const side *s, const void *from, int64_t n, way to, void *panel) {
  int width = s->unit->columns;
  const float *full = from;
  const uint16_t *half = from;
  for (int64_t i = 0; i < n; i++, to.k += to.k_step, to.lane += to.lane_step) {
    int64_t at = qd_panel_element(s->kind, width, to.k, to.lane);
    if (s->kind == QD_PANEL_F32) ((float *)panel)[at] = full[i];
    else if (qd_panel_in_halves(s->kind)) ((uint16_t *)panel)[at] = half[i];
    else ((float *)panel)[at] = qd_bf16_to_f32(half[i]);
  }
}

static const void *row_of(qd_tensor t, int64_t token, int64_t head, int64_t element) {
  return (const unsigned char *)t.data +
         (token * t.stride[0] + head * t.stride[1] + element) * (int64_t)qd_dtype_bytes(t.dtype);
}

static void append_key(const side *s, qd_tensor k, int64_t token, int64_t head, int64_t position) {
  int64_t width = s->unit->columns;
  for (int64_t d = 0; d < s->k; d += QD_PRODUCT_CHUNK) {
    unsigned char *panel = panel_at(s, head, d, position);
    int64_t n = chunk_of(d, s->k);
    if (position % width == 0) memset(panel, 0, panel_bytes(s, n, width));
    lay(s, row_of(k, token, head, d), n, (way){.lane = position % width, .k_step = 1}, panel);
  }
}

static void append_value(const side *s, qd_tensor v, int64_t token, int64_t head, int64_t position) {
  int64_t width = s->unit->columns, at = position % QD_PRODUCT_CHUNK;
  for (int64_t d = 0; d < s->lanes; d += width) {
    unsigned char *panel = panel_at(s, head, position - at, d);
    size_t step = (size_t)width * s->unit->bytes;
    if (at % QD_AMX_BLOCK == 0)
      memset(panel + (size_t)qd_panel_steps(s->kind, at) * step, 0, (size_t)qd_panel_steps(s->kind, QD_AMX_BLOCK) * step);
    lay(s, row_of(v, token, head, d), least(s->lanes - d, width), (way){.k = at, .lane_step = 1}, panel);
  }
}

qd_status qd_cpu_kv_append(qd_device *device, qd_kv *kv, int64_t first, qd_tensor k, qd_tensor v) {
  enum { FEW_TOKENS = 8 }; /* which starting threads would cost more than */
  side keys = side_of(device, kv, false), values = side_of(device, kv, true);
#pragma omp parallel for num_threads(device->threads) schedule(static) if (k.dim[0] > FEW_TOKENS)
  for (int64_t head = 0; head < kv->heads; head++)
    for (int64_t t = 0; t < k.dim[0]; t++) {
      append_key(&keys, k, t, head, first + t);
      append_value(&values, v, t, head, first + t);
    }
  return QD_OK;
}

/* ---- products ------------------------------------------------------------------------------------------------------------ */

/* Rows of q or P in panels of about equal widths. */
static int64_t width_of(const side *s, int64_t rows) {
  int64_t panels = (rows + s->unit->rows - 1) / s->unit->rows;
  return (rows + panels - 1) / panels;
}

size_t qd_kv_panel_bytes(const qd_device *device, qd_dtype act, int64_t rows) {
  side s = side_of(device, &(qd_kv){.act = act}, false);
  if (rows == 0) return 0;
  int64_t width = width_of(&s, rows);
  return (size_t)((rows + width - 1) / width) * panel_bytes(&s, QD_PRODUCT_CHUNK, width);
}

/* The columns [k, k + n) of a. */
static void pack(const side *s, qd_tensor a, int64_t k, int64_t n, void *panels) {
  const unsigned char *data = (const unsigned char *)a.data + k * a.stride[1] * (int64_t)qd_dtype_bytes(a.dtype);
  qd_panel_pack_a(s->unit, s->kind, &(qd_gemm_rows){data, a.stride[0], a.stride[1], a.dim[0], n},
                  (int)width_of(s, a.dim[0]), panels);
}

/* All rows against the panels of b in `strip`. */
static void multiply(const side *s, int64_t rows, int64_t k, qd_gemm_strip strip) {
  int64_t width = width_of(s, rows);
  strip.steps = qd_panel_steps(s->kind, k);
  for (int64_t i = 0; i < rows; i += width) {
    strip.rows = (int)least(rows - i, width);
    s->unit->strip(&strip);
    strip.a = (const unsigned char *)strip.a + panel_bytes(s, k, width);
    strip.c = (float *)strip.c + width * strip.c_stride;
  }
}

void qd_kv_scores(const qd_kv_keys *keys, qd_tensor q, float *score, int64_t stride) {
  side s = side_of(keys->device, keys->kv, false);
  qd_gemm_strip strip = {.a = keys->panels, .c_stride = stride, .update = QD_TILE_STORE};
  for (int64_t d = 0; d < s.k; d += QD_PRODUCT_CHUNK, strip.update = QD_TILE_ADD) {
    pack(&s, q, d, chunk_of(d, s.k), keys->panels);
    for (int64_t at = keys->start; at < keys->end; at += QD_PRODUCT_CHUNK) { /* these stay in cache for all rows */
      strip.b = panel_at(&s, keys->head, d, at), strip.c = score + (at - keys->start);
      strip.columns = chunk_of(at, keys->end);
      multiply(&s, q.dim[0], chunk_of(d, s.k), strip);
    }
  }
}

void qd_kv_sums(const qd_kv_keys *keys, qd_tensor p, float *sum, int64_t stride) {
  side s = side_of(keys->device, keys->kv, true);
  qd_gemm_strip strip = {.a = keys->panels, .c_stride = stride, .update = QD_TILE_STORE};
  for (int64_t at = keys->start; at < keys->end; at += QD_PRODUCT_CHUNK, strip.update = QD_TILE_ADD) {
    int64_t n = chunk_of(at, keys->end);
    pack(&s, p, at - keys->start, n, keys->panels);
    for (int64_t d = 0; d < s.lanes; d += s.unit->columns) {
      strip.b = panel_at(&s, keys->head, at, d), strip.c = sum + d;
      strip.columns = least(s.lanes - d, s.unit->columns);
      multiply(&s, p.dim[0], n, strip);
    }
  }
}
