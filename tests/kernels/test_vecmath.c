#include "kernels/vecmath.h"
#include "kernels/device.h"

#include <criterion/criterion.h>

static uint64_t state = 0x9e3779b97f4a7c15u;

static uint64_t random_bits(void) {
  state ^= state << 13;
  state ^= state >> 7;
  return state ^= state << 17;
}

static double uniform(double low, double high) { return low + (high - low) * (double)(random_bits() >> 11) * 0x1p-53; }

/* |got - want| in units in the last place of a result with so many bits. */
static double ulp(long double got, long double want, int bits, int least) {
  int exponent;
  frexpl(want, &exponent);
  return (double)(fabsl(got - want) / ldexpl(1, (exponent < least ? least : exponent) - bits));
}

static double ulp32(float got, double want) { return ulp(got, want, 24, -125); }
static double ulp64(double got, long double want) { return ulp(got, want, 53, -1021); }

/* One float in 1499 of all, of both signs, except what counts as zero. */
static bool next_float(uint64_t *bits, float *x) {
  do {
    *bits += 1499;
    if (*bits > UINT32_MAX) return false;
    *x = qd_vm_float((uint32_t)*bits);
  } while (!(fabsf(*x) <= FLT_MAX) || fabsf(*x) < FLT_MIN);
  return true;
}

Test(vecmath, expf_is_near_over_all_floats) {
  float x;
  for (uint64_t bits = 0; next_float(&bits, &x);) {
    float y = qd_vm_expf(x);
    if (x > 88.7228317f) cr_assert_eq(y, INFINITY);
    else if (x < -87.3365402f) cr_assert_eq(y, 0);
    else cr_assert_leq(ulp32(y, exp(x)), 1.02, "%a", (double)x);
  }
}

Test(vecmath, exp2f_is_near_over_all_floats) {
  float x;
  for (uint64_t bits = 0; next_float(&bits, &x);) {
    float y = qd_vm_exp2f(x);
    if (x >= 128) cr_assert_eq(y, INFINITY);
    else if (x < -126) cr_assert_eq(y, 0);
    else cr_assert_leq(ulp32(y, exp2(x)), 0.96, "%a", (double)x);
  }
}

Test(vecmath, log2f_is_near_over_all_floats) {
  float x;
  for (uint64_t bits = 0; next_float(&bits, &x);)
    if (x > 0) cr_assert_leq(ulp32(qd_vm_log2f(x), log2(x)), 1.73, "%a", (double)x);
    else cr_assert(isnan(qd_vm_log2f(x)));
}

Test(vecmath, pow24f_ranks) {
  float x;
  for (uint64_t bits = 0; next_float(&bits, &x);) {
    double want = x > 0 ? pow(x, 2.4) : 0;
    if (x > 0 && want > 0x1.001p-126 && want < 0x1.ffep127)
      cr_assert_leq(fabs(qd_vm_pow24f(x) / want - 1), 0x6p-24 * (1 + fabs(log2(x))), "%a", (double)x);
  }
  cr_assert_eq(qd_vm_pow24f(0), 0);
  cr_assert_eq(qd_vm_pow24f(1), 1);
  cr_assert_eq(qd_vm_pow24f(1e-30f), 0);
  cr_assert_eq(qd_vm_pow24f(INFINITY), INFINITY);
  cr_assert(isnan(qd_vm_pow24f(-1)));
}

enum { N_DOUBLES = 300000 };

Test(vecmath, exp_and_exp2_are_near) {
  for (int i = 0; i < N_DOUBLES; i++) {
    double reach = i % 2 ? 1 : 700, x = uniform(-reach, reach);
    cr_assert_leq(ulp64(qd_vm_exp(x), expl(x)), 1.0, "%a", x);
    cr_assert_leq(ulp64(qd_vm_exp2(x), exp2l(x)), 0.9, "%a", x);
  }
}

Test(vecmath, log_and_log2_are_near) {
  for (int i = 0; i < N_DOUBLES; i++) {
    double x = ldexp(uniform(0.5, 1), (int)(random_bits() % 2040) - 1020);
    if (i % 2) x = uniform(0.5, 2);
    if (i % 4 == 3) x = 1 + ldexp(uniform(-1, 1), -(int)(random_bits() % 50) - 1);
    cr_assert_leq(ulp64(qd_vm_log(x), logl(x)), 0.66, "%a", x);
    cr_assert_leq(ulp64(qd_vm_log2(x), log2l(x)), 0.74, "%a", x);
  }
}

