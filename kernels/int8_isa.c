/* Tokens in int8 times codes: the register tiles (int8_tile.h), and what packs both sides of them.
 *
 * Bound: with VPDPBUSD a record of 32 positions, 16 rows and a token is 8 instructions of the multiplying units and, for its
 * scale, two (shifted) or three more; the rest runs beside them. */
#include "kernels/int8_isa.h"

#include "kernels/codes.h"
#include "kernels/int8_vector.h"
#include "kernels/rows16.h"

#if defined(__AVX2__)
#define UNROLL_TILE _Pragma("GCC unroll 12")
#define UNROLL_RECORD _Pragma("GCC unroll 8")
#else
#define UNROLL_TILE _Pragma("GCC unroll 1")
#define UNROLL_RECORD _Pragma("GCC unroll 1")
#endif

enum { VECTORS = 2, TILE_ROWS = VECTORS * F32_LANES, AHEAD = 4096 };

/* Constants of a kernel. */
typedef struct tile_shape {
  int slot, width, bits;
  bool shifted, packed; /* packed: words in planes, else four codes a word */
} tile_shape;

typedef struct tile_grid {
  f32_sum scale[VECTORS], zero[VECTORS];
  words start[VECTORS]; /* shifted */
} tile_grid;

typedef struct code_source {
  const uint32_t *run; /* of the tile's first row */
  int first;           /* word of four codes that the record begins with, where they are packed */
} code_source;

/* A piece's sum on its way: pairs in 16 bits until they could overflow. */
typedef struct dots {
  words sum, halves;
} dots;

/* Four codes of each lane, from the planes of their bits. */
QD_INLINE words packed_codes(const uint32_t *run, int bits, int m) {
  words codes = words_none();
  int at = 0;
#pragma GCC unroll 4
  for (int p = 8; p > 0; p /= 2) {
    if ((bits & p) == 0) continue;
    int a_word = 8 / p;
    words w = words_right(words_load(run + m / a_word * QD_INT8_ROWS), m % a_word * p - at);
    codes = words_pick(w, ((1u << p) - 1) * 0x01010101u << at, codes);
    run += p * QD_INT8_ROWS, at += p;
  }
  return codes;
}

QD_INLINE words codes_at(const code_source *from, tile_shape shape, int m, int v) {
  const uint32_t *run = from->run + v * F32_LANES;
  if (!shape.packed || shape.bits == 8) return words_load(run + (from->first + m) * QD_INT8_ROWS);
  return packed_codes(run, shape.bits, from->first + m);
}

QD_INLINE void prefetch_codes(const uint32_t *from, int bits) {
  for (int i = 0; i < bits * QD_INT8_ROWS; i += QD_INT8_ROWS * TILE_ROWS / 32)
    __builtin_prefetch((const void *)((uintptr_t)(from + i) + AHEAD), 0, 3);
}

QD_INLINE f32_sum statistic(words code, const float *second) {
  return f32_multiply(f32_broadcast(second), f32_subtract(words_float(code), f32_broadcast(second + 1)));
}

QD_INLINE void load_grid(const qd_int8_panel *w, int64_t group, int row, tile_grid *grid) {
  int64_t at = group * QD_INT8_ROWS + row;
#pragma GCC unroll 2
  for (int v = 0; v < VECTORS; v++, at += F32_LANES) {
    if (w->grid == QD_INT8_HALF) {
      grid->scale[v] = scales_f16((const uint16_t *)w->scales + at);
      grid->zero[v] = words_float(words_bytes((const uint8_t *)w->zeros + at));
    } else if (w->grid == QD_INT8_REAL) {
      grid->scale[v] = f32_read((const float *)w->scales + at);
      grid->zero[v] = f32_read((const float *)w->zeros + at);
    } else {
      const float *second = (const float *)w->scales + at / QD_INT8_STATISTIC_ROWS * QD_SECOND;
      words both = words_bytes((const uint8_t *)w->zeros + at);
      grid->scale[v] = statistic(words_and(both, 15), second);
      grid->zero[v] = statistic(words_right(both, 4), second + 2);
    }
  }
}

QD_INLINE void load_image_grid(const unsigned char *from, bool shifted, tile_grid *grid) {
  const float *scale = (const float *)(const void *)from, *zero = scale + QD_INT8_ROWS;
#pragma GCC unroll 2
  for (int v = 0; v < VECTORS; v++) {
    grid->scale[v] = f32_read(scale + v * F32_LANES);
    if (shifted)
      grid->start[v] = words_load((const uint32_t *)(const void *)(zero + v * F32_LANES));
    else
      grid->zero[v] = f32_read(zero + v * F32_LANES);
  }
}

