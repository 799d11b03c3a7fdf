/* The setting of each linear of a planned job: bits, groups, method, what it falls back to; or why it is kept. */
#ifndef QDIST_PIPELINE_PLAN_SETTINGS_H
#define QDIST_PIPELINE_PLAN_SETTINGS_H

#include "pipeline/plan.h"

enum { QD_SETTING_BYTES = 512 };

/* Linears that are alike: one of each of `blocks` blocks, or `experts` of each. */
typedef struct qd_plan_setting {
  int64_t first_block, blocks; /* QD_REST: embedding and head */
  int64_t experts;             /* 0: no expert's */
  const qd_plan_tensor *tensor;
} qd_plan_setting;

/* Setting `index`, block by block in the family's order, then embedding and head; false past the end. */
bool qd_plan_setting_at(const qd_plan *plan, size_t index, qd_plan_setting *out);

/* "32 blocks as block 0: q_proj [4096, 4096]: gptq, 4 bits, groups of 128, zero points, ..." */
void qd_plan_setting_text(const qd_plan *plan, const qd_plan_setting *setting, char text[QD_SETTING_BYTES]);

/* Weights that are quantized. */
double qd_plan_weights(const qd_plan *plan);

#endif
