#include "pipeline/feed.h"

#include "kernels/base/heap.h"
#include "pipeline/record.h"
#include "workers/agree.h"
#include "workers/team.h"

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
    p->bytes = qd_stored_part_bytes(&p->record->part[p->part]);
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

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }
static size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

static qd_status longest_part(qd_feed *feed, int64_t item, const piece *p, void *context) {
  size_t *longest = context;
  (void)feed, (void)item;
  if (p->part >= 0) *longest = larger(*longest, aligned(p->bytes));
  return QD_OK;
}

size_t qd_feed_item_snap(const qd_feed *feed, int64_t item) {
  size_t longest = aligned(1);
  qd_feed copy = *feed;
  QD_ASSERT(visit_pieces(&copy, item, longest_part, &longest) == QD_OK);
  return longest;
}

/* A place in an image that is wanted, and the first one behind it where the image may be parted. */
typedef struct place {
  size_t wanted, found;
} place;

/* A tensor of the source may be parted anywhere; a stored part is decompressed and checked as a whole. */
static qd_status find_place(qd_feed *feed, int64_t item, const piece *p, void *context) {
  place *at = context;
  (void)feed, (void)item;
  if (at->found != SIZE_MAX) return QD_OK;
  if (at->wanted <= p->offset) at->found = p->offset;
  else if (p->part < 0 && at->wanted < p->offset + p->bytes) at->found = aligned(at->wanted);
  return QD_OK;
}

static size_t item_cut(void *context, int64_t item, size_t at) {
  place p = {at, SIZE_MAX};
  QD_ASSERT(visit_pieces(context, item, find_place, &p) == QD_OK);
  return p.found;
}

/* ---- reading ------------------------------------------------------------------------------------------------------------- */

/* Bytes [first, end) of an image, to `to`. */
typedef struct reading {
  size_t first, end;
  bool   whole;
  unsigned char *to;
} reading;

static qd_status digest_piece(qd_feed *feed, int64_t item, const piece *p, void *image) {
  if (p->part < 0) qd_digest_of((unsigned char *)image + p->offset, p->bytes, &feed->digest[item % 2][p->index]);
  return QD_OK;
}

/* What of the piece is to be read.  Who reads an item whole digests it there and then, behind the work on the one before. */
static qd_status fetch_piece(qd_feed *feed, int64_t item, const piece *p, void *context) {
  const reading *r = context;
  size_t from = larger(p->offset, r->first), until = smaller(p->offset + p->bytes, r->end);
  if (from >= until) return QD_OK;
  if (p->part >= 0) {
    const qd_entry *entry = qd_feed_entry(feed->store, block_of_item(feed, item));
    return qd_store_read_part(feed->store, entry, &p->record->part[p->part], r->to + (from - r->first));
  }
  QD_TRY(qd_source_read(feed->source, p->tensor, from - p->offset, r->to + (from - r->first), until - from));
  return r->whole ? digest_piece(feed, item, p, r->to) : QD_OK;
}

static qd_status item_fetch(void *context, int64_t item, size_t first, size_t n, void *to) {
  reading r = {.first = first, .end = first + n, .whole = n == qd_feed_item_bytes(context, item), .to = to};
  return visit_pieces(context, item, fetch_piece, &r);
}

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
  for (int i = 0; i < block->n; i++) {
    const qd_weight *weight = &block->weight[i];
    if (!(weight->quantized || weight->stored) || !qd_block_computes(block, weight)) continue;
    qd_status status = qd_qtensor_check_whole(&weight->q);
    if (status != QD_OK) QD_FAIL(status, "%s: %s", weight->slot.name, qd_error_text());
  }
  return QD_OK;
}

/* ---- digests of what several ranks read ---------------------------------------------------------------------------------- */

/* Nodes that read for themselves must have read the same: rank 0's digests are what the store records. */
static qd_status compare_digests(const qd_feed *feed, const qd_digest *here, const qd_block *block) {
  char host[128];
  int rank = feed->comm->rank;
  if (qd_team_first_on_node(feed->comm)[rank] != rank) return QD_OK;
  for (int s = 0; s < block->n; s++)
    QD_CHECK(qd_digest_equal(&here[s], &feed->there[s]), QD_EBADINPUT,
             "%s of %s as host %s reads it is not what rank 0 reads (digest %s, there %s)", block->weight[s].slot.name,
             qd_source_path(feed->source), qd_host_name(host, sizeof host), here[s].hex, feed->there[s].hex);
  return QD_OK;
}

static qd_status agree_on_digests(qd_feed *feed, int64_t item, const qd_block *block) {
  const qd_digest *here = feed->digest[item % 2];
  size_t bytes = (size_t)block->n * sizeof *here;
  if (feed->readers != QD_READERS_NODE || qd_team_nodes(feed->comm) == 1) return QD_OK;
  memcpy(feed->there, here, bytes);
  QD_TRY(qd_comm_bcast(feed->comm, feed->there, bytes, 0));
  QD_TRY_ALL(feed->comm, compare_digests(feed, here, block));
  return QD_OK;
}

/* Where each rank read a part, the image is whole only now. */
static qd_status digest_gathered(qd_feed *feed, int64_t item, const void *image) {
  if (feed->readers != QD_READERS_ALL || feed->comm->size == 1 || feed->comm->rank != 0) return QD_OK;
  return visit_pieces(feed, item, digest_piece, at(image, 0));
}

qd_status qd_feed_next(qd_feed *feed, qd_block *block) {
  const void *image;
  int64_t item = feed->next++;
  QD_TRY(qd_stream_next(feed->stream, &image));
  QD_TRY(digest_gathered(feed, item, image));
  *block = (qd_block){
      .index = block_of_item(feed, item), .weight = feed->weight, .rank = feed->comm->rank, .ranks = feed->comm->size};
  QD_TRY(visit_pieces(feed, item, bind_piece, &(binding){image, block}));
  if (!from_store(feed, item) || feed->with_originals) QD_TRY(agree_on_digests(feed, item, block));
  QD_TRY_ALL(feed->comm, check_values(block));
  return QD_OK;
}

static qd_status open_here(qd_feed *feed) {
  size_t most = (size_t)qd_model_most_slots(feed->model);
  QD_TRY(qd_heap_new(most, sizeof *feed->weight, &feed->weight));
  QD_TRY(qd_heap_new(most, sizeof *feed->there, &feed->there));
  for (int i = 0; i < 2; i++) QD_TRY(qd_heap_new(most, sizeof *feed->digest[i], &feed->digest[i]));
  return QD_OK;
}

qd_status qd_feed_open(qd_feed *feed, qd_comm *comm) {
  qd_stream_source source = {
      .context = feed, .n_items = feed->model->n_blocks + 2, .bytes = item_bytes, .cut = item_cut, .fetch = item_fetch};
  feed->comm = comm;
  QD_TRY_ALL(comm, open_here(feed));
  return qd_stream_open(comm, &source, feed->readers, feed->next, &feed->stream);
}

void qd_feed_close(qd_feed *feed) {
  qd_stream_close(feed->stream);
  qd_heap_free(feed->weight);
  qd_heap_free(feed->there);
  for (int i = 0; i < 2; i++) qd_heap_free(feed->digest[i]), feed->digest[i] = NULL;
  feed->stream = NULL, feed->weight = NULL, feed->there = NULL;
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
