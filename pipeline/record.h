/* Between a block in memory and the records of a store. */
#ifndef QDIST_PIPELINE_RECORD_H
#define QDIST_PIPELINE_RECORD_H

#include "pipeline/block.h"

/* A linear input's statistics. */
typedef struct qd_input_result {
  char      name[32]; /* "qkv_input" */
  int       expert;   /* -1: none */
  qd_tensor diagonal; /* F64 (C): undamped diagonal of X^T X */
  int64_t   tokens;
} qd_input_result;

bool qd_record_is_quantized(const qd_record *record);

/* Weights that are kept as they are beside the codes. */
int64_t qd_record_outliers(const qd_record *record);

/* The scheme of a "uniform" record, from its facts; QD_ECORRUPT. */
qd_status qd_record_scheme(const qd_record *record, const char *what, qd_scheme *out) QD_MUST_USE;

/* Parts, shapes and dtypes are what the scheme asks for; QD_ECORRUPT with `what` in the message. */
qd_status qd_record_check(const qd_record *record, const char *what) QD_MUST_USE;

/* Part `part` of a checked record lies at `data`: enter it into q (scheme, rows and columns are set as well). */
qd_status qd_record_bind_part(const qd_record *record, int part, void *data, qd_qtensor *q) QD_MUST_USE;

/* Records to write; their parts' tensors go to `tensors` (qd_weight's own, one a part), file and dataset are set by the caller.
 */
void qd_record_of_weight(const qd_weight *weight, qd_record *record, qd_tensor tensors[QD_MAX_PARTS]);
void qd_record_of_input(const qd_input_result *input, int64_t block, qd_record *record, qd_tensor tensors[QD_MAX_PARTS]);

#endif
