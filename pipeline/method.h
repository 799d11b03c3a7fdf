/* A method turns the rows of one linear into codes.  It gets everything it needs, never communicates and never allocates
 * outside the device's scratch: so each method is one file, and any split of the rows over ranks gives the same bits. */
#ifndef QDIST_PIPELINE_METHOD_H
#define QDIST_PIPELINE_METHOD_H

#include "kernels/ops.h"

typedef enum qd_act_order { QD_ORDER_NONE, QD_ORDER_STATIC, QD_ORDER_DYNAMIC, QD_ORDER_GROUP, QD_ORDER_SPEARMAN } qd_act_order;

typedef struct qd_method_input {
  qd_device *device;
  qd_scheme  scheme;
  qd_act_order act_order;
  int64_t    block;      /* columns of a GPTQ block */
  qd_tensor  w;          /* F32 (R, C): some rows of the linear; may be overwritten */
  qd_tri     u;          /* F32, of the factor in processing order; data NULL: there is none */
  qd_tri     p;          /* F32, GPTAQ's P in processing order; of 0 columns: there is none */
  qd_tensor  order;      /* I32 (C): column at each processing position */
  qd_tensor  dead;       /* U8 (C): 1 where the input is always zero */
  double     tau;        /* SpQR: the squared error beyond which a weight is an outlier; INFINITY: none is */
  bool       simplified; /* SpQR: grids are fitted as if there were no outliers */
} qd_method_input;

typedef struct qd_method {
  const char *name;
  const char *summary;        /* for --help */
  bool        needs_factor;   /* calibration data and the Hessian's factor */
  bool        has_outliers;   /* by a threshold that couples rows; without a factor the method itself rounds, with U = 1 */
  bool        default_mse;    /* settings of --method NAME alone */
  qd_act_order default_act_order;
  /* Fill q (rows of the linear: codes, scales, zeros; order if it has one).  QD_ENUMERIC names row and group. */
  qd_status (*quantize)(const qd_method_input *input, qd_qtensor *q) QD_MUST_USE;
  /* What quantize takes of the scratch at most; no data is read. */
  size_t (*scratch_bytes)(const qd_method_input *input);
} qd_method;

#define QD_METHOD(name) extern const qd_method qd_method_##name;
#include "pipeline/methods.def"
#undef QD_METHOD

const qd_method *qd_method_find(const char *name); /* NULL: unknown */
const char      *qd_method_names(void);
const qd_method *qd_method_at(int index);          /* NULL past the end */

/* Processing order of the columns (gptq card, section 3): none 0 .. C - 1; static, dynamic: diagonal descending, lower index
 * first among equals; group: groups by their largest diagonal, descending, the columns of each alike.   diagonal F32 (C), order
 * I32 (C). */
qd_status qd_method_order(qd_act_order act_order, int64_t group_size, const float *diagonal, int64_t columns,
                          int32_t *order) QD_MUST_USE;

/* Whether a linear quantized so is stored in processing order (dynamic groups over an act-order; SpQR's
 * always). */
static inline bool qd_method_stores_order(qd_act_order act_order, qd_scheme scheme, int64_t columns) {
  if (scheme.spqr) return act_order != QD_ORDER_NONE;
  return act_order == QD_ORDER_DYNAMIC && qd_scheme_groups(scheme, columns) > 1;
}

#endif
