#include "pipeline/feed.h"

#include "kernels/base/heap.h"
#include "pipeline/record.h"
#include "workers/agree.h"

#include <string.h>

const qd_entry *qd_feed_entry(const qd_store *store, int64_t block) {
  return block == QD_REST ? &store->rest : &store->block[block];
}

const qd_record *qd_feed_record(const qd_entry *entry, qd_role role, int expert) {
  for (int i = 0; i < entry->n_records; i++)
    if (entry->record[i].expert == expert && strcmp(entry->record[i].role, qd_role_name(role)) == 0) return &entry->record[i];
  return NULL;
}

/* ---- which tensors an item holds, and where they lie in its image -------------------------------------------------------- */

static int64_t block_of_item(const qd_feed *feed, int64_t item) {
  return item == 0 || item == feed->model->n_blocks + 1 ? QD_REST : item - 1;
}

/* Item 0 is the embedding, the last one what else is no block (the embedding too, if it is the head). */
static bool holds_slot(const qd_feed *feed, int64_t item, const qd_slot *slot) {
  bool embedding = slot->role == QD_EMBEDDING, embedding_only = item == 0;
  return block_of_item(feed, item) != QD_REST || embedding == embedding_only || (embedding && feed->model->tied);
}

static bool from_store(const qd_feed *feed, int64_t item) {
  if (feed->source == NULL) return true;
  int64_t block = block_of_item(feed, item);
  return block != QD_REST && block < feed->blocks_stored;
}

static size_t aligned(size_t bytes) { return qd_arena_cost(bytes, 1); }

static size_t part_bytes(const qd_stored_part *part) {
  size_t n = qd_dtype_bytes(part->dtype);
  for (int i = 0; i < part->rank; i++) n *= (size_t)part->dim[i];
  return n;
}

/* A run of bytes of an item's image. */
typedef struct piece {
  int index, part;                 /* of the item's tensors; part -1: a source tensor */
  const qd_slot *slot;
  const qd_source_tensor *tensor;
  const qd_record *record;
  size_t offset, bytes;
} piece;

typedef qd_status (*piece_visitor)(qd_feed *feed, int64_t item, const piece *p, void *context);

/* Beside its original only the parts of a quantized one. */
static qd_status visit_record(qd_feed *feed, int64_t item, piece *p, piece_visitor visit, void *context) {
  p->record = qd_feed_record(qd_feed_entry(feed->store, block_of_item(feed, item)), p->slot->role, p->slot->expert);
  if (feed->with_originals && !qd_record_is_quantized(p->record)) return QD_OK;
  for (p->part = 0; p->part < p->record->n_parts; p->part++, p->offset += aligned(p->bytes)) {
    p->bytes = part_bytes(&p->record->part[p->part]);
    QD_TRY(visit(feed, item, p, context));
  }
  return QD_OK;
}

static qd_status visit_tensor(qd_feed *feed, int64_t item, piece *p, piece_visitor visit, void *context) {
  p->part = -1;
  p->tensor = qd_source_find(feed->source, p->slot->name);
  p->bytes = (size_t)p->tensor->bytes;
  QD_TRY(visit(feed, item, p, context));
  p->offset += aligned(p->bytes);
  return QD_OK;
}

/* Call visit for every piece of an item's image, in order. */
static qd_status visit_pieces(qd_feed *feed, int64_t item, piece_visitor visit, void *context) {
  int64_t block = block_of_item(feed, item);
  int n = qd_model_n_slots(feed->model, block);
  qd_slot slot;
  piece p = {.slot = &slot};
  for (int i = 0; i < n; i++) {
    qd_model_slot(feed->model, block, i, &slot);
    if (!holds_slot(feed, item, &slot)) continue;
    if (!from_store(feed, item) || feed->with_originals) QD_TRY(visit_tensor(feed, item, &p, visit, context));
    if (from_store(feed, item)) QD_TRY(visit_record(feed, item, &p, visit, context));
    p.index++;
  }
  return QD_OK;
}

static qd_status measure_piece(qd_feed *feed, int64_t item, const piece *p, void *context) {
  (void)feed, (void)item;
  *(size_t *)context = p->offset + aligned(p->bytes);
  return QD_OK;
}

static size_t item_bytes(void *context, int64_t item) {
  size_t bytes = 0;
  QD_ASSERT(visit_pieces(context, item, measure_piece, &bytes) == QD_OK);
  return bytes;
}

/* Looking changes nothing of the feed. */
size_t qd_feed_item_bytes(const qd_feed *feed, int64_t item) {
  qd_feed copy = *feed;
  return item_bytes(&copy, item);
}

static qd_status fetch_piece(qd_feed *feed, int64_t item, const piece *p, void *context) {
  unsigned char *place = (unsigned char *)context + p->offset;
  if (p->part >= 0) {
    const qd_entry *entry = qd_feed_entry(feed->store, block_of_item(feed, item));
    return qd_store_read_part(feed->store, entry, &p->record->part[p->part], place);
  }
  QD_TRY(qd_source_read(feed->source, p->tensor, 0, place, p->bytes));
  qd_digest_of(place, p->bytes, &feed->digest[item % 2][p->index]);
  return QD_OK;
}

static qd_status item_fetch(void *context, int64_t item, void *to) { return visit_pieces(context, item, fetch_piece, to); }

/* ---- views --------------------------------------------------------------------------------------------------------------- */