Test(vecmath, pow_is_near) {
  const double bases[] = {10000, 500000, 1000000, 150000, 2};
  for (int i = 0; i < N_DOUBLES; i++) {
    double base = i % 3 ? bases[i % 5] : exp(uniform(-40, 40)), y = i % 3 ? -(double)(i % 128) / 128 : uniform(-15, 15);
    cr_assert_leq(ulp64(qd_vm_pow(base, y), powl(base, y)), 1.25, "%a to %a", base, y);
  }
}

Test(vecmath, sine_and_cosine_are_near) {
  for (int i = 0; i < N_DOUBLES; i++) {
    double x = uniform(-1, 1) * ldexp(1, (int)(random_bits() % 26) - 1), s, c;
    if (i % 3 == 1) x = nextafter((double)(random_bits() % 10000000) * 1.5707963267948966, i % 2 ? 0 : 1e9); /* near a zero */
    if (i % 3 == 2) x = (double)(random_bits() % 0x1000001);
    qd_vm_sincos(x, &s, &c);
    cr_assert_leq(ulp64(s, sinl(x)), 0.8, "%a", x);
    cr_assert_leq(ulp64(c, cosl(x)), 0.8, "%a", x);
  }
}

Test(vecmath, floats_have_edges) {
  cr_assert_eq(qd_vm_expf(0), 1);
  cr_assert_eq(qd_vm_expf(-INFINITY), 0);
  cr_assert_eq(qd_vm_expf(INFINITY), INFINITY);
  cr_assert(qd_vm_expf(88.7228317f) <= FLT_MAX && qd_vm_expf(88.7228394f) == INFINITY);
  cr_assert(qd_vm_expf(-87.3365402f) >= FLT_MIN && qd_vm_expf(-87.3365479f) == 0);
  cr_assert(isnan(qd_vm_expf(NAN)));
  cr_assert_eq(qd_vm_exp2f(-126), FLT_MIN);
  cr_assert_eq(qd_vm_exp2f(127), 0x1p127f);
  cr_assert(qd_vm_exp2f(-126.00001f) == 0 && qd_vm_exp2f(-INFINITY) == 0);
  cr_assert(qd_vm_exp2f(128) == INFINITY && qd_vm_exp2f(INFINITY) == INFINITY);
  cr_assert(isnan(qd_vm_exp2f(NAN)));
  for (int k = -126; k < 128; k++) cr_assert_eq(qd_vm_log2f(ldexpf(1, k)), k);
  cr_assert(qd_vm_log2f(0) == -INFINITY && qd_vm_log2f(-0.0f) == -INFINITY && qd_vm_log2f(0x1p-140f) == -INFINITY);
  cr_assert(qd_vm_log2f(INFINITY) == INFINITY && isnan(qd_vm_log2f(-INFINITY)));
  cr_assert(isnan(qd_vm_log2f(-2)) && isnan(qd_vm_log2f(NAN)));
}

