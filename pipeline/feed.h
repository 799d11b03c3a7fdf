/* Where blocks come from: the original model or a store; read by some ranks, streamed to all (workers/stream.h).
 * Items of the stream: 0 the embedding, 1 .. n_blocks the blocks, n_blocks + 1 the final norm and the head. */
#ifndef QDIST_PIPELINE_FEED_H
#define QDIST_PIPELINE_FEED_H

#include "pipeline/block.h"
#include "workers/stream.h"

typedef struct qd_feed {
  const qd_model  *model;
  const qd_source *source;        /* NULL: everything comes from the store */
  const qd_store  *store;         /* NULL: everything comes from the source */
  int64_t          blocks_stored; /* with both: blocks [0, blocks_stored) come from the store, the rest from the source */
  bool             with_originals; /* stored blocks come with their original tensors as well (qd_block_use_stored) */
  qd_readers       readers;
  qd_digest *digest[2]; /* of the last two items' tensors of the source, by item parity: rank 0 has them, and whoever reads
                         * items whole */
  qd_digest       *there;         /* rank 0's, to compare with */
  qd_weight       *weight;        /* of the item handed out last */
  qd_comm         *comm;
  qd_stream       *stream;
  int64_t          next;          /* item; before opening: the first one */
} qd_feed;

/* Bytes of an item's image: the same on every rank. */
size_t qd_feed_item_bytes(const qd_feed *feed, int64_t item);

/* How far the place where an item can be parted may lie behind the one that is wanted: the longest of its pieces that are not
 * cut. */
size_t qd_feed_item_snap(const qd_feed *feed, int64_t item);

/* Collective; begins reading item `next` at once. */
qd_status qd_feed_open(qd_feed *feed, qd_comm *comm) QD_MUST_USE;
void      qd_feed_close(qd_feed *feed);

/* The next item: its weights as views that live until the next call.  QD_EBADINPUT: nodes that read for themselves found
 * different values.  Collective. */
qd_status qd_feed_next(qd_feed *feed, qd_block *block) QD_MUST_USE;

/* The entry of a store that holds a block (or QD_REST), and its record of a role and expert (-1: of none; NULL: there
 * is no such). */
const qd_entry  *qd_feed_entry(const qd_store *store, int64_t block);
const qd_record *qd_feed_record(const qd_entry *entry, qd_role role, int expert);

/* Check that a store holds what the model promises: roles, shapes, schemes.  QD_ECORRUPT. */
qd_status qd_feed_check_store(const qd_store *store, const qd_model *model) QD_MUST_USE;

#endif
