#include "pipeline/acts_disk.h"

#include "kernels/base/heap.h"
#include "kernels/base/log.h"
#include "kernels/base/task.h"
#include "storage/raw_file.h"

enum { MOST_SEQUENCES = 8, WINDOWS_AT_LEAST = 4, BUFFERS = 2, NONE = -1 };
static const size_t most_bytes = (size_t)512 << 20; /* of a window, unless one sequence alone takes more */

/* What the task does: write back one window, then read another into its place.  The last window of a pass goes out while the
 * next pass may have begun already. */
typedef struct turn {
  const qd_acts_disk *disk;
  qd_acts_use use;
  int h_is, h_goes;    /* which h is read, which is written */
  int64_t store, load; /* windows; NONE */
} turn;

struct qd_acts_disk {
  qd_acts_shape  shape;
  qd_raw_file    file;       /* h; h again, where it is saved; mid: each of all sequences */
  int64_t        window;     /* sequences of a window */
  int64_t        windows;
  unsigned char *h[BUFFERS], *mid[BUFFERS]; /* of window k: k % BUFFERS */
  qd_acts_use    use;
  int64_t        next;       /* window of the pass that goes on */
  int            h_is, h_goes, saved;
  double         wait_seconds;
  qd_task        task;
  turn           turn;
};

/* ---- sizes --------------------------------------------------------------------------------------------------------------- */

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

int64_t qd_acts_disk_window(const qd_acts_shape *s) {
  size_t one = qd_acts_h_bytes(s) + qd_acts_mid_bytes(s);
  int64_t fit = one > 0 ? (int64_t)(most_bytes / one) : MOST_SEQUENCES, part = s->sequences / WINDOWS_AT_LEAST;
  int64_t window = least(least(MOST_SEQUENCES, fit), part);
  return window > 0 ? window : 1;
}

size_t qd_acts_disk_host_bytes(const qd_acts_shape *s) {
  size_t n = (size_t)qd_acts_disk_window(s);
  return s->sequences == 0 ? 0 : BUFFERS * (qd_arena_cost(n, qd_acts_h_bytes(s)) + qd_arena_cost(n, qd_acts_mid_bytes(s)));
}

uint64_t qd_acts_disk_file_bytes(const qd_acts_shape *s) {
  uint64_t residuals = s->saves ? 2 : 1;
  return (uint64_t)s->sequences * (residuals * qd_acts_h_bytes(s) + qd_acts_mid_bytes(s));
}

/* ---- opening ------------------------------------------------------------------------------------------------------------- */

static qd_status open_buffers(qd_acts_disk *disk, qd_arena *arena) {
  const qd_acts_shape *s = &disk->shape;
  for (int b = 0; b < BUFFERS && s->sequences > 0; b++) {
    QD_TRY(qd_arena_new(arena, (size_t)disk->window, qd_acts_h_bytes(s), &disk->h[b]));
    QD_TRY(qd_arena_new(arena, (size_t)disk->window, qd_acts_mid_bytes(s), &disk->mid[b]));
  }
  return qd_raw_file_nameless(s->disk, qd_acts_disk_file_bytes(s), &disk->file);
}

qd_status qd_acts_disk_open(const qd_acts_shape *shape, qd_arena *arena, qd_acts_disk **out) {
  qd_acts_disk *disk;
  *out = NULL;
  QD_TRY(qd_heap_new(1, sizeof *disk, &disk));
  disk->shape = *shape;
  disk->window = qd_acts_disk_window(shape);
  disk->windows = (shape->sequences + disk->window - 1) / disk->window;
  qd_status status = open_buffers(disk, arena);
  if (status == QD_OK) return *out = disk, QD_OK;
  qd_acts_disk_close(disk);
  return qd_forward(status, __FILE__, __LINE__);
}

void qd_acts_disk_close(qd_acts_disk *disk) {
  if (disk == NULL) return;
  qd_task_close(&disk->task);
  qd_raw_file_close(&disk->file);
  qd_heap_free(disk);
}

/* ---- moving windows ------------------------------------------------------------------------------------------------------ */

static int64_t sequences_of(const qd_acts_disk *disk, int64_t window) {
  return least(disk->window, disk->shape.sequences - window * disk->window);
}

static uint64_t h_offset(const qd_acts_disk *disk, int which, int64_t sequence) {
  return (uint64_t)(which * disk->shape.sequences + sequence) * qd_acts_h_bytes(&disk->shape);
}

static uint64_t mid_offset(const qd_acts_disk *disk, int64_t sequence) {
  const qd_acts_shape *s = &disk->shape;
  return h_offset(disk, s->saves ? 2 : 1, 0) + (uint64_t)sequence * qd_acts_mid_bytes(s);
}

/* Only the columns in use travel. */
static size_t columns_bytes(const qd_acts_shape *s, int64_t columns) {
  return (size_t)(s->tokens * columns) * qd_dtype_bytes(s->dtype);
}

