#include "pipeline/plan_parts.h"

#include "kernels/base/heap.h"
#include "pipeline/outliers.h"
#include "storage/store.h"

/* ---- kinds of blocks ----------------------------------------------------------------------------------------------------- */

static void fill_tensor(const qd_plan_request *r, const qd_slot *slot, qd_plan_tensor *t) {
  const qd_source_tensor *there = r->source != NULL ? qd_model_original(r->model, r->source, slot) : NULL;
  *t = (qd_plan_tensor){.slot = *slot, .dtype = there != NULL ? there->dtype : r->model->dtype};
  t->fate = qd_role_is_linear(slot->role) ? qd_job_scheme(r->job, slot->name, slot->dim[1], &t->scheme)
                                          : qd_job_rest_scheme(r->job, slot->role, slot->dim[1], &t->scheme);
  t->quantized = qd_fate_is_quantized(t->fate);
  t->has_order = t->quantized && slot->role != QD_EMBEDDING && r->job->method->needs_factor &&
                 qd_method_stores_order(r->job->act_order, t->scheme, slot->dim[1]);
}

static bool same_scheme(const qd_scheme *a, const qd_scheme *b) { return a->bits == b->bits && a->group_size == b->group_size; }

static bool same_kind(const qd_plan_kind *a, const qd_plan_kind *b) {
  bool same = a->n == b->n;
  for (int i = 0; same && i < a->n; i++) {
    const qd_plan_tensor *x = &a->tensor[i], *y = &b->tensor[i];
    same = x->slot.role == y->slot.role && x->dtype == y->dtype && x->fate == y->fate &&
           same_scheme(&x->scheme, &y->scheme);
  }
  return same;
}

static bool join_kind(qd_plan *plan, const qd_plan_kind *kind) {
  for (size_t k = 0; kind->first_block != QD_REST && k < plan->n_kinds; k++)
    if (same_kind(&plan->kind[k], kind)) return plan->kind[k].blocks++, true;
  return false;
}

qd_status qd_plan_add_block(qd_plan *plan, int64_t block) {
  qd_model stored = *plan->request.model;
  const qd_model *model = &stored;
  stored.tied = stored.tied && !qd_job_unties(plan->request.job, model);
  qd_plan_kind kind = {.blocks = 1, .first_block = block, .n = qd_model_n_slots(model, block)};
  QD_TRY(qd_heap_grow(&plan->kind, &plan->kind_capacity, plan->n_kinds + 1, sizeof *plan->kind));
  QD_TRY(qd_heap_new((size_t)kind.n, sizeof *kind.tensor, &kind.tensor));
  for (int i = 0; i < kind.n; i++) {
    qd_slot slot;
    qd_model_slot(model, block, i, &slot);
    fill_tensor(&plan->request, &slot, &kind.tensor[i]);
  }
  if (join_kind(plan, &kind)) qd_heap_free(kind.tensor);
  else plan->kind[plan->n_kinds++] = kind;
  return QD_OK;
}

const qd_plan_kind *qd_plan_rest(const qd_plan *plan) { return &plan->kind[plan->n_kinds - 1]; }

const qd_plan_tensor *qd_plan_tensor_of(const qd_plan_kind *kind, qd_role role) {
  for (int i = 0; i < kind->n; i++)
    if (kind->tensor[i].slot.role == role) return &kind->tensor[i];
  return NULL;
}

size_t qd_plan_original_bytes(const qd_plan_tensor *t) { return qd_plan_elements(&t->slot) * qd_dtype_bytes(t->dtype); }

/* ---- parts of tensors ---------------------------------------------------------------------------------------------------- */

int qd_plan_part_bytes(const qd_plan_tensor *t, size_t bytes[QD_MAX_PARTS]) {
  qd_part parts[QD_MAX_PARTS];
  if (!t->quantized) return bytes[0] = qd_plan_original_bytes(t), 1;
  qd_qtensor q = qd_qtensor_shape(t->scheme, t->slot.dim[0], t->slot.dim[1], t->has_order);
  qd_outliers_shape(&q, qd_outliers_most(q.rows, q.columns));
  int n = qd_qtensor_parts(&q, parts);
  for (int i = 0; i < n; i++) bytes[i] = qd_tensor_bytes(parts[i].tensor);
  return n;
}

size_t qd_plan_parts_cost(const qd_plan_tensor *t) {
  size_t bytes[QD_MAX_PARTS], cost = 0;
  int n = qd_plan_part_bytes(t, bytes);
  for (int i = 0; i < n; i++) cost += qd_arena_cost(bytes[i], 1);
  return cost;
}

bool qd_plan_is_of(const qd_plan *plan, const qd_plan_tensor *t, int rank) {
  return t->slot.expert < 0 || qd_partition_expert(t->slot.expert, plan->request.ranks) == rank;
}

/* Experts of a rank, or all of them. */
static int64_t experts_of(const qd_plan *plan, int rank) {
  int64_t n = 0, all = plan->request.model->experts;
  for (int64_t e = 0; e < all; e++) n += rank < 0 || qd_partition_expert(e, plan->request.ranks) == rank;
  return n;
}

/* Of the rest only where the head is quantized. */
static bool has_inputs(const qd_plan *plan, const qd_plan_kind *kind) {
  bool calibrated = kind->first_block != QD_REST || qd_job_quantizes(plan->request.job, QD_HEAD, plan->request.model);
  return plan->request.sequences > 0 && calibrated;
}

int64_t qd_plan_input_records(const qd_plan *plan, const qd_plan_kind *kind) {
  int64_t n = 0;
  if (!has_inputs(plan, kind)) return 0;
  QD_FOR_STAGES(stage, plan->request.model, kind->first_block)
    n += qd_stage_is_routed(stage) ? plan->request.model->experts : 1;
  return n;
}

size_t qd_plan_inputs_cost(const qd_plan *plan, const qd_plan_kind *kind, int rank) {
  const qd_model *model = plan->request.model;
  size_t cost = 0;
  if (!has_inputs(plan, kind)) return 0;
  QD_FOR_STAGES(stage, model, kind->first_block) {
    size_t n = qd_stage_is_routed(stage) ? (size_t)experts_of(plan, rank) : 1;
    cost += n * qd_arena_cost((size_t)qd_decoder_mid_columns(model, stage), sizeof(double));
  }
  return cost;
}
