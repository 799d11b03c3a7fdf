#include "kernels/gemm_cpu.h"

#include <math.h>

size_t qd_cpu_packing_bytes(int threads) { return (size_t)threads * 64; }

static float bf16_at(qd_tensor t, int64_t index) { return qd_bf16_to_f32(((const uint16_t *)t.data)[index]); }

static float chain_f32(qd_tensor a, int64_t at, qd_tensor b, int64_t bt, int64_t n) {
  const float *x = (const float *)a.data + at, *y = (const float *)b.data + bt;
  float s = 0;
  for (int64_t k = 0; k < n; k++) s = fmaf(x[k * a.stride[1]], y[k * b.stride[0]], s);
  return s;
}

static float chain_bf16(qd_tensor a, int64_t at, qd_tensor b, int64_t bt, int64_t n) {
  float s = 0;
  for (int64_t k = 0; k < n; k += 2) {
    bool odd = k + 1 < n;
    s = fmaf(odd ? bf16_at(a, at + (k + 1) * a.stride[1]) : 0, odd ? bf16_at(b, bt + (k + 1) * b.stride[0]) : 0, s);
    s = fmaf(bf16_at(a, at + k * a.stride[1]), bf16_at(b, bt + k * b.stride[0]), s);
  }
  return s;
}

static double chain_f64(qd_tensor a, int64_t at, qd_tensor b, int64_t bt, int64_t n) {
  const double *x = (const double *)a.data + at, *y = (const double *)b.data + bt;
  double s = 0;
  for (int64_t k = 0; k < n; k++) s = fma(x[k * a.stride[1]], y[k * b.stride[0]], s);
  return s;
}

static void element_f32(qd_gemm_mode mode, qd_tensor a, int64_t i, qd_tensor b, int64_t j, float *c) {
  if (mode == QD_GEMM_SET && a.dim[1] == 0) *c = 0;
  for (int64_t k = 0; k < a.dim[1]; k += QD_PRODUCT_CHUNK) {
    int64_t n = a.dim[1] - k < QD_PRODUCT_CHUNK ? a.dim[1] - k : QD_PRODUCT_CHUNK;
    int64_t at = i * a.stride[0] + k * a.stride[1], bt = k * b.stride[0] + j * b.stride[1];
    float s = a.dtype == QD_BF16 ? chain_bf16(a, at, b, bt, n) : chain_f32(a, at, b, bt, n);
    *c = mode == QD_GEMM_SUBTRACT ? *c - s : mode == QD_GEMM_SET && k == 0 ? s : *c + s;
  }
}

static void element_f64(qd_gemm_mode mode, qd_tensor a, int64_t i, qd_tensor b, int64_t j, double *c) {
  if (mode == QD_GEMM_SET && a.dim[1] == 0) *c = 0;
  for (int64_t k = 0; k < a.dim[1]; k += QD_PRODUCT_CHUNK) {
    int64_t n = a.dim[1] - k < QD_PRODUCT_CHUNK ? a.dim[1] - k : QD_PRODUCT_CHUNK;
    double s = chain_f64(a, i * a.stride[0] + k * a.stride[1], b, k * b.stride[0] + j * b.stride[1], n);
    *c = mode == QD_GEMM_SUBTRACT ? *c - s : mode == QD_GEMM_SET && k == 0 ? s : *c + s;
  }
}

static void row(qd_gemm_mode mode, qd_tensor a, int64_t i, qd_tensor b, qd_tensor c) {
  for (int64_t j = 0; j < c.dim[1]; j++)
    if (a.dtype == QD_F64) element_f64(mode, a, i, b, j, (double *)c.data + i * c.stride[0] + j);
    else element_f32(mode, a, i, b, j, (float *)c.data + i * c.stride[0] + j);
}

void qd_gemm_serial(qd_device *device, int thread, qd_gemm_mode mode, qd_tensor a, qd_tensor b, qd_tensor c) {
  QD_ASSERT(thread >= 0 && thread < device->threads);
  for (int64_t i = 0; i < c.dim[0]; i++) row(mode, a, i, b, c);
}

void qd_gemm(qd_device *device, qd_gemm_mode mode, qd_tensor a, qd_tensor b, qd_tensor c) {
#pragma omp parallel for num_threads(device->threads) schedule(static)
  for (int64_t i = 0; i < c.dim[0]; i++) {
    qd_flush_denormals();
    row(mode, a, i, b, c);
  }
}
