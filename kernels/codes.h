/* Packed codes, row by row, for each instruction set; under pack, unpack, dequant and qlinear. */
#ifndef QDIST_KERNELS_CODES_H
#define QDIST_KERNELS_CODES_H

#include "kernels/isa.h"
#include "kernels/qtensor.h"

enum { QD_CODES_RUN = 256 }; /* codes that are unpacked at a time */

/* n codes <-> (n * bits + 7) / 8 bytes; no byte beyond them is read or written. */
QD_ISA_DECLARE(void, qd_codes_pack, (const uint8_t *codes, int64_t n, int bits, uint8_t *packed));
QD_ISA_DECLARE(void, qd_codes_unpack, (const uint8_t *packed, int64_t n, int bits, uint8_t *codes));

/* Effective weights of one row at stored positions [first, first + n), first a multiple of 8; `out` F32, or BF16 (rounded). */
QD_ISA_DECLARE(void, qd_codes_dequantize,
               (const qd_qtensor *q, int64_t row, int64_t first, int64_t n, qd_dtype dtype, void *out));

/* y = round(sum + bias) for n elements; bias NULL: y = round(sum).  y F32 or BF16. */
QD_ISA_DECLARE(void, qd_round_row, (const float *sum, const float *bias, int64_t n, qd_dtype dtype, void *y));

#endif
