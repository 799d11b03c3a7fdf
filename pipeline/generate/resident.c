#include "pipeline/generate/resident.h"

#include "kernels/scratch.h"
#include "pipeline/generate/sampling.h"
#include "pipeline/plan_parts.h"
#include "pipeline/record.h"
#include "workers/agree.h"
#include "workers/comm_backends.h"
#include "workers/team.h"

#include <string.h>

/* ---- which weights a rank holds, and in which form ----------------------------------------------------------------------- */

typedef enum held { NOT_HERE, PLAIN, PANELS } held;

static int last_rank(const qd_resident *r) { return r->comm->size - 1; }

static int64_t block_of_item(const qd_resident *r, int64_t item) {
  return item == 0 || item == r->subject.model.n_blocks + 1 ? QD_REST : item - 1;
}

static held form_of(const qd_resident *r, int rank, int64_t item, qd_role role) {
  const qd_model *m = &r->subject.model;
  qd_range mine = qd_partition_even(m->n_blocks, rank, r->comm->size);
  if (item == 0) return rank == 0 && role == QD_EMBEDDING ? PLAIN : NOT_HERE;
  if (item <= m->n_blocks) {
    if (item <= mine.first || item > mine.first + mine.n) return NOT_HERE;
    return qd_role_is_linear(role) ? PANELS : PLAIN;
  }
  if (rank != last_rank(r)) return NOT_HERE;
  if (role == QD_FINAL_NORM) return PLAIN;
  return role == (m->tied ? QD_EMBEDDING : QD_HEAD) ? PANELS : NOT_HERE;
}

/* What is known of a tensor before it is read. */
typedef struct description {
  qd_dtype  dtype;
  bool      quantized, has_order;
  qd_scheme scheme;
  int64_t   outliers; /* of SpQR's grid */
} description;

static description describe(const qd_resident *r, int64_t item, const qd_slot *slot) {
  const qd_subject *s = &r->subject;
  if (s->source != NULL) return (description){.dtype = qd_model_original(&s->model, s->source, slot)->dtype};
  const qd_record *record = qd_feed_record(qd_feed_entry(&s->store, block_of_item(r, item)), slot->role, slot->expert);
  description d = {.dtype = record->dtype, .quantized = qd_record_is_quantized(record)};
  for (int i = 0; i < record->n_parts; i++) {
    d.has_order = d.has_order || strcmp(record->part[i].name, "order") == 0;
    if (strcmp(record->part[i].name, "outlier_values") == 0) d.outliers = record->part[i].dim[0];
  }
  if (d.quantized) QD_ASSERT(qd_record_scheme(record, s->path, &d.scheme) == QD_OK); /* checked when it was opened */
  return d;
}

static qd_dtype computed_in(const qd_resident *r, qd_role role) { return qd_role_is_matrix(role) ? r->subject.act : QD_F32; }

static size_t parts_cost(qd_qtensor shape) {
  qd_part part[QD_MAX_PARTS];
  size_t cost = 0;
  int n = qd_qtensor_parts(&shape, part);
  for (int i = 0; i < n; i++) cost += qd_arena_cost(qd_tensor_bytes(part[i].tensor), 1);
  return cost;
}

static size_t weight_cost(const qd_resident *r, int64_t item, const qd_slot *slot, held form) {
  description d = describe(r, item, slot);
  size_t outliers = d.quantized && d.scheme.spqr ? qd_panels_outlier_bytes(r->device, slot->dim[1], d.outliers) : 0;
  if (form == PANELS)
    return qd_arena_cost(1, sizeof(qd_panels)) + outliers +
           qd_panels_bytes(r->device, r->subject.act, slot->dim[0], slot->dim[1], d.quantized ? &d.scheme : NULL, d.has_order);
  if (d.quantized) return outliers + parts_cost(qd_qtensor_shape(d.scheme, slot->dim[0], slot->dim[1], d.has_order));
  return qd_arena_cost(qd_plan_elements(slot), qd_dtype_bytes(computed_in(r, slot->role)));
}

