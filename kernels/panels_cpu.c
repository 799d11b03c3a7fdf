/* Panels of the cpu device: dense ones are the matrix kernel's own panels of b, kept; codes are laid out as panels_isa.h says.
 * Chunk by chunk of k, so that products with few tokens read all of them from front to back. */
#include "kernels/codes.h"
#include "kernels/gemm_cpu.h"
#include "kernels/int8.h"
#include "kernels/ops_table.h"
#include "kernels/panels_isa.h"

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t chunk_of(int64_t k, int64_t end) { return least(end - k, QD_PRODUCT_CHUNK); }

static int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

/* ---- sizes ---- */

static size_t dense_bytes(const qd_device *device, qd_dtype act, int64_t rows, int64_t columns) {
  qd_panel_kind kind = qd_gemm_kept_kind(device, act);
  const qd_gemm_unit *unit = QD_ISA_CALL(device, qd_gemm_find_unit, (kind));
  int64_t panels = (rows + unit->columns - 1) / unit->columns, elements = 0;
  for (int64_t k = 0; k < columns; k += QD_PRODUCT_CHUNK)
    elements += panels * qd_panel_stride(qd_panel_steps(kind, chunk_of(k, columns)), unit->columns);
  return (size_t)elements * unit->bytes;
}

/* All kinds of act have panels of this many rows. */
int qd_cpu_panel_width(const qd_device *device) { return QD_ISA_CALL(device, qd_gemm_find_unit, (QD_PANEL_F32))->columns; }

typedef struct code_sizes {
  int64_t width, rows; /* of a pair; of all, filled up to whole pairs */
  size_t  words, scales, zeros;
} code_sizes;

static code_sizes sizes_of(const qd_device *device, int64_t rows, int64_t columns, qd_scheme scheme) {
  code_sizes s = {.width = QD_CODE_PAIR * qd_cpu_panel_width(device)};
  s.rows = round_up(rows, s.width);
  size_t groups = (size_t)s.rows * (size_t)qd_scheme_groups(scheme, columns);
  s.words = (size_t)s.rows * (size_t)(round_up(columns, QD_CODE_RUN) / QD_CODE_RUN * scheme.bits);
  s.scales = groups, s.zeros = groups;
  return s;
}

size_t qd_cpu_panels_bytes(const qd_device *device, qd_dtype act, int64_t rows, int64_t columns, const qd_scheme *scheme) {
  if (scheme == NULL) return qd_arena_cost(dense_bytes(device, act, rows, columns), 1);
  if (device->arithmetic == QD_ARITHMETIC_INT8) return qd_cpu_int8_panels_bytes(device, rows, columns, *scheme);
  code_sizes s = sizes_of(device, rows, columns, *scheme);
  if (scheme->spqr)
    return qd_arena_cost(s.words, sizeof(uint32_t)) + qd_arena_cost(s.scales, sizeof(float)) +
           qd_arena_cost(s.zeros, sizeof(float)) + qd_arena_cost((size_t)rows + 1, sizeof(int32_t));
  return qd_arena_cost(s.words, sizeof(uint32_t)) + qd_arena_cost(s.scales, qd_dtype_bytes(scheme->scale_dtype)) +
         qd_arena_cost(s.zeros, sizeof(uint8_t));
}

/* ---- packing ---- */

qd_status qd_cpu_panels_dense(qd_device *device, qd_arena *arena, qd_tensor w, qd_panels *out) {
  qd_panel_kind kind = qd_gemm_kept_kind(device, w.dtype);
  const qd_gemm_unit *unit = QD_ISA_CALL(device, qd_gemm_find_unit, (kind));
  int64_t rows = w.dim[0], columns = w.dim[1], width = unit->columns, panels = (rows + width - 1) / width;
  size_t element = qd_dtype_bytes(w.dtype), chunk = dense_bytes(device, w.dtype, rows, least(columns, QD_PRODUCT_CHUNK));
  QD_TRY(qd_arena_new(arena, dense_bytes(device, w.dtype, rows, columns), 1, &out->data));
  out->width = (int)width;
#pragma omp parallel for num_threads(device->threads) schedule(static) collapse(2)
  for (int64_t k = 0; k < columns; k += QD_PRODUCT_CHUNK)
    for (int64_t p = 0; p < panels; p++) {
      int64_t kc = chunk_of(k, columns);
      size_t panel = (size_t)qd_panel_stride(qd_panel_steps(kind, kc), unit->columns) * unit->bytes;
      const unsigned char *from = (const unsigned char *)w.data + (size_t)(p * width * w.stride[0] + k * w.stride[1]) * element;
      unit->pack(&(qd_gemm_rows){from, w.stride[0], w.stride[1], least(rows - p * width, width), kc}, unit->columns,
                 (unsigned char *)out->data + (size_t)(k / QD_PRODUCT_CHUNK) * chunk + (size_t)p * panel);
    }
  return QD_OK;
}

/* One row's codes of a chunk into its lane of the pair; the words are zero before. */
static void lay_codes(const uint8_t *code, int64_t n, int bits, int64_t width, uint32_t *lane) {
  int a_word = 32 / bits, whole = a_word * bits, piece = 32 - whole;
  for (int64_t run = 0; run < n; run += QD_CODE_RUN, code += QD_CODE_RUN, lane += bits * width) {
    int left = (int)least(n - run, QD_CODE_RUN);
    uint32_t rest = 0;
    for (int t = 0; t < left && t < whole; t++) lane[t / a_word * width] |= (uint32_t)code[t] << (t % a_word * bits);
    for (int t = whole; t < left; t++) rest |= (uint32_t)code[t] << ((t - whole) * bits);
    for (int i = 0; i < bits && piece > 0; i++) lane[i * width] |= rest >> (i * piece) << whole;
  }
}

