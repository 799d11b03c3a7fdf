/* The arithmetic int8 on the cpu device (int8_isa.h has the layouts).
 *
 * Tokens are rounded once and lie in tiles.  A few of them meet the codes of panels in registers.  More meet images, codes
 * as bytes: of one chunk of one panel, which stays in level-1 cache while a block of tokens comes by, whose bytes and sums stay
 * in level 2. */
#include "kernels/codes.h"
#include "kernels/int8_isa.h"
#include "kernels/int8_outliers.h"

#include <omp.h>
#include <string.h>

enum {
  BLOCK_TOKENS = 576,    /* their bytes of a chunk: 0.37 MB */
  SUM_BYTES = 256 << 10, /* of a block and some panels */
  FEW_TOKENS = 48,       /* that meet codes as they are: an image would be used too little */
  LEAST_TOKENS = 20,     /* whose room in scratch one token needs where groups are not regular */
  RUN_BYTES = 64,        /* of a run of a token, at most: four records of 8 positions */
  SMALL = 1 << 18,       /* multiply-adds for which starting threads would cost more */
};

typedef struct product {
  qd_device *device;
  qd_tensor x, y;
  const qd_tensor *bias; /* NULL where it is added later */
  const qd_qtensor *q;
  const qd_panels *panels; /* of q; or NULL */
  qd_int8_pieces pieces;
  const qd_int8_unit *unit;
  unsigned char *tokens;
  int64_t records, first, n; /* of a token; tokens of this pass */
  int width;                 /* of tiles */
  bool shifted, direct;
} product;

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }
static int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

static int64_t greatest_divisor(int64_t a, int64_t b) { return b == 0 ? a : greatest_divisor(b, a % b); }

qd_int8_pieces qd_int8_pieces_of(const qd_scheme *scheme, int64_t columns) {
  int64_t size = qd_scheme_group_size(*scheme, columns);
  qd_int8_pieces p = {.columns = columns, .group_size = most(1, size), .slot = QD_INT8_RUN};
  if (p.group_size >= columns) p.group_size = most(QD_INT8_RUN, divide_up(columns, QD_INT8_RUN) * QD_INT8_RUN);
  p.both = p.group_size / greatest_divisor(p.group_size, QD_INT8_RUN) * QD_INT8_RUN;
  p.regular = p.group_size % QD_INT8_RUN == 0 || p.group_size == 16 || p.group_size == 8;
  if (p.regular && p.group_size < QD_INT8_RUN) p.slot = (int)p.group_size;
  return p;
}

static size_t token_room(int64_t tokens, int64_t columns) {
  return (size_t)(qd_int8_runs(columns) * RUN_BYTES * most(tokens, LEAST_TOKENS));
}

size_t qd_cpu_int8_scratch(const qd_device *device, int64_t tokens, int64_t rows, int64_t columns) {
  (void)rows;
  return qd_arena_cost(token_room(tokens, columns), 1) + qd_cpu_int8_outlier_scratch(device, columns);
}

/* ---- one panel ---- */

static qd_int8_grid grid_of(const qd_scheme *s) {
  enum { IN_A_BYTE = 4 };
  if (!s->spqr) return s->scale_dtype == QD_F16 ? QD_INT8_HALF : QD_INT8_REAL;
  bool coded = qd_scheme_quantizes_scales(*s) && qd_scheme_quantizes_zeros(*s) && s->scale_bits <= IN_A_BYTE &&
               s->zero_bits <= IN_A_BYTE && s->stat_group % QD_INT8_STATISTIC_ROWS == 0;
  return coded ? QD_INT8_CODED : QD_INT8_REAL;
}

/* Bytes of a panel's row and group. */
typedef struct grid_bytes {
  size_t scale, zero;
} grid_bytes;

