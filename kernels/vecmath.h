/* Elementary functions that give the same bits in every instruction set and in scalar code.  They are made of correctly
 * rounded operations only (+ - * / fma, and scalings by powers of two through the exponent bits) and choose by selects, so
 * that a loop over them in a *_isa.c file is vectorised by the compiler.  Errors are in units in the last place (ulp) of the
 * result: floats measured over all floats against double, doubles over 10^8 arguments against long double.
 *
 * Nothing depends on denormals: results below the smallest normal number are 0, and a denormal argument counts as 0.  A NaN
 * gives a NaN.  The rounding mode is to nearest.
 *
 * Coefficients: Cephes (expf, exp2f, logf), fdlibm (log, sin, cos), Taylor (exp, exp2). */
#ifndef QDIST_KERNELS_VECMATH_H
#define QDIST_KERNELS_VECMATH_H

#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

static inline uint32_t qd_vm_bits32(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}

static inline float qd_vm_float(uint32_t bits) {
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

static inline uint64_t qd_vm_bits64(double x) {
  uint64_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}

static inline double qd_vm_double(uint64_t bits) {
  double x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

/* condition ? yes : no by bits: the compiler must not make it a branch, which would keep AVX2 loops scalar. */
static inline float qd_vm_pick32(bool condition, float yes, float no) {
  uint32_t mask = 0u - (uint32_t)condition;
  return qd_vm_float((qd_vm_bits32(yes) & mask) | (qd_vm_bits32(no) & ~mask));
}

static inline double qd_vm_pick64(bool condition, double yes, double no) {
  uint64_t mask = 0u - (uint64_t)condition;
  return qd_vm_double((qd_vm_bits64(yes) & mask) | (qd_vm_bits64(no) & ~mask));
}

/* Adding one of these rounds a small number to an integer, which then stands in the low bits of the sum. */
#define QD_VM_ROUND32 12582912.0f         /* 1.5 * 2^23 */
#define QD_VM_ROUND64 6755399441055744.0  /* 1.5 * 2^52 */

/* p * 2^n for -126 <= n <= 128, in two steps since 2^128 is no float; `shifted` is n + QD_VM_ROUND32. */
static inline float qd_vm_scale32(float p, float shifted) {
  uint32_t biased = qd_vm_bits32(shifted) - qd_vm_bits32(QD_VM_ROUND32) + 254u;
  uint32_t first = biased >> 1, second = biased - first;
  return p * qd_vm_float(first << 23) * qd_vm_float(second << 23);
}

static inline double qd_vm_scale64(double p, double shifted) {
  uint64_t biased = qd_vm_bits64(shifted) - qd_vm_bits64(QD_VM_ROUND64) + 2046u;
  uint64_t first = biased >> 1, second = biased - first;
  return p * qd_vm_double(first << 52) * qd_vm_double(second << 52);
}

/* e^x for every x: Inf above 88.72283, 0 below -87.33654.  At most 1.02 ulp. */
static inline float qd_vm_expf(float x) {
  float shifted = fmaf(x, 1.44269504f, QD_VM_ROUND32), n = shifted - QD_VM_ROUND32;
  float r = fmaf(n, 1.90465421e-9f, fmaf(n, -0.693147182f, x));
  float p = fmaf(1.9875691500e-4f, r, 1.3981999507e-3f);
  p = fmaf(p, r, 8.3334519073e-3f);
  p = fmaf(p, r, 4.1665795894e-2f);
  p = fmaf(p, r, 1.6666665459e-1f);
  p = fmaf(p, r, 5.0000001201e-1f);
  p = fmaf(p, r * r, r) + 1.0f;
  float y = qd_vm_scale32(p, shifted);
  y = qd_vm_pick32(x > 88.7228317f, INFINITY, y);
  return qd_vm_pick32(x < -87.3365402f, 0.0f, y);
}

/* 2^x for every x: Inf from 128 on, 0 below -126.  At most 0.96 ulp. */
static inline float qd_vm_exp2f(float x) {
  float shifted = x + QD_VM_ROUND32, r = x - (shifted - QD_VM_ROUND32);
  float p = fmaf(1.535336188319500e-4f, r, 1.339887440266574e-3f);
  p = fmaf(p, r, 9.618437357674640e-3f);
  p = fmaf(p, r, 5.550332471162809e-2f);
  p = fmaf(p, r, 2.402264791363012e-1f);
  p = fmaf(p, r, 6.931472028550421e-1f);
  p = fmaf(p, r, 1.0f);
  float y = qd_vm_scale32(p, shifted);
  y = qd_vm_pick32(x >= 128.0f, INFINITY, y);
  return qd_vm_pick32(x < -126.0f, 0.0f, y);
}

/* log2(x): -Inf for 0, NaN below 0, Inf for Inf.  At most 1.73 ulp. */
static inline float qd_vm_log2f(float x) {
  const uint32_t root_half = 0x3f3504f3u; /* x = 2^k m, m from sqrt(1/2) to sqrt(2) */
  uint32_t shifted = qd_vm_bits32(x) + (0x3f800000u - root_half);
  float k = qd_vm_float((shifted >> 23) | 0x4b000000u) - (8388608.0f + 127.0f);
  float f = qd_vm_float((shifted & 0x007fffffu) + root_half) - 1.0f;
  float p = fmaf(7.0376836292e-2f, f, -1.1514610310e-1f);
  p = fmaf(p, f, 1.1676998740e-1f);
  p = fmaf(p, f, -1.2420140846e-1f);
  p = fmaf(p, f, 1.4249322787e-1f);
  p = fmaf(p, f, -1.6668057665e-1f);
  p = fmaf(p, f, 2.0000714765e-1f);
  p = fmaf(p, f, -2.4999993993e-1f);
  p = fmaf(p, f, 3.3333331174e-1f);
  float square = f * f, rest = square * fmaf(p, f, -0.5f); /* log(1 + f) = f + rest */
  float y = fmaf(f, 1.44269502f, k + fmaf(rest, 1.44269502f, f * 1.92596303e-8f));
  y = qd_vm_pick32(x <= FLT_MAX, y, x); /* Inf and NaN */
  y = qd_vm_pick32(x < FLT_MIN, -INFINITY, y);
  return qd_vm_pick32(x <= -FLT_MIN, NAN, y);
}

/* x^2.4 for x >= 0 as 2^(2.4 log2 x); 0 for 0, NaN below 0.  Relative error at most 2^-24 * 6 (1 + |log2 x|): good enough to
 * rank sums of such powers. */
static inline float qd_vm_pow24f(float x) { return qd_vm_exp2f(2.4f * qd_vm_log2f(x)); }

/* e^x for every x: Inf above 709.7827, 0 below -708.3964.  At most 1.0 ulp. */
static inline double qd_vm_exp(double x) {
  double shifted = fma(x, 1.4426950408889634, QD_VM_ROUND64), n = shifted - QD_VM_ROUND64;
  double r = fma(n, -2.3190468138462996e-17, fma(n, -0.6931471805599453, x));
  double p = fma(1.0 / 6227020800.0, r, 1.0 / 479001600.0);
  p = fma(p, r, 1.0 / 39916800.0);
  p = fma(p, r, 1.0 / 3628800.0);
  p = fma(p, r, 1.0 / 362880.0);
  p = fma(p, r, 1.0 / 40320.0);
  p = fma(p, r, 1.0 / 5040.0);
  p = fma(p, r, 1.0 / 720.0);
  p = fma(p, r, 1.0 / 120.0);
  p = fma(p, r, 1.0 / 24.0);
  p = fma(p, r, 1.0 / 6.0);
  p = fma(p, r, 0.5);
  p = fma(p, r * r, r) + 1.0;
  double y = qd_vm_scale64(p, shifted);
  y = qd_vm_pick64(x > 709.782712893384, (double)INFINITY, y);
  return qd_vm_pick64(x < -708.3964185322, 0.0, y);
}

/* 2^(x + low), |low| far below 1: Inf from 1024 on, 0 below -1022 (both judged by x). */
static inline double qd_vm_exp2_pair(double x, double low) {
  double shifted = x + QD_VM_ROUND64, r = x - (shifted - QD_VM_ROUND64);
  double p = fma(1.3691488853904128e-12, r, 2.5678435993488206e-11); /* ln(2)^k / k! */
  p = fma(p, r, 4.4455382718708110e-10);
  p = fma(p, r, 7.0549116208011230e-9);
  p = fma(p, r, 1.0178086009239699e-7);
  p = fma(p, r, 1.3215486790144309e-6);
  p = fma(p, r, 1.5252733804059840e-5);
  p = fma(p, r, 1.5403530393381609e-4);
  p = fma(p, r, 1.3333558146428443e-3);
  p = fma(p, r, 9.6181291076284772e-3);
  p = fma(p, r, 5.5504108664821579e-2);
  p = fma(p, r, 2.4022650695910071e-1);
  double square = r * r, power = fma(p, square, fma(r, 0.6931471805599453, 1.0)); /* 2^r, nearly */
  double q = fma(low, 0.6931471805599453, r * 2.3190468138462996e-17);
  p = fma(r, 0.6931471805599453, fma(p, square, q * power)) + 1.0;
  double y = qd_vm_scale64(p, shifted);
  y = qd_vm_pick64(x >= 1024.0, (double)INFINITY, y);
  return qd_vm_pick64(x < -1022.0, 0.0, y);
}

/* 2^x for every x: Inf from 1024 on, 0 below -1022.  At most 0.9 ulp. */
static inline double qd_vm_exp2(double x) { return qd_vm_exp2_pair(x, 0.0); }

/* x = 2^k m, m from sqrt(1/2) to sqrt(2), and log(m) = high + low to about 2^-58; |low| may reach |high| / 8. */
static inline double qd_vm_log_parts(double x, double *high, double *low) {
  const uint64_t root_half = 0x3fe6a09e667f3bcdu;
  uint64_t shifted = qd_vm_bits64(x) + (0x3ff0000000000000u - root_half);
  double k = qd_vm_double((shifted >> 52) | 0x4330000000000000u) - (4503599627370496.0 + 1023.0);
  double f = qd_vm_double((shifted & 0x000fffffffffffffu) + root_half) - 1.0;
  double s = f / (2.0 + f), z = s * s;
  double p = fma(1.479819860511658591e-1, z, 1.531383769920937332e-1);
  p = fma(p, z, 1.818357216161805012e-1);
  p = fma(p, z, 2.222219843214978396e-1);
  p = fma(p, z, 2.857142874366239149e-1);
  p = fma(p, z, 3.999999999940941908e-1);
  p = fma(p, z, 6.666666666666735130e-1);
  double half = 0.5 * f, square = half * f, square_low = fma(half, f, -square);
  *high = f - square;
  *low = fma(s, fma(p, z, square), ((f - *high) - square) - square_low);
  return k;
}

/* Logarithms beyond the normal numbers: Inf for Inf, -Inf for 0, NaN below 0. */
static inline double qd_vm_log_edges(double x, double y) {
  y = qd_vm_pick64(x <= DBL_MAX, y, x); /* Inf and NaN */
  y = qd_vm_pick64(x < DBL_MIN, -(double)INFINITY, y);
  return qd_vm_pick64(x <= -DBL_MIN, (double)NAN, y);
}

/* log(x): -Inf for 0, NaN below 0, Inf for Inf.  At most 0.66 ulp. */
static inline double qd_vm_log(double x) {
  double high, low, k = qd_vm_log_parts(x, &high, &low);
  double whole = k * 0.693147180369123816490, sum = whole + high; /* exact: the constant has 32 bits */
  double rest = ((whole - sum) + high) + fma(k, 1.90821492927058770002e-10, low);
  return qd_vm_log_edges(x, sum + rest);
}

/* log2(x) = *high + *low, high the sum rounded; high has the edges of qd_vm_log, low is then unspecified. */
static inline void qd_vm_log2_pair(double x, double *high, double *low) {
  double mantissa, rest, k = qd_vm_log_parts(x, &mantissa, &rest);
  double product = mantissa * 1.4426950408889634, error = fma(mantissa, 1.4426950408889634, -product);
  error = fma(mantissa, 2.0355273740931033e-17, fma(rest, 1.4426950408889634, error));
  double sum = k + product, rest_of_sum = ((k - sum) + product) + error, total = sum + rest_of_sum;
  *low = (sum - total) + rest_of_sum;
  *high = qd_vm_log_edges(x, total);
}

/* log2(x): -Inf for 0, NaN below 0, Inf for Inf.  At most 0.74 ulp. */
static inline double qd_vm_log2(double x) {
  double high, low;
  qd_vm_log2_pair(x, &high, &low);
  return high;
}

/* base^y for a normal base > 0 and |y log2(base)| up to 1022.  At most 1.25 ulp.  NaN for base < 0; 0 or Inf: unspecified. */
static inline double qd_vm_pow(double base, double y) {
  double high, low;
  qd_vm_log2_pair(base, &high, &low);
  double product = y * high;
  return qd_vm_exp2_pair(product, fma(y, low, fma(y, high, -product)));
}

/* Sine and cosine for |x| <= 2^24.  x - n pi/2 is formed from three parts of pi/2: the first difference is exact, the second
 * is kept with its error.  At most 0.8 ulp.  NaN for infinities; beyond 2^24 accuracy fades. */
static inline void qd_vm_sincos(double x, double *sine, double *cosine) {
  double shifted = fma(x, 0.6366197723675814, QD_VM_ROUND64), n = shifted - QD_VM_ROUND64;
  double first = fma(n, -1.5707963267948966, x);
  double product = n * 6.123233995736766e-17, product_low = fma(n, 6.123233995736766e-17, -product);
  double r = first - product, back = r - first;
  double low = (first - (r - back)) - (product + back);
  low = (low - product_low) - n * -1.4973849048591698e-33;
  double z = r * r, cube = z * r;
  double p = fma(1.58969099521155010221e-10, z, -2.50507602534068634195e-8);
  p = fma(p, z, 2.75573137070700676789e-6);
  p = fma(p, z, -1.98412698298579493134e-4);
  p = fma(p, z, 8.33333333332248946124e-3);
  double s = r - fma(cube, 1.66666666666666324348e-1, fma(z, fma(0.5, low, -(cube * p)), -low));
  double q = fma(-1.13596475577881948265e-11, z, 2.08757232129817482790e-9);
  q = fma(q, z, -2.75573143513906633035e-7);
  q = fma(q, z, 2.48015872894767294178e-5);
  q = fma(q, z, -1.38888888888741095749e-3);
  q = fma(q, z, 4.16666666666666019037e-2);
  double half = 0.5 * z, w = 1.0 - half;
  double c = w + (((1.0 - w) - half) + fma(z * z, q, -(r * low)));
  uint64_t quadrant = qd_vm_bits64(shifted);
  uint64_t swap = 0u - (quadrant & 1u), s_bits = qd_vm_bits64(s), c_bits = qd_vm_bits64(c);
  uint64_t both = (s_bits ^ c_bits) & swap;
  *sine = qd_vm_double((s_bits ^ both) ^ ((quadrant & 2u) << 62));
  *cosine = qd_vm_double((c_bits ^ both) ^ (((quadrant + 1u) & 2u) << 62));
}

#endif
