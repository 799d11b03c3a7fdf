/* Coordinator -> workers: items (a block's weights) read by rank 0 ahead of time, in a thread of its own, and broadcast. */
#ifndef QDIST_WORKERS_STREAM_H
#define QDIST_WORKERS_STREAM_H

#include "workers/comm.h"

typedef struct qd_stream_source {
  void     *context;
  int64_t   n_items;
  size_t  (*bytes)(void *context, int64_t item);                                /* the same on every rank */
  qd_status (*fetch)(void *context, int64_t item, void *to) QD_MUST_USE;         /* rank 0 only, in the reader thread */
} qd_stream_source;

typedef struct qd_stream qd_stream;

/* The largest of the items from `first` on; and what a stream's buffers for it take: two on the coordinator, one on the others.
 */
size_t qd_stream_largest(const qd_stream_source *source, int64_t first);
size_t qd_stream_buffer_bytes(size_t largest, bool coordinator);

/* Begins fetching `first` at once.  Two buffers of the largest item on rank 0, one on the others.  Collective. */
qd_status qd_stream_open(qd_comm *comm, const qd_stream_source *source, int64_t first, qd_stream **out) QD_MUST_USE;

/* The next item, in order; *data lives until the following qd_stream_next.  While the caller
 * works on it, rank 0 fetches the one after it.  A failed fetch is everyone's failure.  Collective. */
qd_status qd_stream_next(qd_stream *stream, const void **data) QD_MUST_USE;

double qd_stream_wait_seconds(const qd_stream *stream); /* how long rank 0 waited for its reader, in all; 0 on the others */
double qd_stream_read_seconds(const qd_stream *stream); /* how long the reader itself took for the items so far; 0 on the others */
void   qd_stream_close(qd_stream *stream);              /* joins the reader; NULL is fine; not collective */

#endif
