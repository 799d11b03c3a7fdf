/* A weight that stays in memory for many products with few tokens: in panels of as many rows as a register tile has columns, so
 * that rows lie in lanes and the chain over k stays what it is.  A quantized weight keeps its codes packed.
 *
 * Panels are made by an operation (qd_panels_dense, qd_panels_quantized in ops.h), belong to the units of the device that made
 * them and own nothing: their memory is the arena's. */
#ifndef QDIST_KERNELS_PANELS_H
#define QDIST_KERNELS_PANELS_H

#include "kernels/device.h"
#include "kernels/qtensor.h"

typedef struct qd_panels {
  qd_dtype   act;           /* F32 or BF16: of the x to come                                                              */
  qd_arithmetic arithmetic; /* of the device when they were made                                                          */
  int64_t    rows, columns;
  bool       quantized;
  qd_qtensor q;             /* scheme, order and outliers, copied; its other parts only where width is 0                   */
  qd_tensor  w;             /* a dense weight where width is 0                                                             */
  int        width;         /* rows of a panel; 0: the device multiplies by copies of what was given                       */
  void      *data;          /* chunk by chunk of 256 columns, panel by panel: elements as the matrix kernel packs them, or codes
                               (panels_isa.h)                                                                              */
  void      *scales;        /* of q's dtype, (G, rows filled up to pairs of panels); F32 of SpQR's grid                       */
  uint8_t   *zeros;         /* (G, the same)                                                                               */
  float     *real_zeros;    /* (G, the same), instead of zeros: of SpQR's grid                                             */
  bool       positive;      /* all scales are F16, positive and finite                                                     */
} qd_panels;

/* Bytes of the arena that panels of such a weight take: scheme NULL for a dense one.  Of SpQR's grid it is without outliers. */
size_t qd_panels_bytes(const qd_device *device, qd_dtype act, int64_t rows, int64_t columns, const qd_scheme *scheme,
                       bool has_order);

/* What n outliers among so many columns add. */
size_t qd_panels_outlier_bytes(int64_t columns, int64_t n);

/* Bytes of copies of the parts, without order and outliers: all that the plain loops keep of a quantized weight. */
size_t qd_panels_copies_bytes(int64_t rows, int64_t columns, qd_scheme scheme);

/* The cpu device's, beside the code that takes them. */
size_t qd_cpu_panels_bytes(const qd_device *device, qd_dtype act, int64_t rows, int64_t columns, const qd_scheme *scheme);
int    qd_cpu_panel_width(const qd_device *device);

#endif