/* Where one that is plain is converted first. */
static size_t conversion_cost(const qd_resident *r, int64_t item, const qd_slot *slot) {
  description d = describe(r, item, slot);
  qd_dtype wanted = computed_in(r, slot->role);
  return d.quantized || d.dtype == wanted ? 0 : qd_arena_cost(qd_plan_elements(slot), qd_dtype_bytes(wanted));
}

/* ---- the plan ------------------------------------------------------------------------------------------------------------ */

typedef struct weight_bytes {
  size_t kept, largest_conversion;
} weight_bytes;

static weight_bytes weights_of(const qd_resident *r, int rank) {
  const qd_model *m = &r->subject.model;
  size_t blocks = (size_t)qd_partition_even(m->n_blocks, rank, r->comm->size).n;
  weight_bytes sum = {.kept = qd_arena_cost(blocks, sizeof(qd_block)) + qd_arena_cost(blocks, sizeof(qd_kv))};
  for (int64_t item = 0; item < m->n_blocks + 2; item++) {
    int n = qd_model_n_slots(m, block_of_item(r, item)), here = 0;
    for (int i = 0; i < n; i++) {
      qd_slot slot;
      qd_model_slot(m, block_of_item(r, item), i, &slot);
      held form = form_of(r, rank, item, slot.role);
      if (form == NOT_HERE) continue;
      here++;
      sum.kept += weight_cost(r, item, &slot, form);
      sum.largest_conversion = qd_larger(sum.largest_conversion, conversion_cost(r, item, &slot));
    }
    if (here > 0) sum.kept += qd_arena_cost((size_t)here, sizeof(qd_weight));
  }
  return sum;
}

static qd_kv kv_shape(const qd_resident *r, int64_t positions) {
  const qd_model *m = &r->subject.model;
  return qd_kv_shape(r->device, r->subject.act, positions, m->kv_heads, m->head_dim);
}

static size_t cache_bytes(const qd_resident *r, int64_t positions, int rank) {
  const qd_model *m = &r->subject.model;
  qd_kv shape = kv_shape(r, positions);
  size_t v = (size_t)m->vocabulary, choice = qd_arena_cost(v, sizeof(float)) + qd_arena_cost(v, QD_SAMPLING_WORK_BYTES);
  size_t blocks = (size_t)qd_partition_even(m->n_blocks, rank, r->comm->size).n;
  return (rank == last_rank(r) ? choice : 0) + blocks * qd_kv_bytes(r->device, &shape);
}

/* Tokens of a pass. */
static int64_t pass_tokens(int64_t positions) { return positions < QD_PASS_TOKENS ? positions : QD_PASS_TOKENS; }

/* A block's experts are all on its rank. */
static qd_experts_shape experts_shape(const qd_resident *r, int64_t positions) {
  qd_experts_shape shape = qd_subject_experts(&r->subject, 1, pass_tokens(positions));
  shape.ranks = 1, shape.all_sequences = 1;
  return shape;
}

size_t qd_resident_scratch(const qd_resident *r, int64_t positions) {
  const qd_model *m = &r->subject.model;
  qd_experts_shape shape = experts_shape(r, positions);
  size_t most = qd_plan_forward_scratch(r->device, &shape);
  qd_dtype act = r->subject.act;
  qd_kv kv = kv_shape(r, positions);
  qd_kv_attend_args args = {.kv = &kv};
  kv.n = positions;
  for (int whole = 0; whole < 2; whole++) { /* a token, and as many as a pass has */
    args.q = qd_tensor_3d(NULL, act, whole ? shape.tokens : 1, m->heads, m->head_dim);
    most = qd_larger(most, qd_scratch_kv_attend(r->device, &args));
  }
  return qd_larger(most, qd_scratch_qlinear(r->device, qd_tensor_2d(NULL, act, 1, m->hidden), m->vocabulary, true));
}