static grid_bytes bytes_of_grid(qd_int8_grid grid) {
  if (grid == QD_INT8_HALF) return (grid_bytes){sizeof(uint16_t), sizeof(uint8_t)};
  if (grid == QD_INT8_REAL) return (grid_bytes){sizeof(float), sizeof(float)};
  return (grid_bytes){QD_SECOND * sizeof(float) / QD_INT8_STATISTIC_ROWS, sizeof(uint8_t)};
}

static qd_int8_panel panel_at(const qd_panels *w, int64_t index) {
  const qd_scheme *scheme = &w->q.scheme;
  qd_int8_panel p = {.grid = grid_of(scheme), .bits = scheme->bits};
  grid_bytes bytes = bytes_of_grid(p.grid);
  size_t before = (size_t)(index * qd_scheme_groups(*scheme, w->columns) * QD_INT8_ROWS);
  p.words = (const uint32_t *)w->data + index * qd_int8_runs(w->columns) * p.bits * QD_INT8_ROWS;
  p.scales = (const unsigned char *)w->scales + before * bytes.scale;
  p.zeros = w->zeros + before * bytes.zero;
  return p;
}

/* ---- a pass over some tokens ---- */

static int64_t tile_offset(const product *p, int64_t tile) {
  return tile * p->width * p->records * qd_int8_token_bytes(&p->pieces);
}

static int tile_width(const product *p, int64_t tile) { return (int)least(p->width, p->n - tile * p->width); }

static void round_token(const product *p, int64_t t) {
  int64_t tile = t / p->width;
  qd_int8_place to = {p->tokens + tile_offset(p, tile), tile_width(p, tile), (int)(t % p->width), p->shifted};
  const float *x = (const float *)p->x.data + (p->first + t) * p->x.stride[0];
  QD_ISA_CALL(p->device, qd_int8_quantize, (&p->pieces, x, p->x.stride[1], &to));
}

/* A rectangle of y. */
typedef struct part {
  int64_t panel, panels, tile, tiles;
} part;

static float *sums_of(const product *p, const part *at, float *sums, int64_t panel, int64_t tile) {
  return sums + ((panel - at->panel) * at->tiles + (tile - at->tile)) * p->width * QD_INT8_ROWS;
}

static void multiply_image(const product *p, const part *at, const qd_int8_range *range, int64_t panel, unsigned char *image,
                           float *sums) {
  int64_t before = qd_int8_records(&p->pieces, range->first), records = qd_int8_records(&p->pieces, range->end) - before;
  if (p->panels) {
    qd_int8_panel codes = panel_at(p->panels, panel);
    QD_ISA_CALL(p->device, qd_int8_unpack, (&codes, &p->pieces, *range, image));
  } else {
    QD_ISA_CALL(p->device, qd_int8_pack_rows, (p->q, panel * QD_INT8_ROWS, &p->pieces, *range, image));
  }
  for (int64_t tile = at->tile; tile < at->tile + at->tiles; tile++) {
    int width = tile_width(p, tile);
    qd_int8_strip strip = {.tokens = p->tokens + tile_offset(p, tile) + before * width * qd_int8_token_bytes(&p->pieces),
                           .width = width,
                           .records = records,
                           .add = range->first > 0};
    strip.sums = sums_of(p, at, sums, panel, tile);
    p->unit->image(&strip, &p->pieces, p->q->scheme.bits, p->shifted, image);
  }
}

static void multiply_codes(const product *p, const part *at, int64_t panel, float *sums) {
  qd_int8_panel codes = panel_at(p->panels, panel);
  for (int64_t tile = at->tile; tile < at->tile + at->tiles; tile++) {
    qd_int8_strip strip = {.tokens = p->tokens + tile_offset(p, tile), .width = tile_width(p, tile), .records = p->records};
    strip.sums = sums_of(p, at, sums, panel, tile);
    p->unit->codes(&strip, &p->pieces, &codes);
  }
}

