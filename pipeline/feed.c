#include "pipeline/feed.h"

#include "pipeline/record.h"

#include <string.h>

const qd_entry *qd_feed_entry(const qd_store *store, int64_t block) {
  return block == QD_REST ? &store->rest : &store->block[block];
}

const qd_record *qd_feed_record(const qd_entry *entry, qd_role role) {
  for (int i = 0; i < entry->n_records; i++)
    if (strcmp(entry->record[i].role, qd_role_name(role)) == 0 && entry->record[i].expert < 0) return &entry->record[i];
  return NULL;
}

/* ---- which tensors an item holds, and where they lie in its image -------------------------------------------------------- */

static int64_t block_of_item(const qd_feed *feed, int64_t item) {
  return item == 0 || item == feed->model->n_blocks + 1 ? QD_REST : item - 1;
}

static int slots_of_item(const qd_feed *feed, int64_t item, qd_slot slots[QD_MAX_SLOTS]) {
  qd_slot all[QD_MAX_SLOTS];
  int64_t block = block_of_item(feed, item);
  int n = qd_model_slots(feed->model, block, all), kept = 0;
  bool embedding_only = item == 0, tied = feed->model->tied;
  for (int i = 0; i < n; i++) {
    bool embedding = all[i].role == QD_EMBEDDING;
    if (block != QD_REST || embedding == embedding_only || (embedding && tied)) slots[kept++] = all[i];
  }
  return kept;
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

/* Call visit for every piece of an item's image, in order. */
typedef struct piece {
  int slot, part;                  /* part: -1 for a source tensor */
  const qd_source_tensor *tensor;
  const qd_record *record;
  size_t offset, bytes;
} piece;

/* The parts of a slot's record; beside its original, of a quantized one only. */
static int stored_pieces(const qd_feed *feed, int64_t item, const qd_slot *slots, int s, piece *pieces) {
  if (!from_store(feed, item)) return 0;
  const qd_record *record = qd_feed_record(qd_feed_entry(feed->store, block_of_item(feed, item)), slots[s].role);
  if (feed->with_originals && !qd_record_is_quantized(record)) return 0;
  for (int p = 0; p < record->n_parts; p++)
    pieces[p] = (piece){.slot = s, .part = p, .record = record, .bytes = part_bytes(&record->part[p])};
  return record->n_parts;
}

static int pieces_of_item(const qd_feed *feed, int64_t item, const qd_slot *slots, int n_slots, piece *pieces) {
  int n = 0;
  size_t offset = 0;
  for (int s = 0; s < n_slots; s++) {
    if (!from_store(feed, item) || feed->with_originals) {
      const qd_source_tensor *tensor = qd_source_find(feed->source, slots[s].name);
      pieces[n++] = (piece){.slot = s, .part = -1, .tensor = tensor, .bytes = (size_t)tensor->bytes};
    }
    n += stored_pieces(feed, item, slots, s, pieces + n);
  }
  for (int i = 0; i < n; i++) {
    pieces[i].offset = offset;
    offset += aligned(pieces[i].bytes);
  }
  return n;
}

enum { MAX_PIECES = QD_MAX_SLOTS * (QD_MAX_PARTS + 1) };

size_t qd_feed_item_bytes(const qd_feed *feed, int64_t item) {
  qd_slot slots[QD_MAX_SLOTS];
  piece pieces[MAX_PIECES];
  int n = pieces_of_item(feed, item, slots, slots_of_item(feed, item, slots), pieces);
  return n == 0 ? 0 : pieces[n - 1].offset + aligned(pieces[n - 1].bytes);
}

static size_t item_bytes(void *context, int64_t item) { return qd_feed_item_bytes(context, item); }

static qd_status item_fetch(void *context, int64_t item, void *to) {
  qd_feed *feed = context;
  qd_slot slots[QD_MAX_SLOTS];
  piece pieces[MAX_PIECES];
  int n = pieces_of_item(feed, item, slots, slots_of_item(feed, item, slots), pieces);
  for (int i = 0; i < n; i++) {
    unsigned char *place = (unsigned char *)to + pieces[i].offset;
    if (pieces[i].part >= 0) {
      const qd_entry *entry = qd_feed_entry(feed->store, block_of_item(feed, item));
      QD_TRY(qd_store_read_part(feed->store, entry, &pieces[i].record->part[pieces[i].part], place));
    } else {
      QD_TRY(qd_source_read(feed->source, pieces[i].tensor, 0, place, pieces[i].bytes));
      qd_digest_of(place, pieces[i].bytes, &feed->digest[item % 2][pieces[i].slot]);
    }
  }
  return QD_OK;
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

static qd_status bind_piece(const qd_feed *feed, const piece *p, const void *image, qd_weight *weight) {
  void *data = at(image, p->offset);
  if (p->part < 0) {
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
    if (block->weight[i].quantized || block->weight[i].stored) QD_TRY(qd_qtensor_check(&block->weight[i].q));
  return QD_OK;
}

qd_status qd_feed_next(qd_feed *feed, qd_block *block) {
  const void *image;
  int64_t item = feed->next++;
  QD_TRY(qd_stream_next(feed->stream, &image));
  qd_slot slots[QD_MAX_SLOTS];
  piece pieces[MAX_PIECES];
  int n_slots = slots_of_item(feed, item, slots), n = pieces_of_item(feed, item, slots, n_slots, pieces);
  *block = (qd_block){.index = block_of_item(feed, item), .n = n_slots};
  for (int s = 0; s < n_slots; s++) {
    block->weight[s].slot = slots[s];
    if (!from_store(feed, item) || feed->with_originals) block->weight[s].source = feed->digest[item % 2][s];
  }
  for (int i = 0; i < n; i++) QD_TRY(bind_piece(feed, &pieces[i], image, &block->weight[pieces[i].slot]));
  return check_values(block);
}

qd_status qd_feed_open(qd_feed *feed, qd_comm *comm) {
  qd_stream_source source = {.context = feed, .n_items = feed->model->n_blocks + 2, .bytes = item_bytes, .fetch = item_fetch};
  return qd_stream_open(comm, &source, feed->next, &feed->stream);
}

void qd_feed_close(qd_feed *feed) {
  qd_stream_close(feed->stream);
  feed->stream = NULL;
}

/* ---- a store against the model ------------------------------------------------------------------------------------------- */

static qd_status check_block(const qd_store *store, const qd_model *model, int64_t block) {
  qd_slot slots[QD_MAX_SLOTS];
  int n = qd_model_slots(model, block, slots);
  const qd_entry *entry = qd_feed_entry(store, block);
  for (int i = 0; i < n; i++) {
    const qd_record *record = qd_feed_record(entry, slots[i].role);
    QD_CHECK(record != NULL, QD_ECORRUPT, "%s: the manifest has no %s, which config.json promises", store->folder,
             slots[i].name);
    bool same = record->rank == slots[i].rank;
    for (int d = 0; same && d < slots[i].rank; d++) same = record->dim[d] == slots[i].dim[d];
    QD_CHECK(same, QD_ECORRUPT, "%s: the shape of %s in the manifest is not the one that config.json gives", store->folder,
             slots[i].name);
    QD_TRY(qd_record_check(record, store->folder));
  }
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