static size_t largest_item(const qd_resident *r, size_t *snap) {
  qd_feed feed = qd_subject_feed(&r->subject);
  size_t largest = 1;
  *snap = 0;
  for (int64_t item = 0; item < r->subject.model.n_blocks + 2; item++) {
    largest = qd_larger(largest, qd_feed_item_bytes(&feed, item));
    *snap = qd_larger(*snap, qd_feed_item_snap(&feed, item));
  }
  return largest;
}

void qd_resident_plan(const qd_resident *r, int64_t positions, int rank, qd_plan_rank *out) {
  const qd_subject *s = &r->subject;
  int64_t tokens = pass_tokens(positions);
  size_t snap, item = largest_item(r, &snap), *part = out->part;
  weight_bytes weights = weights_of(r, rank);
  qd_experts_shape experts = experts_shape(r, positions);
  *out = (qd_plan_rank){.sequences = 1};
  part[QD_PLAN_PROGRAM] = (size_t)qd_memory_now().resident;
  part[QD_PLAN_LIBRARIES] = qd_plan_libraries(item, item, r->comm->size, true);
  part[QD_PLAN_STREAM] = qd_stream_buffer_bytes(
      item, snap, qd_stream_share_of(s->readers, rank, r->comm->size, qd_team_first_on_node(r->comm)[rank]));
  part[QD_PLAN_BLOCK] = weights.kept + weights.largest_conversion;
  part[QD_PLAN_ACTIVATIONS] = cache_bytes(r, positions, rank) + qd_subject_acts_bytes(s, 1, tokens);
  part[QD_PLAN_EXPERTS] = qd_experts_bytes(&experts);
  part[QD_PLAN_DECODER] = qd_plan_decoder(&s->model, tokens, s->act);
  part[QD_PLAN_SCRATCH] = qd_resident_scratch(r, positions) + qd_arena_cost(qd_device_packing_bytes(r->device), 1);
  for (int p = 0; p < QD_N_PLAN_PARTS; p++) out->host_bytes += part[p];
  out->host_bytes = qd_larger(out->host_bytes, (size_t)qd_memory_now().peak);
}

/* Of a node's ranks each holds something else: all are asked. */
qd_status qd_resident_check(const qd_resident *r, int64_t positions, int64_t max_host_bytes) {
  static const char way_out[] = "use more nodes, fewer --max-new-tokens or a shorter prompt";
  const int *node = qd_team_first_on_node(r->comm), ranks = qd_team_ranks_on_node(r->comm);
  qd_plan_rank one, own;
  qd_memory_need need = {.max_host_bytes = max_host_bytes};
  for (int rank = 0; rank < r->comm->size; rank++) {
    if (node[rank] != node[r->comm->rank]) continue;
    qd_resident_plan(r, positions, rank, &one);
    need.node += (double)one.host_bytes;
  }
  qd_resident_plan(r, positions, r->comm->rank, &own);
  need.address = qd_plan_address_bytes(&own, r->device);
  return qd_plan_check_need(&need, (qd_plan_place){.rank = r->comm->rank, .ranks_on_node = ranks, .running = ranks}, way_out);
}

/* ---- loading ------------------------------------------------------------------------------------------------------------- */

qd_status qd_resident_open(qd_resident *r, const char *path, qd_compute compute, qd_comm *comm, qd_device *device) {
  *r = (qd_resident){.comm = comm, .device = device};
  QD_TRY(qd_subject_open(&r->subject, path, compute, comm, device));
  r->blocks = qd_partition_even(r->subject.model.n_blocks, comm->rank, comm->size);
  return QD_OK;
}

static qd_status new_caches(qd_resident *r) {
  int64_t vocabulary = r->subject.model.vocabulary;
  size_t n = (size_t)r->blocks.n;
  qd_kv shape = kv_shape(r, r->positions);
  QD_TRY(qd_arena_new(&r->weights, n, sizeof *r->kv, &r->kv));
  for (size_t i = 0; i < n; i++) QD_TRY(qd_kv_new(r->device, &r->cache, &shape, &r->kv[i]));
  if (r->comm->rank != last_rank(r)) return QD_OK;
  QD_TRY(qd_tensor_new_2d(&r->cache, QD_F32, 1, vocabulary, &r->logits));
  return qd_arena_new(&r->cache, (size_t)vocabulary, QD_SAMPLING_WORK_BYTES, &r->candidates);
}