QD_INLINE void load_sums(const qd_int8_strip *s, int row, int width, f32_sum *acc) {
  UNROLL_TILE
  for (int i = 0; i < VECTORS * width; i++)
    acc[i] = s->add ? f32_read(s->sums + i / VECTORS * QD_INT8_ROWS + row + i % VECTORS * F32_LANES) : f32_zero();
}

QD_INLINE void store_sums(const qd_int8_strip *s, int row, int width, const f32_sum *acc) {
  UNROLL_TILE
  for (int i = 0; i < VECTORS * width; i++)
    f32_write(s->sums + i / VECTORS * QD_INT8_ROWS + row + i % VECTORS * F32_LANES, acc[i]);
}

/* ---- the kinds ---- */

/* How many products of pairs may be added in 16 bits: each is at most 2 * 127 * (2^bits - 1). */
QD_INLINE int halves_most(int bits) { return bits <= 4 ? 8 : bits == 5 ? 4 : bits == 6 ? 2 : 1; }

/* m: which word of the record's. */
QD_INLINE void plain_add(dots *d, words q, words x, tile_shape shape, int m) {
  int most = halves_most(shape.bits), n = shape.slot / 4;
  if (shape.bits == 8) { /* its upper bit apart: two products of 255 and 127 would not fit */
    d->sum = words_add(d->sum, halves_sums(bytes_products(words_and(words_right(q, 7), 0x01010101u), x), 128));
    q = words_and(q, 0x7f7f7f7fu);
  }
  words products = bytes_products(q, x);
  d->halves = m % most == 0 ? products : halves_add(d->halves, products);
  if ((m + 1) % most == 0 || m + 1 == n) d->sum = words_add(d->sum, halves_sums(d->halves, 1));
}

#define KIND plain
#define TARGET
#if defined(__AVX512F__)
#define TOKENS 4
#else
#define TOKENS 2
#endif
#define SHIFTS 0
#include "kernels/int8_tile.h"

#ifdef QD_HAVE_VNNI
QD_INLINE QD_VNNI_TARGET void vnni_add(dots *d, words q, words x, tile_shape shape, int m) {
  (void)m;
  d->sum = shape.shifted ? vnni_dot(d->sum, x, q) : vnni_dot(d->sum, q, x);
}

#define KIND vnni
#define TARGET QD_VNNI_TARGET
#define TOKENS 6
#define SHIFTS 1
#include "kernels/int8_tile.h"
#endif

const qd_int8_unit *QD_ISA(qd_int8_find_unit)(bool vnni) {
#ifdef QD_HAVE_VNNI
  if (vnni) return &vnni_unit;
#endif
  (void)vnni;
  return &plain_unit;
}

/* ---- tokens ---- */

QD_INLINE void put_slot(int slot, const int8_t *a, float scale, unsigned char *record, const qd_int8_place *to) {
  unsigned char *bytes = record + to->lane * slot;
  float *scales = (float *)(void *)(record + to->width * slot);
  int sum = 0;
  for (int i = 0; i < slot; i++) sum += a[i];
  memcpy(bytes, a, (size_t)slot);
  for (int i = 0; i < slot && to->shifted; i++) bytes[i] ^= 128; /* + 128 */
  scales[to->lane] = scale;
  scales[to->width + to->lane] = (float)sum;
}

static void put_record(int slot, const int8_t *a, float scale, unsigned char *record, const qd_int8_place *to) {
  if (slot == 32)
    put_slot(32, a, scale, record, to);
  else if (slot == 16)
    put_slot(16, a, scale, record, to);
  else
    put_slot(8, a, scale, record, to);
}

/* The run's scale, and a of it; x is filled up with zeros. */
static float quantize_run(const float *x, int8_t *a) {
  enum { INFINITE = 0x7f800000 };
  uint32_t bits[QD_INT8_RUN], top = 0;
  memcpy(bits, x, sizeof bits);
  for (int i = 0; i < QD_INT8_RUN; i++) {
    uint32_t magnitude = bits[i] & 0x7fffffffu;
    top = magnitude > top ? magnitude : top;
  }
  float largest;
  memcpy(&largest, &top, sizeof largest);
  float scale = top >= INFINITE ? NAN : largest / (float)QD_INT8_LARGEST;
  memset(a, 0, QD_INT8_RUN);
  if (!(scale > 0)) return scale;
  for (int i = 0; i < QD_INT8_RUN; i++) a[i] = (int8_t)rintf(x[i] / scale); /* within +-127 by the choice of the scale */
  return scale;
}

