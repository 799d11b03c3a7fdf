/* The plan, of the disk and of the wires. */
#include "kernels/base/heap.h"
#include "pipeline/experts.h"
#include "pipeline/plan_parts.h"
#include "storage/atomic.h"
#include "storage/store.h"

/* ---- disk and wires ------------------------------------------------------------------------------------------------------ */

enum { RECORD_TEXT_BYTES = 4096, PART_OVERHEAD_BYTES = 8192, SIDE_BYTES = 1 << 20 };

static size_t side_files_bytes(const qd_source *source) {
  const char *name;
  size_t bytes = 0, n;
  char *text;
  for (size_t i = 0; source != NULL && (name = qd_source_side_file(source, i)) != NULL; i++) {
    if (qd_side_file_read(qd_source_path(source), name, QD_SIDE_FILE_BYTES, &text, &n) == QD_OK) bytes += n;
    qd_heap_free(text);
  }
  return bytes;
}

static size_t kind_disk(const qd_plan *plan, const qd_plan_kind *kind) {
  size_t total = 0, bytes[QD_MAX_PARTS];
  for (int i = 0; i < kind->n; i++) {
    int n = qd_plan_part_bytes(&kind->tensor[i], bytes);
    for (int p = 0; p < n; p++) total += bytes[p] + PART_OVERHEAD_BYTES;
    total += RECORD_TEXT_BYTES;
  }
  size_t inputs = (size_t)qd_plan_input_records(plan, kind) * (PART_OVERHEAD_BYTES + RECORD_TEXT_BYTES);
  return total + inputs + qd_plan_inputs_cost(plan, kind, -1);
}

/* Head and embedding as they are first written, until the head is quantized. */
static size_t first_rest_bytes(const qd_plan *plan) {
  size_t bytes = 0;
  const qd_plan_kind *rest = qd_plan_rest(plan);
  for (int i = 0; qd_job_quantizes(plan->request.job, QD_HEAD, plan->request.model) && i < rest->n; i++)
    bytes += qd_plan_original_bytes(&rest->tensor[i]);
  return bytes;
}

int64_t qd_plan_disk_bytes(const qd_plan *plan) {
  size_t bytes = first_rest_bytes(plan) + SIDE_BYTES + side_files_bytes(plan->request.source);
  for (size_t k = 0; k < plan->n_kinds; k++)
    bytes += (size_t)plan->kind[k].blocks * kind_disk(plan, &plan->kind[k]);
  return (int64_t)bytes;
}

int64_t qd_plan_kept_bytes(const qd_plan_request *r) {
  qd_acts_shape all = qd_plan_acts_shape(r, r->sequences);
  int64_t streams = qd_job_keeps_original(r->job) ? 2 : 1;
  return r->job->keep_activations ? 2 * streams * r->sequences * (int64_t)qd_acts_h_bytes(&all) : 0;
}

/* The model as it is streamed: the embedding, all blocks, and the head where each block's divergence is reported, and where it
 * is quantized. */
static size_t streamed_bytes(const qd_plan *plan) {
  const qd_plan_request *r = &plan->request;
  const qd_plan_tensor *head = qd_plan_tensor_of(qd_plan_rest(plan), QD_HEAD);
  size_t bytes = qd_plan_original_bytes(qd_plan_tensor_of(qd_plan_rest(plan), QD_EMBEDDING)), head_bytes = bytes;
  if (head != NULL) head_bytes = qd_plan_original_bytes(head);
  if (r->job->kl_positions > 0 && r->sequences > 0) bytes += head_bytes;
  if (head != NULL && head->quantized) bytes += head_bytes;
  for (size_t k = 0; k + 1 < plan->n_kinds; k++)
    for (int i = 0; i < plan->kind[k].n; i++)
      bytes += (size_t)plan->kind[k].blocks * qd_plan_original_bytes(&plan->kind[k].tensor[i]);
  return bytes;
}

int qd_plan_first_on_node(const qd_plan_request *r, int rank) {
  int per_node = r->ranks_on_node > 0 ? r->ranks_on_node : r->ranks;
  return r->first_on_node != NULL ? r->first_on_node[rank] : rank - rank % per_node;
}

/* How often the model is read as a whole; ranks beyond these receive it (of parts that are gathered each rank has its own). */
static int whole_readers(const qd_plan_request *r) {
  int n = 0;
  if (r->job->readers != QD_READERS_NODE) return 1;
  for (int rank = 0; rank < r->ranks; rank++) n += qd_plan_first_on_node(r, rank) == rank;
  return n;
}

int64_t qd_plan_read_bytes(const qd_plan *plan) { return (int64_t)streamed_bytes(plan) * whole_readers(&plan->request); }

/* Statistics of a stage whose linears share their input: diagonals, the exact sum, the Hessian, the factor. */
static size_t stage_traffic(const qd_plan_request *r, qd_stage stage) {
  int64_t columns = qd_decoder_mid_columns(r->model, stage);
  size_t total =
      qd_tri_bytes(columns, QD_I64) + qd_tri_bytes(columns, QD_F32) + (size_t)(r->sequences * columns) * sizeof(double);
  if (r->job->method->needs_factor) total += qd_tri_bytes(columns, QD_F32);
  if (qd_job_is_asymmetric(r->job))
    total += (size_t)((columns + r->sequences) * columns) * sizeof(double) + qd_tri_bytes(columns, QD_F32);
  return total;
}

/* Of a stage of experts: each token to its experts, as often as their inputs are looked at, once more for the forward, and
 * back. */
static size_t routed_traffic(const qd_plan_request *r, qd_stage stage) {
  int64_t tokens = r->sequences * r->tokens, k = r->model->top_k;
  int64_t looks = tokens * k / r->model->experts > QD_EXPERT_WINDOW ? 2 : 1, back = stage == QD_STAGE_EXPERT_DOWN ? 2 : 0;
  if (qd_job_keeps_original(r->job)) back *= 2;
  return (size_t)((looks + back) * tokens * k * r->model->hidden) * qd_dtype_bytes(r->act) / (size_t)r->ranks;
}

/* What one other rank receives of a block, or sends to the owner.  Codes of experts only go to who writes them. */
static size_t kind_traffic(const qd_plan *plan, const qd_plan_kind *kind) {
  const qd_plan_request *r = &plan->request;
  size_t total = 0, bytes[QD_MAX_PARTS];
  if (qd_plan_input_records(plan, kind) > 0)
    QD_FOR_STAGES(stage, r->model, kind->first_block)
      total += qd_stage_is_routed(stage) ? routed_traffic(r, stage) : stage_traffic(r, stage);
  for (int i = 0; i < kind->n; i++) {
    const qd_plan_tensor *t = &kind->tensor[i];
    size_t share = t->slot.expert < 0 ? 1 : (size_t)r->ranks;
    int n = t->quantized ? qd_plan_part_bytes(t, bytes) : 0;
    for (int p = 0; p < n; p++) total += bytes[p] / share;
    if (n > 0 && t->slot.expert < 0) total += 2 * (size_t)t->slot.dim[0] * sizeof(double);
  }
  return total;
}

int64_t qd_plan_traffic_bytes(const qd_plan *plan) {
  const qd_plan_request *r = &plan->request;
  size_t bytes = (size_t)(r->sequences * r->tokens) * sizeof(int32_t);
  for (size_t k = 0; k < plan->n_kinds; k++)
    bytes += (size_t)plan->kind[k].blocks * kind_traffic(plan, &plan->kind[k]);
  return (int64_t)bytes * (r->ranks - 1) + (int64_t)streamed_bytes(plan) * (r->ranks - whole_readers(r));
}
