/* Products of the arithmetic int8 (ops.h), for each instruction set: tokens rounded to int8 times codes, both in bytes.
 *
 * The order of arithmetic is told by pieces, the parts of a row within one run of 32 positions and one group.  What belongs to
 * a piece is a record.  With groups of 8, of 16 or of whole runs the record is the `slot` positions of its piece; with any
 * others it is the whole run, and the tokens are zero beside the piece, so that the same loops serve them.
 *
 * A panel is 32 rows of a weight, rows in lanes of 32 bits, each lane with four consecutive positions of its row.
 *
 * Records of a tile of tokens, one after the other: slot bytes of each token; the scale s_a of each; the sum of each's bytes.
 * Records of a panel in bytes ("image"), one after the other: word m of row r at m * 32 + r; scale s_w of each row; then minus
 * the zero point of each (F32), or (shifted) the number that a sum begins with (I32).
 * Shifted: codes less their zero point as signed bytes, tokens + 128 as unsigned ones; the sum then begins with minus 128 times
 * the sum of the record's weights and ends as the piece's exact number.
 *
 * A panel in codes, run by run: `bits` words a row and run, word i of row r at i * 32 + r, in planes of 8, 4, 2, 1 bits (those
 * that add up to `bits`, the largest first, which holds the codes' lowest bits).  A word of a plane of p bits holds 8 / p words
 * of four codes: bits [p j, p j + p) of its byte b belong to code 4 j + b. */
#ifndef QDIST_KERNELS_INT8_ISA_H
#define QDIST_KERNELS_INT8_ISA_H

#include "kernels/int8.h"
#include "kernels/isa.h"

enum {
  QD_INT8_ROWS = 32,   /* of a panel */
  QD_INT8_TOKENS = 6,  /* of a tile, at most */
  QD_INT8_CHUNK = 512, /* positions of an image at a time: it stays in level-1 cache while tokens come by */
};

typedef struct qd_int8_pieces {
  int64_t columns, group_size; /* the latter at most columns, at least 1 */
  int64_t both;                /* least common multiple of group_size and a run */
  int slot;                    /* positions of a record: 32, 16 or 8 */
  bool regular;                /* records are pieces; false: runs, as often as they have pieces */
} qd_int8_pieces;

qd_int8_pieces qd_int8_pieces_of(const qd_scheme *scheme, int64_t columns);

/* Records before position k, a multiple of QD_INT8_CHUNK or `columns`. */
static inline int64_t qd_int8_records(const qd_int8_pieces *p, int64_t k) {
  if (k == 0) return 0;
  if (p->regular) return (k + p->slot - 1) / p->slot;
  return (k + QD_INT8_RUN - 1) / QD_INT8_RUN + (k - 1) / p->group_size - (k - 1) / p->both;
}

/* The first position behind the piece that begins at k. */
static inline int64_t qd_int8_piece_end(const qd_int8_pieces *p, int64_t k) {
  int64_t run = (k / QD_INT8_RUN + 1) * QD_INT8_RUN, group = (k / p->group_size + 1) * p->group_size;
  int64_t end = run < group ? run : group;
  return end < p->columns ? end : p->columns;
}

static inline int64_t qd_int8_token_bytes(const qd_int8_pieces *p) { return p->slot + 8; }
static inline int64_t qd_int8_image_bytes(const qd_int8_pieces *p) { return (p->slot + 8) * (int64_t)QD_INT8_ROWS; }

/* One token into its place of a tile, from x F32. */
typedef struct qd_int8_place {
  unsigned char *tile; /* the first record */
  int width, lane;     /* tokens of the tile; which of them */
  bool shifted;
} qd_int8_place;
QD_ISA_DECLARE(void, qd_int8_quantize, (const qd_int8_pieces *p, const float *x, int64_t stride, const qd_int8_place *to));

/* How a panel keeps its scales and zero points, group by group for all its rows. */
typedef enum qd_int8_grid {
  QD_INT8_HALF,  /* scales F16, zero points U8 */
  QD_INT8_REAL,  /* scales F32, zero points F32 */
  QD_INT8_CODED, /* SpQR's: codes of both in a byte (the scale's in the lower half), for each 16 rows four F32 of `second` */
} qd_int8_grid;
enum { QD_INT8_STATISTIC_ROWS = 16 };

/* One panel in codes. */
typedef struct qd_int8_panel {
  const uint32_t *words;
  const void *scales; /* CODED: the second level */
  const void *zeros;  /* CODED: the codes */
  qd_int8_grid grid;
  int bits;
} qd_int8_panel;

/* Positions [first, end) of a panel or of rows as an image; first a multiple of QD_INT8_CHUNK. */
typedef struct qd_int8_range {
  int64_t first, end;
  bool shifted;
} qd_int8_range;
QD_ISA_DECLARE(void, qd_int8_unpack,
               (const qd_int8_panel *from, const qd_int8_pieces *p, qd_int8_range at, unsigned char *image));
QD_ISA_DECLARE(void, qd_int8_pack_rows,
               (const qd_qtensor *q, int64_t row, const qd_int8_pieces *p, qd_int8_range at, unsigned char *image));

/* A tile of tokens times one panel, all records in order. */
typedef struct qd_int8_strip {
  const unsigned char *tokens;
  int width;
  int64_t records;
  float *sums; /* (width, 32) */
  bool add;    /* to what sums hold; else from zero */
} qd_int8_strip;

/* What a unit has. */
typedef struct qd_int8_unit {
  bool shifts; /* takes shifted images */
  int tokens;  /* of a tile, at most */
  void (*image)(const qd_int8_strip *s, const qd_int8_pieces *p, int bits, bool shifted, const unsigned char *image);
  void (*codes)(const qd_int8_strip *s, const qd_int8_pieces *p, const qd_int8_panel *w); /* slots of 32 and 16, regular */
} qd_int8_unit;
QD_ISA_DECLARE(const qd_int8_unit *, qd_int8_find_unit, (bool vnni));

/* Whether codes are multiplied without an image. */
static inline bool qd_int8_direct(const qd_int8_pieces *p) { return p->regular && p->slot >= 16; }

/* Outliers of rows [first, end) of q; `by`, of the first of them on, are values less the weights of their codes. */
typedef struct qd_int8_outliers {
  const qd_qtensor *q;
  int64_t first, end;
  const float *by;
} qd_int8_outliers;

/* y[r] += chain over row r's outliers, for rows that have some.   x F32, one token. */
QD_ISA_DECLARE(void, qd_int8_add_outliers, (const qd_int8_outliers *o, const float *x, int64_t stride, float *y));

/* The same for up to 16 tokens: x (C, 16), y token by token. */
enum { QD_INT8_SIDE = 16 };
typedef struct qd_int8_side {
  const float *x;
  float *y;
  int64_t y_stride;
  int tokens;
} qd_int8_side;
QD_ISA_DECLARE(void, qd_int8_add_outliers_16, (const qd_int8_outliers *o, const qd_int8_side *side));

#endif
