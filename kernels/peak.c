#include "kernels/peak.h"

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
#endif

double qd_peak_run(const qd_device *device, qd_dtype dtype, int64_t rounds) {
  if (dtype == QD_F64) return QD_ISA_CALL(device, qd_peak_f64, (rounds));
#if defined(__x86_64__)
  if (dtype == QD_BF16 && device->isa == QD_ISA_AVX512_BF16) return peak_bf16(rounds);
#endif
  return QD_ISA_CALL(device, qd_peak_f32, (rounds)); /* bf16 without the instruction is widened: fp32's rate */
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
