#include "kernels/base/heap.h"
#include "kernels/scratch.h"
#include "pipeline/feed.h"
#include "pipeline/outliers.h"
#include "pipeline/plan_parts.h"
#include "pipeline/plan_statistics.h"
#include "pipeline/report.h"
#include "pipeline/sample.h"
#include "storage/store.h"

#include <string.h>

/* What is not ours to know: what MPI takes of a process, the copies that it makes of a message while it is summed or sent, and
 * what the libraries of files and threads keep. */
static const size_t mpi_process_bytes = (size_t)24 << 20, mpi_buffers_bytes = (size_t)8 << 20, other_bytes = (size_t)8 << 20;
enum { MPI_COPIES = 1 };

static const char *const part_names[] = {
#define QD_PLAN_PART_NAME(code, name) name,
    QD_PLAN_PART_LIST(QD_PLAN_PART_NAME)
#undef QD_PLAN_PART_NAME
};

const char *qd_plan_part_name(qd_plan_part part) { return part_names[part]; }

/* ---- arenas of a rank ---------------------------------------------------------------------------------------------------- */

static qd_dtype computed_dtype(const qd_plan_tensor *t, qd_dtype act) { return qd_role_is_matrix(t->slot.role) ? act : QD_F32; }

static size_t prepared_cost(const qd_plan_tensor *t, qd_dtype act) {
  qd_dtype wanted = computed_dtype(t, act);
  return t->dtype == wanted ? 0 : qd_arena_cost(qd_plan_elements(&t->slot), qd_dtype_bytes(wanted));
}

static size_t made_cost(const qd_plan_tensor *t, qd_dtype act) {
  size_t codes = t->quantized ? qd_plan_parts_cost(t) + 2 * qd_arena_cost((size_t)t->slot.dim[0], sizeof(double)) : 0;
  return prepared_cost(t, act) + codes;
}

/* A block: originals as they are computed with, codes with what is measured of each row, weights expanded for two sequences and
 * more; experts only of this rank, whose codes are never expanded. */
static size_t kind_cost(const qd_plan *plan, const qd_plan_kind *kind, int rank, int64_t sequences) {
  size_t cost = qd_plan_inputs_cost(plan, kind, rank);
  for (int i = 0; i < kind->n; i++) {
    const qd_plan_tensor *t = &kind->tensor[i];
    if (!qd_plan_is_of(plan, t, rank)) continue;
    cost += made_cost(t, plan->request.act);
    if (t->quantized && sequences > 1 && t->slot.expert < 0)
      cost += qd_arena_cost(qd_plan_elements(&t->slot), qd_dtype_bytes(plan->request.act));
  }
  return cost;
}

static size_t rest_cost(const qd_plan_kind *rest) {
  size_t cost = 0;
  for (int i = 0; i < rest->n; i++) cost += qd_arena_cost(qd_plan_original_bytes(&rest->tensor[i]), 1);
  return cost;
}

/* Embedding or head while it is quantized, and on rank 0 with everything that is then written beside it. */
static size_t made_rest_cost(const qd_plan *plan, qd_role role, int rank) {
  const qd_plan_kind *rest = qd_plan_rest(plan);
  const qd_plan_tensor *t = qd_plan_tensor_of(rest, role), *norm = qd_plan_tensor_of(rest, QD_FINAL_NORM);
  if (t == NULL || !t->quantized) return 0;
  size_t cost = made_cost(t, plan->request.act) + made_cost(norm, plan->request.act) + qd_plan_inputs_cost(plan, rest, rank);
  return rank == 0 ? cost + rest_cost(rest) - qd_arena_cost(qd_plan_original_bytes(t), 1) : cost;
}

static size_t block_bytes(const qd_plan *plan, int rank, int64_t sequences) {
  size_t most = prepared_cost(qd_plan_tensor_of(qd_plan_rest(plan), QD_EMBEDDING), plan->request.act);
  for (size_t k = 0; k + 1 < plan->n_kinds; k++) most = qd_larger(most, kind_cost(plan, &plan->kind[k], rank, sequences));
  most = qd_larger(most, made_rest_cost(plan, QD_EMBEDDING, rank));
  most = qd_larger(most, made_rest_cost(plan, QD_HEAD, rank));
  return rank == 0 ? qd_larger(most, rest_cost(qd_plan_rest(plan))) : most;
}

