#include "workers/stream.h"

#include "kernels/base/arena.h"
#include "kernels/base/heap.h"
#include "kernels/base/task.h"
#include "workers/agree.h"

enum { COORDINATOR = 0 };

/* What the reader works on: the stream's own until the task starts and after it was waited for. */
typedef struct reader_job {
  const qd_stream_source *source;
  int64_t item;
  void *to;
} reader_job;

struct qd_stream {
  qd_comm *comm;
  qd_stream_source source;
  int64_t next;
  qd_arena arena;
  void *buffer[2]; /* item i lies in buffer i % 2; the others need one only */
  bool broken; /* on all ranks alike */
  qd_task reader;
  reader_job job;
};

static qd_status read_item(void *context) {
  reader_job *job = context;
  return job->source->fetch(job->source->context, job->item, job->to);
}

/* One task an item: starting a thread costs microseconds, an item takes far longer, and waiting is all there is to synchronise.
 */
static qd_status reader_start(qd_stream *stream, int64_t item) {
  if (stream->comm->rank != COORDINATOR || item >= stream->source.n_items) return QD_OK;
  stream->job = (reader_job){.source = &stream->source, .item = item, .to = stream->buffer[item % 2]};
  return qd_task_start(&stream->reader, read_item, &stream->job);
}

/* The item that was asked for is there; ask for the next one. */
static qd_status reader_turn(qd_stream *stream) {
  if (stream->comm->rank != COORDINATOR) return QD_OK;
  QD_TRY(qd_task_wait(&stream->reader));
  return reader_start(stream, stream->next + 1);
}

size_t qd_stream_largest(const qd_stream_source *source, int64_t first) {
  size_t largest = 1;
  for (int64_t i = first; i < source->n_items; i++) {
    size_t bytes = source->bytes(source->context, i);
    if (bytes > largest) largest = bytes;
  }
  return largest;
}

size_t qd_stream_buffer_bytes(size_t largest, bool coordinator) { return (coordinator ? 2 : 1) * qd_arena_cost(largest, 1); }

static qd_status buffers_open(qd_stream *stream) {
  bool coordinator = stream->comm->rank == COORDINATOR;
  size_t largest = qd_stream_largest(&stream->source, stream->next);
  QD_CHECK(largest <= PTRDIFF_MAX / 4, QD_ENOMEM, "a block of %zu bytes is more than any machine has", largest);
  QD_TRY(qd_arena_open(&stream->arena, "stream", qd_stream_buffer_bytes(largest, coordinator)));
  for (size_t b = 0; b < 2; b++) {
    if (b == 0 || coordinator) QD_TRY(qd_arena_new(&stream->arena, largest, 1, &stream->buffer[b]));
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
  stream->comm->clock.use = QD_COMM_STREAM;
  qd_status status = qd_comm_bcast(stream->comm, buffer, bytes, COORDINATOR);
  stream->comm->clock.use = QD_COMM_WORK;
  QD_TRY(status);
  stream->broken = false;
  stream->next++;
  *data = buffer;
  return QD_OK;
}

double qd_stream_wait_seconds(const qd_stream *stream) { return stream->reader.wait_seconds; }
double qd_stream_read_seconds(const qd_stream *stream) { return stream->reader.work_seconds; }

void qd_stream_close(qd_stream *stream) {
  if (stream == NULL) return;
  qd_task_close(&stream->reader);
  qd_arena_close(&stream->arena);
  qd_heap_free(stream);
}