static qd_status open_arenas(qd_resident *r) {
  size_t cache = cache_bytes(r, r->positions, r->comm->rank);
  weight_bytes weights = weights_of(r, r->comm->rank);
  QD_TRY(qd_device_reserve(r->device, qd_resident_scratch(r, r->positions)));
  QD_TRY(qd_arena_open(&r->weights, "weights", weights.kept + weights.largest_conversion));
  QD_TRY(qd_arena_open(&r->cache, "cache", qd_larger(cache, 1)));
  QD_TRY(qd_arena_new(&r->weights, (size_t)r->blocks.n, sizeof *r->block, &r->block));
  return new_caches(r);
}

static qd_status copy_tensor(qd_arena *arena, qd_tensor *t) {
  size_t bytes = qd_tensor_bytes(*t);
  void *copy;
  QD_TRY(qd_arena_new(arena, bytes, 1, &copy));
  if (bytes > 0) memcpy(copy, t->data, bytes);
  t->data = copy;
  return QD_OK;
}

static qd_status copy_codes(qd_arena *arena, qd_qtensor *q) {
  qd_part parts[QD_MAX_PARTS];
  for (int i = 0, n = qd_qtensor_parts(q, parts); i < n; i++)
    QD_TRY(copy_tensor(arena, qd_qtensor_part(q, parts[i].name)));
  return QD_OK;
}

/* The image that a weight lies in goes with the next item. */
static qd_status keep_weight(qd_resident *r, qd_weight *weight, held form) {
  qd_block alone = {.n = 1, .weight = weight, .ranks = 1};
  qd_panels *panels;
  if (form == PLAIN && weight->quantized) return copy_codes(&r->weights, &weight->q);
  if (form == PANELS) QD_TRY(qd_arena_new(&r->weights, 1, sizeof *panels, &panels));
  if (form == PANELS && weight->quantized) {
    QD_TRY(qd_panels_quantized(r->device, &r->weights, &weight->q, r->subject.act, panels));
    return weight->panels = panels, QD_OK;
  }
  QD_TRY(qd_block_check_finite(&alone, r->device, r->subject.path));
  QD_TRY(qd_block_prepare(&alone, r->subject.act, &r->subject.block_arena));
  if (form == PLAIN) return copy_tensor(&r->weights, &weight->compute);
  QD_TRY(qd_panels_dense(r->device, &r->weights, weight->compute, panels));
  return weight->panels = panels, QD_OK;
}

static qd_status keep_item(qd_resident *r, int64_t item, const qd_block *streamed, qd_block *kept) {
  int n = 0;
  for (int i = 0; i < streamed->n; i++) n += form_of(r, r->comm->rank, item, streamed->weight[i].slot.role) != NOT_HERE;
  *kept = (qd_block){.index = streamed->index, .ranks = 1};
  if (n == 0) return QD_OK;
  QD_TRY(qd_arena_new(&r->weights, (size_t)n, sizeof *kept->weight, &kept->weight));
  for (int i = 0; i < streamed->n; i++) {
    held form = form_of(r, r->comm->rank, item, streamed->weight[i].slot.role);
    if (form == NOT_HERE) continue;
    qd_weight *weight = &kept->weight[kept->n++];
    *weight = streamed->weight[i];
    QD_TRY(keep_weight(r, weight, form));
    qd_arena_rewind(&r->subject.block_arena, 0);
  }
  return QD_OK;
}

static qd_block *place_of(qd_resident *r, int64_t item, qd_block *nowhere) {
  if (item == 0) return &r->embedding;
  if (item == r->subject.model.n_blocks + 1) return &r->rest;
  int64_t own = item - 1 - r->blocks.first;
  return own >= 0 && own < r->blocks.n ? &r->block[own] : nowhere;
}