/* ---- scratch ------------------------------------------------------------------------------------------------------------- */

static size_t linear_scratch(const qd_plan *plan, const qd_plan_tensor *t, int rank) {
  const qd_plan_request *r = &plan->request;
  bool expert = t->slot.expert >= 0;
  qd_experts_shape shape = qd_plan_experts(plan, rank);
  qd_tensor x = qd_tensor_2d(NULL, r->act, expert ? qd_experts_window_rows(&shape) : r->tokens, t->slot.dim[1]);
  if (expert || shape.sequences == 1) return qd_scratch_qlinear(r->device, x, t->slot.dim[0], t->has_order);
  return t->has_order ? qd_arena_cost((size_t)qd_tensor_elements(x), qd_dtype_bytes(r->act)) : 0;
}

/* So many rows or, where they would cut a run of rows that share statistics, the next that do not. */
static int64_t whole_runs(qd_scheme scheme, int64_t rows) {
  int64_t unit = qd_scheme_row_unit(scheme);
  return (rows + unit - 1) / unit * unit;
}

int64_t qd_plan_share_rows(qd_scheme scheme) { return whole_runs(scheme, QD_SHARE_ROWS); }

/* Large enough for every thread to have whole blocks of 256 rows, in which the solver and the error run through the factor and
 * the Hessian: so pieces cost no speed. */
int64_t qd_plan_piece_rows(const qd_device *device, qd_scheme scheme, int64_t columns) {
  enum { BLOCK_ROWS = 2 * QD_LOSS_TILE, PIECE_WEIGHTS = 16 << 20 };
  int64_t step = whole_runs(scheme, (int64_t)BLOCK_ROWS * device->threads), rows = PIECE_WEIGHTS / columns / step * step;
  return rows < step ? step : rows;
}

/* A piece of a share on its way to codes (rows.c). */
static size_t share_scratch(const qd_plan_request *r, const qd_plan_tensor *t, int64_t share) {
  int64_t columns = t->slot.dim[1], piece = qd_plan_piece_rows(r->device, t->scheme, columns);
  return qd_rows_scratch(r->device, r->job, t->scheme, share < piece ? share : piece, columns);
}

/* What is looked at of a whole linear before its rows are shared: on every rank. */
static size_t choice_scratch(const qd_plan_request *r, const qd_plan_tensor *t) {
  int64_t rows = t->slot.dim[0], columns = t->slot.dim[1];
  size_t bytes = qd_job_samples(r->job) ? qd_sample_scratch(r->device, r->job, t->scheme, rows, columns) : 0;
  if (r->job->method->has_outliers) bytes = qd_larger(bytes, qd_outliers_variance_scratch(columns));
  if (r->job->act_order != QD_ORDER_SPEARMAN) return bytes;
  return qd_larger(bytes, qd_arena_cost((size_t)(rows * columns), sizeof(float)) +
                              qd_scratch_spearman_order(r->device, rows, columns));
}

static size_t largest_choice(const qd_plan *plan) {
  size_t most = 0;
  for (size_t k = 0; k + 1 < plan->n_kinds; k++)
    for (int i = 0; i < plan->kind[k].n; i++)
      if (plan->kind[k].tensor[i].quantized)
        most = qd_larger(most, choice_scratch(&plan->request, &plan->kind[k].tensor[i]));
  return most;
}

/* A stage's linears that are quantized. */
static int stage_tasks(const qd_plan_kind *kind, qd_stage stage, const qd_plan_tensor *tasks[QD_N_LINEARS]) {
  int n = 0;
  for (qd_role role = qd_stage_first(stage); role <= qd_stage_last(stage); role++) {
    const qd_plan_tensor *t = qd_plan_tensor_of(kind, role);
    if (t != NULL && t->quantized) tasks[n++] = t;
  }
  return n;
}

