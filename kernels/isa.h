/* One source, compiled for each instruction set: files named *_isa.c are built once with QD_ISA_SUFFIX avx2, once with avx512
 * (and with portable where neither exists).  Only instructions differ, never the order of arithmetic. */
#ifndef QDIST_KERNELS_ISA_H
#define QDIST_KERNELS_ISA_H

#include "kernels/device.h"

#define QD_ISA_PASTE2(name, suffix) name##_##suffix
#define QD_ISA_PASTE(name, suffix) QD_ISA_PASTE2(name, suffix)

/* In a *_isa.c file: the name of a function of this build.  QD_ISA(exp) is exp_avx2 ... */
#ifdef QD_ISA_SUFFIX
#define QD_ISA(name) QD_ISA_PASTE(name, QD_ISA_SUFFIX)
#endif

/* In a *_cpu.c file: call the build that the device may use.  QD_ISA_CALL(device, qd_vec_exp, (x, y, n)). */
#if defined(__x86_64__)
#define QD_ISA_CALL(device, name, arguments) \
  ((device)->isa >= QD_ISA_AVX512 ? name##_avx512 arguments : name##_avx2 arguments)
#define QD_ISA_DECLARE(type, name, parameters) \
  type name##_avx2 parameters;                 \
  type name##_avx512 parameters
#else
#define QD_ISA_CALL(device, name, arguments) ((void)(device), name##_portable arguments)
#define QD_ISA_DECLARE(type, name, parameters) type name##_portable parameters
#endif

#endif