/* Views into an image are never written through. */
static void *at(const void *image, size_t offset) {
  union { const void *read_only; void *data; } view = {.read_only = (const unsigned char *)image + offset};
  return view.data;
}

static qd_tensor plain_view(const qd_slot *slot, qd_dtype dtype, void *data) {
  return slot->rank == 2 ? qd_tensor_2d(data, dtype, slot->dim[0], slot->dim[1]) : qd_tensor_1d(data, dtype, slot->dim[0]);
}

typedef struct binding {
  const void *image;
  qd_block   *block;
} binding;

static qd_status bind_piece(qd_feed *feed, int64_t item, const piece *p, void *context) {
  const binding *to = context;
  qd_weight *weight = &to->block->weight[p->index];
  void *data = at(to->image, p->offset);
  if (p->index == to->block->n) { /* its first piece */
    *weight = (qd_weight){.slot = *p->slot};
    to->block->n++;
  }
  if (p->part < 0) {
    weight->source = feed->digest[item % 2][p->index];
    weight->dtype = p->tensor->dtype;
    weight->original = plain_view(&weight->slot, weight->dtype, data);
    return QD_OK;
  }
  weight->dtype = p->record->dtype;
  weight->source = p->record->source;
  weight->stored = feed->with_originals;
  weight->quantized = qd_record_is_quantized(p->record) && !weight->stored;
  if (weight->quantized || weight->stored) return qd_record_bind_part(p->record, p->part, data, &weight->q);
  weight->original = plain_view(&weight->slot, weight->dtype, data);
  return QD_OK;
}

static qd_status check_values(const qd_block *block) {
  for (int i = 0; i < block->n; i++)
    if ((block->weight[i].quantized || block->weight[i].stored) && qd_block_computes(block, &block->weight[i]))
      QD_TRY(qd_qtensor_check(&block->weight[i].q));
  return QD_OK;
}

qd_status qd_feed_next(qd_feed *feed, qd_block *block) {
  const void *image;
  int64_t item = feed->next++;
  QD_TRY(qd_stream_next(feed->stream, &image));
  *block = (qd_block){
      .index = block_of_item(feed, item), .weight = feed->weight, .rank = feed->comm->rank, .ranks = feed->comm->size};
  QD_TRY(visit_pieces(feed, item, bind_piece, &(binding){image, block}));
  QD_TRY_ALL(feed->comm, check_values(block));
  return QD_OK;
}

static qd_status open_here(qd_feed *feed) {
  size_t most = (size_t)qd_model_most_slots(feed->model);
  QD_TRY(qd_heap_new(most, sizeof *feed->weight, &feed->weight));
  for (int i = 0; i < 2; i++) QD_TRY(qd_heap_new(most, sizeof *feed->digest[i], &feed->digest[i]));
  return QD_OK;
}

qd_status qd_feed_open(qd_feed *feed, qd_comm *comm) {
  qd_stream_source source = {.context = feed, .n_items = feed->model->n_blocks + 2, .bytes = item_bytes, .fetch = item_fetch};
  feed->comm = comm;
  QD_TRY_ALL(comm, open_here(feed));
  return qd_stream_open(comm, &source, feed->next, &feed->stream);
}

void qd_feed_close(qd_feed *feed) {
  qd_stream_close(feed->stream);
  qd_heap_free(feed->weight);
  for (int i = 0; i < 2; i++) qd_heap_free(feed->digest[i]), feed->digest[i] = NULL;
  feed->stream = NULL, feed->weight = NULL;
}

/* ---- a store against the model ------------------------------------------------------------------------------------------- */

static qd_status check_tensor(const qd_store *store, const qd_model *model, int64_t block, int index) {
  qd_slot slot;
  qd_model_slot(model, block, index, &slot);
  const qd_record *record = qd_feed_record(qd_feed_entry(store, block), slot.role, slot.expert);
  QD_CHECK(record != NULL, QD_ECORRUPT, "%s: the manifest has no %s, which config.json promises", store->folder, slot.name);
  bool same = record->rank == slot.rank;
  for (int d = 0; same && d < slot.rank; d++) same = record->dim[d] == slot.dim[d];
  QD_CHECK(same, QD_ECORRUPT, "%s: the shape of %s in the manifest is not the one that config.json gives", store->folder,
           slot.name);
  return qd_record_check(record, store->folder);
}

static qd_status check_block(const qd_store *store, const qd_model *model, int64_t block) {
  int n = qd_model_n_slots(model, block);
  for (int i = 0; i < n; i++) QD_TRY(check_tensor(store, model, block, i));
  return QD_OK;
}

qd_status qd_feed_check_store(const qd_store *store, const qd_model *model) {
  QD_CHECK(!store->finished || store->n_blocks == model->n_blocks, QD_ECORRUPT,
           "%s: the manifest has %" PRId64 " blocks, config.json %" PRId64, store->folder, store->n_blocks, model->n_blocks);
  QD_CHECK(store->n_blocks <= model->n_blocks, QD_ECORRUPT, "%s: the journal has %" PRId64 " blocks, config.json %" PRId64,
           store->folder, store->n_blocks, model->n_blocks);
  for (int64_t block = 0; block < store->n_blocks; block++) QD_TRY(check_block(store, model, block));
  return store->has_rest ? check_block(store, model, QD_REST) : QD_OK;
}