void QD_ISA(qd_int8_quantize)(const qd_int8_pieces *p, const float *x, int64_t stride, const qd_int8_place *to) {
  unsigned char *record = to->tile;
  int64_t step = to->width * qd_int8_token_bytes(p);
  for (int64_t k = 0; k < p->columns; k += QD_INT8_RUN) {
    int64_t end = k + QD_INT8_RUN < p->columns ? k + QD_INT8_RUN : p->columns;
    float part[QD_INT8_RUN] = {0};
    int8_t a[QD_INT8_RUN];
    if (stride == 1)
      memcpy(part, x + k, (size_t)(end - k) * sizeof *part);
    else
      for (int64_t i = k; i < end; i++) part[i - k] = x[i * stride];
    float scale = quantize_run(part, a);
    if (p->regular) {
      for (int64_t i = k; i < end; i += p->slot, record += step) put_record(p->slot, a + (i - k), scale, record, to);
      continue;
    }
    for (int64_t i = k, next; i < end; i = next, record += step) {
      int8_t only[QD_INT8_RUN] = {0};
      next = qd_int8_piece_end(p, i);
      memcpy(only + (i - k), a + (i - k), (size_t)(next - i));
      put_record(p->slot, only, scale, record, to);
    }
  }
}

/* ---- images ---- */

/* Behind a record's words; `zero` is a whole number where the image is shifted. */
static void finish_record(int slot, bool shifted, const float *scale, const float *zero, unsigned char *record) {
  uint32_t *word = (uint32_t *)(void *)record, sum[QD_INT8_ROWS] = {0}, z[QD_INT8_ROWS];
  memcpy(record + slot * QD_INT8_ROWS, scale, QD_INT8_ROWS * sizeof *scale);
  unsigned char *behind = record + (slot + 4) * QD_INT8_ROWS;
  if (!shifted) {
    memcpy(behind, zero, QD_INT8_ROWS * sizeof *zero);
    return;
  }
  for (int r = 0; r < QD_INT8_ROWS; r++) z[r] = (uint32_t)zero[r] * 0x01010101u;
  for (int m = 0; m < slot / 4; m++, word += QD_INT8_ROWS)
    for (int r = 0; r < QD_INT8_ROWS; r++) { /* bytes of q - z + 128, q and z below 128: none borrows */
      uint32_t w = (word[r] | 0x80808080u) - z[r];
      sum[r] += (w & 0x00ff00ffu) + (w >> 8 & 0x00ff00ffu);
      word[r] = w ^ 0x80808080u;
    }
  int32_t *start = (int32_t *)(void *)behind;
  for (int r = 0; r < QD_INT8_ROWS; r++) start[r] = -128 * ((int32_t)((sum[r] & 0xffff) + (sum[r] >> 16)) - 128 * slot);
}

QD_INLINE void unpack_of(const uint32_t *run, int bits, int first, int n, uint32_t *to) {
  for (int row = 0; row < QD_INT8_ROWS; row += F32_LANES) {
    UNROLL_RECORD
    for (int m = 0; m < n; m++) {
      words w = packed_codes(run + row, bits, first + m);
      memcpy(to + m * QD_INT8_ROWS + row, &w, sizeof w);
    }
  }
}

static void unpack_words(const qd_int8_panel *from, int64_t k, int slot, unsigned char *record) {
  const uint32_t *run = from->words + k / QD_INT8_RUN * from->bits * QD_INT8_ROWS;
  uint32_t *to = (uint32_t *)(void *)record;
  int first = slot == QD_INT8_RUN ? 0 : (int)(k % QD_INT8_RUN) / 4, n = slot / 4;
#define CASE(bits) \
  case bits: slot == QD_INT8_RUN ? unpack_of(run, bits, 0, 8, to) : unpack_of(run, bits, first, n, to); break
  switch (from->bits) {
    CASE(2);
    CASE(3);
    CASE(4);
    CASE(5);
    CASE(6);
    CASE(7);
    CASE(8);
  }
#undef CASE
}

static void read_grid(const qd_int8_panel *w, int64_t group, float *scale, float *zero) {
  for (int row = 0; row < QD_INT8_ROWS; row += TILE_ROWS) {
    tile_grid grid;
    load_grid(w, group, row, &grid);
    for (int v = 0; v < VECTORS; v++) {
      f32_write(scale + row + v * F32_LANES, grid.scale[v]);
      f32_write(zero + row + v * F32_LANES, grid.zero[v]);
    }
  }
}

/* The next record's first position. */
static int64_t next_record(const qd_int8_pieces *p, int64_t k) { return p->regular ? k + p->slot : qd_int8_piece_end(p, k); }

void QD_ISA(qd_int8_unpack)(const qd_int8_panel *from, const qd_int8_pieces *p, qd_int8_range at, unsigned char *image) {
  float scale[QD_INT8_ROWS], zero[QD_INT8_ROWS];
  for (int64_t k = at.first, last = -1; k < at.end; k = next_record(p, k), image += qd_int8_image_bytes(p)) {
    unpack_words(from, k, p->slot, image);
    if (k / p->group_size != last) read_grid(from, last = k / p->group_size, scale, zero);
    finish_record(p->slot, at.shifted, scale, zero, image);
  }
}

