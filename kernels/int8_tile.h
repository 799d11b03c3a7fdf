/* Register tiles of one kind of unit, included by int8_isa.c for each: KIND (plain, vnni), TARGET its attribute, TOKENS as
 * in qd_int8_unit, SHIFTS whether it takes shifted images. */
#define NAME2(kind, name) kind##_##name
#define NAME1(kind, name) NAME2(kind, name)
#define NAME(name) NAME1(KIND, name)

/* One record of a tile: codes from `from`, tokens from a. */
QD_INLINE TARGET void NAME(record)(tile_shape shape, const code_source *from, const unsigned char *a, const tile_grid *grid,
                                   f32_sum *acc) {
  int width = shape.width, n = shape.slot / 4;
  dots dot[VECTORS * QD_INT8_TOKENS];
  UNROLL_TILE
  for (int i = 0; i < VECTORS * width; i++) dot[i].sum = shape.shifted ? grid->start[i % VECTORS] : words_none();
  UNROLL_RECORD
  for (int m = 0; m < n; m++) {
    words q[VECTORS];
    UNROLL_TILE
    for (int v = 0; v < VECTORS; v++) q[v] = codes_at(from, shape, m, v);
    UNROLL_TILE
    for (int t = 0; t < width; t++) {
      words x = words_broadcast(a + t * shape.slot + 4 * m);
      UNROLL_TILE
      for (int v = 0; v < VECTORS; v++) NAME(add)(&dot[t * VECTORS + v], q[v], x, shape, m);
    }
  }
  const float *scale = (const float *)(const void *)(a + width * shape.slot), *total = scale + width;
  UNROLL_TILE
  for (int i = 0; i < VECTORS * width; i++) {
    int v = i % VECTORS, t = i / VECTORS;
    f32_sum d = words_float(dot[i].sum);
    if (!shape.shifted) d = f32_less(grid->zero[v], f32_broadcast(total + t), d);
    acc[i] = f32_fma(d, f32_multiply(grid->scale[v], f32_broadcast(scale + t)), acc[i]);
  }
}

QD_INLINE TARGET void NAME(image_of)(const qd_int8_strip *s, tile_shape shape, const unsigned char *image) {
  int64_t image_step = (shape.slot + 8) * QD_INT8_ROWS, token_step = shape.width * (shape.slot + 8);
  for (int row = 0; row < QD_INT8_ROWS; row += TILE_ROWS) {
    f32_sum acc[VECTORS * QD_INT8_TOKENS];
    const unsigned char *a = s->tokens, *w = image + row * 4;
    load_sums(s, row, shape.width, acc);
    for (int64_t i = 0; i < s->records; i++, a += token_step, w += image_step) {
      tile_grid grid;
      load_image_grid(w + shape.slot * QD_INT8_ROWS, shape.shifted, &grid);
      NAME(record)(shape, &(code_source){(const uint32_t *)(const void *)w, 0}, a, &grid, acc);
    }
    store_sums(s, row, shape.width, acc);
  }
}

/* Run by run, front to back; what is a record is read where it lies. */
QD_INLINE TARGET void NAME(codes_of)(const qd_int8_strip *s, tile_shape shape, const qd_int8_pieces *p,
                                     const qd_int8_panel *w) {
  int64_t token_step = shape.width * (shape.slot + 8), runs_of_group = p->group_size / QD_INT8_RUN;
  for (int row = 0; row < QD_INT8_ROWS; row += TILE_ROWS) {
    f32_sum acc[VECTORS * QD_INT8_TOKENS];
    tile_grid grid;
    const unsigned char *a = s->tokens;
    const uint32_t *words_of_run = w->words + row;
    int64_t group = 0, left = 0;
    load_sums(s, row, shape.width, acc);
    for (int64_t i = 0; i < s->records; words_of_run += shape.bits * QD_INT8_ROWS) {
      prefetch_codes(words_of_run, shape.bits);
      UNROLL_TILE
      for (int part = 0; part < QD_INT8_RUN / shape.slot; part++) {
        if (i >= s->records) break;
        if (left == 0) load_grid(w, group++, row, &grid), left = shape.slot < QD_INT8_RUN ? 1 : runs_of_group;
        NAME(record)(shape, &(code_source){words_of_run, part * (shape.slot / 4)}, a, &grid, acc);
        left--, i++, a += token_step;
      }
    }
    store_sums(s, row, shape.width, acc);
  }
}