/* One panel's sums of one tile into y. */
static void put_sums(const product *p, int64_t panel, int64_t tile, const float *sums) {
  int64_t row = panel * QD_INT8_ROWS, rows = least(QD_INT8_ROWS, p->q->rows - row);
  const float *bias = p->bias ? (const float *)p->bias->data + row : NULL;
  for (int t = 0; t < tile_width(p, tile); t++) {
    float *y = (float *)p->y.data + (p->first + tile * p->width + t) * p->y.stride[0] + row;
    QD_ISA_CALL(p->device, qd_round_row, (sums + t * QD_INT8_ROWS, bias, rows, QD_F32, y));
  }
}

static void multiply(const product *p, const part *at, unsigned char *room) {
  float *sums = (float *)(void *)room;
  int64_t last = at->panel + at->panels;
  qd_int8_range range = {.shifted = p->shifted};
  for (int64_t panel = at->panel; panel < last && p->direct; panel++) multiply_codes(p, at, panel, sums);
  do { /* once without columns, too */
    range.end = least(range.first + QD_INT8_CHUNK, p->pieces.columns);
    for (int64_t panel = at->panel; panel < last && !p->direct; panel++)
      multiply_image(p, at, &range, panel, room + SUM_BYTES, sums);
    range.first = range.end;
  } while (range.first < p->pieces.columns);
  for (int64_t panel = at->panel; panel < last; panel++)
    for (int64_t tile = at->tile; tile < at->tile + at->tiles; tile++)
      put_sums(p, panel, tile, sums_of(p, at, sums, panel, tile));
}

/* ---- division over threads ---- */

static void run_pass(const product *p, int threads) {
  size_t room = qd_device_packing_bytes(p->device) / (size_t)p->device->threads;
  int64_t panels = divide_up(p->q->rows, QD_INT8_ROWS), tiles = divide_up(p->n, p->width);
  part size = {.tiles = least(tiles, BLOCK_TOKENS / p->width)};
  size.panels = most(1, least(divide_up(panels, threads), SUM_BYTES / (QD_INT8_ROWS * 4 * size.tiles * p->width)));
  while (size.panels > 1 && divide_up(panels, size.panels) < 4 * threads && threads > 1)
    size.panels = divide_up(size.panels, 2);
  while (size.tiles > 1 && panels * divide_up(tiles, size.tiles) < 2 * threads) size.tiles = divide_up(size.tiles, 2);
  int64_t across = divide_up(panels, size.panels), down = divide_up(tiles, size.tiles);
  int64_t together = p->n < threads ? 0 : p->n; /* a token alone is rounded sooner than threads have met */
  for (int64_t t = together; t < p->n; t++) round_token(p, t);
#pragma omp parallel num_threads(threads)
  {
    qd_flush_denormals();
    if (together > 0) {
#pragma omp for schedule(static)
      for (int64_t t = 0; t < together; t++) round_token(p, t);
    }
#pragma omp for schedule(dynamic, 1)
    for (int64_t i = 0; i < across * down; i++) {
      part at = {.panel = i % across * size.panels, .tile = i / across * size.tiles};
      at.panels = least(size.panels, panels - at.panel), at.tiles = least(size.tiles, tiles - at.tile);
      multiply(p, &at, (unsigned char *)p->device->packing + (size_t)omp_get_thread_num() * room);
    }
  }
}

/* As many tokens at a time as scratch has room for: all of them, where groups are regular. */
static void run(product *p) {
  const qd_scheme *scheme = &p->q->scheme;
  int64_t tokens = p->x.dim[0], columns = p->pieces.columns, bytes = most(1, p->records * qd_int8_token_bytes(&p->pieces));
  int64_t at_once = least(tokens, (int64_t)token_room(tokens, columns) / bytes);
  if (columns == 0) at_once = tokens;
  for (p->first = 0; p->first < tokens; p->first += p->n) {
    p->n = least(at_once, tokens - p->first);
    p->direct = p->panels && p->n <= FEW_TOKENS && qd_int8_direct(&p->pieces);
    p->shifted = !p->direct && p->unit->shifts && !scheme->spqr && p->pieces.slot == QD_INT8_RUN && scheme->bits < QD_MAX_BITS;
    p->width = (int)divide_up(p->n, divide_up(p->n, p->unit->tokens));
    bool small = (double)p->n * (double)p->q->rows * (double)columns < SMALL;
    run_pass(p, small ? 1 : p->device->threads);
  }
}