/* Linears whose factor is the same are cut over ranks together (quantize.c). */
static int same_factor(const qd_job *job, const qd_plan_tensor *const *tasks, int n) {
  int same = 1;
  while (same < n && qd_job_shares_factor(job, tasks[0]->scheme.group_size, tasks[same]->scheme.group_size)) same++;
  return same;
}

static void grow_scratch(qd_plan *plan, int rank, size_t bytes) {
  size_t *scratch = &plan->rank[rank].part[QD_PLAN_SCRATCH];
  *scratch = qd_larger(*scratch, bytes);
}

static void cut_tasks(qd_plan *plan, const qd_plan_tensor *const *tasks, int n, qd_share *shares) {
  int64_t rows[QD_N_LINEARS];
  double cost[QD_N_LINEARS];
  int n_shares;
  for (int i = 0; i < n; i++) {
    rows[i] = tasks[i]->slot.dim[0];
    cost[i] = (double)tasks[i]->slot.dim[1] * (double)tasks[i]->slot.dim[1];
  }
  qd_partition_rows(n, rows, cost, qd_plan_share_rows(tasks[0]->scheme), plan->request.ranks, shares, &n_shares);
  for (int i = 0; i < n_shares; i++)
    grow_scratch(plan, shares[i].rank, share_scratch(&plan->request, tasks[shares[i].linear], shares[i].rows.n));
}

static void kind_shares(qd_plan *plan, const qd_plan_kind *kind, qd_share *shares) {
  const qd_plan_tensor *tasks[QD_N_LINEARS];
  for (int i = 0; i < kind->n; i++) {
    const qd_plan_tensor *t = &kind->tensor[i];
    if (t->slot.expert < 0 || !t->quantized) continue;
    grow_scratch(plan, qd_partition_expert(t->slot.expert, plan->request.ranks),
                 share_scratch(&plan->request, t, t->slot.dim[0]));
  }
  QD_FOR_STAGES(stage, plan->request.model, kind->first_block) {
    int n = qd_stage_is_routed(stage) ? 0 : stage_tasks(kind, stage, tasks);
    for (int done = 0, same; done < n; done += same) {
      same = same_factor(plan->request.job, tasks + done, n - done);
      cut_tasks(plan, tasks + done, same, shares);
    }
  }
}

/* Beside the packing buffers. */
static qd_status plan_scratch(qd_plan *plan) {
  const qd_plan_request *r = &plan->request;
  qd_share *shares;
  QD_TRY(qd_heap_new((size_t)(QD_N_LINEARS + r->ranks), sizeof *shares, &shares));
  for (size_t k = 0; k < plan->n_kinds; k++) kind_shares(plan, &plan->kind[k], shares);
  const qd_plan_tensor *embedding = qd_plan_tensor_of(qd_plan_rest(plan), QD_EMBEDDING);
  if (embedding->quantized) cut_tasks(plan, &embedding, 1, shares);
  qd_heap_free(shares);
  size_t statistics = qd_larger(qd_plan_statistics_scratch(r), largest_choice(plan)),
         attention = r->sequences > 0 ? qd_plan_attention_scratch(r->device, r->model, r->act, r->tokens) : 0;
  for (int rank = 0; rank < r->ranks; rank++) {
    grow_scratch(plan, rank, statistics);
    if (plan->rank[rank].sequences > 0) grow_scratch(plan, rank, attention);
    if (r->sequences == 0 || (plan->rank[rank].sequences == 0 && r->model->experts == 0)) continue;
    for (size_t k = 0; k + 1 < plan->n_kinds; k++)
      for (int i = 0; i < plan->kind[k].n; i++)
        if (plan->kind[k].tensor[i].quantized) grow_scratch(plan, rank, linear_scratch(plan, &plan->kind[k].tensor[i], rank));
  }
  return QD_OK;
}

/* ---- writer -------------------------------------------------------------------------------------------------------------- */

/* Where the files of a block are cut (write.c), each to the rank after the last one's: what a rank may have to copy at once. */
typedef struct cut {
  size_t  used, cost, *of_writer; /* by file number modulo ranks */
  int64_t files;
} cut;

