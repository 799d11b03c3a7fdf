/* What methods on a uniform grid share: unpacked codes, scales and zero points in scratch, and their way into a qtensor. */
#ifndef QDIST_PIPELINE_METHOD_CODES_H
#define QDIST_PIPELINE_METHOD_CODES_H

#include "pipeline/method.h"

typedef struct qd_method_grid {
  qd_tensor code;  /* U8 (R, C) by stored position */
  qd_tensor scale; /* F32 (R, G) */
  qd_tensor zero;  /* U8 (R, G) */
} qd_method_grid;

/* What such a grid takes of the scratch. */
size_t qd_method_grid_bytes(const qd_method_input *input);

/* From the device's scratch, which the caller marks and rewinds. */
qd_status qd_method_grid_new(const qd_method_input *input, qd_method_grid *grid) QD_MUST_USE;

/* Pack the codes, store scales in their dtype and zero points unless symmetric. */
qd_status qd_method_grid_store(const qd_method_input *input, const qd_method_grid *grid, qd_qtensor *q) QD_MUST_USE;

#endif