static qd_status linear(product *p, const qd_tensor *bias) {
  qd_device *device = p->device;
  bool outliers = p->q->scheme.spqr && qd_int8_has_outliers(p->q);
  if (p->y.dim[0] == 0 || p->q->rows == 0) return QD_OK;
  p->pieces = qd_int8_pieces_of(&p->q->scheme, p->q->columns);
  p->records = qd_int8_records(&p->pieces, p->q->columns);
  p->unit = QD_ISA_CALL(device, qd_int8_find_unit, (device->isa >= QD_ISA_AVX512_VNNI));
  p->bias = outliers ? NULL : bias;
  QD_TRY(qd_arena_new(&device->scratch, token_room(p->x.dim[0], p->q->columns), 1, &p->tokens));
  qd_int8_outlier_room room; /* as announced, with outliers or without: memory costs what is touched */
  QD_TRY(qd_cpu_int8_outlier_room(device, p->q->columns, &room));
  run(p);
  if (outliers) qd_cpu_int8_add_outliers(device, &(qd_int8_addition){p->x, p->q, p->panels, bias, p->y}, room);
  return QD_OK;
}

qd_status qd_cpu_int8_linear(qd_device *device, qd_tensor x, const qd_qtensor *w, const qd_tensor *bias, qd_tensor y) {
  return linear(&(product){.device = device, .x = x, .y = y, .q = w}, bias);
}

qd_status qd_cpu_int8_panels_linear(qd_device *device, qd_tensor x, const qd_panels *w, const qd_tensor *bias, qd_tensor y) {
  return linear(&(product){.device = device, .x = x, .y = y, .q = &w->q, .panels = w}, bias);
}

/* ---- panels ---- */

typedef struct sizes {
  size_t words, groups; /* groups times rows, filled up to whole panels */
  grid_bytes grid;
} sizes;

static sizes sizes_of(int64_t rows, int64_t columns, const qd_scheme *scheme) {
  size_t filled = (size_t)(divide_up(rows, QD_INT8_ROWS) * QD_INT8_ROWS);
  return (sizes){filled * (size_t)(qd_int8_runs(columns) * scheme->bits), filled * (size_t)qd_scheme_groups(*scheme, columns),
                 bytes_of_grid(grid_of(scheme))};
}

size_t qd_cpu_int8_panels_bytes(const qd_device *device, int64_t rows, int64_t columns, qd_scheme scheme) {
  (void)device;
  sizes s = sizes_of(rows, columns, &scheme);
  return qd_arena_cost(s.words, sizeof(uint32_t)) + qd_arena_cost(s.groups, s.grid.scale) +
         qd_arena_cost(s.groups, s.grid.zero) + (scheme.spqr ? qd_arena_cost((size_t)rows + 1, sizeof(int32_t)) : 0);
}

/* One row's codes into its lane; the words are zero before. */
static void lay_codes(const uint8_t *code, int64_t n, int bits, uint32_t *lane) {
  for (int64_t run = 0; run < n; run += QD_INT8_RUN, code += QD_INT8_RUN) {
    for (int p = QD_MAX_BITS, at = 0; p > 0; p /= 2) {
      if ((bits & p) == 0) continue;
      for (int i = 0; i < QD_INT8_RUN && run + i < n; i++) {
        int four = i / 4, a_word = QD_MAX_BITS / p, shift = i % 4 * 8 + four % a_word * p;
        lane[four / a_word * QD_INT8_ROWS] |= (uint32_t)(code[i] >> at & ((1 << p) - 1)) << shift;
      }
      lane += p * QD_INT8_ROWS, at += p;
    }
  }
}