static void cut_record(const qd_plan_request *r, cut *c, size_t bytes, size_t cost) {
  if (c->files == 0 || (c->used > 0 && c->used + bytes > (size_t)r->job->shard_bytes)) c->files++, c->used = 0;
  c->used += bytes;
  c->cost += cost;
  c->of_writer[(c->files - 1) % r->ranks] += cost;
}

static void cut_kind(const qd_plan *plan, const qd_plan_kind *kind, cut *c) {
  const qd_plan_request *r = &plan->request;
  for (int i = 0; i < kind->n; i++) {
    size_t bytes[QD_MAX_PARTS], total = 0;
    int n = qd_plan_part_bytes(&kind->tensor[i], bytes);
    for (int p = 0; p < n; p++) total += bytes[p];
    cut_record(r, c, total, qd_plan_parts_cost(&kind->tensor[i]));
  }
  if (r->sequences == 0) return;
  QD_FOR_STAGES(stage, r->model, kind->first_block) {
    size_t bytes = (size_t)qd_decoder_mid_columns(r->model, stage) * sizeof(double);
    for (int64_t n = qd_stage_is_routed(stage) ? r->model->experts : 1; n > 0; n--)
      cut_record(r, c, bytes, qd_arena_cost(bytes, 1));
  }
}

/* A linear whose factor fails is stored without its order, and nobody knows how many outliers there will be, which moves the
 * cuts: then a rank is given room for the whole block. */
static bool cuts_may_move(const qd_plan_kind *kind) {
  for (int i = 0; i < kind->n; i++)
    if (kind->tensor[i].has_order || (kind->tensor[i].quantized && kind->tensor[i].scheme.spqr)) return true;
  return false;
}

static size_t written_rest_cost(const qd_plan *plan) {
  return rest_cost(qd_plan_rest(plan)) + qd_plan_inputs_cost(plan, qd_plan_rest(plan), 0);
}

static qd_status plan_writers(qd_plan *plan) {
  const qd_plan_request *r = &plan->request;
  size_t most = 0;
  for (size_t k = 0; k + 1 < plan->n_kinds; k++) {
    cut c = {0};
    QD_TRY(qd_heap_new((size_t)r->ranks, sizeof *c.of_writer, &c.of_writer));
    cut_kind(plan, &plan->kind[k], &c);
    for (int i = 0; i < r->ranks; i++) most = qd_larger(most, cuts_may_move(&plan->kind[k]) ? c.cost : c.of_writer[i]);
    qd_heap_free(c.of_writer);
  }
  for (int rank = 0; rank < r->ranks; rank++)
    plan->rank[rank].part[QD_PLAN_WRITER] = rank == 0 ? qd_larger(most, written_rest_cost(plan)) : most;
  return QD_OK;
}

/* ---- activations ------------------------------------------------------------------------------------------------ */

qd_acts_shape qd_plan_acts_shape(const qd_plan_request *r, int64_t sequences) {
  return (qd_acts_shape){.dtype = r->act,
                         .sequences = sequences,
                         .tokens = r->tokens,
                         .hidden = r->model->hidden,
                         .widest = qd_decoder_mid_widest(r->model),
                         .saves = !r->job->true_sequential,
                         .disk = r->acts_on_disk ? r->job->acts_folder : NULL};
}

qd_acts_shape qd_plan_original_shape(const qd_plan_request *r, int64_t sequences) {
  qd_acts_shape shape = qd_plan_acts_shape(r, sequences);
  shape.saves = false;
  return shape;
}

qd_experts_shape qd_plan_experts(const qd_plan *plan, int rank) {
  const qd_plan_request *r = &plan->request;
  return (qd_experts_shape){.model = r->model,
                            .act = r->act,
                            .tokens = r->tokens,
                            .sequences = plan->rank[rank].sequences,
                            .all_sequences = r->sequences,
                            .ranks = r->ranks};
}

/* ---- the plan ------------------------------------------------------------------------------------------------------------ */

/* A finished block, with all of it or with what goes beside its originals. */
static size_t largest_stored(const qd_plan *plan, bool beside) {
  size_t most = 0;
  for (size_t k = 0; k + 1 < plan->n_kinds; k++) {
    size_t cost = 0;
    for (int i = 0; i < plan->kind[k].n; i++)
      if (plan->kind[k].tensor[i].quantized || !beside) cost += qd_plan_parts_cost(&plan->kind[k].tensor[i]);
    most = qd_larger(most, cost);
  }
  return most;
}