static qd_status store(const turn *t) {
  const qd_acts_disk *disk = t->disk;
  const qd_acts_shape *s = &disk->shape;
  int64_t window = t->store, first = window * disk->window, n = sequences_of(disk, window);
  const unsigned char *h = disk->h[window % BUFFERS], *mid = disk->mid[window % BUFFERS];
  if (t->use.writes_h)
    QD_TRY(qd_raw_file_write(&disk->file, h_offset(disk, t->h_goes, first), h, (size_t)n * qd_acts_h_bytes(s)));
  for (int64_t i = 0; t->use.mid_out > 0 && i < n; i++)
    QD_TRY(qd_raw_file_write(&disk->file, mid_offset(disk, first + i), mid + (size_t)i * qd_acts_mid_bytes(s),
                             columns_bytes(s, t->use.mid_out)));
  return QD_OK;
}

static qd_status load(const turn *t) {
  const qd_acts_disk *disk = t->disk;
  const qd_acts_shape *s = &disk->shape;
  int64_t window = t->load, first = window * disk->window, n = sequences_of(disk, window);
  unsigned char *h = disk->h[window % BUFFERS], *mid = disk->mid[window % BUFFERS];
  if (t->use.reads_h)
    QD_TRY(qd_raw_file_read(&disk->file, h_offset(disk, t->h_is, first), h, (size_t)n * qd_acts_h_bytes(s)));
  for (int64_t i = 0; t->use.mid_in > 0 && i < n; i++)
    QD_TRY(qd_raw_file_read(&disk->file, mid_offset(disk, first + i), mid + (size_t)i * qd_acts_mid_bytes(s),
                            columns_bytes(s, t->use.mid_in)));
  return QD_OK;
}

static qd_status take_turn(void *context) {
  const turn *t = context;
  if (t->store != NONE) QD_TRY(store(t));
  return t->load != NONE ? load(t) : QD_OK;
}

static bool reads(qd_acts_use use) { return use.reads_h || use.mid_in > 0; }
static bool writes(qd_acts_use use) { return use.writes_h || use.mid_out > 0; }

static turn turn_of(const qd_acts_disk *disk, int64_t out, int64_t in) {
  bool is_out = writes(disk->use) && out >= 0, is_in = reads(disk->use) && in < disk->windows;
  return (turn){disk, disk->use, disk->h_is, disk->h_goes, is_out ? out : NONE, is_in ? in : NONE};
}

/* The pass has got window k: k - 1 goes out, k + 1 comes into its place. */
static qd_status start_turn(qd_acts_disk *disk, int64_t k) {
  disk->turn = turn_of(disk, k - 1, k + 1);
  if (disk->turn.store == NONE && disk->turn.load == NONE) return QD_OK;
  return qd_task_start(&disk->task, take_turn, &disk->turn);
}

/* ---- passes -------------------------------------------------------------------------------------------------------------- */

/* h as it was saved stays where it is: the first pass after that reads it there and writes the other one. */
void qd_acts_disk_begin(qd_acts_disk *disk, qd_acts_use use) {
  disk->use = use;
  disk->next = 0;
  disk->h_goes = disk->shape.saves && disk->h_is == disk->saved ? 1 - disk->saved : disk->h_is;
}

/* The first window of a pass is not read ahead: nobody knew of the pass. */
static qd_status wait_for(qd_acts_disk *disk, int64_t k) {
  double start = qd_seconds();
  turn first = turn_of(disk, NONE, k);
  QD_TRY(qd_task_wait(&disk->task));
  if (k == 0) QD_TRY(take_turn(&first));
  disk->wait_seconds += qd_seconds() - start;
  return QD_OK;
}

static void end_pass(qd_acts_disk *disk) {
  if (disk->use.writes_h) disk->h_is = disk->h_goes;
}

qd_status qd_acts_disk_next(qd_acts_disk *disk, qd_acts_window *window) {
  const qd_acts_shape *s = &disk->shape;
  int64_t k = disk->next, columns = disk->use.mid_in ? disk->use.mid_in : disk->use.mid_out;
  bool over = k == disk->windows;
  *window = (qd_acts_window){.first = over ? s->sequences : k * disk->window, .n = over ? 0 : sequences_of(disk, k)};
  QD_TRY(wait_for(disk, k));
  QD_TRY(start_turn(disk, k));
  if (over) return end_pass(disk), QD_OK;
  window->h = qd_acts_view(s, disk->h[k % BUFFERS], qd_acts_h_bytes(s), window->n, s->hidden);
  window->mid = qd_acts_view(s, disk->mid[k % BUFFERS], qd_acts_mid_bytes(s), window->n, columns);
  disk->next++;
  return QD_OK;
}

void qd_acts_disk_save(qd_acts_disk *disk) { disk->saved = disk->h_is; }
void qd_acts_disk_restore(qd_acts_disk *disk) { disk->h_is = disk->saved; }

double qd_acts_disk_wait_seconds(const qd_acts_disk *disk) { return disk->wait_seconds; }