enum { ROW_STRIDE = QD_INT8_CHUNK + 64 }; /* of unpacked codes, not a power of two: the rows must not share cache sets */

static void gather_words(const uint8_t *codes, int slot, unsigned char *record) {
  for (int m = 0; m < slot / 4; m++, record += 4 * QD_INT8_ROWS)
    for (int r = 0; r < QD_INT8_ROWS; r++) memcpy(record + 4 * r, codes + r * ROW_STRIDE + 4 * m, 4);
}

void QD_ISA(qd_int8_pack_rows)(const qd_qtensor *q, int64_t row, const qd_int8_pieces *p, qd_int8_range at,
                               unsigned char *image) {
  uint8_t codes[QD_INT8_ROWS * ROW_STRIDE];
  float scale[QD_INT8_ROWS] = {0}, zero[QD_INT8_ROWS] = {0};
  int rows = q->rows - row < QD_INT8_ROWS ? (int)(q->rows - row) : QD_INT8_ROWS, bits = q->scheme.bits;
  memset(codes, 0, sizeof codes);
  for (int r = 0; r < rows; r++) {
    const uint8_t *packed = (const uint8_t *)q->codes.data + (row + r) * q->codes.stride[0] + at.first / 8 * bits;
    QD_ISA(qd_codes_unpack)(packed, at.end - at.first, bits, codes + r * ROW_STRIDE);
  }
  for (int64_t k = at.first, last = -1; k < at.end; k = next_record(p, k), image += qd_int8_image_bytes(p)) {
    int64_t group = k / p->group_size, first = p->regular ? k : k / QD_INT8_RUN * QD_INT8_RUN;
    gather_words(codes + (first - at.first), p->slot, image);
    for (int r = 0; r < rows && group != last; r++)
      scale[r] = qd_qtensor_scale(q, row + r, group), zero[r] = qd_qtensor_zero(q, row + r, group);
    last = group;
    finish_record(p->slot, at.shifted, scale, zero, image);
  }
}

/* ---- outliers ---- */

static int64_t outlier_begin(const qd_qtensor *q, int64_t row) { return ((const int32_t *)q->outlier_rows.data)[row]; }

/* Chains of some rows side by side, each with n outliers from `at` on: one alone waits for its last sum. */
QD_INLINE void chains(int rows, const qd_int8_outliers *o, int64_t n, const int64_t *at, const float *x, int64_t stride,
                      float *sum) {
  const float *by = o->by - outlier_begin(o->q, o->first);
  for (int64_t i = 0; i < n; i++)
    for (int r = 0; r < rows; r++)
      sum[r] = fmaf(by[at[r] + i], x[qd_qtensor_outlier_column(o->q, at[r] + i) * stride], sum[r]);
}

void QD_ISA(qd_int8_add_outliers)(const qd_int8_outliers *o, const float *x, int64_t stride, float *y) {
  enum { ROWS = 4 };
  for (int64_t first = o->first; first < o->end; first += ROWS) {
    int64_t at[ROWS], left[ROWS], together = INT64_MAX;
    float sum[ROWS] = {0};
    int rows = o->end - first < ROWS ? (int)(o->end - first) : ROWS;
    for (int r = 0; r < rows; r++) {
      at[r] = outlier_begin(o->q, first + r), left[r] = qd_qtensor_outlier_end(o->q, first + r) - at[r];
      together = left[r] < together ? left[r] : together;
    }
    if (rows == ROWS) chains(ROWS, o, together, at, x, stride, sum);
    else together = 0;
    for (int r = 0; r < rows; r++) {
      int64_t rest = at[r] + together;
      chains(1, o, left[r] - together, &rest, x, stride, sum + r);
      if (left[r] > 0) y[first + r] += sum[r];
    }
  }
}

void QD_ISA(qd_int8_add_outliers_16)(const qd_int8_outliers *o, const qd_int8_side *side) {
  const float *by = o->by - outlier_begin(o->q, o->first);
  for (int64_t r = o->first; r < o->end; r++) {
    int64_t i = outlier_begin(o->q, r), end = qd_qtensor_outlier_end(o->q, r);
    v16 sum = v16_set(0);
    float part[QD_INT8_SIDE];
    if (i == end) continue;
    for (; i < end; i++)
      sum = v16_fma(v16_set(by[i]), v16_load(side->x + qd_qtensor_outlier_column(o->q, i) * QD_INT8_SIDE), sum);
    v16_store(part, sum);
    for (int t = 0; t < side->tokens; t++) side->y[t * side->y_stride + r] += part[t];
  }
}