static qd_status load_items(qd_resident *r) {
  qd_block streamed, nowhere;
  QD_TRY(qd_feed_open(&r->subject.feed, r->comm));
  for (int64_t item = 0; item < r->subject.model.n_blocks + 2; item++) {
    QD_TRY(qd_feed_next(&r->subject.feed, &streamed));
    QD_TRY_ALL(r->comm, keep_item(r, item, &streamed, place_of(r, item, &nowhere)));
  }
  return QD_OK;
}

qd_status qd_resident_load(qd_resident *r, int64_t positions) {
  r->positions = positions;
  QD_TRY_ALL(r->comm, open_arenas(r));
  r->subject.feed = qd_subject_feed(&r->subject);
  QD_TRY(load_items(r));
  qd_feed_close(&r->subject.feed);
  r->subject.comm = qd_comm_self();
  return qd_agree(r->comm, qd_subject_reserve(&r->subject, 1, pass_tokens(positions)));
}

/* ---- a pass -------------------------------------------------------------------------------------------------------------- */

/* Fewer tokens than there is room for. */
static qd_status set_tokens(qd_resident *r, int64_t first, int64_t n) {
  qd_subject *s = &r->subject;
  s->h.dim[1] = n, s->acts.shape.tokens = n, s->experts.shape.tokens = n;
  return qd_decoder_place(&s->decoder, first, n);
}

static qd_status logits_behind(qd_resident *r, qd_tensor last) {
  QD_TRY(qd_decoder_final_norm(&r->subject.decoder, &r->rest, last));
  return qd_decoder_logits(&r->subject.decoder, &r->rest, last, r->logits);
}

/* This rank's part: ids on rank 0, else h. */
static qd_status run_mine(qd_resident *r, const int32_t *ids, bool ends) {
  qd_subject *s = &r->subject;
  qd_tensor h = qd_tensor_at(s->h, 0);
  int64_t n = h.dim[0];
  if (r->comm->rank == 0)
    QD_TRY(qd_decoder_embed(&s->decoder, &r->embedding, qd_tensor_1d((void *)(uintptr_t)ids, QD_I32, n), h));
  for (int64_t i = 0; i < r->blocks.n; i++) {
    s->decoder.kv = &r->kv[i];
    QD_TRY(qd_subject_block(s, &r->block[i], 1));
  }
  return ends && r->comm->rank == last_rank(r) ? logits_behind(r, qd_tensor_rows(h, n - 1, 1)) : QD_OK;
}

/* A rank that failed still hands something on, so that no other waits for it; *mine tells. */
static qd_status pass_on(qd_resident *r, const int32_t *ids, qd_range tokens, bool ends, qd_status *mine) {
  int rank = r->comm->rank;
  if (*mine == QD_OK) *mine = set_tokens(r, tokens.first, tokens.n);
  void *h = r->subject.h.data;
  size_t bytes = (size_t)(tokens.n * r->subject.model.hidden) * qd_dtype_bytes(r->subject.act);
  if (rank > 0) QD_TRY(qd_comm_move(r->comm, NULL, h, bytes, rank - 1, rank));
  if (*mine == QD_OK) *mine = run_mine(r, ids, ends);
  return rank < last_rank(r) ? qd_comm_move(r->comm, h, NULL, bytes, rank, rank + 1) : QD_OK;
}

qd_status qd_resident_pass(qd_resident *r, const int32_t *ids, int64_t n, int64_t first) {
  int64_t most = pass_tokens(r->positions);
  qd_status mine = QD_OK;
  QD_ASSERT(n > 0 && first >= 0 && first + n <= r->positions);
  for (int64_t at = 0; at < n; at += most) {
    qd_range tokens = {.first = first + at, .n = n - at < most ? n - at : most};
    QD_TRY(pass_on(r, r->comm->rank == 0 ? ids + at : NULL, tokens, at + tokens.n == n, &mine));
  }
  return qd_agree(r->comm, mine);
}

void qd_resident_close(qd_resident *r) {
  qd_subject_close(&r->subject);
  qd_arena_close(&r->weights);
  qd_arena_close(&r->cache);
}
