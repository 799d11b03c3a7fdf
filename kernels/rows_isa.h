/* What the row loops of *_isa.c files share: pieces of a row as fp32, and sums in lanes. */
#ifndef QDIST_KERNELS_ROWS_ISA_H
#define QDIST_KERNELS_ROWS_ISA_H

#include "kernels/base/dtype.h"

#include <math.h>

enum {
  QD_LANES = 16,
  QD_PIECE = 256, /* elements of a row worked on at a time, in level-1 cache; a multiple of the lanes */
};

static inline int64_t qd_piece(int64_t at, int64_t end) { return end - at < QD_PIECE ? end - at : QD_PIECE; }

/* Elements [at, at + n) of a row of F32 or BF16, n <= QD_PIECE. */
static inline void qd_piece_load(const void *row, qd_dtype dtype, int64_t at, int64_t n, float *restrict out) {
  if (dtype == QD_BF16) {
    const uint16_t *from = (const uint16_t *)row + at;
    for (int64_t i = 0; i < n; i++) out[i] = qd_bf16_to_f32(from[i]);
  } else {
    memcpy(out, (const float *)row + at, (size_t)n * sizeof *out);
  }
}

static inline void qd_piece_store(void *row, qd_dtype dtype, int64_t at, int64_t n, const float *restrict from) {
  if (dtype == QD_BF16) {
    uint16_t *to = (uint16_t *)row + at;
    for (int64_t i = 0; i < n; i++) to[i] = qd_bf16_from_f32(from[i]);
  } else {
    memcpy((float *)row + at, from, (size_t)n * sizeof *from);
  }
}

/* lane[i mod 16] += x[i].  A piece starts at a multiple of 16. */
static inline void qd_lanes_add(float lane[QD_LANES], const float *x, int64_t n) {
  int64_t i = 0;
  for (; i + QD_LANES <= n; i += QD_LANES)
    for (int l = 0; l < QD_LANES; l++) lane[l] += x[i + l];
  for (int l = 0; i + l < n; l++) lane[l] += x[i + l];
}

static inline void qd_lanes_add_double(double lane[QD_LANES], const double *x, int64_t n) {
  int64_t i = 0;
  for (; i + QD_LANES <= n; i += QD_LANES)
    for (int l = 0; l < QD_LANES; l++) lane[l] += x[i + l];
  for (int l = 0; i + l < n; l++) lane[l] += x[i + l];
}

static inline float qd_lanes_total(float lane[QD_LANES]) {
  for (int width = QD_LANES / 2; width > 0; width /= 2)
    for (int l = 0; l < width; l++) lane[l] += lane[l + width];
  return lane[0];
}

static inline double qd_lanes_total_double(double lane[QD_LANES]) {
  for (int width = QD_LANES / 2; width > 0; width /= 2)
    for (int l = 0; l < width; l++) lane[l] += lane[l + width];
  return lane[0];
}

/* The largest of x; -Inf of none. */
static inline float qd_row_max(const float *x, int64_t n) {
  float lane[QD_LANES];
  for (int l = 0; l < QD_LANES; l++) lane[l] = -INFINITY;
  int64_t i = 0;
  for (; i + QD_LANES <= n; i += QD_LANES)
    for (int l = 0; l < QD_LANES; l++) lane[l] = x[i + l] > lane[l] ? x[i + l] : lane[l];
  for (int l = 0; i + l < n; l++) lane[l] = x[i + l] > lane[l] ? x[i + l] : lane[l];
  float top = lane[0];
  for (int l = 1; l < QD_LANES; l++) top = lane[l] > top ? lane[l] : top;
  return top;
}

#endif
