#define _POSIX_C_SOURCE 200809L
#include "workers/stream.h"

#include "kernels/base/arena.h"
#include "kernels/base/heap.h"
#include "kernels/base/log.h"
#include "workers/agree.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

enum { COORDINATOR = 0 };

/* What the reader thread works on: the stream's own until the thread starts and after it was joined. */
typedef struct reader_job {
  const qd_stream_source *source;
  int64_t item;
  void *to;
  qd_status status;
  char text[4096]; /* error texts belong to threads: this one is carried over */
} reader_job;

struct qd_stream {
  qd_comm *comm;
  qd_stream_source source;
  int64_t next;
  qd_arena arena;
  void *buffer[2]; /* item i lies in buffer i % 2; the others need one only */
  pthread_t thread;
  bool reading; /* a thread is to be joined */
  bool broken;  /* on all ranks alike */
  reader_job job;
  double wait_seconds;
};

static void *reader_main(void *argument) {
  reader_job *self = argument;
  self->status = self->source->fetch(self->source->context, self->item, self->to);
  if (self->status != QD_OK) snprintf(self->text, sizeof self->text, "%s", qd_error_text());
  return NULL;
}

/* One thread an item: starting one costs microseconds, an item takes far longer, and joining is all there is to synchronise. */
static qd_status reader_start(qd_stream *stream, int64_t item) {
  if (stream->comm->rank != COORDINATOR || item >= stream->source.n_items) return QD_OK;
  stream->job = (reader_job){.source = &stream->source, .item = item, .to = stream->buffer[item % 2]};
  int error = pthread_create(&stream->thread, NULL, reader_main, &stream->job);
  QD_CHECK(error == 0, QD_ENOMEM, "cannot start a thread to read ahead: %s", strerror(error));
  stream->reading = true;
  return QD_OK;
}

static void reader_join(qd_stream *stream) {
  if (!stream->reading) return;
  double begin = qd_seconds();
  pthread_join(stream->thread, NULL);
  stream->reading = false;
  stream->wait_seconds += qd_seconds() - begin;
}

/* The item that was asked for is there; ask for the next one. */
static qd_status reader_turn(qd_stream *stream) {
  if (stream->comm->rank != COORDINATOR) return QD_OK;
  reader_join(stream);
  const reader_job *job = &stream->job;
  if (job->status != QD_OK) QD_FAIL(job->status, "%s", *job->text ? job->text : qd_status_text(job->status));
  return reader_start(stream, stream->next + 1);
}

static qd_status buffers_open(qd_stream *stream) {
  const qd_stream_source *source = &stream->source;
  size_t largest = 1;
  for (int64_t i = stream->next; i < source->n_items; i++) {
    size_t bytes = source->bytes(source->context, i);
    if (bytes > largest) largest = bytes;
  }
  QD_CHECK(largest <= PTRDIFF_MAX / 4, QD_ENOMEM, "a block of %zu bytes is more than any machine has", largest);
  size_t n = stream->comm->rank == COORDINATOR ? 2 : 1;
  QD_TRY(qd_arena_open(&stream->arena, "stream", n * qd_arena_cost(largest, 1)));
  for (size_t b = 0; b < 2; b++) {
    if (b < n) QD_TRY(qd_arena_new(&stream->arena, largest, 1, &stream->buffer[b]));
    else stream->buffer[b] = stream->buffer[0];
  }
  return reader_start(stream, stream->next);
}

static qd_status open_here(qd_comm *comm, const qd_stream_source *source, int64_t first, qd_stream **out) {
  qd_stream *stream;
  QD_TRY(qd_heap_new(1, sizeof *stream, &stream));
  *out = stream;
  stream->comm = comm;
  stream->source = *source;
  stream->next = first;
  return buffers_open(stream);
}

qd_status qd_stream_open(qd_comm *comm, const qd_stream_source *source, int64_t first, qd_stream **out) {
  QD_ASSERT(first >= 0 && first <= source->n_items);
  *out = NULL;
  qd_status status = qd_agree(comm, open_here(comm, source, first, out));
  if (status == QD_OK) return QD_OK;
  qd_stream_close(*out);
  *out = NULL;
  return qd_forward(status, __FILE__, __LINE__);
}

qd_status qd_stream_next(qd_stream *stream, const void **data) {
  QD_ASSERT(stream->next < stream->source.n_items);
  *data = NULL;
  QD_CHECK(!stream->broken, QD_EIO, "item %" PRId64 " was asked for again after it could not be read", stream->next);
  stream->broken = true;
  QD_TRY_ALL(stream->comm, reader_turn(stream));
  void *buffer = stream->buffer[stream->next % 2];
  size_t bytes = stream->source.bytes(stream->source.context, stream->next);
  QD_TRY(qd_comm_bcast(stream->comm, buffer, bytes, COORDINATOR));
  stream->broken = false;
  stream->next++;
  *data = buffer;
  return QD_OK;
}

double qd_stream_wait_seconds(const qd_stream *stream) { return stream->wait_seconds; }

void qd_stream_close(qd_stream *stream) {
  if (stream == NULL) return;
  if (stream->reading) pthread_join(stream->thread, NULL);
  qd_arena_close(&stream->arena);
  qd_heap_free(stream);
}