/* Without the files: as if each tensor began at a place of its own alignment. */
static size_t largest_image(const qd_plan *plan) {
  size_t most = 0;
  for (size_t k = 0; k < plan->n_kinds; k++) {
    size_t bytes = 0;
    for (int i = 0; i < plan->kind[k].n; i++) bytes += qd_arena_cost(qd_plan_original_bytes(&plan->kind[k].tensor[i]), 1);
    most = qd_larger(most, bytes);
  }
  return most;
}

static size_t largest_item(const qd_plan *plan) {
  const qd_plan_request *r = &plan->request;
  size_t largest = 1;
  qd_feed feed = {.model = r->model, .source = r->source};
  if (r->source != NULL)
    for (int64_t item = 0; item < r->model->n_blocks + 2; item++)
      largest = qd_larger(largest, qd_feed_item_bytes(&feed, item));
  else largest = qd_larger(largest, largest_image(plan));
  if (r->sequences > 0 && qd_job_keeps_original(r->job)) return largest + largest_stored(plan, true);
  if (r->job->method->has_outliers) return qd_larger(largest, largest_stored(plan, false)); /* a resumed job's may be more */
  return largest;
}

/* Of a tensor or of what is stored of it; of blocks, or with the rest. */
static size_t largest_part(const qd_plan *plan, size_t n_kinds) {
  size_t most = 0, bytes[QD_MAX_PARTS];
  for (size_t k = 0; k < n_kinds; k++)
    for (int i = 0; i < plan->kind[k].n; i++)
      for (int p = qd_plan_part_bytes(&plan->kind[k].tensor[i], bytes) - 1; p >= 0; p--) most = qd_larger(most, bytes[p]);
  return most;
}

/* Messages are cut in pieces (comm.h). */
size_t qd_plan_libraries(size_t tensor_bytes, size_t message_bytes, int ranks, bool launched) {
  size_t bytes = other_bytes + qd_store_workspace_bytes(tensor_bytes);
  size_t message = message_bytes > QD_COMM_PIECE_BYTES ? QD_COMM_PIECE_BYTES : message_bytes;
  if (ranks == 1) return bytes;
  return bytes + mpi_buffers_bytes + MPI_COPIES * message + (launched ? 0 : mpi_process_bytes);
}

/* The largest messages are images and exact sums. */
static size_t libraries_bytes(const qd_plan *plan, size_t largest) {
  const qd_plan_request *r = &plan->request;
  size_t sum = r->sequences > 0 ? qd_tri_bytes(qd_decoder_mid_widest(r->model), QD_I64) : 0;
  return qd_plan_libraries(largest_part(plan, plan->n_kinds), qd_larger(largest, sum), r->ranks, r->launched);
}

/* A resumed job streams stored blocks too, whose parts are not cut: a cut may lie behind the place wanted by one of them. */
static size_t stream_bytes(const qd_plan *plan, int rank, size_t largest) {
  const qd_plan_request *r = &plan->request;
  qd_stream_share share = qd_stream_share_of(r->job->readers, rank, r->ranks, qd_plan_first_on_node(r, rank));
  return qd_stream_buffer_bytes(largest, largest_part(plan, plan->n_kinds - 1) + QD_ARENA_ALIGNMENT, share);
}

