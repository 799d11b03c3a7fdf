/* Items (a block's weights) read ahead of time by some ranks, each in a thread of its own, and handed to all.  Who reads:
 *
 *   coordinator  rank 0 reads an item whole and broadcasts it: the model's files are needed on its node alone
 *   node         the first rank of each node reads it whole and shares it within the node: nothing travels between nodes
 *   all          every rank reads its part, and the parts are gathered: each byte is read once, by as many clients as there are
 *                ranks, which is what a parallel file system is fast for (every rank reading everything would ask it for the
 *                model as often as there are ranks)
 *
 * The bytes that a rank gets do not depend on it. */
#ifndef QDIST_WORKERS_STREAM_H
#define QDIST_WORKERS_STREAM_H

#include "workers/comm.h"

typedef enum qd_readers { QD_READERS_COORDINATOR, QD_READERS_NODE, QD_READERS_ALL } qd_readers;
const char *qd_readers_name(qd_readers readers); /* "coordinator", "node", "all" */

typedef struct qd_stream_source {
  void     *context;
  int64_t   n_items;
  size_t  (*bytes)(void *context, int64_t item);                     /* the same on every rank */

  /* The first place from byte `at` on (at most the item's end) where an item may be parted; the same on every rank.  NULL: any.
   */
  size_t  (*cut)(void *context, int64_t item, size_t at);

  /* Bytes [first, first + n) of an item to `to`; on ranks that read, in the reader thread. */
  qd_status (*fetch)(void *context, int64_t item, size_t first, size_t n, void *to) QD_MUST_USE;
} qd_stream_source;

typedef struct qd_stream qd_stream;

/* A rank's share of the reading: part `part` of `parts` of each item. */
typedef struct qd_stream_share {
  bool reads;
  int  part, parts;
} qd_stream_share;
qd_stream_share qd_stream_share_of(qd_readers readers, int rank, int size, int first_on_node); /* of its node's ranks */

/* What a stream's buffers take: two images for a rank that reads items whole, one for one that reads nothing, one and two parts
 * for one that reads parts.  `largest`: of the items; `snap`: the most by which a cut may lie behind the place that was wanted.
 */
size_t qd_stream_buffer_bytes(size_t largest, size_t snap, qd_stream_share share);

/* Begins fetching `first` at once.  Collective. */
qd_status qd_stream_open(qd_comm *comm, const qd_stream_source *source, qd_readers readers, int64_t first,
                         qd_stream **out) QD_MUST_USE;

/* The next item, in order; *data lives until the following qd_stream_next.  While the caller works on it, the one after it is
 * fetched.  A failed fetch is everyone's failure.  Collective. */
qd_status qd_stream_next(qd_stream *stream, const void **data) QD_MUST_USE;

double qd_stream_wait_seconds(const qd_stream *stream); /* how long this rank waited for its reader, in all; 0 where none is */
double qd_stream_read_seconds(
    const qd_stream *stream); /* how long the reader itself took for the items so far; 0 where none is */
void   qd_stream_close(qd_stream *stream);              /* joins the reader; NULL is fine; not collective */

#endif
