/* All tensors of a block of a small model. */
#ifndef QDIST_TESTS_PIPELINE_SLOTS_SUPPORT_H
#define QDIST_TESTS_PIPELINE_SLOTS_SUPPORT_H

#include "pipeline/model.h"

#include <criterion/criterion.h>

enum { MAX_SLOTS = 64 };

static inline int all_slots(const qd_model *model, int64_t block, qd_slot slots[MAX_SLOTS]) {
  int n = qd_model_n_slots(model, block);
  cr_assert_leq(n, MAX_SLOTS);
  for (int i = 0; i < n; i++) qd_model_slot(model, block, i, &slots[i]);
  return n;
}

#endif