static void pack_codes(const qd_device *device, const qd_qtensor *q, int64_t row, uint32_t *lane) {
  uint8_t code[QD_CODES_RUN];
  int bits = q->scheme.bits;
  for (int64_t k = 0; k < q->columns; k += QD_CODES_RUN, lane += QD_CODES_RUN / QD_INT8_RUN * bits * QD_INT8_ROWS) {
    int64_t n = least(QD_CODES_RUN, q->columns - k);
    const uint8_t *packed = (const uint8_t *)q->codes.data + row * q->codes.stride[0] + k / 8 * bits;
    QD_ISA_CALL(device, qd_codes_unpack, (packed, n, bits, code));
    lay_codes(code, n, bits, lane);
  }
}

/* A row's scale and zero point of a group to their place `to`, counted in rows. */
static void pack_group(const qd_qtensor *q, qd_int8_grid grid, int64_t row, int64_t g, const qd_panels *out, size_t to) {
  if (grid == QD_INT8_REAL) {
    ((float *)out->scales)[to] = qd_qtensor_scale(q, row, g);
    ((float *)(void *)out->zeros)[to] = qd_qtensor_zero(q, row, g);
  } else if (grid == QD_INT8_HALF) {
    ((uint16_t *)out->scales)[to] = ((const uint16_t *)q->scales.data)[row * q->scales.stride[0] + g];
    out->zeros[to] = (uint8_t)qd_qtensor_zero(q, row, g);
  } else {
    const uint16_t *second =
        (const uint16_t *)q->second.data + row / q->scheme.stat_group * q->second.stride[0] + g * q->second.stride[1];
    float *level = (float *)out->scales + to / QD_INT8_STATISTIC_ROWS * QD_SECOND;
    for (int i = 0; i < QD_SECOND; i++) level[i] = qd_f16_to_f32(second[i]);
    out->zeros[to] = (uint8_t)(qd_qtensor_scale_code(q, row, g) | qd_qtensor_zero_code(q, row, g) << 4);
  }
}

static void pack_panel(const qd_device *device, const qd_qtensor *q, int64_t panel, const qd_panels *out) {
  int64_t groups = qd_scheme_groups(q->scheme, q->columns), a_panel = qd_int8_runs(q->columns) * q->scheme.bits * QD_INT8_ROWS;
  qd_int8_grid grid = grid_of(&q->scheme);
  uint32_t *words = (uint32_t *)out->data + panel * a_panel;
  memset(words, 0, (size_t)a_panel * sizeof *words);
  for (int64_t r = 0; r < QD_INT8_ROWS && panel * QD_INT8_ROWS + r < q->rows; r++) {
    int64_t row = panel * QD_INT8_ROWS + r;
    pack_codes(device, q, row, words + r);
    for (int64_t g = 0; g < groups; g++) pack_group(q, grid, row, g, out, (size_t)((panel * groups + g) * QD_INT8_ROWS + r));
  }
}

qd_status qd_cpu_int8_panels(qd_device *device, qd_arena *arena, const qd_qtensor *q, qd_panels *out) {
  sizes s = sizes_of(q->rows, q->columns, &q->scheme);
  QD_TRY(qd_arena_new(arena, s.words, sizeof(uint32_t), &out->data));
  QD_TRY(qd_arena_new(arena, s.groups, s.grid.scale, &out->scales));
  QD_TRY(qd_arena_new(arena, s.groups, s.grid.zero, &out->zeros));
  memset(out->scales, 0, s.groups * s.grid.scale);
  memset(out->zeros, 0, s.groups * s.grid.zero);
  out->width = qd_cpu_panel_width(device);
#pragma omp parallel for num_threads(device->threads) schedule(static)
  for (int64_t p = 0; p < divide_up(q->rows, QD_INT8_ROWS); p++) pack_panel(device, q, p, out);
  return qd_cpu_int8_keep_outliers(device, arena, q, out);
}
