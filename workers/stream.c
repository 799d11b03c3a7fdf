#include "workers/stream.h"

#include "kernels/base/arena.h"
#include "kernels/base/heap.h"
#include "kernels/base/task.h"
#include "workers/agree.h"
#include "workers/team.h"

/* What the reader works on: the stream's own until the task starts and after it was waited for. */
typedef struct reader_job {
  const qd_stream_source *source;
  int64_t item;
  size_t first, n;
  void *to;
} reader_job;

struct qd_stream {
  qd_comm *comm, *shared;  /* all ranks; those that an image is shared among */
  qd_stream_source source;
  qd_stream_share share;
  size_t *bytes_of_part;   /* of the item in turn, where parts are gathered */
  int64_t next;
  qd_arena arena;
  void *fetched[2];        /* what the reader brought of item i: i % 2 */
  void *image;             /* where an item is put together, or received; NULL: it is used where it was fetched */
  bool broken;             /* on all ranks alike */
  qd_task reader;
  reader_job job;
};

const char *qd_readers_name(qd_readers readers) {
  static const char *const names[] = {"coordinator", "node", "all"};
  return names[readers];
}

qd_stream_share qd_stream_share_of(qd_readers readers, int rank, int size, int first_on_node) {
  if (readers == QD_READERS_ALL) return (qd_stream_share){true, rank, size};
  bool reads = readers == QD_READERS_NODE ? first_on_node == rank : rank == 0;
  return (qd_stream_share){reads, 0, 1};
}

/* ---- parts --------------------------------------------------------------------------------------------------------------- */

/* Where part `part` of `parts` begins; the end, for part == parts. */
static size_t part_begin(const qd_stream_source *source, int64_t item, int part, int parts) {
  size_t bytes = source->bytes(source->context, item), each = bytes / (size_t)parts, more = bytes % (size_t)parts;
  size_t at = each * (size_t)part + more * (size_t)part / (size_t)parts;
  if (part == 0 || part == parts || source->cut == NULL) return part == parts ? bytes : at;
  size_t cut = source->cut(source->context, item, at);
  return cut < bytes ? cut : bytes;
}

static size_t part_size(const qd_stream_source *source, int64_t item, int part, int parts) {
  return part_begin(source, item, part + 1, parts) - part_begin(source, item, part, parts);
}

/* ---- the reader ---------------------------------------------------------------------------------------------------------- */

static qd_status read_part(void *context) {
  reader_job *job = context;
  return job->source->fetch(job->source->context, job->item, job->first, job->n, job->to);
}

/* One task an item: starting a thread costs microseconds, an item takes far longer, and waiting is all there is to synchronise.
 */
static qd_status reader_start(qd_stream *stream, int64_t item) {
  const qd_stream_source *source = &stream->source;
  qd_stream_share share = stream->share;
  if (!share.reads || item >= source->n_items) return QD_OK;
  stream->job = (reader_job){.source = source,
                             .item = item,
                             .first = part_begin(source, item, share.part, share.parts),
                             .n = part_size(source, item, share.part, share.parts),
                             .to = stream->fetched[item % 2]};
  return qd_task_start(&stream->reader, read_part, &stream->job);
}

/* The item that was asked for is there; ask for the next one. */
static qd_status reader_turn(qd_stream *stream) {
  if (!stream->share.reads) return QD_OK;
  QD_TRY(qd_task_wait(&stream->reader));
  return reader_start(stream, stream->next + 1);
}

/* ---- opening ------------------------------------------------------------------------------------------------------------- */

static size_t largest_part(const qd_stream_source *source, int64_t first, int part, int parts) {
  size_t largest = 1;
  for (int64_t i = first; i < source->n_items; i++) {
    size_t bytes = part_size(source, i, part, parts);
    if (bytes > largest) largest = bytes;
  }
  return largest;
}

size_t qd_stream_buffer_bytes(size_t largest, size_t snap, qd_stream_share share) {
  size_t image = qd_arena_cost(largest, 1), part = largest / (size_t)share.parts + 1 + snap;
  if (!share.reads) return image;
  if (share.parts == 1) return 2 * image;
  return image + 2 * qd_arena_cost(part < largest ? part : largest, 1);
}

