/* Intel's tile unit (AMX): whether it may be used, and its registers for the matrix kernel.  Registers 0 to 3 are sums, 4 and 5
 * rows of a, 6 and 7 columns of b; 0, 1 and 4 have the first 16 rows of a panel of a, 2, 3 and 5 the others. */
#ifndef QDIST_KERNELS_AMX_H
#define QDIST_KERNELS_AMX_H

#include <stdbool.h>

/* True where the CPU multiplies bf16 tiles and the system lets this process use them: asked for at the first call, for all
 * threads.  False on other architectures. */
bool qd_amx_is_usable(void);

#if defined(__x86_64__)
#include <immintrin.h>

#define QD_AMX_TARGET __attribute__((target("amx-tile,amx-bf16")))

/* Registers of the calling thread for panels of a of `rows` rows (1 to 32), all zero; and back to none, which spares the system
 * saving them. */
void qd_amx_begin(int rows);
void qd_amx_end(void);
#endif

#endif