static void plan_rank(qd_plan *plan, int rank, size_t largest) {
  const qd_plan_request *r = &plan->request;
  qd_plan_rank *out = &plan->rank[rank];
  out->part[QD_PLAN_PROGRAM] = (size_t)qd_memory_now().resident;
  out->part[QD_PLAN_LIBRARIES] = libraries_bytes(plan, largest);
  out->part[QD_PLAN_STREAM] = stream_bytes(plan, rank, largest);
  out->part[QD_PLAN_BLOCK] = block_bytes(plan, rank, out->sequences);
  out->part[QD_PLAN_STATISTICS] = qd_plan_statistics(r, rank);
  if (r->sequences == 0) return;
  qd_acts_shape acts = qd_plan_acts_shape(r, out->sequences);
  out->part[QD_PLAN_ACTIVATIONS] = qd_acts_bytes(&acts);
  out->scratch_disk_bytes = qd_acts_disk_bytes(&acts);
  if (qd_job_keeps_original(r->job)) {
    acts = qd_plan_original_shape(r, out->sequences);
    out->part[QD_PLAN_ACTIVATIONS] += qd_acts_bytes(&acts);
    out->scratch_disk_bytes += qd_acts_disk_bytes(&acts);
  }
  plan->scratch_disk_bytes += (int64_t)out->scratch_disk_bytes;
  out->part[QD_PLAN_REPORT] = qd_report_bytes(r, out->sequences);
  out->part[QD_PLAN_DECODER] = qd_plan_decoder(r->model, r->tokens, r->act);
  qd_experts_shape experts = qd_plan_experts(plan, rank);
  out->part[QD_PLAN_EXPERTS] = (qd_job_keeps_original(r->job) ? 2 : 1) * qd_experts_bytes(&experts);
}

/* In the end, when the arenas are gone, rank 0 puts the manifest together: records and their JSON. */
static size_t manifest_bytes(const qd_plan *plan) {
  enum { RECORD_BYTES = 24 << 10 };
  size_t records = 0;
  for (size_t k = 0; k < plan->n_kinds; k++)
    records += (size_t)plan->kind[k].blocks * ((size_t)plan->kind[k].n + (size_t)qd_plan_input_records(plan, &plan->kind[k]));
  return records * RECORD_BYTES;
}

static void add_up(const qd_plan *plan, qd_plan_rank *rank) {
  const qd_plan_request *r = &plan->request;
  rank->part[QD_PLAN_SCRATCH] += qd_arena_cost(qd_device_packing_bytes(r->device), 1);
  rank->host_bytes = 0;
  for (int p = 0; p < QD_N_PLAN_PARTS; p++) rank->host_bytes += rank->part[p];
  size_t end = rank->part[QD_PLAN_PROGRAM] + rank->part[QD_PLAN_LIBRARIES] + rank->part[QD_PLAN_STREAM];
  if (rank == &plan->rank[0]) rank->host_bytes = qd_larger(rank->host_bytes, end + manifest_bytes(plan));
  rank->host_bytes = qd_larger(rank->host_bytes, (size_t)qd_memory_now().peak);
}

static qd_status make(qd_plan *plan) {
  const qd_plan_request *r = &plan->request;
  for (int64_t block = 0; block < r->model->n_blocks; block++) QD_TRY(qd_plan_add_block(plan, block));
  QD_TRY(qd_plan_add_block(plan, QD_REST));
  QD_TRY(qd_heap_new((size_t)r->ranks, sizeof *plan->rank, &plan->rank));
  size_t largest = largest_item(plan);
  for (int rank = 0; rank < r->ranks; rank++) {
    plan->rank[rank].sequences = qd_partition_even(r->sequences, rank, r->ranks).n;
    plan_rank(plan, rank, largest);
  }
  QD_TRY(plan_scratch(plan));
  QD_TRY(plan_writers(plan));
  for (int rank = 0; rank < r->ranks; rank++) add_up(plan, &plan->rank[rank]);
  plan->kept_bytes = qd_plan_kept_bytes(r);
  plan->disk_bytes = qd_plan_disk_bytes(plan) + plan->kept_bytes;
  plan->read_bytes = qd_plan_read_bytes(plan);
  plan->traffic_bytes = qd_plan_traffic_bytes(plan);
  return QD_OK;
}

qd_status qd_plan_make(const qd_plan_request *request, qd_plan *out) {
  *out = (qd_plan){.request = *request};
  qd_status status = make(out);
  if (status == QD_OK) return QD_OK;
  qd_plan_release(out);
  return qd_forward(status, __FILE__, __LINE__);
}

void qd_plan_release(qd_plan *plan) {
  for (size_t k = 0; k < plan->n_kinds; k++) qd_heap_free(plan->kind[k].tensor);
  qd_heap_free(plan->kind);
  qd_heap_free(plan->rank);
  *plan = (qd_plan){0};
}