Test(vecmath, doubles_have_edges) {
  const double infinity = (double)INFINITY, nan = (double)NAN;
  double s, c;
  cr_assert(qd_vm_exp(0) == 1 && qd_vm_exp(-infinity) == 0 && qd_vm_exp(infinity) == infinity && isnan(qd_vm_exp(nan)));
  cr_assert(qd_vm_exp(709.782712893384) <= DBL_MAX && qd_vm_exp(709.7827128933842) == infinity);
  cr_assert(qd_vm_exp(-708.3964185322) >= DBL_MIN && qd_vm_exp(-708.39641854) == 0);
  cr_assert(qd_vm_exp2(-1022) == DBL_MIN && qd_vm_exp2(-1022.001) == 0);
  cr_assert(qd_vm_exp2(1023) == 0x1p1023 && qd_vm_exp2(1024) == infinity);
  cr_assert(qd_vm_exp2(-infinity) == 0 && qd_vm_exp2(infinity) == infinity && isnan(qd_vm_exp2(nan)));
  cr_assert(qd_vm_log(1) == 0 && qd_vm_log(0) == -infinity && qd_vm_log(-0.0) == -infinity);
  cr_assert(qd_vm_log(0x1p-1060) == -infinity);
  cr_assert(qd_vm_log(infinity) == infinity && isnan(qd_vm_log(-1)) && isnan(qd_vm_log(-infinity)) && isnan(qd_vm_log(nan)));
  cr_assert(qd_vm_log2(0x1p-1022) == -1022 && qd_vm_log2(0x1p1000) == 1000 && qd_vm_log2(0) == -infinity);
  cr_assert(qd_vm_log2(infinity) == infinity && isnan(qd_vm_log2(-1)) && isnan(qd_vm_log2(nan)));
  cr_assert(qd_vm_pow(10000, 0) == 1 && qd_vm_pow(10000, -1) == 1e-4 && qd_vm_pow(2, 10) == 1024 && isnan(qd_vm_pow(-2, 1)));
  qd_vm_sincos(0, &s, &c);
  cr_assert(s == 0 && c == 1);
  qd_vm_sincos(infinity, &s, &c);
  cr_assert(isnan(s) && isnan(c));
  qd_vm_sincos(nan, &s, &c);
  cr_assert(isnan(s) && isnan(c));
}

/* ---- the same bits in every instruction set ---- */

typedef struct results {
  float  f[4];
  double d[7];
} results;

static inline void evaluate(const float *f, const double *d, results *restrict out, int n) {
  for (int i = 0; i < n; i++) {
    out[i].f[0] = qd_vm_expf(f[i]);
    out[i].f[1] = qd_vm_exp2f(f[i]);
    out[i].f[2] = qd_vm_log2f(f[i]);
    out[i].f[3] = qd_vm_pow24f(f[i]);
    out[i].d[0] = qd_vm_exp(d[i]);
    out[i].d[1] = qd_vm_exp2(d[i]);
    out[i].d[2] = qd_vm_log(d[i]);
    out[i].d[3] = qd_vm_log2(d[i]);
    out[i].d[4] = qd_vm_pow(fabs(d[i]), 0.37);
    qd_vm_sincos(d[i], &out[i].d[5], &out[i].d[6]);
  }
}

static void evaluate_plainly(const float *f, const double *d, results *out, int n) { evaluate(f, d, out, n); }

#if defined(__x86_64__)
__attribute__((target("avx2,fma"))) static void evaluate_avx2(const float *f, const double *d, results *out, int n) {
  evaluate(f, d, out, n);
}

__attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,fma"))) static void evaluate_avx512(const float *f, const double *d,
                                                                                           results *out, int n) {
  evaluate(f, d, out, n);
}
#endif

static bool same(const results *a, const results *b, int n) {
  for (int i = 0; i < n; i++) {
    for (int k = 0; k < 4; k++)
      if (!(isnan(a[i].f[k]) && isnan(b[i].f[k])) && qd_vm_bits32(a[i].f[k]) != qd_vm_bits32(b[i].f[k])) return false;
    for (int k = 0; k < 7; k++)
      if (!(isnan(a[i].d[k]) && isnan(b[i].d[k])) && qd_vm_bits64(a[i].d[k]) != qd_vm_bits64(b[i].d[k])) return false;
  }
  return true;
}

Test(vecmath, every_instruction_set_gives_the_same_bits) {
  enum { N = 4096 };
  static float f[N];
  static double d[N];
  static results plain[N], other[N];
  for (int flush = 0; flush < 2; flush++) {
    for (int repeat = 0; repeat < 20; repeat++) {
      for (int i = 0; i < N; i++) {
        f[i] = i % 2 ? qd_vm_float((uint32_t)random_bits()) : (float)uniform(-100, 130);
        d[i] = i % 2 ? qd_vm_double(random_bits()) : uniform(-750, 750) * (i % 4 ? 1 : 1e4);
      }
      evaluate_plainly(f, d, plain, N);
#if defined(__x86_64__)
      if (qd_isa_best() >= QD_ISA_AVX2) {
        evaluate_avx2(f, d, other, N);
        cr_assert(same(plain, other, N));
      }
      if (qd_isa_best() >= QD_ISA_AVX512) {
        evaluate_avx512(f, d, other, N);
        cr_assert(same(plain, other, N));
      }
#endif
    }
    qd_flush_denormals();
  }
}
