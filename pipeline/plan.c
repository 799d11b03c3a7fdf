#include "pipeline/plan.h"

#include "kernels/base/heap.h"
#include "kernels/scratch.h"
#include "pipeline/feed.h"
#include "pipeline/plan_statistics.h"
#include "pipeline/report.h"
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

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

static size_t elements_of(const qd_slot *slot) { return (size_t)slot->dim[0] * (size_t)(slot->rank == 2 ? slot->dim[1] : 1); }

static size_t original_bytes(const qd_plan_tensor *t) { return elements_of(&t->slot) * qd_dtype_bytes(t->dtype); }

/* ---- kinds of blocks ----------------------------------------------------------------------------------------------------- */

static void fill_tensor(const qd_plan_request *r, const qd_slot *slot, qd_plan_tensor *t) {
  const qd_source_tensor *there = r->source != NULL ? qd_source_find(r->source, slot->name) : NULL;
  *t = (qd_plan_tensor){.slot = *slot, .dtype = there != NULL ? there->dtype : r->model->dtype};
  if (!qd_role_is_linear(slot->role)) return;
  t->fate = qd_job_scheme(r->job, slot->name, slot->dim[1], &t->scheme);
  t->quantized = qd_fate_is_quantized(t->fate);
  t->has_order =
      t->quantized && r->job->method->needs_factor && qd_method_stores_order(r->job->act_order, t->scheme, slot->dim[1]);
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

static qd_status add_kind(qd_plan *plan, int64_t block) {
  qd_plan_kind kind = {.blocks = 1};
  qd_slot slots[QD_MAX_SLOTS];
  kind.n = qd_model_slots(plan->request.model, block, slots);
  for (int i = 0; i < kind.n; i++) fill_tensor(&plan->request, &slots[i], &kind.tensor[i]);
  for (size_t k = 0; block != QD_REST && k < plan->n_kinds; k++)
    if (same_kind(&plan->kind[k], &kind)) return plan->kind[k].blocks++, QD_OK;
  QD_TRY(qd_heap_grow(&plan->kind, &plan->kind_capacity, plan->n_kinds + 1, sizeof *plan->kind));
  plan->kind[plan->n_kinds++] = kind;
  return QD_OK;
}

static const qd_plan_kind *rest_of(const qd_plan *plan) { return &plan->kind[plan->n_kinds - 1]; }

static const qd_plan_tensor *tensor_of(const qd_plan_kind *kind, qd_role role) {
  for (int i = 0; i < kind->n; i++)
    if (kind->tensor[i].slot.role == role) return &kind->tensor[i];
  return NULL;
}

static const qd_plan_tensor *head_of(const qd_plan *plan) {
  return tensor_of(rest_of(plan), plan->request.model->tied ? QD_EMBEDDING : QD_HEAD);
}

/* ---- parts of tensors ---------------------------------------------------------------------------------------------------- */

/* Bytes of each part of a quantized linear, in the order of qd_qtensor_parts; returns their number. */
static int part_bytes(const qd_plan_tensor *t, size_t bytes[QD_MAX_PARTS]) {
  int n = 0;
  if (!t->quantized) return bytes[n] = original_bytes(t), 1;
  size_t rows = (size_t)t->slot.dim[0], groups = (size_t)qd_scheme_groups(t->scheme, t->slot.dim[1]);
  bytes[n++] = rows * (size_t)qd_packed_row_bytes(t->slot.dim[1], t->scheme.bits);
  bytes[n++] = rows * groups * qd_dtype_bytes(t->scheme.scale_dtype);
  if (!t->scheme.symmetric) bytes[n++] = rows * groups;
  if (t->has_order) bytes[n++] = (size_t)t->slot.dim[1] * sizeof(int32_t);
  return n;
}

static size_t parts_cost(const qd_plan_tensor *t) {
  size_t bytes[QD_MAX_PARTS], cost = 0;
  int n = part_bytes(t, bytes);
  for (int i = 0; i < n; i++) cost += qd_arena_cost(bytes[i], 1);
  return cost;
}

static size_t inputs_cost(const qd_model *model) {
  size_t cost = 0;
  for (qd_stage stage = 0; stage < QD_N_STAGES; stage++)
    cost += qd_arena_cost((size_t)qd_decoder_mid_columns(model, stage), sizeof(double));
  return cost;
}

/* ---- arenas of a rank ---------------------------------------------------------------------------------------------------- */

static qd_dtype computed_dtype(const qd_plan_tensor *t, qd_dtype act) { return qd_role_is_matrix(t->slot.role) ? act : QD_F32; }

static size_t prepared_cost(const qd_plan_tensor *t, qd_dtype act) {
  qd_dtype wanted = computed_dtype(t, act);
  return t->dtype == wanted ? 0 : qd_arena_cost(elements_of(&t->slot), qd_dtype_bytes(wanted));
}

/* A block: originals as they are computed with, codes with what is measured of each row, weights expanded for two sequences and
 * more. */
static size_t kind_cost(const qd_plan_request *r, const qd_plan_kind *kind, int64_t sequences) {
  size_t cost = r->sequences > 0 ? inputs_cost(r->model) : 0;
  for (int i = 0; i < kind->n; i++) {
    const qd_plan_tensor *t = &kind->tensor[i];
    cost += prepared_cost(t, r->act);
    if (!t->quantized) continue;
    cost += parts_cost(t) + 2 * qd_arena_cost((size_t)t->slot.dim[0], sizeof(double));
    if (sequences > 1) cost += qd_arena_cost(elements_of(&t->slot), qd_dtype_bytes(r->act));
  }
  return cost;
}

static size_t rest_cost(const qd_plan_kind *rest) {
  size_t cost = 0;
  for (int i = 0; i < rest->n; i++) cost += qd_arena_cost(original_bytes(&rest->tensor[i]), 1);
  return cost;
}

static size_t block_bytes(const qd_plan *plan, int rank, int64_t sequences) {
  size_t most = prepared_cost(tensor_of(rest_of(plan), QD_EMBEDDING), plan->request.act);
  for (size_t k = 0; k + 1 < plan->n_kinds; k++) most = larger(most, kind_cost(&plan->request, &plan->kind[k], sequences));
  return rank == 0 ? larger(most, rest_cost(rest_of(plan))) : most;
}

/* ---- scratch ------------------------------------------------------------------------------------------------------------- */

static qd_tensor shape_3d(qd_dtype dtype, int64_t a, int64_t b, int64_t c) { return qd_tensor_3d(NULL, dtype, a, b, c); }

static size_t attention_scratch(const qd_device *device, const qd_model *m, qd_dtype act, int64_t tokens) {
  size_t most = 0;
  for (int64_t block = 0; block < m->n_blocks; block++) {
    qd_attention_args args = {.q = shape_3d(act, tokens, m->heads, m->head_dim),
                              .k = shape_3d(act, tokens, m->kv_heads, m->head_dim),
                              .v = shape_3d(act, tokens, m->kv_heads, m->head_dim),
                              .window = qd_model_window(m, block)};
    most = larger(most, qd_scratch_attention(device, &args));
  }
  return most;
}

static size_t linear_scratch(const qd_plan_request *r, const qd_plan_tensor *t, int64_t sequences) {
  qd_tensor x = qd_tensor_2d(NULL, r->act, r->tokens, t->slot.dim[1]);
  if (sequences == 1) return qd_scratch_qlinear(r->device, x, t->slot.dim[0], t->has_order);
  return t->has_order ? qd_arena_cost((size_t)qd_tensor_elements(x), qd_dtype_bytes(r->act)) : 0;
}

/* Large enough for every thread to have whole blocks of 256 rows, in which the solver and the error run through the factor and
 * the Hessian: so pieces cost no speed. */
int64_t qd_plan_piece_rows(const qd_device *device, int64_t columns) {
  enum { BLOCK_ROWS = 2 * QD_LOSS_TILE, PIECE_WEIGHTS = 16 << 20 };
  int64_t step = (int64_t)BLOCK_ROWS * device->threads, rows = PIECE_WEIGHTS / columns / step * step;
  return rows < step ? step : rows;
}

/* A piece of a share on its way to codes (quantize.c): the weights; then the method's work, afterwards the difference and one
 * row. */
static size_t share_scratch(const qd_plan_request *r, const qd_plan_tensor *t, int64_t share) {
  int64_t piece = qd_plan_piece_rows(r->device, t->slot.dim[1]), rows = share < piece ? share : piece;
  size_t columns = (size_t)t->slot.dim[1], matrix = qd_arena_cost((size_t)rows * columns, sizeof(float));
  qd_method_input input = {.device = &(qd_device){.name = r->device->name, .threads = r->device->threads},
                           .scheme = t->scheme,
                           .act_order = r->job->act_order,
                           .block = r->job->block,
                           .w = qd_tensor_2d(NULL, QD_F32, rows, t->slot.dim[1]),
                           .p = {.n = qd_job_is_asymmetric(r->job) ? t->slot.dim[1] : 0}};
  size_t method = larger(r->job->method->scratch_bytes(&input), qd_method_rtn.scratch_bytes(&input));
  return matrix + larger(method, matrix + qd_arena_cost(columns, sizeof(float)) + qd_scratch_sqerror(r->device));
}

/* A stage's linears that are quantized. */
static int stage_tasks(const qd_plan_kind *kind, qd_stage stage, const qd_plan_tensor *tasks[QD_N_LINEARS]) {
  int n = 0;
  for (qd_role role = qd_stage_first(stage); role <= qd_stage_last(stage); role++) {
    const qd_plan_tensor *t = tensor_of(kind, role);
    if (t != NULL && t->quantized) tasks[n++] = t;
  }
  return n;
}

/* Linears whose factor is the same are cut over ranks together (quantize.c). */
static int same_order(const qd_job *job, const qd_plan_tensor *const *tasks, int n) {
  int same = 1;
  while (same < n && (job->act_order != QD_ORDER_GROUP || tasks[same]->scheme.group_size == tasks[0]->scheme.group_size))
    same++;
  return same;
}

static void grow_scratch(qd_plan *plan, int rank, size_t bytes) {
  size_t *scratch = &plan->rank[rank].part[QD_PLAN_SCRATCH];
  *scratch = larger(*scratch, bytes);
}

static void cut_tasks(qd_plan *plan, const qd_plan_tensor *const *tasks, int n, qd_share *shares) {
  int64_t rows[QD_N_LINEARS];
  double cost[QD_N_LINEARS];
  int n_shares;
  for (int i = 0; i < n; i++) {
    rows[i] = tasks[i]->slot.dim[0];
    cost[i] = (double)tasks[i]->slot.dim[1] * (double)tasks[i]->slot.dim[1];
  }
  qd_partition_rows(n, rows, cost, QD_SHARE_ROWS, plan->request.ranks, shares, &n_shares);
  for (int i = 0; i < n_shares; i++)
    grow_scratch(plan, shares[i].rank, share_scratch(&plan->request, tasks[shares[i].linear], shares[i].rows.n));
}

static void kind_shares(qd_plan *plan, const qd_plan_kind *kind, qd_share *shares) {
  const qd_plan_tensor *tasks[QD_N_LINEARS];
  for (qd_stage stage = 0; stage < QD_N_STAGES; stage++) {
    int n = stage_tasks(kind, stage, tasks);
    for (int done = 0, same; done < n; done += same) {
      same = same_order(plan->request.job, tasks + done, n - done);
      cut_tasks(plan, tasks + done, same, shares);
    }
  }
}

/* Beside the packing buffers. */
static qd_status plan_scratch(qd_plan *plan) {
  const qd_plan_request *r = &plan->request;
  qd_share *shares;
  QD_TRY(qd_heap_new((size_t)(QD_N_LINEARS + r->ranks), sizeof *shares, &shares));
  for (size_t k = 0; k + 1 < plan->n_kinds; k++) kind_shares(plan, &plan->kind[k], shares);
  qd_heap_free(shares);
  size_t statistics = qd_plan_statistics_scratch(r),
         attention = r->sequences > 0 ? attention_scratch(r->device, r->model, r->act, r->tokens) : 0;
  for (int rank = 0; rank < r->ranks; rank++) {
    int64_t sequences = plan->rank[rank].sequences;
    grow_scratch(plan, rank, statistics);
    if (sequences == 0) continue;
    grow_scratch(plan, rank, attention);
    for (size_t k = 0; k + 1 < plan->n_kinds; k++)
      for (int i = 0; i < plan->kind[k].n; i++)
        if (plan->kind[k].tensor[i].quantized) grow_scratch(plan, rank, linear_scratch(r, &plan->kind[k].tensor[i], sequences));
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

static void cut_kind(const qd_plan_request *r, const qd_plan_kind *kind, cut *c) {
  for (int i = 0; i < kind->n; i++) {
    size_t bytes[QD_MAX_PARTS], total = 0;
    int n = part_bytes(&kind->tensor[i], bytes);
    for (int p = 0; p < n; p++) total += bytes[p];
    cut_record(r, c, total, parts_cost(&kind->tensor[i]));
  }
  for (qd_stage stage = 0; r->sequences > 0 && stage < QD_N_STAGES; stage++) {
    size_t bytes = (size_t)qd_decoder_mid_columns(r->model, stage) * sizeof(double);
    cut_record(r, c, bytes, qd_arena_cost(bytes, 1));
  }
}

/* A linear whose factor fails is stored without its order, which moves the cuts: then a rank is given room for the whole block.
 */
static bool cuts_may_move(const qd_plan_kind *kind) {
  for (int i = 0; i < kind->n; i++)
    if (kind->tensor[i].has_order) return true;
  return false;
}

static qd_status plan_writers(qd_plan *plan) {
  const qd_plan_request *r = &plan->request;
  size_t most = 0;
  for (size_t k = 0; k + 1 < plan->n_kinds; k++) {
    cut c = {0};
    QD_TRY(qd_heap_new((size_t)r->ranks, sizeof *c.of_writer, &c.of_writer));
    cut_kind(r, &plan->kind[k], &c);
    for (int i = 0; i < r->ranks; i++) most = larger(most, cuts_may_move(&plan->kind[k]) ? c.cost : c.of_writer[i]);
    qd_heap_free(c.of_writer);
  }
  for (int rank = 0; rank < r->ranks; rank++)
    plan->rank[rank].part[QD_PLAN_WRITER] = rank == 0 ? larger(most, rest_cost(rest_of(plan))) : most;
  return QD_OK;
}

/* ---- disk and wires ------------------------------------------------------------------------------------------------------ */

enum { RECORD_TEXT_BYTES = 4096, PART_OVERHEAD_BYTES = 8192, SIDE_BYTES = 1 << 20 };

static size_t side_files_bytes(const qd_source *source) {
  const char *name;
  size_t bytes = 0;
  for (size_t i = 0; source != NULL && (name = qd_source_side_file(source, i)) != NULL; i++) {
    char *path;
    qd_file_identity identity;
    if (qd_path_join(qd_source_path(source), name, &path) != QD_OK) continue;
    if (qd_file_identify(path, &identity) == QD_OK) bytes += (size_t)identity.size;
    qd_heap_free(path);
  }
  return bytes;
}

static size_t kind_disk(const qd_plan_request *r, const qd_plan_kind *kind, bool rest) {
  size_t total = 0, bytes[QD_MAX_PARTS];
  for (int i = 0; i < kind->n; i++) {
    int n = part_bytes(&kind->tensor[i], bytes);
    for (int p = 0; p < n; p++) total += bytes[p] + PART_OVERHEAD_BYTES;
    total += RECORD_TEXT_BYTES;
  }
  if (!rest && r->sequences > 0) total += inputs_cost(r->model) + QD_N_STAGES * (PART_OVERHEAD_BYTES + RECORD_TEXT_BYTES);
  return total;
}

static int64_t disk_bytes(const qd_plan *plan) {
  size_t bytes = SIDE_BYTES + side_files_bytes(plan->request.source);
  for (size_t k = 0; k < plan->n_kinds; k++)
    bytes += (size_t)plan->kind[k].blocks * kind_disk(&plan->request, &plan->kind[k], k + 1 == plan->n_kinds);
  return (int64_t)bytes;
}

static int64_t kept_bytes(const qd_plan_request *r) {
  qd_acts_shape all = qd_plan_acts_shape(r, r->sequences);
  int64_t streams = qd_job_keeps_original(r->job) ? 2 : 1;
  return r->job->keep_activations ? 2 * streams * r->sequences * (int64_t)qd_acts_h_bytes(&all) : 0;
}

/* The model as it is streamed: the embedding, all blocks, and the head where each block's divergence is reported. */
static size_t streamed_bytes(const qd_plan *plan) {
  size_t bytes = original_bytes(tensor_of(rest_of(plan), QD_EMBEDDING));
  if (plan->request.job->kl_positions > 0 && plan->request.sequences > 0) bytes += original_bytes(head_of(plan));
  for (size_t k = 0; k + 1 < plan->n_kinds; k++)
    for (int i = 0; i < plan->kind[k].n; i++)
      bytes += (size_t)plan->kind[k].blocks * original_bytes(&plan->kind[k].tensor[i]);
  return bytes;
}

static int first_on_node(const qd_plan_request *r, int rank) {
  int per_node = r->ranks_on_node > 0 ? r->ranks_on_node : r->ranks;
  return r->first_on_node != NULL ? r->first_on_node[rank] : rank - rank % per_node;
}

/* How often the model is read as a whole; ranks beyond these receive it (of parts that are gathered each rank has its own). */
static int whole_readers(const qd_plan_request *r) {
  int n = 0;
  if (r->job->readers != QD_READERS_NODE) return 1;
  for (int rank = 0; rank < r->ranks; rank++) n += first_on_node(r, rank) == rank;
  return n;
}

/* What one other rank receives of a block, or sends to the owner: diagonals, the exact sum, the Hessian, the factor, codes. */
static size_t kind_traffic(const qd_plan_request *r, const qd_plan_kind *kind) {
  size_t total = 0, bytes[QD_MAX_PARTS];
  for (qd_stage stage = 0; r->sequences > 0 && stage < QD_N_STAGES; stage++) {
    int64_t columns = qd_decoder_mid_columns(r->model, stage);
    total += qd_tri_bytes(columns, QD_I64) + qd_tri_bytes(columns, QD_F32) + (size_t)(r->sequences * columns) * sizeof(double);
    if (r->job->method->needs_factor) total += qd_tri_bytes(columns, QD_F32);
    if (qd_job_is_asymmetric(r->job))
      total += (size_t)((columns + r->sequences) * columns) * sizeof(double) + qd_tri_bytes(columns, QD_F32);
  }
  for (int i = 0; i < kind->n; i++) {
    int n = kind->tensor[i].quantized ? part_bytes(&kind->tensor[i], bytes) : 0;
    for (int p = 0; p < n; p++) total += bytes[p];
    if (n > 0) total += 2 * (size_t)kind->tensor[i].slot.dim[0] * sizeof(double);
  }
  return total;
}

static int64_t traffic_bytes(const qd_plan *plan) {
  const qd_plan_request *r = &plan->request;
  size_t bytes = (size_t)(r->sequences * r->tokens) * sizeof(int32_t);
  for (size_t k = 0; k + 1 < plan->n_kinds; k++)
    bytes += (size_t)plan->kind[k].blocks * kind_traffic(r, &plan->kind[k]);
  return (int64_t)bytes * (r->ranks - 1) + (int64_t)streamed_bytes(plan) * (r->ranks - whole_readers(r));
}

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

/* ---- sizes that evaluation shares ---------------------------------------------------------------------------------------- */

static size_t row_cost(int64_t tokens, int64_t columns, qd_dtype act) {
  return qd_arena_cost((size_t)(tokens * columns), qd_dtype_bytes(act));
}

size_t qd_plan_decoder(const qd_model *m, int64_t tokens, qd_dtype act) {
  size_t attention = row_cost(tokens, m->heads * m->head_dim, act) + 2 * row_cost(tokens, m->kv_heads * m->head_dim, act);
  size_t work = larger(larger(attention, 2 * row_cost(tokens, m->ffn, act)), row_cost(tokens, m->hidden, act));
  return 2 * qd_arena_cost((size_t)(tokens * (m->head_dim / 2)), sizeof(float)) +
         qd_arena_cost((size_t)(m->head_dim / 2), sizeof(double)) + work;
}

size_t qd_plan_activations(const qd_model *model, qd_dtype act, int64_t tokens, int64_t residuals, int64_t mids) {
  size_t element = qd_dtype_bytes(act), mid = (size_t)(tokens * qd_decoder_mid_widest(model)) * element;
  return qd_arena_cost((size_t)residuals, (size_t)(tokens * model->hidden) * element) + qd_arena_cost((size_t)mids, mid);
}

size_t qd_plan_forward_scratch(const qd_device *device, const qd_model *model, qd_dtype act, int64_t tokens) {
  size_t most = attention_scratch(device, model, act, tokens);
  for (qd_role role = 0; role < QD_N_LINEARS; role++) {
    qd_slot slots[QD_MAX_SLOTS];
    int n = qd_model_slots(model, 0, slots);
    for (int i = 0; i < n; i++)
      if (slots[i].role == role)
        most =
            larger(most, qd_scratch_qlinear(device, qd_tensor_2d(NULL, act, tokens, slots[i].dim[1]), slots[i].dim[0], true));
  }
  return most;
}

size_t qd_plan_evaluated_block(const qd_model *model, qd_dtype act) {
  size_t most = 0;
  for (int64_t block = QD_REST; block < 1; block++) {
    qd_slot slots[QD_MAX_SLOTS];
    size_t bytes = 0;
    int n = qd_model_slots(model, block, slots);
    for (int i = 0; i < n; i++)
      bytes += qd_arena_cost(elements_of(&slots[i]), qd_dtype_bytes(qd_role_is_matrix(slots[i].role) ? act : QD_F32));
    most = larger(most, bytes);
  }
  return most;
}

/* ---- the plan ------------------------------------------------------------------------------------------------------------ */

/* A finished block may come with its originals. */
static size_t largest_stored(const qd_plan *plan) {
  size_t most = 0;
  for (size_t k = 0; k + 1 < plan->n_kinds; k++) {
    size_t cost = 0;
    for (int i = 0; i < plan->kind[k].n; i++)
      if (plan->kind[k].tensor[i].quantized) cost += parts_cost(&plan->kind[k].tensor[i]);
    most = larger(most, cost);
  }
  return most;
}

static size_t largest_item(const qd_plan *plan) {
  const qd_plan_request *r = &plan->request;
  size_t largest = 1;
  qd_feed feed = {.model = r->model, .source = r->source};
  if (r->source != NULL)
    for (int64_t item = 0; item < r->model->n_blocks + 2; item++) largest = larger(largest, qd_feed_item_bytes(&feed, item));
  if (r->sequences > 0 && qd_job_keeps_original(r->job)) largest += largest_stored(plan);
  return largest;
}

/* Of a tensor or of what is stored of it; of blocks, or with the rest. */
static size_t largest_part(const qd_plan *plan, size_t n_kinds) {
  size_t most = 0, bytes[QD_MAX_PARTS];
  for (size_t k = 0; k < n_kinds; k++)
    for (int i = 0; i < plan->kind[k].n; i++)
      for (int p = part_bytes(&plan->kind[k].tensor[i], bytes) - 1; p >= 0; p--) most = larger(most, bytes[p]);
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
  return qd_plan_libraries(largest_part(plan, plan->n_kinds), larger(largest, sum), r->ranks, r->launched);
}

/* A resumed job streams stored blocks too, whose parts are not cut: a cut may lie behind the place wanted by one of them. */
static size_t stream_bytes(const qd_plan *plan, int rank, size_t largest) {
  const qd_plan_request *r = &plan->request;
  qd_stream_share share = qd_stream_share_of(r->job->readers, rank, r->ranks, first_on_node(r, rank));
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
}

/* In the end, when the arenas are gone, rank 0 puts the manifest together: records and their JSON. */
static size_t manifest_bytes(const qd_plan *plan) {
  enum { RECORD_BYTES = 24 << 10 };
  size_t records = 0;
  for (size_t k = 0; k < plan->n_kinds; k++) records += (size_t)plan->kind[k].blocks * (size_t)(plan->kind[k].n + QD_N_STAGES);
  return records * RECORD_BYTES;
}

static void add_up(const qd_plan *plan, qd_plan_rank *rank) {
  const qd_plan_request *r = &plan->request;
  rank->part[QD_PLAN_SCRATCH] += qd_arena_cost(qd_device_packing_bytes(r->device), 1);
  rank->host_bytes = 0;
  for (int p = 0; p < QD_N_PLAN_PARTS; p++) rank->host_bytes += rank->part[p];
  size_t end = rank->part[QD_PLAN_PROGRAM] + rank->part[QD_PLAN_LIBRARIES] + rank->part[QD_PLAN_STREAM];
  if (rank == &plan->rank[0]) rank->host_bytes = larger(rank->host_bytes, end + manifest_bytes(plan));
  rank->host_bytes = larger(rank->host_bytes, (size_t)qd_memory_now().peak);
}

static qd_status make(qd_plan *plan) {
  const qd_plan_request *r = &plan->request;
  for (int64_t block = 0; block < r->model->n_blocks; block++) QD_TRY(add_kind(plan, block));
  QD_TRY(add_kind(plan, QD_REST));
  QD_TRY(qd_heap_new((size_t)r->ranks, sizeof *plan->rank, &plan->rank));
  size_t largest = largest_item(plan);
  for (int rank = 0; rank < r->ranks; rank++) {
    plan->rank[rank].sequences = qd_partition_even(r->sequences, rank, r->ranks).n;
    plan_rank(plan, rank, largest);
  }
  QD_TRY(plan_scratch(plan));
  QD_TRY(plan_writers(plan));
  for (int rank = 0; rank < r->ranks; rank++) add_up(plan, &plan->rank[rank]);
  plan->kept_bytes = kept_bytes(r);
  plan->disk_bytes = disk_bytes(plan) + plan->kept_bytes;
  plan->read_bytes = (int64_t)streamed_bytes(plan) * whole_readers(r);
  plan->traffic_bytes = traffic_bytes(plan);
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
  qd_heap_free(plan->kind);
  qd_heap_free(plan->rank);
  *plan = (qd_plan){0};
}
