/* What the files of the plan share: kinds of blocks, and what their tensors take. */
#ifndef QDIST_PIPELINE_PLAN_PARTS_H
#define QDIST_PIPELINE_PLAN_PARTS_H

#include "pipeline/plan.h"

static inline size_t qd_larger(size_t a, size_t b) { return a > b ? a : b; }

static inline size_t qd_plan_elements(const qd_slot *slot) {
  return (size_t)slot->dim[0] * (size_t)(slot->rank == 2 ? slot->dim[1] : 1);
}

/* Block `block` (or QD_REST) joins the kind it is of, or makes a new one. */
qd_status qd_plan_add_block(qd_plan *plan, int64_t block) QD_MUST_USE;

const qd_plan_kind   *qd_plan_rest(const qd_plan *plan);
const qd_plan_tensor *qd_plan_tensor_of(const qd_plan_kind *kind, qd_role role); /* NULL: it has none */

size_t qd_plan_original_bytes(const qd_plan_tensor *tensor);

/* Bytes of each part of a tensor in the store at most, in the order of qd_qtensor_parts; returns their number.  _cost: of an
 * arena. */
int    qd_plan_part_bytes(const qd_plan_tensor *tensor, size_t bytes[QD_MAX_PARTS]);
size_t qd_plan_parts_cost(const qd_plan_tensor *tensor);

/* What is kept of the inputs of a kind's stages: how many records; bytes of an arena, of this rank (-1: of all experts). */
int64_t qd_plan_input_records(const qd_plan *plan, const qd_plan_kind *kind);
size_t  qd_plan_inputs_cost(const qd_plan *plan, const qd_plan_kind *kind, int rank);

/* Whether a rank computes with a tensor. */
bool qd_plan_is_of(const qd_plan *plan, const qd_plan_tensor *tensor, int rank);

/* Of the finished store; of kept activations; read of the model; received by all ranks together. */
int64_t qd_plan_disk_bytes(const qd_plan *plan);
int64_t qd_plan_kept_bytes(const qd_plan_request *request);
int64_t qd_plan_read_bytes(const qd_plan *plan);
int     qd_plan_first_on_node(const qd_plan_request *request, int rank);
int64_t qd_plan_traffic_bytes(const qd_plan *plan);

size_t qd_plan_attention_scratch(const qd_device *device, const qd_model *model, qd_dtype act, int64_t tokens);

#endif
