#include "kernels/peak.h"

#include "kernels/amx.h"
#include "kernels/panels_isa.h"

#if defined(__x86_64__)
#include <immintrin.h>

enum { ACCUMULATORS = 12, LANES = 16, PER_LANE = 4 }; /* two products and two sums a lane */

__attribute__((target("avx512f,avx512bf16"))) static double peak_bf16(int64_t rounds) {
  __m512 sum[ACCUMULATORS];
  __m512i a = _mm512_setzero_si512(), b = a;
#pragma GCC unroll 12
  for (int i = 0; i < ACCUMULATORS; i++) {
    sum[i] = _mm512_setzero_ps();
    __asm__ volatile("" : "+v"(sum[i])); /* or equal accumulators would become one */
  }
  for (int64_t r = 0; r < rounds; r++) {
#pragma GCC unroll 12
    for (int i = 0; i < ACCUMULATORS; i++) sum[i] = _mm512_dpbf16_ps(sum[i], (__m512bh)a, (__m512bh)b);
    __asm__ volatile("" : "+v"(a), "+v"(b));
  }
  double left = 0;
  for (int i = 0; i < ACCUMULATORS; i++) left += (double)_mm512_cvtss_f32(sum[i]);
  return (double)rounds * ACCUMULATORS * LANES * PER_LANE + left;
}

/* The matrix kernel's four sums; a product takes 16 cycles, longer than what is loaded beside it. */
QD_AMX_TARGET static double peak_amx(int64_t rounds) {
  enum { ROWS = 16, COLUMNS = 16, K = 32 };
  qd_amx_begin(2 * ROWS);
  for (int64_t r = 0; r < rounds; r++) {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  qd_amx_end();
  return (double)rounds * 4 * ROWS * COLUMNS * K * 2;
}

static double run_bf16(const qd_device *device, int64_t rounds) {
  qd_panel_kind kind = qd_gemm_kind(device, QD_BF16);
  if (kind == QD_PANEL_PAIRS) return peak_bf16(rounds);
  if (kind == QD_PANEL_TILES) return peak_amx(rounds);
  return QD_ISA_CALL(device, qd_peak_f32, (rounds)); /* widened: fp32's rate */
}
#else
static double run_bf16(const qd_device *device, int64_t rounds) { return QD_ISA_CALL(device, qd_peak_f32, (rounds)); }
#endif

double qd_peak_run(const qd_device *device, qd_dtype dtype, int64_t rounds) {
  if (dtype == QD_F64) return QD_ISA_CALL(device, qd_peak_f64, (rounds));
  if (dtype == QD_BF16) return run_bf16(device, rounds);
  return QD_ISA_CALL(device, qd_peak_f32, (rounds));
}

double qd_peak_codes(const qd_device *device, qd_dtype act, int bits, int64_t rounds) {
  return QD_ISA_CALL(device, qd_code_panel_peak, (qd_gemm_kind(device, act), bits, rounds));
}

void qd_peak_triad(const qd_device *device, float *a, const float *b, const float *c, int64_t n) {
  int64_t part = (n + device->threads - 1) / device->threads;
#pragma omp parallel for num_threads(device->threads) schedule(static)
  for (int64_t at = 0; at < n; at += part)
    QD_ISA_CALL(device, qd_peak_triad_part, (a + at, b + at, c + at, n - at < part ? n - at : part));
}