static void pack_codes(const qd_device *device, const qd_qtensor *q, int64_t k, int64_t pair, int64_t width, uint32_t *to) {
  uint8_t code[QD_PRODUCT_CHUNK];
  int bits = q->scheme.bits;
  int64_t kc = chunk_of(k, q->columns), end = least(q->rows, (pair + 1) * width);
  memset(to, 0, (size_t)(round_up(kc, QD_CODE_RUN) / QD_CODE_RUN * bits * width) * sizeof *to);
  for (int64_t r = pair * width; r < end; r++) {
    const uint8_t *packed = (const uint8_t *)q->codes.data + r * q->codes.stride[0] + k / 8 * bits;
    QD_ISA_CALL(device, qd_codes_unpack, (packed, kc, bits, code));
    lay_codes(code, kc, bits, width, to + (r - pair * width));
  }
}

static bool all_positive(const qd_qtensor *q) {
  enum { INFINITE = 0x7c00 };
  if (q->scheme.scale_dtype != QD_F16) return false;
  const uint16_t *bits = q->scales.data;
  for (int64_t r = 0; r < q->rows; r++)
    for (int64_t g = 0; g < q->scales.dim[1]; g++) {
      uint16_t scale = bits[r * q->scales.stride[0] + g];
      if (scale == 0 || scale >= INFINITE) return false;
    }
  return true;
}

static void pack_groups(const qd_qtensor *q, const code_sizes *s, qd_panels *out) {
  int64_t groups = q->scales.dim[1];
  size_t bytes = qd_dtype_bytes(q->scheme.scale_dtype);
  unsigned char *scales = out->scales;
  memset(scales, 0, s->scales * bytes);
  memset(out->zeros, 1 << (q->scheme.bits - 1), s->zeros);
  for (int64_t r = 0; r < q->rows; r++)
    for (int64_t g = 0; g < groups; g++) {
      size_t to = (size_t)(g * s->rows + r);
      memcpy(scales + to * bytes, (const unsigned char *)q->scales.data + (size_t)(r * q->scales.stride[0] + g) * bytes, bytes);
      if (q->zeros.rank) out->zeros[to] = ((const uint8_t *)q->zeros.data)[r * q->zeros.stride[0] + g];
    }
}

/* SpQR's scales and zero points as they are used, instead of their codes. */
static void pack_real_groups(const qd_qtensor *q, const code_sizes *s, qd_panels *out) {
  int64_t groups = qd_scheme_groups(q->scheme, q->columns);
  float *scales = out->scales;
  memset(scales, 0, s->scales * sizeof *scales);
  memset(out->real_zeros, 0, s->zeros * sizeof *out->real_zeros);
  for (int64_t r = 0; r < q->rows; r++)
    for (int64_t g = 0; g < groups; g++) {
      scales[g * s->rows + r] = qd_qtensor_scale(q, r, g);
      out->real_zeros[g * s->rows + r] = qd_qtensor_zero(q, r, g);
    }
}

static qd_status new_groups(qd_arena *arena, const code_sizes *s, qd_panels *out) {
  if (out->q.scheme.spqr) {
    QD_TRY(qd_arena_new(arena, s->scales, sizeof(float), &out->scales));
    return qd_arena_new(arena, s->zeros, sizeof(float), &out->real_zeros);
  }
  QD_TRY(qd_arena_new(arena, s->scales, qd_dtype_bytes(out->q.scheme.scale_dtype), &out->scales));
  return qd_arena_new(arena, s->zeros, sizeof(uint8_t), &out->zeros);
}

qd_status qd_cpu_panels_quantized(qd_device *device, qd_arena *arena, const qd_qtensor *q, qd_panels *out) {
  if (device->arithmetic == QD_ARITHMETIC_INT8) return qd_cpu_int8_panels(device, arena, q, out);
  code_sizes s = sizes_of(device, q->rows, q->columns, q->scheme);
  uint32_t *words;
  QD_TRY(qd_arena_new(arena, s.words, sizeof *words, &words));
  QD_TRY(new_groups(arena, &s, out));
  out->data = words, out->width = qd_cpu_panel_width(device);
  int64_t pairs = s.rows / s.width, a_run = q->scheme.bits * s.width;
#pragma omp parallel for num_threads(device->threads) schedule(static) collapse(2)
  for (int64_t k = 0; k < q->columns; k += QD_PRODUCT_CHUNK)
    for (int64_t p = 0; p < pairs; p++) {
      int64_t runs = round_up(chunk_of(k, q->columns), QD_CODE_RUN) / QD_CODE_RUN;
      pack_codes(device, q, k, p, s.width, words + (k / QD_CODE_RUN * pairs + p * runs) * a_run);
    }
  (q->scheme.spqr ? pack_real_groups : pack_groups)(q, &s, out);
  out->positive = !q->scheme.spqr && all_positive(q);
  return QD_OK;
}

/* ---- products ---- */

qd_status qd_cpu_panels_linear(qd_device *device, qd_tensor x, const qd_panels *w, const qd_tensor *bias, qd_tensor y) {
  size_t mark = qd_arena_mark(&device->scratch);
  qd_status status = QD_OK;
  if (qd_qtensor_has_order(&w->q)) QD_TRY_GOTO(status, done, qd_cpu_gather(device, x, w->q.order, &x));
  if (w->quantized && w->arithmetic == QD_ARITHMETIC_INT8) status = qd_cpu_int8_panels_linear(device, x, w, bias, y);
  else qd_gemm_run(device, &(qd_gemm_product){.mode = QD_GEMM_SET, .a = x, .panels = w, .bias = bias, .c = y});
done:
  qd_arena_rewind(&device->scratch, mark);
  return status;
}
