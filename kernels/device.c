#include "kernels/device.h"

#include "kernels/amx.h"
#include "kernels/ops_table.h"
#include "kernels/unit_proof.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#endif

enum { MAX_THREADS = 1024 };
static const size_t default_scratch_bytes = (size_t)64 << 30;

size_t qd_cpu_packing_bytes(int threads); /* gemm_cpu.c: what the packing buffers of so many threads take */

const char *qd_isa_name(qd_isa isa) {
  static const char *const names[] = {"portable", "avx2", "avx512", "avx512_bf16", "amx"};
  return names[isa];
}

const char *qd_arithmetic_name(qd_arithmetic arithmetic) {
  static const char *const names[] = {"f32", "bf16-pairs", "bf16-amx", "int8"};
  return names[arithmetic];
}

#if defined(__x86_64__)
/* Not every compiler knows this feature by name. */
static bool has_f16c(void) {
  unsigned a, b, c = 0, d;
  return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
}
#endif

qd_isa qd_isa_best(void) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !has_f16c()) return QD_ISA_PORTABLE;
  bool wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
              __builtin_cpu_supports("avx512vl");
  if (!wide) return QD_ISA_AVX2;
  if (!__builtin_cpu_supports("avx512bf16")) return QD_ISA_AVX512;
  return qd_amx_is_usable() ? QD_ISA_AMX : QD_ISA_AVX512_BF16;
#else
  return QD_ISA_PORTABLE;
#endif
}

const char *qd_cpu_model(void) {
  static char model[64];
#if defined(__x86_64__)
  unsigned registers[12];
  for (unsigned i = 0; i < 3; i++)
    if (!__get_cpuid(0x80000002u + i, &registers[4 * i], &registers[4 * i + 1], &registers[4 * i + 2], &registers[4 * i + 3]))
      return "x86-64 CPU";
  memcpy(model, registers, 48);
  for (size_t n = strlen(model); n > 0 && model[n - 1] == ' '; n--) model[n - 1] = '\0';
#else
  snprintf(model, sizeof model, "CPU of another architecture");
#endif
  return model;
}

void qd_flush_denormals(void) {
#if defined(__x86_64__)
  _mm_setcsr(_mm_getcsr() | 0x8040u);
#elif defined(__aarch64__)
  uint64_t control;
  __asm__ volatile("mrs %0, fpcr" : "=r"(control));
  __asm__ volatile("msr fpcr, %0" : : "r"(control | (1ull << 24)));
#endif
}

/* Intel's cores take two cycles for a VDPBF16PS, in which they do four multiply-adds of fp32 vectors: the same products. */
static bool pairs_are_slow(void) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  return __builtin_cpu_is("intel");
#else
  return false;
#endif
}

/* The limit that is set, by option or else by the environment; NULL: none. */
static const char *limit_of(const char *wanted) {
  if (wanted == NULL || wanted[0] == '\0') wanted = getenv("QDIST_ISA");
  return wanted == NULL || wanted[0] == '\0' ? NULL : wanted;
}

static bool asks_for(const char *wanted, qd_isa isa) {
  const char *limit = limit_of(wanted);
  return limit != NULL && strcmp(limit, qd_isa_name(isa)) == 0;
}

static qd_status choose_isa(const char *wanted, qd_isa *out) {
  qd_isa best = qd_isa_best();
#if defined(__x86_64__)
  QD_CHECK(best != QD_ISA_PORTABLE, QD_EUNSUPPORTED, "this CPU (%s) has no AVX2 with FMA, which qdist needs", qd_cpu_model());
#endif
  *out = best;
  wanted = limit_of(wanted);
  if (wanted == NULL) return QD_OK;
  for (qd_isa isa = QD_ISA_PORTABLE; isa <= QD_ISA_AMX; isa++)
    if (strcmp(wanted, qd_isa_name(isa)) == 0 && (isa != QD_ISA_PORTABLE || best == QD_ISA_PORTABLE)) {
      QD_CHECK(isa <= best, QD_EUSAGE, "--isa %s: this CPU (%s) has no more than %s", wanted, qd_cpu_model(),
               qd_isa_name(best));
      *out = isa;
      return QD_OK;
    }
  QD_FAIL(QD_EUSAGE, "--isa takes avx2, avx512, avx512_bf16 or amx, got \"%s\"", wanted);
}

static int choose_threads(int wanted) {
  if (wanted == 0) {
    const char *text = getenv("OMP_NUM_THREADS");
    wanted = text ? (int)strtol(text, NULL, 10) : 1;
  }
  return wanted < 1 ? 1 : wanted > MAX_THREADS ? MAX_THREADS : wanted;
}

static const qd_ops *find_ops(const char *name) {
  if (strcmp(name, "cpu") == 0) return &qd_ops_cpu;
  if (strcmp(name, "ref") == 0) return &qd_ops_ref;
#ifdef QDIST_REF64
  if (strcmp(name, "ref64") == 0) return &qd_ops_ref64;
#endif
  return NULL;
}

qd_status qd_device_open(qd_device *device, qd_device_options options) {
  *device = (qd_device){.name = options.name, .threads = choose_threads(options.threads), .ops = find_ops(options.name)};
  QD_CHECK(device->ops != NULL, QD_EUSAGE, "there is no device \"%s\"", options.name);
  QD_TRY(choose_isa(options.isa, &device->isa));
  device->widens_pairs = pairs_are_slow() && !asks_for(options.isa, QD_ISA_AVX512_BF16);
  qd_flush_denormals();
  QD_TRY(qd_device_reserve(device, options.scratch_bytes ? options.scratch_bytes : default_scratch_bytes));
  qd_status status = qd_device_use_arithmetic(device, QD_ARITHMETIC_BF16_PAIRS);
  if (status != QD_OK) qd_device_close(device);
  return status;
}

qd_status qd_device_use_arithmetic(qd_device *device, qd_arithmetic arithmetic) {
  bool has_bf16 = arithmetic == QD_ARITHMETIC_BF16_PAIRS || arithmetic == QD_ARITHMETIC_BF16_AMX;
  device->arithmetic = arithmetic;
  return has_bf16 ? qd_unit_prove(device) : QD_OK;
}

size_t qd_device_packing_bytes(const qd_device *device) { return qd_cpu_packing_bytes(device->threads); }

qd_status qd_device_reserve(qd_device *device, size_t scratch_bytes) {
  size_t packing = qd_device_packing_bytes(device);
  QD_ASSERT(device->scratch.base == NULL || device->scratch.used_bytes == qd_arena_cost(packing, 1));
  qd_arena_close(&device->scratch);
  QD_TRY(qd_arena_open(&device->scratch, "scratch", qd_arena_cost(packing, 1) + scratch_bytes));
  qd_status status = qd_arena_new(&device->scratch, packing, 1, &device->packing);
  if (status != QD_OK) qd_device_close(device);
  return status;
}

void qd_device_close(qd_device *device) {
  qd_arena_close(&device->scratch);
  *device = (qd_device){.name = device->name};
}