static qd_status buffers_open(qd_stream *stream) {
  const qd_stream_source *source = &stream->source;
  qd_stream_share share = stream->share;
  size_t largest = largest_part(source, stream->next, 0, 1);
  QD_CHECK(largest <= PTRDIFF_MAX / 4, QD_ENOMEM, "a block of %zu bytes is more than any machine has", largest);
  size_t part = share.reads ? largest_part(source, stream->next, share.part, share.parts) : 0;
  bool apart = !share.reads || share.parts > 1;
  QD_TRY(qd_arena_open(&stream->arena, "stream", 2 * qd_arena_cost(part, 1) + (apart ? qd_arena_cost(largest, 1) : 0)));
  for (int b = 0; b < 2 && share.reads; b++) QD_TRY(qd_arena_new(&stream->arena, part, 1, &stream->fetched[b]));
  if (apart) QD_TRY(qd_arena_new(&stream->arena, largest, 1, &stream->image));
  if (share.parts > 1) QD_TRY(qd_heap_new((size_t)share.parts, sizeof *stream->bytes_of_part, &stream->bytes_of_part));
  return reader_start(stream, stream->next);
}

static qd_status open_here(qd_comm *comm, const qd_stream_source *source, qd_readers readers, int64_t first, qd_stream **out) {
  qd_stream *stream;
  QD_TRY(qd_heap_new(1, sizeof *stream, &stream));
  *out = stream;
  stream->comm = comm;
  stream->shared = readers == QD_READERS_NODE ? qd_team_node(comm) : comm;
  stream->share = qd_stream_share_of(readers, comm->rank, comm->size, qd_team_first_on_node(comm)[comm->rank]);
  stream->source = *source;
  stream->next = first;
  return buffers_open(stream);
}

qd_status qd_stream_open(qd_comm *comm, const qd_stream_source *source, qd_readers readers, int64_t first, qd_stream **out) {
  QD_ASSERT(first >= 0 && first <= source->n_items);
  *out = NULL;
  qd_status status = qd_agree(comm, open_here(comm, source, readers, first, out));
  if (status == QD_OK) return QD_OK;
  qd_stream_close(*out);
  *out = NULL;
  return qd_forward(status, __FILE__, __LINE__);
}

/* ---- items --------------------------------------------------------------------------------------------------------------- */

static qd_status gather_parts(qd_stream *stream, int64_t item) {
  const qd_stream_share *share = &stream->share;
  for (int p = 0; p < share->parts; p++) stream->bytes_of_part[p] = part_size(&stream->source, item, p, share->parts);
  return qd_comm_allgatherv(stream->comm, stream->fetched[item % 2], stream->bytes_of_part[share->part], stream->image,
                            stream->bytes_of_part);
}

static qd_status share_item(qd_stream *stream, int64_t item, void **data) {
  *data = stream->image != NULL ? stream->image : stream->fetched[item % 2];
  if (stream->share.parts > 1) return gather_parts(stream, item);
  return qd_comm_bcast(stream->shared, *data, stream->source.bytes(stream->source.context, item), 0);
}

qd_status qd_stream_next(qd_stream *stream, const void **data) {
  void *image;
  QD_ASSERT(stream->next < stream->source.n_items);
  *data = NULL;
  QD_CHECK(!stream->broken, QD_EIO, "item %" PRId64 " was asked for again after it could not be read", stream->next);
  stream->broken = true;
  QD_TRY_ALL(stream->comm, reader_turn(stream));
  stream->shared->clock.use = QD_COMM_STREAM;
  qd_status status = share_item(stream, stream->next, &image);
  stream->shared->clock.use = QD_COMM_WORK;
  QD_TRY(status);
  stream->broken = false;
  stream->next++;
  *data = image;
  return QD_OK;
}

double qd_stream_wait_seconds(const qd_stream *stream) { return stream->reader.wait_seconds; }
double qd_stream_read_seconds(const qd_stream *stream) { return stream->reader.work_seconds; }

void qd_stream_close(qd_stream *stream) {
  if (stream == NULL) return;
  qd_task_close(&stream->reader);
  qd_arena_close(&stream->arena);
  qd_heap_free(stream->bytes_of_part);
  qd_heap_free(stream);
}
