#include "pipeline/feed.h"

#include "pipeline/record.h"
#include "workers/agree.h"
#include "workers/team.h"

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

size_t qd_feed_item_snap(const qd_feed *feed, int64_t item) {
  qd_slot slots[QD_MAX_SLOTS];
  piece pieces[MAX_PIECES];
  size_t longest = aligned(1);
  int n = pieces_of_item(feed, item, slots, slots_of_item(feed, item, slots), pieces);
  for (int i = 0; i < n; i++)
    if (pieces[i].part >= 0) longest = longest > aligned(pieces[i].bytes) ? longest : aligned(pieces[i].bytes);
  return longest;
}

static size_t item_bytes(void *context, int64_t item) { return qd_feed_item_bytes(context, item); }

/* A tensor of the source may be parted anywhere; a stored part is decompressed and checked as a whole. */
static size_t item_cut(void *context, int64_t item, size_t at) {
  const qd_feed *feed = context;
  qd_slot slots[QD_MAX_SLOTS];
  piece pieces[MAX_PIECES];
  int n = pieces_of_item(feed, item, slots, slots_of_item(feed, item, slots), pieces);
  for (int i = 0; i < n; i++) {
    if (at <= pieces[i].offset) return pieces[i].offset;
    if (pieces[i].part < 0 && at < pieces[i].offset + pieces[i].bytes) return aligned(at);
  }
  return SIZE_MAX;
}

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }
static size_t smaller(size_t a, size_t b) { return a < b ? a : b; }

/* What of the piece lies in bytes [first, end) of the image. */
static qd_status fetch_piece(const qd_feed *feed, int64_t item, const piece *p, size_t first, size_t end, unsigned char *to) {
  size_t from = larger(p->offset, first), until = smaller(p->offset + p->bytes, end);
  if (from >= until) return QD_OK;
  if (p->part < 0) return qd_source_read(feed->source, p->tensor, from - p->offset, to + (from - first), until - from);
  const qd_entry *entry = qd_feed_entry(feed->store, block_of_item(feed, item));
  return qd_store_read_part(feed->store, entry, &p->record->part[p->part], to + (from - first));
}

static void digest_piece(qd_feed *feed, int64_t item, const piece *p, const unsigned char *image) {
  if (p->part < 0) qd_digest_of(image + p->offset, p->bytes, &feed->digest[item % 2][p->slot]);
}

/* Who reads an item whole digests it there and then, behind the work on the one before. */
static qd_status item_fetch(void *context, int64_t item, size_t first, size_t n, void *to) {
  qd_feed *feed = context;
  qd_slot slots[QD_MAX_SLOTS];
  piece pieces[MAX_PIECES];
  bool whole = n == qd_feed_item_bytes(feed, item);
  int n_pieces = pieces_of_item(feed, item, slots, slots_of_item(feed, item, slots), pieces);
  for (int i = 0; i < n_pieces; i++) {
    QD_TRY(fetch_piece(feed, item, &pieces[i], first, first + n, to));
    if (whole) digest_piece(feed, item, &pieces[i], to);
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

/* ---- digests of what several ranks read ---------------------------------------------------------------------------------- */

/* Nodes that read for themselves must have read the same: rank 0's digests are what the store records. */
static qd_status compare_digests(const qd_feed *feed, const qd_digest *here, const qd_digest *there, const qd_slot *slots, int n) {
  char host[128];
  int rank = feed->comm->rank;
  if (qd_team_first_on_node(feed->comm)[rank] != rank) return QD_OK;
  for (int s = 0; s < n; s++)
    QD_CHECK(qd_digest_equal(&here[s], &there[s]), QD_EBADINPUT,
             "%s of %s as host %s reads it is not what rank 0 reads (digest %s, there %s)", slots[s].name,
             qd_source_path(feed->source), qd_host_name(host, sizeof host), here[s].hex, there[s].hex);
  return QD_OK;
}

static qd_status agree_on_digests(qd_feed *feed, int64_t item, const qd_slot *slots, int n) {
  qd_digest *here = feed->digest[item % 2], there[QD_MAX_SLOTS];
  if (feed->readers != QD_READERS_NODE || qd_team_nodes(feed->comm) == 1) return QD_OK;
  memcpy(there, here, sizeof there);
  QD_TRY(qd_comm_bcast(feed->comm, there, (size_t)n * sizeof *there, 0));
  QD_TRY_ALL(feed->comm, compare_digests(feed, here, there, slots, n));
  return QD_OK;
}

/* Where each rank read a part, the image is whole only now. */
static void digest_gathered(qd_feed *feed, int64_t item, const piece *pieces, int n, const void *image) {
  if (feed->readers != QD_READERS_ALL || feed->comm->size == 1 || feed->comm->rank != 0) return;
  for (int i = 0; i < n; i++) digest_piece(feed, item, &pieces[i], image);
}

qd_status qd_feed_next(qd_feed *feed, qd_block *block) {
  const void *image;
  int64_t item = feed->next++;
  QD_TRY(qd_stream_next(feed->stream, &image));
  qd_slot slots[QD_MAX_SLOTS];
  piece pieces[MAX_PIECES];
  int n_slots = slots_of_item(feed, item, slots), n = pieces_of_item(feed, item, slots, n_slots, pieces);
  digest_gathered(feed, item, pieces, n, image);
  if (!from_store(feed, item) || feed->with_originals) QD_TRY(agree_on_digests(feed, item, slots, n_slots));
  *block = (qd_block){.index = block_of_item(feed, item), .n = n_slots};
  for (int s = 0; s < n_slots; s++) {
    block->weight[s].slot = slots[s];
    if (!from_store(feed, item) || feed->with_originals) block->weight[s].source = feed->digest[item % 2][s];
  }
  for (int i = 0; i < n; i++) QD_TRY(bind_piece(feed, &pieces[i], image, &block->weight[pieces[i].slot]));
  return check_values(block);
}

qd_status qd_feed_open(qd_feed *feed, qd_comm *comm) {
  qd_stream_source source = {
      .context = feed, .n_items = feed->model->n_blocks + 2, .bytes = item_bytes, .cut = item_cut, .fetch = item_fetch};
  feed->comm = comm;
  return qd_stream_open(comm, &source, feed->readers, feed->next, &feed->stream);
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