/* ---- each width, each kind of image ---- */

/* One kernel for each number of tokens. */
#define EACH_WIDTH(call, ...)                                           \
  switch (s->width) {                                                   \
    case 1: call(1, __VA_ARGS__); break;                                \
    case 2: call(2, __VA_ARGS__); break;                                \
    case 3: if (TOKENS >= 3) call(3, __VA_ARGS__); break;               \
    case 4: if (TOKENS >= 4) call(4, __VA_ARGS__); break;               \
    case 5: if (TOKENS >= 5) call(5, __VA_ARGS__); break;               \
    default: if (TOKENS >= 6) call(6, __VA_ARGS__);                     \
  }
#define IMAGE_OF(width, slot, bits, shifted) NAME(image_of)(s, (tile_shape){slot, width, bits, shifted, false}, image)
#define CODES_OF(width, slot, bits) NAME(codes_of)(s, (tile_shape){slot, width, bits, false, true}, p, w)

#define IMAGE(name, slot, bits, shifted)                                                 \
  static TARGET void NAME(name)(const qd_int8_strip *s, const unsigned char *image) {    \
    EACH_WIDTH(IMAGE_OF, slot, bits, shifted)                                            \
  }
#if SHIFTS
IMAGE(shifted32, 32, 8, true)
IMAGE(image32, 32, 8, false)
IMAGE(image16, 16, 8, false)
IMAGE(image8, 8, 8, false)

static void NAME(image)(const qd_int8_strip *s, const qd_int8_pieces *p, int bits, bool shifted, const unsigned char *image) {
  (void)bits;
  if (shifted) NAME(shifted32)(s, image);
  else (p->slot == 32 ? NAME(image32) : p->slot == 16 ? NAME(image16) : NAME(image8))(s, image);
}
#else
/* By how many products fit into 16 bits: codes up to 4, 6, 7 and 8 bits. */
#define IMAGES(bits) IMAGE(image32_##bits, 32, bits, false) IMAGE(image16_##bits, 16, bits, false) \
                     IMAGE(image8_##bits, 8, bits, false)
IMAGES(4)
IMAGES(6)
IMAGES(7)
IMAGES(8)

static void NAME(image)(const qd_int8_strip *s, const qd_int8_pieces *p, int bits, bool shifted, const unsigned char *image) {
#define ROW(bits) {NAME(image8_##bits), NAME(image16_##bits), NAME(image32_##bits)}
  static void (*const kernels[4][3])(const qd_int8_strip *, const unsigned char *) = {ROW(4), ROW(6), ROW(7), ROW(8)};
#undef ROW
  (void)shifted;
  int kind = bits <= 4 ? 0 : bits <= 6 ? 1 : bits - 5;
  kernels[kind][p->slot / 16](s, image);
}
#undef IMAGES
#endif
#undef IMAGE

#define CODES(bits)                                                                                                \
  static TARGET void NAME(codes_##bits)(const qd_int8_strip *s, const qd_int8_pieces *p, const qd_int8_panel *w) { \
    if (p->slot == QD_INT8_RUN) EACH_WIDTH(CODES_OF, 32, bits)                                                     \
    else EACH_WIDTH(CODES_OF, 16, bits)                                                                            \
  }
CODES(2)
CODES(3)
CODES(4)
CODES(5)
CODES(6)
CODES(7)
CODES(8)
#undef CODES
#undef EACH_WIDTH
#undef IMAGE_OF
#undef CODES_OF

static void NAME(codes)(const qd_int8_strip *s, const qd_int8_pieces *p, const qd_int8_panel *w) {
  static void (*const kernels[])(const qd_int8_strip *, const qd_int8_pieces *, const qd_int8_panel *) = {
      NAME(codes_2), NAME(codes_3), NAME(codes_4), NAME(codes_5), NAME(codes_6), NAME(codes_7), NAME(codes_8)};
  kernels[w->bits - QD_MIN_BITS](s, p, w);
}

static const qd_int8_unit NAME(unit) = {SHIFTS, TOKENS, NAME(image), NAME(codes)};

#undef NAME
#undef NAME1
#undef NAME2
#undef KIND
#undef TARGET
#undef TOKENS
#undef SHIFTS
